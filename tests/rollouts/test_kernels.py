"""Transition kernels against the formulas of the papers, derived here anew in float64 numpy."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from beholder.config import KernelConfig
from beholder.rollouts.kernels import Transition, euler_step, stds, transition

Array = NDArray[np.float64]
STOCHASTIC = ("flow_sde", "dance_sde", "cps", "ddim")
KINDS = (*STOCHASTIC, "euler")
LEVELS = {"flow_sde": 0.7, "dance_sde": 0.3, "cps": 0.8, "ddim": 0.9, "euler": 0.0}
every_kernel = pytest.mark.parametrize("kind", KINDS)
every_stochastic_kernel = pytest.mark.parametrize("kind", STOCHASTIC)
levels = st.floats(0.01, 1.0)
noise_levels = st.one_of(st.floats(0.02, 0.99), st.just(1.0))
shares = st.floats(0.0, 0.98)


def score_form(kind: Any, x: Array, v: Array, here: float, there: float, level: float) -> tuple[Array, float]:
    """Mean and standard deviation of the transition: drift v minus half the diffusion's square times the score."""
    clean, dt = x - here * v, there - here
    noise = (x - (1 - here) * clean) / here
    if kind == "euler":
        return (1 - there) * clean + there * noise, 0.0
    if kind == "cps":
        angle = level * math.pi / 2
        return (1 - there) * clean + there * math.cos(angle) * noise, there * math.sin(angle)
    if kind == "ddim":  # β = 1 - ᾱ/ᾱ' of the scaled process, in odds (σ/(1-σ))² = (1-ᾱ)/ᾱ, which do not cancel
        fresh = level**2 * there**2 * (1 - (there * (1 - here) / (here * (1 - there))) ** 2)
        return (1 - there) * clean + math.sqrt(there**2 - fresh) * noise, math.sqrt(fresh)
    remaining = 1 - there if here == 1 else 1 - here
    diffusion = level * math.sqrt(here / remaining) if kind == "flow_sde" else level
    score = -(x - (1 - here) * clean) / here**2
    return x + dt * v - 0.5 * diffusion**2 * score * dt, diffusion * math.sqrt(-dt)


def state(seed: int = 0, n: int = 2, shape: tuple[int, ...] = (3, 2)) -> tuple[Tensor, Tensor]:
    """A state and a velocity, float64 but exact in float32."""
    x, v = torch.randn(2, n, *shape, generator=torch.Generator().manual_seed(seed))
    return x.double(), v.double()


def move(
    kind: Any, x: Tensor, v: Tensor, here: float, there: float, level: float | None = None, log_prob: Any = "gaussian"
) -> Transition:
    """The transition of all samples between the same two noise levels."""
    config = KernelConfig(kind=kind, level=LEVELS[kind] if level is None else level, log_prob=log_prob)
    sigmas = (torch.full((len(x),), sigma, dtype=x.dtype) for sigma in (here, there))
    return transition(config, x, v, *sigmas)


def as_float32(value: float) -> float:
    return float(np.float32(value))


def worst_error(got: Transition, want: tuple[Array, float], size: float) -> float:
    mean_error = np.abs(got.mean.double().numpy() - want[0]).max() / max(size, np.abs(want[0]).max())
    return max(mean_error, (got.std.double() - want[1]).abs().max().item() / max(want[1], 1e-3))


@every_kernel
@settings(deadline=None, max_examples=50)
@given(here=noise_levels, share=shares, level=levels, seed=st.integers(0, 2**31))
def test_mean_and_std_are_those_of_the_score_form(
    kind: Any, here: float, share: float, level: float, seed: int
) -> None:
    here, there = as_float32(here), as_float32(here * share)
    assume(there < here)
    x, v = state(seed)
    want = score_form(kind, x.numpy(), v.numpy(), here, there, level)
    # Near σ = 1 and σ = 0 the two terms of the mean are much larger than their sum.
    size = x.abs().max().item() + want[1] ** 2 / (2 * here) * x.abs().max().item() + v.abs().max().item()
    assert worst_error(move(kind, x, v, here, there, level), want, size) <= 1e-12
    assert worst_error(move(kind, x.float(), v.float(), here, there, level), want, size) <= 1e-6


@every_kernel
def test_samples_may_stand_at_different_noise_levels(kind: Any) -> None:
    x, v = state(n=3)
    here, there = torch.tensor([1.0, 0.9, 0.3]).double(), torch.tensor([0.9, 0.2, 0.1]).double()
    together = transition(KernelConfig(kind=kind, level=0.5), x, v, here, there)
    for i in range(3):
        alone = move(kind, x[i : i + 1], v[i : i + 1], here[i].item(), there[i].item(), 0.5)
        torch.testing.assert_close(together.mean[i : i + 1], alone.mean, rtol=1e-14, atol=1e-14)
        assert together.std[i].item() == pytest.approx(alone.std.item(), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@every_stochastic_kernel
def test_arithmetic_is_float32_whatever_the_network_answers(kind: Any, dtype: torch.dtype) -> None:
    x, v = state()
    got = move(kind, x.to(dtype), v.to(dtype), 0.75, 0.5)
    want = move(kind, x.to(dtype).double(), v.to(dtype).double(), 0.75, 0.5)
    assert got.mean.dtype == got.std.dtype == torch.float32
    torch.testing.assert_close(got.mean.double(), want.mean, rtol=1e-6, atol=1e-6)


@every_kernel
@pytest.mark.parametrize("here", [1.0, 0.7, 0.05])
def test_std_is_the_diffusion_times_root_dt(kind: Any, here: float) -> None:
    got = move(kind, *state(), here, 0.4 * here)
    torch.testing.assert_close(got.std, got.diffusion * math.sqrt(0.6 * here), rtol=1e-12, atol=0)


@every_kernel
@pytest.mark.parametrize("here, there", [(1.0, 0.9), (0.6, 0.4), (0.2, 0.0)])
def test_level_zero_is_the_euler_step(kind: Any, here: float, there: float) -> None:
    x, v = state()
    got = move(kind, x, v, here, there, level=0.0)
    torch.testing.assert_close(got.mean, x + v * (there - here), rtol=1e-12, atol=1e-12)
    assert got.std.abs().max() == 0


@every_stochastic_kernel
def test_small_levels_approach_the_euler_step_quadratically(kind: Any) -> None:
    x, v = state()
    gaps = [(move(kind, x, v, 0.6, 0.4, level).mean - (x - 0.2 * v)).norm().item() for level in (1e-2, 1e-3)]
    assert gaps[0] > 0
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_euler_step_is_x_plus_v_dt(dtype: torch.dtype) -> None:
    x, v = (value.to(dtype) for value in state())
    here, there = torch.tensor([0.75, 0.5], dtype=dtype), torch.tensor([0.5, 0.125], dtype=dtype)
    want = x + v * torch.tensor([-0.25, -0.375], dtype=dtype).view(2, 1, 1)
    assert torch.equal(euler_step(x, v, here, there), want)


def test_flow_sde_at_pure_noise_takes_the_next_level_into_its_denominator() -> None:
    x, v = state()
    got = move("flow_sde", x, v, 1.0, 0.96)
    assert got.diffusion.tolist() == pytest.approx([0.7 * math.sqrt(1 / 0.04)] * 2)
    assert got.std.tolist() == pytest.approx([0.7] * 2)
    below = move("flow_sde", x, v, 0.96, 0.9)
    assert below.diffusion.tolist() == pytest.approx([0.7 * math.sqrt(0.96 / 0.04)] * 2)


# ------------------------------------------------------------------------------------------ coefficient preservation


@settings(deadline=None, max_examples=50)
@given(here=noise_levels, share=shares, level=levels)
def test_cps_keeps_the_coefficient_of_data_and_the_total_noise(here: float, share: float, level: float) -> None:
    there, one, zero = here * share, torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    of_data = move("cps", (1 - here) * one, -one, here, there, level)
    of_noise = move("cps", here * one, one, here, there, level)
    assert of_data.mean.item() == pytest.approx(1 - there, abs=1e-12)
    assert of_noise.mean.item() ** 2 + of_noise.std.item() ** 2 == pytest.approx(there**2, abs=1e-12)
    assert of_data.std.item() == pytest.approx(there * math.sin(level * math.pi / 2), abs=1e-12)
    assert move("cps", zero, zero, here, there, level).mean.item() == 0


@pytest.mark.parametrize("level", [0.9, 0.99, 0.999, 0.9999])
def test_cps_is_exact_in_float32_up_to_level_one(level: float) -> None:
    x, v = state()
    want, _ = score_form("cps", x.numpy(), v.numpy(), 0.75, 0.5, level)
    got = move("cps", x.float(), v.float(), 0.75, 0.5, level)
    assert np.abs(got.mean.double().numpy() - want).max() <= 5e-7


def test_cps_at_level_one_redraws_all_noise() -> None:
    x, v = state()
    got = move("cps", x, v, 0.8, 0.5, level=1.0)
    torch.testing.assert_close(got.mean, 0.5 * (x - 0.8 * v))
    assert got.std.tolist() == [0.5, 0.5]


def test_cps_ends_without_noise_and_without_density() -> None:
    x, v = state()
    last = move("cps", x, v, 0.3, 0.0)
    assert last.std.tolist() == [0, 0]
    torch.testing.assert_close(last.sample(torch.randn_like(x)), x - 0.3 * v)
    with pytest.raises(ValueError, match="deterministic"):
        last.log_prob_sum(x)


# ------------------------------------------------------------------------------------------------ density and KL


@every_stochastic_kernel
def test_log_prob_integrates_to_one(kind: Any) -> None:
    x, v = torch.tensor([[0.3]]).double(), torch.tensor([[-1.1]]).double()
    got = move(kind, x, v, 0.8, 0.5)
    offsets = torch.linspace(-12, 12, 4001, dtype=torch.float64) * got.std
    many = Transition(*(value.expand(4001, *value.shape[1:]) for value in vars(got).values()))
    density = many.log_prob_sum(got.mean + offsets.view(-1, 1)).exp()
    assert torch.trapezoid(density, offsets).item() == pytest.approx(1, abs=1e-10)


@every_stochastic_kernel
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_log_prob_is_the_sum_of_normal_log_densities(kind: Any, dtype: torch.dtype, tolerance: float) -> None:
    x, v = (value.to(dtype) for value in state(shape=(4, 5, 5)))
    got = move(kind, x, v, 0.8, 0.5)
    following = got.sample(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    want = Normal(got.mean.double(), got.std.double().view(-1, 1, 1, 1)).log_prob(following.double()).sum((1, 2, 3))
    assert got.log_prob_sum(following).dtype == dtype
    torch.testing.assert_close(got.log_prob_sum(following).double(), want, rtol=tolerance, atol=tolerance)


@every_stochastic_kernel
def test_samples_have_the_stated_mean_and_std(kind: Any) -> None:
    n = 40_000
    x, v = torch.full((n, 1), 0.4), torch.full((n, 1), -0.7)
    got = move(kind, x, v, 0.8, 0.5)
    drawn = got.sample(torch.randn(n, 1, generator=torch.Generator().manual_seed(2)))
    std = got.std[0].item()
    assert drawn.mean().item() == pytest.approx(got.mean[0].item(), abs=5 * std / n**0.5)
    assert drawn.std().item() == pytest.approx(std, abs=5 * std / (2 * n) ** 0.5)


@every_stochastic_kernel
def test_unweighted_log_prob_differs_by_minus_squared_distance(kind: Any) -> None:
    x, v = state()
    got = move(kind, x, v, 0.8, 0.5, log_prob="unweighted")
    near, far = got.mean + 0.1, got.mean + torch.linspace(0, 2, 6).view(3, 2).double()
    want = -((far - got.mean) ** 2).sum((1, 2)) + ((near - got.mean) ** 2).sum((1, 2))
    torch.testing.assert_close(got.log_prob_sum(far) - got.log_prob_sum(near), want)
    torch.testing.assert_close(got.std, move(kind, x, v, 0.8, 0.5).std)


@every_stochastic_kernel
def test_kl_is_that_of_the_two_gaussians(kind: Any) -> None:
    x, v = state()
    here, there = move(kind, x, v, 0.8, 0.5), move(kind, x, v + 0.3 * x, 0.8, 0.5)
    gaussians = (Normal(t.mean, t.std.view(-1, 1, 1)) for t in (here, there))
    torch.testing.assert_close(here.kl_sum(there), kl_divergence(*gaussians).sum((1, 2)), rtol=1e-12, atol=0)
    assert here.kl_sum(there).min() > 0
    assert here.kl_sum(here).abs().max() == 0


@every_stochastic_kernel
@pytest.mark.parametrize("log_prob", ["gaussian", "unweighted"])
def test_gradient_of_log_prob_with_respect_to_velocity(kind: Any, log_prob: Any) -> None:
    x, v = state()
    following = x + 0.2
    v.requires_grad_()

    def density(velocity: Tensor) -> Tensor:
        return move(kind, x, velocity, 0.8, 0.5, log_prob=log_prob).log_prob_sum(following)

    assert torch.autograd.gradcheck(density, v)
    assert torch.autograd.grad(density(v).sum(), v)[0].abs().min() > 1e-5


@every_stochastic_kernel
def test_kl_has_the_gradient_of_its_finite_differences(kind: Any) -> None:
    x, v = state()
    reference = move(kind, x, v + 0.1, 0.8, 0.5)
    v.requires_grad_()

    def divergence(velocity: Tensor) -> Tensor:
        return move(kind, x, velocity, 0.8, 0.5).kl_sum(reference)

    assert torch.autograd.gradcheck(divergence, v)
    assert torch.autograd.grad(divergence(v).sum(), v)[0].abs().min() > 1e-5


@every_kernel
def test_stds_of_a_schedule_are_those_of_its_transitions(kind: Any) -> None:
    sigmas = torch.tensor([1.0, 0.9, 0.6, 0.25, 0.0]).double()
    got = stds(KernelConfig(kind=kind, level=0.5), sigmas)
    want = [move(kind, *state(), here, there, 0.5).std[0].item() for here, there in pairwise(sigmas.tolist())]
    assert got.tolist() == pytest.approx(want, rel=1e-12)
