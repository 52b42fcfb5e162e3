"""Transition kernels against their purpose: keep the marginals of the path."""

from typing import Any

import pytest
import torch
from torch import Tensor

from beholder.config import KernelConfig
from beholder.rollouts.kernels import Transition, transition


def move(kind: Any, x: Tensor, v: Tensor, here: float, there: float, level: float) -> Transition:
    """The transition of all samples between the same two noise levels."""
    config = KernelConfig(kind=kind, level=level)
    return transition(config, x, v, *(torch.full((len(x),), sigma) for sigma in (here, there)))


MEANS, SPREADS, SHARES = torch.tensor([-1.5, 1.0]), torch.tensor([0.3, 0.5]), torch.tensor([0.4, 0.6])
"""A mixture of two Gaussians on the line, whose exact velocity is known at every noise level."""
CHECKED = (0.8, 0.5, 0.2, 0.0)


def mixture_velocity(x: Tensor, sigma: float) -> Tensor:
    """E[ε - x0 | x] of the mixture, ``[N, 1]``."""
    variance = (1 - sigma) ** 2 * SPREADS**2 + sigma**2
    gap = x - (1 - sigma) * MEANS
    posterior = (SHARES.log() - variance.log() / 2 - gap**2 / (2 * variance)).softmax(1)
    clean, noise = MEANS + (1 - sigma) * SPREADS**2 / variance * gap, sigma / variance * gap
    return (posterior * (noise - clean)).sum(1, keepdim=True)


def mixture_moments(sigma: float) -> tuple[float, float]:
    """Mean and standard deviation of (1-σ) x0 + σ ε."""
    mean = (SHARES * MEANS).sum()
    variance = (SHARES * (SPREADS**2 + MEANS**2)).sum() - mean**2
    return ((1 - sigma) * mean).item(), ((1 - sigma) ** 2 * variance + sigma**2).sqrt().item()


def walk(kind: Any, level: float, steps: int, n: int) -> dict[float, Tensor]:
    """States of ``n`` walkers at the noise levels ``CHECKED``, from pure noise through ``steps`` equal steps."""
    generator = torch.Generator().manual_seed(3)
    x, kept = torch.randn(n, 1, generator=generator), {}
    for i in range(steps):
        here, there = 1 - i / steps, 1 - (i + 1) / steps
        got = move(kind, x, mixture_velocity(x, here), here, there, level)
        x = got.sample(torch.randn(n, 1, generator=generator))
        kept[round(there, 6)] = x
    return {sigma: kept[sigma] for sigma in CHECKED}


@pytest.mark.parametrize(
    "kind, level",
    [("euler", 0.0), ("flow_sde", 0.7), ("dance_sde", 0.3), ("dance_sde", 0.8), ("ddim", 1.0), ("ddim", 0.5)],
)
def test_many_small_steps_keep_the_marginals_of_a_mixture(kind: Any, level: float) -> None:
    n, steps = 20_000, 250
    for sigma, x in walk(kind, level, steps, n).items():
        mean, std = mixture_moments(sigma)
        # Five standard errors, and the first-order error of the steps themselves.
        assert x.mean().item() == pytest.approx(mean, abs=5 * std / n**0.5 + 1 / steps), sigma
        assert x.std().item() == pytest.approx(std, abs=5 * std / (2 * n) ** 0.5 + 2 / steps), sigma


def test_the_marginal_test_notices_noise_without_its_drift() -> None:
    n = 20_000
    x, generator = torch.randn(n, 1, generator=torch.Generator().manual_seed(4)), torch.Generator().manual_seed(5)
    for i in range(250):
        x = x - mixture_velocity(x, 1 - i / 250) / 250 + 0.8 * 250**-0.5 * torch.randn(n, 1, generator=generator)
    assert x.std().item() > mixture_moments(0.0)[1] + 5 / (2 * n) ** 0.5 + 2 / 250


@pytest.mark.parametrize("kind", ["cps", "ddim"])
@pytest.mark.parametrize("level", [0.3, 0.8, 1.0])
def test_cps_and_ddim_keep_the_marginals_of_a_point_even_in_four_steps(kind: Any, level: float) -> None:
    n, point, generator = 40_000, 1.7, torch.Generator().manual_seed(6)
    x = torch.randn(n, 1, generator=generator)
    for here, there in ((1.0, 0.9), (0.9, 0.5), (0.5, 0.1), (0.1, 0.0)):
        x = move(kind, x, (x - point) / here, here, there, level).sample(torch.randn(n, 1, generator=generator))
        assert x.mean().item() == pytest.approx((1 - there) * point, abs=5 * there / n**0.5 + 1e-5)
        assert x.std().item() == pytest.approx(there, abs=5 * there / (2 * n) ** 0.5 + 1e-5)
