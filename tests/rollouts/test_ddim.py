"""The DDIM kernel against the variance-preserving process it stands for, Bayes' rule and diffusers; the LCM step."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchLCMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from beholder.config import KernelConfig
from beholder.rollouts.kernels import Transition, euler_step, trainable_steps, transition

Long = NDArray[np.longdouble]
SHAPE = (3, 2)
D = math.prod(SHAPE)


def move(x: Tensor, v: Tensor, here: float, there: float, eta: float, kind: Any = "ddim") -> Transition:
    sigmas = (torch.full((len(x),), sigma, dtype=x.dtype) for sigma in (here, there))
    return transition(KernelConfig(kind=kind, level=eta), x, v, *sigmas)


def states(seed: int = 0, n: int = 2) -> tuple[Tensor, Tensor]:
    """A state and a velocity, float64 but exact in float32."""
    x, v = torch.randn(2, n, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return x.double(), v.double()


def root(sigma: float) -> np.longdouble:
    """n with x = n x̃: the standard deviation of the path at σ, were the data white."""
    s = np.longdouble(sigma)
    return np.sqrt((1 - s) ** 2 + s**2)


def signal(sigma: float) -> np.longdouble:
    """ᾱ of the variance-preserving process at σ."""
    s = np.longdouble(sigma)
    return (1 - s) ** 2 / ((1 - s) ** 2 + s**2)


def ddpo_step(
    z: Long, noise: Long, ab: np.longdouble, ab_next: np.longdouble, eta: float
) -> tuple[Long, np.longdouble]:
    """Mean and standard deviation as ddpo-pytorch and its kin write them, of z with predicted noise."""
    clean = (z - np.sqrt(1 - ab) * noise) / np.sqrt(ab)
    std = eta * np.sqrt((1 - ab_next) / (1 - ab) * (1 - ab / ab_next))
    return np.sqrt(ab_next) * clean + np.sqrt(np.maximum(1 - ab_next - std**2, 0)) * noise, std


def on_the_path(x: Tensor, v: Tensor, here: float, there: float, eta: float) -> tuple[Long, np.longdouble]:
    """`ddpo_step` between the noise levels of the straight path, in its coordinates."""
    x_, v_ = (value.numpy().astype(np.longdouble) for value in (x, v))
    noise = x_ + (1 - np.longdouble(here)) * v_
    mean, std = ddpo_step(x_ / root(here), noise, signal(here), signal(there), eta)
    return mean * root(there), std * root(there)


def float32(value: float) -> float:
    return float(np.float32(value))


@settings(deadline=None, max_examples=150)
@given(
    here=st.floats(0.02, 0.999),
    share=st.just(0.0) | st.floats(0.05, 0.95),
    eta=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**31),
)
def test_it_is_the_step_of_the_variance_preserving_process(here: float, share: float, eta: float, seed: int) -> None:
    here, there = float32(here), float32(here * share)
    x, v = states(seed)
    mean, std = on_the_path(x, v, here, there, eta)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        got = move(x.to(dtype), v.to(dtype), here, there, eta)
        assert got.mean.dtype == got.std.dtype == dtype
        size = max(1.0, np.abs(mean).max().item(), x.abs().max().item(), v.abs().max().item())
        assert np.abs(got.mean.numpy() - mean).max() <= tolerance * size
        assert np.abs(got.std.numpy() - std).max() <= tolerance * max(std, np.longdouble(1e-6))


@pytest.mark.parametrize("here, there", [(0.05, 0.0283), (0.01, 0.009), (0.9999, 0.9), (1.0, 0.97), (1.0, 0.3)])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_single_precision_suffices_at_both_ends(here: float, there: float, eta: float) -> None:
    """1 - ᾱ/ᾱ' vanishes at the end of a schedule, and what is kept of the old noise at its beginning."""
    here, there = float32(here), float32(there)
    x, v = states()
    got, want = move(x.float(), v.float(), here, there, eta), move(x, v, here, there, eta)
    torch.testing.assert_close(got.std.double(), want.std, rtol=1e-6, atol=0)
    torch.testing.assert_close(got.mean.double(), want.mean, rtol=0, atol=1e-6)
    assert want.std.min() > 0


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("here, there", [(0.93, 0.9), (0.6, 0.3), (0.2, 0.1)])
def test_its_log_density_is_that_of_the_process_less_the_change_of_volume(
    here: float, there: float, eta: float, dtype: torch.dtype, tolerance: float
) -> None:
    """A density in x̃' = x'/n' is n'^D times the one in x': logarithms differ by D log n', whatever the policy."""
    here, there = float32(here), float32(there)
    x, v = states(3)
    mean, std = on_the_path(x, v, here, there, eta)
    got = move(x.to(dtype), v.to(dtype), here, there, eta)
    following = got.sample(torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype))
    z, mu, c = following.numpy().astype(np.longdouble) / root(there), mean / root(there), std / root(there)
    density = (-((z - mu) ** 2) / (2 * c**2) - np.log(c) - 0.5 * np.log(2 * np.pi)).sum((1, 2))
    want = torch.from_numpy((density - D * np.log(root(there))).astype(np.float64))
    torch.testing.assert_close(got.log_prob_sum(following).double(), want, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=50)
@given(here=st.floats(0.05, 0.999), share=st.floats(0.05, 0.95), seed=st.integers(0, 2**31))
def test_at_eta_one_it_is_the_posterior_of_bayes(here: float, share: float, seed: int) -> None:
    """x̃' has prior N(√ᾱ' x0, 1-ᾱ') and x̃ given it is N(√(ᾱ/ᾱ') x̃', 1-ᾱ/ᾱ'): precisions add."""
    there = here * share
    x, v = states(seed)
    ab, ab_next = float(signal(here)), float(signal(there))
    clean, z = (x - here * v).numpy(), x.numpy() / float(root(here))
    ratio = ab / ab_next
    precision = 1 / (1 - ab_next) + ratio / (1 - ratio)
    mean = (math.sqrt(ab_next) * clean / (1 - ab_next) + math.sqrt(ratio) * z / (1 - ratio)) / precision
    got = move(x, v, here, there, 1.0)
    np.testing.assert_allclose(got.mean.numpy(), float(root(there)) * mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.std.numpy(), float(root(there)) / math.sqrt(precision), rtol=1e-9)


@settings(deadline=None, max_examples=50)
@given(here=st.floats(0.02, 1.0), share=st.floats(0.0, 0.98), eta=st.floats(0.0, 1.0))
def test_signal_and_total_noise_are_those_of_the_next_level(here: float, share: float, eta: float) -> None:
    there, one = here * share, torch.ones(1, 1).double()
    of_data = move((1 - here) * one, -one, here, there, eta)
    of_noise = move(here * one, one, here, there, eta)
    assert of_data.mean.item() == pytest.approx(1 - there, abs=1e-12)
    assert of_noise.mean.item() ** 2 + of_noise.std.item() ** 2 == pytest.approx(there**2, abs=1e-12)
    assert of_noise.std.item() <= there * eta * (1 + 1e-12)


def test_from_pure_noise_at_eta_one_all_noise_is_new() -> None:
    x, v = states()
    got = move(x, v, 1.0, 0.4, 1.0)
    torch.testing.assert_close(got.mean, 0.6 * (x - v), rtol=1e-14, atol=1e-14)
    assert got.std.tolist() == [0.4, 0.4]


def test_the_end_has_no_density() -> None:
    x, v = states()
    last = move(x, v, 0.3, 0.0, 1.0)
    torch.testing.assert_close(last.sample(torch.randn_like(x)), x - 0.3 * v)
    with pytest.raises(ValueError, match="deterministic"):
        last.log_prob_sum(x)


# -------------------------------------------------------------------------------------------------------- diffusers


def stable_diffusion(steps: int) -> tuple[Any, list[float], list[float]]:
    """The scheduler of Stable Diffusion 1.x with float64 tables, the ᾱ it visits and the σ they are on the path."""
    scheduler: Any = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(steps)
    visited = [*scheduler.alphas_cumprod[scheduler.timesteps].tolist(), scheduler.final_alpha_cumprod.item()]
    return scheduler, visited, [(1 - ab) ** 0.5 / (ab**0.5 + (1 - ab) ** 0.5) for ab in visited]


def predicted_noise(z: Tensor, t: int) -> Tensor:
    """Any network would do."""
    return 0.8 * z + 0.3 * (z + t / 300).sin()


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_whole_trajectories_are_those_of_diffusers(eta: float, steps: int) -> None:
    """The network sees z = x / n; its noise and clean prediction are those of the path, so v = ε - x0."""
    scheduler, visited, sigmas = stable_diffusion(steps)
    z, generator = states(5)[0], torch.Generator().manual_seed(2)
    x = z * float(root(sigmas[0]))
    for i, t in enumerate(scheduler.timesteps.tolist()):
        noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        z_next = scheduler.step(predicted_noise(z, t), t, z, eta=eta, variance_noise=noise if eta else None).prev_sample
        given_z = x / float(root(sigmas[i]))
        predicted = predicted_noise(given_z, t)
        clean = (given_z - (1 - visited[i]) ** 0.5 * predicted) / visited[i] ** 0.5
        got = move(x, predicted - clean, sigmas[i], sigmas[i + 1], eta)
        scale = float(root(sigmas[i + 1]))
        x, z = got.sample(noise), z_next
        torch.testing.assert_close(x, z * scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_log_densities_are_those_of_ddpo_on_the_schedule_of_stable_diffusion(eta: float) -> None:
    """The released code takes the mean over dimensions, of the density in its own coordinates."""
    _, visited, sigmas = stable_diffusion(20)
    z, ab_pairs = states(7)[0], list(pairwise(visited))
    for (ab, ab_next), (here, there) in zip(ab_pairs, pairwise(sigmas), strict=True):
        noise = predicted_noise(z, 300)
        clean = (z - (1 - ab) ** 0.5 * noise) / ab**0.5
        std = eta * ((1 - ab_next) / (1 - ab) * (1 - ab / ab_next)) ** 0.5
        mean = ab_next**0.5 * clean + (1 - ab_next - std**2) ** 0.5 * noise
        z_next = mean + std * torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        ddpo_N = torch.distributions.Normal(mean, std).log_prob(z_next).mean((1, 2))
        scale = float(root(there))
        got = move(z * float(root(here)), noise - clean, here, there, eta).log_prob_sum(z_next * scale) / D
        torch.testing.assert_close(got + math.log(scale), ddpo_N, rtol=1e-9, atol=1e-9)
    kernel = KernelConfig(kind="ddim", level=eta)
    assert trainable_steps(kernel, torch.tensor(sigmas).double()).all()


def test_ddim_without_noise_is_euler_on_the_path() -> None:
    scheduler, visited, sigmas = stable_diffusion(20)
    z = states(6)[0]
    x = z * float(root(sigmas[0]))
    for i, t in enumerate(scheduler.timesteps.tolist()):
        z = scheduler.step(predicted_noise(z, t), t, z, eta=0.0).prev_sample
        given_z = x / float(root(sigmas[i]))
        noise = predicted_noise(given_z, t)
        v = noise - (given_z - (1 - visited[i]) ** 0.5 * noise) / visited[i] ** 0.5
        x = euler_step(x, v, *(torch.full((2,), sigma, dtype=torch.float64) for sigma in sigmas[i : i + 2]))
    torch.testing.assert_close(x, z * float(root(sigmas[-1])), rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------------ the LCM step


def test_cps_of_level_one_is_the_step_of_a_consistency_model() -> None:
    """x̃' = √ᾱ' x0 + √(1-ᾱ') z in variance-preserving coordinates (RLCM's policy)."""
    x, v = states()
    got = move(x, v, 0.7, 0.4, 1.0, kind="cps")
    ab_next, scale = float(signal(0.4)), float(root(0.4))
    torch.testing.assert_close(got.mean, scale * ab_next**0.5 * (x - 0.7 * v), rtol=1e-12, atol=1e-12)
    assert got.std.tolist() == pytest.approx([scale * (1 - ab_next) ** 0.5] * 2, rel=1e-12)


def test_cps_of_level_one_draws_what_the_flow_lcm_scheduler_of_diffusers_draws() -> None:
    scheduler: Any = FlowMatchLCMScheduler()
    scheduler.set_timesteps(4)
    want = x = states()[0].float()
    theirs, ours = (torch.Generator().manual_seed(9) for _ in range(2))
    for i, t in enumerate(scheduler.timesteps):
        here, there = scheduler.sigmas[i : i + 2].tolist()
        want = scheduler.step(want.sin(), t, want, generator=theirs).prev_sample
        noise = torch.randn(x.shape, generator=ours)
        x = move(x, x.sin(), here, there, 1.0, kind="cps").sample(noise)
        torch.testing.assert_close(x, want, rtol=1e-5, atol=1e-5)
