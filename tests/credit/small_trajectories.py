"""Trajectories of a policy whose velocity is a known function, and what credit is made of, for the tests beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from beholder.config import BranchConfig, CreditConfig, GuidanceConfig, PlanConfig, ProbeConfig, RolloutConfig
from beholder.credit.assign import Scored, assign
from beholder.rollouts.engine import Start, noise_for, rollout
from beholder.rollouts.kernels import trainable_steps
from beholder.rollouts.plans import draw_plan
from beholder.rollouts.trajectory import Condition, Trajectory

SHAPE = (2, 3)


@dataclass
class LinearPolicy:
    """v = (1 - σ) x / 2 - target."""

    def velocity(
        self,
        x: Tensor,
        sigma_N: Tensor,
        condition: Condition,
        unconditional: Condition | None,
        guidance: GuidanceConfig,
    ) -> Tensor:
        return (1 - sigma_N).view(-1, 1, 1) * x / 2 - condition.tensors["target"].view(-1, 1, 1)


def settings(
    prompts: int = 2,
    group: int = 3,
    plan: PlanConfig | None = None,
    branch: BranchConfig | None = None,
    probe: ProbeConfig | None = None,
) -> RolloutConfig:
    """Four steps, of which the first three are trained."""
    return RolloutConfig(
        steps=4,
        prompts=prompts,
        group=group,
        plan=plan or PlanConfig(kind="prefix", fraction=0.75),
        branch=branch or BranchConfig(),
        probe=probe or ProbeConfig(),
    )


def drawn(config: RolloutConfig, prompts: Sequence[int] | None = None) -> Trajectory:
    """The samples of ``prompts`` (default: all): the same whatever others are drawn with them."""
    sigmas = torch.linspace(1, 0, config.steps + 1)
    generator = torch.Generator().manual_seed(3)
    plan = draw_plan(config, trainable_steps(config.kernel, sigmas), config.prompts, 0, generator)
    each = len(plan) // config.prompts
    rows = torch.cat([torch.arange(p * each, (p + 1) * each) for p in (prompts or range(config.prompts))])
    group_N, part = rows // each, plan.select(rows)
    condition = Condition({"target": torch.linspace(-1, 1, config.prompts)[group_N]})
    texts = [f"prompt {g}" for g in group_N.tolist()]
    start = Start(texts, group_N, rows, part.start_N, noise_for(part.start_N, SHAPE, 0), condition, None)
    return rollout(LinearPolicy(), start, sigmas, part, config, keep_clean=True)


def alone(value: Tensor) -> Tensor:
    """`gather` of a single process."""
    return value


def scored(trajectory: Trajectory, rewards: Any, weights: Sequence[float] = (1.0,), **more: Any) -> Scored:
    """Rewards ``[N]`` or ``[N, R]`` of a single process's samples."""
    reward_ER = torch.as_tensor(rewards, dtype=torch.float32).reshape(len(trajectory), -1)
    return Scored(
        reward_ER, trajectory.group_N, trajectory.probe_N, slice(0, len(trajectory)), torch.tensor(weights), **more
    )


def credited(
    config: CreditConfig,
    trajectory: Trajectory,
    rewards: Any,
    weights: Sequence[float] = (1.0,),
    gather: Callable[[Tensor], Tensor] = alone,
    **more: Any,
) -> Tensor:
    return assign(config, trajectory, scored(trajectory, rewards, weights, **more), gather)


def by_sample(trajectory: Trajectory, advantage_M: Tensor) -> Tensor:
    """``[N, T]``: the advantage each sample's decision got, NaN where none is trained."""
    found = advantage_M[trajectory.decision_NT.clamp_min(0)]
    return torch.where(trajectory.decision_NT >= 0, found, torch.nan)


def close(got: Tensor, want: Any, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance, equal_nan=True)
