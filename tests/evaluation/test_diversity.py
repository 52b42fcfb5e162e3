"""Diversity: values by hand, what it sees and what it does not."""

import math

import pytest
import torch

from beholder.evaluation.diversity import diversity


def flat(*values: float, size: int = 16) -> torch.Tensor:
    """One uniform image per value."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, size, size)


def test_two_uniform_images_differ_by_their_values() -> None:
    assert diversity(flat(0.25, 0.75), torch.tensor([0, 0])) == pytest.approx(0.5)
    assert diversity(flat(0.0, 1.0), torch.tensor([0, 0])) == pytest.approx(1)


def test_mean_over_pairs_then_over_prompts() -> None:
    images, groups = flat(0.0, 0.3, 0.9, 0.5, 0.6), torch.tensor([0, 0, 0, 1, 1])
    assert diversity(images, groups) == pytest.approx(((0.3 + 0.9 + 0.6) / 3 + 0.1) / 2)


def test_images_of_different_prompts_are_not_compared() -> None:
    assert diversity(flat(0.0, 0.0, 1.0, 1.0), torch.tensor([4, 4, 9, 9])) == 0
    assert diversity(flat(0.0, 1.0, 0.0, 1.0), torch.tensor([4, 9, 4, 9])) == 0


def test_a_prompt_with_one_image_does_not_count() -> None:
    assert diversity(flat(0.0, 0.5, 1.0), torch.tensor([0, 0, 1])) == pytest.approx(0.5)
    assert math.isnan(diversity(flat(0.0, 0.5), torch.tensor([0, 1])))


def test_a_local_difference_counts_by_its_root_mean_square() -> None:
    images = torch.zeros(2, 3, 16, 16)
    images[1, :, :8, :8] = 1
    assert diversity(images, torch.tensor([0, 0])) == pytest.approx(0.5)


def test_pixel_noise_is_hardly_seen_but_layout_is() -> None:
    generator, groups = torch.Generator().manual_seed(0), torch.tensor([0, 0])
    noisy = (0.5 + 0.2 * torch.randn(2, 3, 128, 128, generator=generator)).clamp(0, 1)
    halves = torch.zeros(2, 3, 128, 128)
    halves[0, :, :64], halves[1, :, 64:] = 1, 1
    assert diversity(noisy, groups) < 0.03
    assert diversity(halves, groups) == pytest.approx(1)


def test_half_precision_images_are_measured_in_float32() -> None:
    assert diversity(flat(0.25, 0.75).half(), torch.tensor([0, 0])) == pytest.approx(0.5)
