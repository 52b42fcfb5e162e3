"""The clipped policy gradient over denoising decisions.

Evidence ψ is a log-density summed over the D latent dimensions. Following DDPO and every flow method since, the ratio
is of the mean: ρ = exp((ψ - ψ_old) / D). Its clip range is therefore tiny (1e-4 bounds the joint log-ratio by D·1e-4).

Shapes: ``[M]`` decisions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.config import ObjectiveConfig


@dataclass(frozen=True)
class PolicyGradientStats:
    ratio_M: Tensor
    clipped_M: Tensor
    """bool: the clip removed this decision's gradient."""


def clip_range(config: ObjectiveConfig, n_dims: int) -> tuple[float, float]:
    """(low, high) per dimension; a joint trust region of c nats is c / D per dimension."""
    divisor = n_dims if config.trust_region == "joint" else 1
    return config.clip_low / divisor, config.clip_high / divisor


def ppo_clip(
    psi_M: Tensor, psi_old_M: Tensor, n_dims: int, advantage_M: Tensor, weight_M: Tensor, config: ObjectiveConfig
) -> tuple[Tensor, PolicyGradientStats]:
    """Σ w max(-A ρ, -A clip(ρ, 1-ε_low, 1+ε_high)) / M (1707.06347, eq. 7; Flow-GRPO 2505.05470, eq. 5).

    A NaN advantage (failed reward) contributes nothing. ``weight_M`` multiplies each decision's term.
    """
    low, high = clip_range(config, n_dims)
    valid = ~advantage_M.isnan()
    advantage = torch.where(valid, advantage_M, 0)
    ratio = ((psi_M - psi_old_M) / n_dims).exp()
    plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)
    loss = (weight_M * torch.maximum(plain, clipped)).mean()
    return loss, PolicyGradientStats(ratio.detach(), ((clipped > plain) & valid).detach())
