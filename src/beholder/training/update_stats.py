"""What an update says of itself: ratios, clip shares, gains over the reference, the signal in its gradient."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from beholder.objectives.policy_gradient import (
    PolicyGradientStats,
)
from beholder.policies import Policy


class UpdateStats:
    """Sums over decisions, kept on the device; reduced over processes once an iteration."""

    def __init__(self, steps: int, device: torch.device, first_step: int = 0) -> None:
        self.first_step = first_step
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)  # decisions, loss, KL, ratio
        self.clipped_2T = torch.zeros(2, steps, dtype=torch.float64, device=device)  # decisions, clipped ones
        self.deviation_2 = torch.zeros(2, dtype=torch.float64, device=device)  # at the first update, at all
        self.gains_6 = torch.zeros(6, dtype=torch.float64, device=device)
        self.first = True
        """Whether the first update is being accumulated: it is on-policy, so nothing can be clipped."""

    @torch.no_grad()
    def add(self, step_M: Tensor, found: PolicyGradientStats, loss: Tensor, kl_M: Tensor | None) -> None:
        m, kl = len(step_M), loss.new_zeros(()) if kl_M is None else kl_M.sum()
        self.sums += torch.stack([loss.new_tensor(m), loss * m, kl, found.ratio_M.sum()]).double()
        deviation = (found.ratio_M - 1).abs().max().double()
        self.deviation_2[1] = torch.maximum(self.deviation_2[1], deviation)
        if self.first:
            self.deviation_2[0] = torch.maximum(self.deviation_2[0], deviation)
            return
        both = torch.stack([torch.ones_like(found.ratio_M), found.clipped_M.float()]).double()
        self.clipped_2T.index_add_(1, step_M, both)

    def add_gains(self, gains_6: Tensor) -> None:
        self.gains_6 += gains_6

    def summary(self, accelerator: Accelerator, with_kl: bool, with_gains: bool) -> dict[str, Any]:
        """Means over all processes' decisions; clip shares are of the updates after the first, null without one.

        Ratios are null where the old policy was not asked.
        """
        decisions, loss, kl, ratio = accelerator.reduce(self.sums, "sum").tolist()
        decisions = max(decisions, 1.0)
        clipped_2T = accelerator.reduce(self.clipped_2T, "sum")
        deviations = accelerator.gather(self.deviation_2[None]).amax(0).tolist()
        count_T, hit_T = clipped_2T.tolist()
        count, shares_T = sum(count_T), zip(hit_T, count_T, strict=True)
        return {
            "loss": loss / decisions,
            "kl": kl / decisions if with_kl else None,
            "ratio_deviation": _number(deviations[0]),
            "ratio_max_deviation": _number(deviations[1]),
            "ratio_mean": _number(ratio / decisions),
            "clip_fraction": sum(hit_T) / count if count else None,
            "clip_fraction_per_step": {str(t): hit / n for t, (hit, n) in enumerate(shares_T, self.first_step) if n},
            **(self._gains(accelerator) if with_gains else {}),
        }

    def _gains(self, accelerator: Accelerator) -> dict[str, float | None]:
        """How much likelier than under the reference the liked and the disliked became, per dimension.

        Both below 0 is displacement: the comparison is won by making the disliked worse.
        """
        liked, gain_w, disliked, gain_l, pairs, right = accelerator.reduce(self.gains_6, "sum").tolist()
        return {
            "liked_gain": gain_w / liked if liked else None,
            "disliked_gain": gain_l / disliked if disliked else None,
            "implicit_accuracy": right / pairs if pairs else None,
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


class GradientSignal:
    """The cosine between the gradients of two halves of an update that share no prompt: how much of it is signal.

    Around 0 the update is noise whatever the learning rate; use more samples, fewer steps or a denser reward.
    """

    def __init__(self, policy: Policy) -> None:
        self.parameters = list(policy.trainable().values())
        self.first: Tensor | None = None

    def _gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])

    def first_half(self) -> None:
        self.first = self._gradient().clone()

    def cosine(self) -> float | None:
        """None when one half is empty or has no gradient."""
        if self.first is None:
            return None
        second = self._gradient() - self.first
        norms = self.first.norm() * second.norm()
        return (self.first @ second / norms).item() if norms > 0 else None
