"""Every sample of every iteration of every run starts from its own noise."""

import torch

from beholder.rollouts.engine import noise_for
from beholder.training.draw import sample_seeds


def seeds(seed: int, iteration: int) -> torch.Tensor:
    group, member = torch.meshgrid(torch.arange(24), torch.arange(8), indexing="ij")
    return sample_seeds(seed, iteration, group.flatten(), member.flatten())


def test_seeds_are_distinct_over_runs_iterations_prompts_and_members() -> None:
    everything = torch.cat([seeds(seed, iteration) for seed in range(5) for iteration in range(1, 40)])
    assert len(everything.unique()) == 5 * 39 * 24 * 8
    assert everything.min() >= 0 and everything.max() < 2**62


def test_noise_differs_between_iterations_and_between_runs() -> None:
    first = noise_for(seeds(0, 1), (4,), 0)
    for other in (seeds(0, 2), seeds(1, 1)):
        assert (noise_for(other, (4,), 0) == first).float().mean() < 0.01


def test_no_two_draws_of_a_run_share_their_noise() -> None:
    drawn = [noise_for(seeds(0, iteration), (2,), step) for iteration in range(1, 12) for step in range(11)]
    assert len(torch.cat(drawn).unique(dim=0)) == 11 * 11 * 24 * 8
