"""Evidence from plain numbers, for the tests beside it. Everything is float64; D = 8 latent dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from beholder.config import ObjectiveConfig
from beholder.objectives.policy_gradient import (
    NEEDS_FORWARD,
    OBJECTIVES,
    Evidence,
    PolicyGradientStats,
    policy_gradient,
)

D = 8
KINDS: tuple[Any, ...] = tuple(kind for kind in OBJECTIVES if kind not in NEEDS_FORWARD)
"""The objectives that see log-ratios; those of velocities have a file of their own."""
Numbers = Sequence[float] | Tensor


def double(values: Numbers) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def whole(values: Sequence[int] | Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int64)


def evidence(
    log_ratio: Numbers,
    *,
    weight: Numbers | None = None,
    std: Numbers | None = None,
    gap: Numbers | None = None,
    step: Sequence[int] | Tensor | None = None,
    sample: Sequence[int] | Tensor | None = None,
    group: Sequence[int] | Tensor | None = None,
) -> Evidence:
    """Log-ratios per dimension; unless said otherwise, samples of one prompt at one step that moved by ``gap`` 0."""
    m = len(log_ratio)
    return Evidence(
        log_ratio_M=(D * double(log_ratio)).requires_grad_(),
        weight_M=torch.ones(m).double() if weight is None else double(weight),
        n_dims=D,
        std_M=torch.ones(m).double() if std is None else double(std),
        gap_M=torch.zeros(m).double() if gap is None else double(gap),
        step_M=torch.zeros(m, dtype=torch.int64) if step is None else whole(step),
        sample_M=torch.arange(m) if sample is None else whole(sample),
        group_M=torch.zeros(m, dtype=torch.int64) if group is None else whole(group),
    )


@dataclass(frozen=True)
class Outcome:
    loss: float
    weight_M: Tensor
    """w = -∂L/∂ψ."""
    stats: PolicyGradientStats


def outcome(e: Evidence, advantage: Numbers, config: ObjectiveConfig) -> Outcome:
    """The loss and its gradient in the log-ratio, everything else held."""
    fresh = replace(e, log_ratio_M=e.log_ratio_M.detach().clone().requires_grad_())
    loss, stats = policy_gradient(fresh, double(advantage), config)
    loss.backward()
    assert fresh.log_ratio_M.grad is not None
    return Outcome(loss.item(), -fresh.log_ratio_M.grad, stats)


def rows(e: Evidence, index: Any) -> Evidence:
    """The evidence of some of the decisions."""
    return Evidence(
        log_ratio_M=e.log_ratio_M[index],
        weight_M=e.weight_M[index],
        n_dims=e.n_dims,
        std_M=e.std_M[index],
        gap_M=None if e.gap_M is None else e.gap_M[index],
        step_M=e.step_M[index],
        sample_M=e.sample_M[index],
        group_M=e.group_M[index],
    )


def groups_of_paths(
    prompts: int = 3, samples: int = 4, steps: int = 2, seed: int = 0, spread: float = 0.15
) -> tuple[Evidence, Tensor]:
    """Random decisions of ``prompts · samples`` paths, and an advantage per sample that holds for all its steps."""
    generator = torch.Generator().manual_seed(seed)
    n = prompts * samples
    log_ratio = spread * torch.randn(n * steps, generator=generator, dtype=torch.float64)
    e = evidence(
        log_ratio,
        std=0.2 + torch.rand(n * steps, generator=generator, dtype=torch.float64),
        gap=D * torch.rand(n * steps, generator=generator, dtype=torch.float64),
        step=torch.arange(steps).repeat(n),
        sample=torch.arange(n).repeat_interleave(steps),
        group=(torch.arange(n) // samples).repeat_interleave(steps),
    )
    advantage_N = torch.randn(n, generator=generator, dtype=torch.float64)
    return e, advantage_N[e.sample_M]
