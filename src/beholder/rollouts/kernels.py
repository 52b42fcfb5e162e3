"""Transition kernels of the straight path: from (x, velocity) at σ to a Gaussian over x at σ' < σ.

Notation: x_σ = (1-σ) x0 + σ ε, velocity v = ε - x0, x̂0 = x - σ v, x̂1 = x + (1-σ) v, dt = σ' - σ < 0.
Kept apart everywhere: the diffusion coefficient s (per √time), the standard deviation c of the transition, and
sums over dimensions (reduction is the objective's choice). All arithmetic is in float32, or float64 if x is.

Shapes: ``x, v, mean`` are ``[N, ...]``; ``sigma, sigma_next`` and everything per sample are ``[N]``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.config import KernelConfig


def per_sample(value_N: Tensor, like: Tensor) -> Tensor:
    """``[N]`` reshaped to broadcast against ``[N, ...]``."""
    return value_N.view(-1, *([1] * (like.ndim - 1)))


def sum_dims(x: Tensor) -> Tensor:
    """``[N, ...]`` summed over everything but samples."""
    return x.flatten(1).sum(1)


def _exact(x: Tensor) -> torch.dtype:
    """float32, or float64 if ``x`` is: what the arithmetic of a transition is done in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Transition:
    """The Gaussian N(mean, std² I) over the next state.

    ``density_std`` [N] is the standard deviation used in `log_prob`; it differs from ``std`` only where a method
    scores its samples with another weight (``log_prob='unweighted'``).
    """

    mean: Tensor
    std: Tensor
    """c [N]; 0 where the transition is deterministic."""
    diffusion: Tensor
    """s [N]; c = s √|dt|."""
    density_std: Tensor

    def select(self, rows: Tensor) -> "Transition":
        return Transition(self.mean[rows], self.std[rows], self.diffusion[rows], self.density_std[rows])

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + per_sample(self.std, noise) * noise.to(self.mean.dtype)

    def log_prob_sum(self, x_next: Tensor) -> Tensor:
        """log N(x_next; mean, density_std² I) summed over dimensions, ``[N]``; -inf·0 is avoided by refusing c = 0."""
        if bool((self.density_std <= 0).any()):
            raise ValueError("kernel: a deterministic transition has no density; train only stochastic steps")
        d = self.mean[0].numel()
        squared = sum_dims((x_next.to(self.mean.dtype) - self.mean).square())
        return -squared / (2 * self.density_std.square()) - d * (self.density_std.log() + 0.5 * math.log(2 * math.pi))

    def kl_sum(self, other: "Transition") -> Tensor:
        """KL(self ‖ other) of two Gaussians of the same std, Σ (μ - μ')² / (2 c²), ``[N]``."""
        return sum_dims((self.mean - other.mean).square()) / (2 * self.std.square())


def transition(kernel: KernelConfig, x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor) -> Transition:
    """The transition of ``kernel.kind`` from σ to σ'."""
    x, v, sigma, sigma_next = (value.to(_exact(x)) for value in (x, v, sigma, sigma_next))
    mean, std, diffusion = KERNELS[kernel.kind](x, v, sigma, sigma_next, kernel.level)
    unweighted = kernel.log_prob == "unweighted"
    density_std = torch.full_like(std, 2**-0.5) if unweighted else std
    return Transition(mean, std, diffusion, density_std)


Parts = tuple[Tensor, Tensor, Tensor]


def euler(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, level: float) -> Parts:
    """The ODE step x + v dt; deterministic. In these coordinates it is DDIM with η = 0."""
    return x + v * per_sample(sigma_next - sigma, x), torch.zeros_like(sigma), torch.zeros_like(sigma)


def _marginal_preserving(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, s: Tensor) -> Parts:
    """Euler-Maruyama of the SDE with the ODE's marginals and diffusion s (2505.05470, eq. 9 with any s):

    mean = x (1 + s² dt / 2σ) + v (1 + s² (1-σ) / 2σ) dt.
    """
    dt = sigma_next - sigma
    drift = s.square() / (2 * sigma)
    mean = x * per_sample(1 + drift * dt, x) + v * per_sample((1 + drift * (1 - sigma)) * dt, x)
    return mean, s * dt.abs().sqrt(), s


def flow_sde(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, level: float) -> Parts:
    """Flow-GRPO (2505.05470): s = a √(σ / (1-σ)); at σ = 1 the denominator takes σ' (released code)."""
    one = sigma >= 1
    s = level * (sigma / (1 - torch.where(one, sigma_next, sigma))).sqrt()
    return _marginal_preserving(x, v, sigma, sigma_next, s)


def dance_sde(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, level: float) -> Parts:
    """DanceGRPO (2505.07818): s = η, constant."""
    return _marginal_preserving(x, v, sigma, sigma_next, torch.full_like(sigma, level))


def _coefficient_preserving(
    x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, std: Tensor, kept: Tensor
) -> Parts:
    """mean = (1-σ') x̂0 + kept x̂1 with kept = √(σ'² - c²): signal and total noise of the next level for any c ≤ σ'."""
    x0, x1 = x - per_sample(sigma, x) * v, x + per_sample(1 - sigma, x) * v
    mean = per_sample(1 - sigma_next, x) * x0 + per_sample(kept, x) * x1
    return mean, std, std / (sigma_next - sigma).abs().sqrt()


def cps(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, level: float) -> Parts:
    """Coefficient-preserving sampling (2509.05952): c = σ' sin(aπ/2). Level 1 is the LCM step: all noise is new."""
    angle = level * math.pi / 2  # √(σ'² - c²) = σ' cos, without the cancellation
    return _coefficient_preserving(x, v, sigma, sigma_next, sigma_next * math.sin(angle), sigma_next * math.cos(angle))


def ddim(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, level: float) -> Parts:
    """DDIM(η) (2010.02502, eq. 12, 16) seen on the straight path; η = 1 is the ancestral DDPM step, η = 0 the ODE.

    A variance-preserving diffusion at ᾱ is this path scaled: x̃ = x / n, n² = (1-σ)² + σ², ᾱ = (1-σ)² / n². Its step
    has std η √((1-ᾱ')/(1-ᾱ) (1 - ᾱ/ᾱ')), so here c = n' times that: the coefficient-preserving step with another c.
    """
    keep, keep_next = (1 - sigma).square(), (1 - sigma_next).square()
    # n'² (1-ᾱ')/(1-ᾱ) (1 - ᾱ/ᾱ') and what it leaves of σ'², both as sums of positive terms: nothing cancels for η <= 1
    gap = (sigma - sigma_next) * (sigma * (1 - sigma_next) + sigma_next * (1 - sigma))  # (1-σ')² σ² - (1-σ)² σ'²
    share = level**2 * (sigma_next / sigma).square() / keep_next.clamp_min(1e-30)
    kept = ((1 - level**2) * sigma_next.square() + share * keep * sigma_next.square()).clamp_min(0).sqrt()
    return _coefficient_preserving(x, v, sigma, sigma_next, (share * gap).clamp_min(0).sqrt(), kept)


KERNELS = {"flow_sde": flow_sde, "dance_sde": dance_sde, "cps": cps, "ddim": ddim, "euler": euler}


def euler_step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The ODE step alone, in at least float32."""
    x, v, sigma, sigma_next = (value.to(_exact(x)) for value in (x, v, sigma, sigma_next))
    return euler(x, v, sigma, sigma_next, 0.0)[0]


def stds(kernel: KernelConfig, sigmas_T1: Tensor) -> Tensor:
    """Standard deviation c of each of the T transitions of a schedule, without any network."""
    nothing = torch.zeros(len(sigmas_T1) - 1, 1, dtype=torch.float64)
    return transition(kernel, nothing, nothing, sigmas_T1[:-1], sigmas_T1[1:]).std


def trainable_steps(kernel: KernelConfig, sigmas_T1: Tensor) -> Tensor:
    """bool [T]: the transitions with a density (c > 0; CPS's last has none) of at least the kernel's ``min_std``."""
    std_T = stds(kernel, sigmas_T1)
    return (std_T > 0) & (std_T >= kernel.min_std)


def denoising_evidence(weight: str, error_M: Tensor, t_M: Tensor) -> Tensor:
    """Evidence e(ℓ, t) per dimension of a denoising error ℓ = mean_D (v - u)² at noise level t.

    half: -ℓ/2 (Diffusion-DPO 2311.12908 and its family); flow_dpo: -(1-t)² ℓ/2 (Flow-DPO 2501.13918, β_t); uniform,
    t, t2, huber, ghuber: AWM (2509.25050), the last -((ℓ+δ)^p - δ^p) t/p with p = ¼, δ = 1e-10.
    """
    if weight == "half":
        return -0.5 * error_M
    if weight == "flow_dpo":
        return -0.5 * (1 - t_M).square() * error_M
    if weight == "huber":
        return -((error_M + 1e-10).sqrt() - 1e-5) * t_M
    if weight == "ghuber":
        return -((error_M + 1e-10) ** 0.25 - 1e-10**0.25) * t_M / 0.25
    return -error_M * {"uniform": torch.ones_like(t_M), "t": t_M, "t2": t_M.square()}[weight]
