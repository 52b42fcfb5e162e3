"""Every objective of log-ratios moves a Gaussian policy to a known optimum, and away from it for the negated reward."""

import functools
from dataclasses import replace

import pytest
import torch
from recipes import RECIPES
from torch import Tensor

from beholder.config import CreditConfig, ObjectiveConfig
from beholder.credit.group import advantages
from beholder.objectives.evidence import BatchStatistics, Evidence
from beholder.objectives.policy_gradient import policy_gradient

OPTIMUM = torch.tensor([1.0, -0.5])
STD = 0.3
GROUPS = {"APO-down": 2}
"""Samples per prompt, where it matters: among many, the anchor on the one best outweighs its comparisons."""
every_recipe = pytest.mark.parametrize("name", RECIPES)


def config_of(name: str) -> ObjectiveConfig:
    return replace(RECIPES[name], clip_low=0.2, clip_high=0.05 if name == "kl_mask" else 0.2)


def measured(rho_N: Tensor, value_N: Tensor) -> BatchStatistics:
    """As before an optimiser step: the mean log-ratios, and a factor for whoever asks for a safeguard."""
    liked, disliked = rho_N[value_N > 0].mean().item(), rho_N[value_N < 0].mean().item()
    return BatchStatistics((liked + disliked) / 2, rho_N.mean().item(), safeguard=0.5)


def log_density(x: Tensor, mean: Tensor) -> Tensor:
    return (-((x - mean) ** 2) / (2 * STD**2)).sum(1)


@functools.cache
def learn(sign: float, config: ObjectiveConfig, group: int = 8) -> Tensor:
    """The mean of a Gaussian policy after 60 rollouts of 64 samples in groups and two updates each."""
    generator, mean = torch.Generator().manual_seed(0), torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([mean], lr=0.05)
    group_N = torch.arange(64) // group
    for _ in range(60):
        old = mean.detach().clone()
        x = old + STD * torch.randn(64, 2, generator=generator)
        reward = -sign * ((x - OPTIMUM) ** 2).sum(1)
        advantage_N = advantages(reward, group_N, CreditConfig()).float()
        for _ in range(2):
            optimiser.zero_grad()
            logp_N = log_density(x, mean)
            log_ratio_N = logp_N - log_density(x, old)
            evidence = Evidence(
                log_ratio_M=logp_N if config.anchor == "none" else log_ratio_N,
                logp_M=logp_N,
                weight_M=torch.ones(64),
                n_dims=2,
                std_M=torch.full((64,), STD),
                gap_M=(mean - old).square().sum().expand(64),
                step_M=torch.zeros(64, dtype=torch.int64),
                sample_M=torch.arange(64),
                group_M=group_N,
                batch=measured(log_ratio_N.detach() / 2, advantage_N),
            )
            policy_gradient(evidence, advantage_N, config)[0].backward()
            optimiser.step()
    return mean.detach()


@every_recipe
def test_learns_the_optimum_of_a_quadratic_reward(name: str) -> None:
    assert (learn(1.0, config_of(name), GROUPS.get(name, 8)) - OPTIMUM).norm() < 0.15


@every_recipe
def test_moves_away_from_the_optimum_of_the_opposite_reward(name: str) -> None:
    assert (learn(-1.0, config_of(name), GROUPS.get(name, 8)) - OPTIMUM).norm() > OPTIMUM.norm() + 0.5


def test_a_tighter_clip_learns_more_slowly() -> None:
    tight = learn(1.0, ObjectiveConfig(clip_low=1e-4, clip_high=1e-4))
    assert (tight - OPTIMUM).norm() > (learn(1.0, config_of("ppo_clip")) - OPTIMUM).norm()
