"""Deterministic steps of the probability-flow ODE: Euler, and DPM-Solver++ of second order for the tail of a rollout.

In path coordinates the first-order DPM-Solver++ step is the Euler step; the second order adds

    ½ (1 - σ'/σ) (m_0 - m_1) h / h_0,    m = x̂0,  λ = ln((1-σ)/σ),  h = λ' - λ,  h_0 = λ - λ_previous

(Lu et al. 2211.01095, algorithm 2, midpoint form); the step to σ' = 0 and the first after a stochastic one stay of
first order.
"""

from typing import Literal

import torch
from torch import Tensor

from beholder.rollouts.kernels import euler_step, per_sample


class Solver:
    """The ODE step of every node, with the memory a multistep solver needs.

    ``dpm++`` acts after the last stochastic step of the plan only, where MixGRPO applies it.
    """

    def __init__(self, kind: Literal["euler", "dpm++"], stochastic_NT: Tensor) -> None:
        stochastic_T = stochastic_NT.any(0)
        self.first = int(stochastic_T.nonzero()[-1]) + 1 if bool(stochastic_T.any()) else 0
        self.kind, self.memory = kind, None

    def step(
        self, x: Tensor, v: Tensor, clean: Tensor, here: Tensor, there: Tensor, parent_C: Tensor, step: int
    ) -> Tensor:
        """``[C, ...]``: the next state of each child of the nodes ``x``, were it deterministic."""
        after = euler_step(x, v, here, there)
        if self.kind == "dpm++" and step >= self.first:
            if self.memory is not None and float(there[0]) > 0:
                previous, sigma = self.memory
                after = after + correction(clean, previous, sigma, here, there)
            self.memory = (clean, here)
        return after[parent_C]


def correction(clean: Tensor, previous: Tensor, sigma_previous: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """What the second order adds to the Euler step; 0 when the previous level is pure noise."""
    before, now, then = (torch.logit(1 - s.double()) for s in (sigma_previous, here, there))
    ratio = torch.where(before.isinf(), 0.0, (then - now) / (now - before))
    weight = (0.5 * (1 - there.double() / here.double()) * ratio).to(clean.dtype)
    return per_sample(weight, clean) * (clean - previous)
