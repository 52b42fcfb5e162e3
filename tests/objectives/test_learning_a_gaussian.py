"""Every objective of log-ratios moves a Gaussian policy to a known optimum, and away from it for the negated reward."""

import functools
from typing import Any

import pytest
import torch
from evidence_by_hand import KINDS
from torch import Tensor

from beholder.config import CreditConfig, ObjectiveConfig
from beholder.credit.group import advantages
from beholder.objectives.policy_gradient import Evidence, policy_gradient

OPTIMUM = torch.tensor([1.0, -0.5])
STD = 0.3
WIDE = {"clip_low": 0.2, "clip_high": 0.2}
SETTINGS: dict[str, dict[str, Any]] = {"kl_mask": {"clip_high": 0.05}, "list_mle": {"temperature": 3.0}}
every_kind = pytest.mark.parametrize("kind", KINDS)


def config_of(kind: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**{"kind": kind, **WIDE, **SETTINGS.get(kind, {})})


def log_density(x: Tensor, mean: Tensor) -> Tensor:
    return (-((x - mean) ** 2) / (2 * STD**2)).sum(1)


@functools.cache
def learn(sign: float, config: ObjectiveConfig) -> Tensor:
    """The mean of a Gaussian policy after 60 rollouts of 8 groups of 8 and two updates each."""
    generator, mean = torch.Generator().manual_seed(0), torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([mean], lr=0.05)
    group_N = torch.arange(8).repeat_interleave(8)
    for _ in range(60):
        old = mean.detach().clone()
        x = old + STD * torch.randn(64, 2, generator=generator)
        reward = -sign * ((x - OPTIMUM) ** 2).sum(1)
        advantage_N = advantages(reward, group_N, CreditConfig()).float()
        for _ in range(2):
            optimiser.zero_grad()
            evidence = Evidence(
                log_ratio_M=log_density(x, mean) - log_density(x, old),
                weight_M=torch.ones(64),
                n_dims=2,
                std_M=torch.full((64,), STD),
                gap_M=(mean - old).square().sum().expand(64),
                step_M=torch.zeros(64, dtype=torch.int64),
                sample_M=torch.arange(64),
                group_M=group_N,
            )
            policy_gradient(evidence, advantage_N, config)[0].backward()
            optimiser.step()
    return mean.detach()


@every_kind
def test_learns_the_optimum_of_a_quadratic_reward(kind: str) -> None:
    assert (learn(1.0, config_of(kind)) - OPTIMUM).norm() < 0.15


@every_kind
def test_moves_away_from_the_optimum_of_the_opposite_reward(kind: str) -> None:
    assert (learn(-1.0, config_of(kind)) - OPTIMUM).norm() > OPTIMUM.norm() + 0.5


def test_a_tighter_clip_learns_more_slowly() -> None:
    tight = learn(1.0, ObjectiveConfig(clip_low=1e-4, clip_high=1e-4))
    assert (tight - OPTIMUM).norm() > (learn(1.0, config_of("ppo_clip")) - OPTIMUM).norm()
