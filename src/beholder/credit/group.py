"""Group-relative advantages: A = (r - mean of the prompt's group) / (std + eps), with every choice explicit.

Shapes: N samples; ``group_N`` int64 says which prompt each belongs to. NaN rewards are excluded from every
statistic and get a NaN advantage, which objectives weigh with zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.config import CreditConfig


@dataclass(frozen=True)
class GroupStats:
    without_variance: float
    """Share of groups whose valid rewards are all equal: they teach nothing."""
    std: float
    """Mean standard deviation within groups."""


def _group_moments(reward_N: Tensor, group_N: Tensor, ddof: int) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and standard deviation of each group's valid rewards, ``[G]``."""
    valid = ~reward_N.isnan()
    groups = int(group_N.max()) + 1
    zero = torch.zeros(groups, dtype=torch.float64)
    count = zero.index_add(0, group_N, valid.double())
    total = zero.index_add(0, group_N, torch.where(valid, reward_N, 0).double())
    mean = total / count.clamp_min(1)
    squares = torch.where(valid, (reward_N.double() - mean[group_N]).square(), 0)
    variance = zero.index_add(0, group_N, squares) / (count - ddof).clamp_min(1)
    return count, mean, variance.sqrt()


def advantages(reward_N: Tensor, group_N: Tensor, config: CreditConfig) -> Tensor:
    """Advantages float32 ``[N]``, limited to ±``config.clip``; NaN where the reward failed.

    ``scale='group'``: GRPO (2402.03300, §4.1.2). ``scale='batch'``: Flow-GRPO's ``global_std``. ``scale='none'``:
    Dr. GRPO (2503.20783). A group of one, or of equal rewards, gets 0 whenever there is a baseline.
    """
    _, mean, std = _group_moments(reward_N, group_N, config.ddof)
    centred = reward_N.double() - (mean[group_N] if config.baseline == "group" else 0.0)
    if config.scale == "group":
        centred = _divided(centred, std[group_N] + config.eps)
    elif config.scale == "batch":
        valid = reward_N[~reward_N.isnan()].double()
        spread = valid.std(correction=config.ddof) if len(valid) > config.ddof else torch.zeros(())
        centred = _divided(centred, spread + config.eps)
    return centred.clamp(-config.clip, config.clip).float()


def _divided(centred_N: Tensor, scale: Tensor) -> Tensor:
    """``centred_N / scale`` with 0 / 0 = 0: equal rewards teach nothing even without eps."""
    return torch.where(centred_N == 0, 0.0, centred_N / scale)


def group_stats(reward_N: Tensor, group_N: Tensor) -> GroupStats:
    count, _, std = _group_moments(reward_N, group_N, ddof=0)
    std = std[count > 0]
    return GroupStats((std < 1e-8).double().mean().item(), std.mean().item())
