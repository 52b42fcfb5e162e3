"""Evidence from plain numbers, for the tests beside it. Everything is float64; D = 8 latent dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from beholder.config import ObjectiveConfig
from beholder.objectives.evidence import BatchStatistics, Evidence
from beholder.objectives.policy_gradient import PolicyGradientStats, policy_gradient

D = 8
Numbers = Sequence[float] | Tensor
MEASURED = BatchStatistics(log_ratio=-0.04, log_ratio_all=0.03, safeguard=0.4)


def double(values: Numbers) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def whole(values: Sequence[int] | Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int64)


def evidence(
    log_ratio: Numbers,
    *,
    anchor: float = -1.0,
    weight: Numbers | None = None,
    std: Numbers | None = None,
    gap: Numbers | None = None,
    step: Sequence[int] | Tensor | None = None,
    sample: Sequence[int] | Tensor | None = None,
    group: Sequence[int] | Tensor | None = None,
    batch: BatchStatistics | None = None,
) -> Evidence:
    """Log-ratios per dimension to ψ = ``anchor`` per dimension.

    Unless said otherwise, samples of one prompt at one step that moved by ``gap`` 0.
    """
    m = len(log_ratio)
    log_ratio_M = D * double(log_ratio)
    return Evidence(
        log_ratio_M=log_ratio_M.requires_grad_(),
        logp_M=(log_ratio_M + D * anchor).detach(),
        weight_M=torch.ones(m).double() if weight is None else double(weight),
        n_dims=D,
        std_M=torch.ones(m).double() if std is None else double(std),
        gap_M=torch.zeros(m).double() if gap is None else double(gap),
        step_M=torch.zeros(m, dtype=torch.int64) if step is None else whole(step),
        sample_M=torch.arange(m) if sample is None else whole(sample),
        group_M=torch.zeros(m, dtype=torch.int64) if group is None else whole(group),
        batch=batch,
    )


def at(e: Evidence, log_ratio_M: Tensor, config: ObjectiveConfig) -> Evidence:
    """The evidence where the log-ratios to the anchor are these; ψ itself for losses that compare with nothing."""
    logp_M = log_ratio_M + (e.logp_M - e.log_ratio_M).detach()
    return replace(e, log_ratio_M=logp_M if config.anchor == "none" else log_ratio_M, logp_M=logp_M)


@dataclass(frozen=True)
class Outcome:
    loss: float
    weight_M: Tensor
    """w = -∂L/∂ψ."""
    stats: PolicyGradientStats


def outcome(e: Evidence, value: Numbers, config: ObjectiveConfig) -> Outcome:
    """The loss and its gradient in ψ, everything else held."""
    psi_M = e.log_ratio_M.detach().clone().requires_grad_()
    loss, stats = policy_gradient(at(e, psi_M, config), double(value), config)
    loss.backward()
    assert psi_M.grad is not None
    return Outcome(loss.item(), -psi_M.grad, stats)


def changed(e: Evidence, change: Any) -> Evidence:
    """The evidence with ``change`` applied to every tensor of decisions."""
    found = {field.name: getattr(e, field.name) for field in fields(e) if field.name.endswith("_M")}
    return replace(e, **{name: change(value) for name, value in found.items() if value is not None})


def rows(e: Evidence, index: Any) -> Evidence:
    """The evidence of some of the decisions."""
    return changed(e, lambda value: value[index])


def groups_of_paths(
    prompts: int = 3, samples: int = 4, steps: int = 2, seed: int = 0, spread: float = 0.15
) -> tuple[Evidence, Tensor]:
    """Random decisions of ``prompts · samples`` paths, and a value per sample that holds for all its steps."""
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
        batch=MEASURED,
    )
    value_N = torch.randn(n, generator=generator, dtype=torch.float64)
    return e, value_N[e.sample_M]
