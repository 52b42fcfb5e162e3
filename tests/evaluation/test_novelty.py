"""How new a sample is among those of its prompt, by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.evaluation.diversity import diversity
from beholder.evaluation.novelty import distances_by, novelty

GROUP = torch.tensor([0, 0, 0, 1, 1, 2])


def grey(*values: float) -> Tensor:
    """Images of one value each."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)


def test_by_hand() -> None:
    """Of 0, 0.1 and 0.4 the nearest are 0.1, 0.1 and 0.3 away, 1/6 on average; pairs are equally far, one is alone."""
    found = novelty(grey(0.0, 0.1, 0.4, 0.2, 0.9, 0.5), GROUP, "pixels")
    assert found.tolist() == pytest.approx([0.6, 0.6, 1.8, 1, 1, 1], abs=1e-6)


def test_equal_samples_and_a_failed_one() -> None:
    assert novelty(grey(0.3, 0.3, 0.3, 0.2, 0.2, 0.1), GROUP, "pixels").tolist() == [1.0] * 6


def test_the_distance_of_pixels_is_the_one_diversity_averages() -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    between = distances_by("pixels")(images)
    off = ~torch.eye(4, dtype=torch.bool)
    assert between[off].mean().item() == pytest.approx(diversity(images, torch.zeros(4, dtype=torch.int64)), rel=1e-5)


@pytest.mark.parametrize("frames", [(), (2,)])
def test_a_vision_model_judges_by_the_angle_between_its_features(tmp_path: Path, frames: tuple[int, ...]) -> None:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    Dinov2Model(Dinov2Config(**sizes, patch_size=14)).save_pretrained(tmp_path)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    images = torch.rand(3, *frames, 3, 32, 32)
    between = distances_by(str(tmp_path))(images)
    assert between.shape == (3, 3) and torch.allclose(between, between.T)
    assert between.diagonal().abs().max() < 1e-6 and 0 < between[0, 1] <= 2
    found = novelty(images, torch.zeros(3, dtype=torch.int64), str(tmp_path))
    assert found.mean().item() == pytest.approx(1)
    nearest = (between + 9 * torch.eye(3)).amin(1)
    assert torch.allclose(found.float(), nearest / nearest.mean(), atol=1e-5)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"credit\.novelty: 'nowhere'"):
        distances_by("nowhere")
