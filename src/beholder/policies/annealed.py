"""Two policies as one at sampling time: the base lays out the image, the trained one finishes it."""

from typing import Any

from torch import Tensor

from beholder.config import GuidanceConfig
from beholder.errors import InputError
from beholder.policies.policy import Policy
from beholder.rollouts.kernels import per_sample
from beholder.rollouts.trajectory import Condition


class Annealed:
    """v = w v_trained + (1-w) v_base with w = (1-σ)^power: annealed importance guidance (DRaFT+, ImageReFL §4.3).

    power 0 is the trained policy; larger ones leave more of the noisy steps, where layout is decided, to the base. Only
    for drawing: twice the network calls, and nothing to train.
    """

    def __init__(self, trained: Policy, base: Policy, power: float) -> None:
        if power < 0:
            raise InputError(f"anneal: {power} must not be negative; 0 is the trained policy alone")
        self.trained, self.base, self.power = trained, base, power

    def velocity(
        self,
        x: Tensor,
        sigma_N: Tensor,
        condition: Condition,
        unconditional: Condition | None,
        guidance: GuidanceConfig,
    ) -> Tensor:
        weight = per_sample((1 - sigma_N).clamp_min(0) ** self.power, x)
        ours = self.trained.velocity(x, sigma_N, condition, unconditional, guidance)
        return weight * ours + (1 - weight) * self.base.velocity(x, sigma_N, condition, unconditional, guidance)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the trained policy's: schedule, starts, decoder."""
        return getattr(self.trained, name)
