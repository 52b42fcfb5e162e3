"""Step noise: a function of seed and stream alone, standard normal, and of every bit of the seed."""

import pytest
import torch

from beholder.rollouts.engine import noise_for

SHAPE = (2, 3)


def test_noise_is_a_function_of_seed_and_stream_alone() -> None:
    seeds = torch.tensor([3, 99, 3, 2**61 + 7])
    noise = noise_for(seeds, SHAPE, 4)
    assert noise.shape == (4, *SHAPE) and noise.dtype == torch.float32
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(noise[[3, 1]], noise_for(seeds[[3, 1]], SHAPE, 4))
    assert not torch.equal(noise, noise_for(seeds, SHAPE, 5))


@pytest.mark.parametrize("bit", [0, 1, 16, 31, 32, 33, 48, 61])
def test_every_bit_of_the_seed_matters(bit: int) -> None:
    first, second = noise_for(torch.tensor([5, 5 ^ 2**bit]), (1000,), 0)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 5 / 1000**0.5


def test_neighbouring_seeds_and_streams_share_no_noise() -> None:
    noise = torch.stack([noise_for(torch.arange(40), (25,), stream) for stream in range(20)])
    assert len(noise.flatten().unique()) > 0.999 * noise.numel()


def test_noise_is_standard_normal_within_and_across_seeds() -> None:
    noise = noise_for(torch.arange(20_000), (2,), 1).double()
    for values in noise.T:
        assert abs(values.mean()) < 5 / 20_000**0.5
        assert abs(values.std() - 1) < 5 / 40_000**0.5
        assert abs((values.abs() < 0.67449).double().mean() - 0.5) < 5 * 0.5 / 20_000**0.5
    assert abs(torch.corrcoef(noise.T)[0, 1]) < 5 / 20_000**0.5
