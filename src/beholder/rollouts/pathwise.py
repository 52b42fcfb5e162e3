"""Following a reward's gradient back into the sampler.

The image is a clean latent x̂0 = x_m - σ_m v(x_m) predicted at step m of the ODE (the last step, unless the sampler
stops earlier). With inputs taken as given, ∂x̂0/∂v_s is a number: -σ_m at step m, σ_{s+1} - σ_s before it. So the
gradient of R is Σ_s ⟨c_s ∇R(x̂0), ∂v(x_s)⟩ and each step can be replayed alone; only gradients that also run through
later inputs need the graph of several steps (`live_clean`).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from beholder.config import GuidanceConfig
from beholder.rollouts.engine import Start, VelocityPolicy
from beholder.rollouts.kernels import euler_step, per_sample
from beholder.rollouts.trajectory import Condition, Decisions


@dataclass(frozen=True)
class Path:
    """N samples on their way: the states of the steps that learn, and the clean latents they led to."""

    steps: list[int]
    """Ascending; the last one predicts the image."""
    states: list[Tensor]
    clean_Nx: Tensor


def taught_steps(stop: int, count: int) -> list[int]:
    """``count`` steps spread evenly over 0..stop, ``stop`` among them (DRTune, 2405.00760, §3.2)."""
    count = min(count, stop + 1)
    return sorted({round(stop - i * (stop + 1) / count) for i in range(count)})


@torch.no_grad()
def follow(policy: VelocityPolicy, start: Start, sigmas_T1: Tensor, steps: list[int], guidance: GuidanceConfig) -> Path:
    """Runs the ODE to the last of ``steps`` and predicts the clean latent there."""
    x, states = start.x_Nx.float(), []
    for step in range(steps[-1] + 1):
        here, there = _levels(sigmas_T1, step, x)
        if step in steps:
            states.append(x)
        v = policy.velocity(x, here, start.condition, start.unconditional, guidance)
        if step == steps[-1]:
            x = x - per_sample(here, x) * v
            break
        x = euler_step(x, v, here, there)
    return Path(steps, states, x)


def coefficient(sigmas_T1: Tensor, step: int, stop: int) -> float:
    """∂x̂0/∂v of ``step`` with inputs taken as given."""
    return -sigmas_T1[step].item() if step == stop else (sigmas_T1[step + 1] - sigmas_T1[step]).item()


def directions(path: Path, sigmas_T1: Tensor, gradient_Nx: Tensor) -> tuple[Decisions, Tensor]:
    """The steps that learn as decisions whose evidence is ⟨c_s ∇R, v(x_s)⟩, and ``decision_NS``.

    Scaled by their number, so that the mean over decisions is the mean over samples of the sum over steps.
    """
    stop, count, n = path.steps[-1], len(path.steps), len(gradient_Nx)
    parts = [
        direction(x, sigmas_T1[step].item(), count * coefficient(sigmas_T1, step, stop) * gradient_Nx, step, s * n)
        for s, (step, x) in enumerate(zip(path.steps, path.states, strict=True))
    ]
    joined = Decisions(**{name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])})
    return joined, torch.arange(count * n, device=gradient_Nx.device).view(count, n).T


def direction(x_Nx: Tensor, sigma: Tensor | float, w_Nx: Tensor, step: int, first_state: int) -> Decisions:
    """One decision per sample: the state, its noise level, and the direction its velocity is to grow in."""
    numbers = torch.arange(len(x_Nx), device=x_Nx.device)
    sigma_N = torch.as_tensor(sigma, dtype=torch.float32, device=x_Nx.device).expand(len(x_Nx))
    nothing = torch.zeros_like(sigma_N)
    return Decisions(
        step_M=torch.full_like(numbers, step),
        sigma_M=sigma_N,
        sigma_next_M=nothing,
        state_Mx=x_Nx,
        next_Mx=w_Nx,
        logp_old_M=torch.full_like(sigma_N, torch.nan),
        mean_old_Mx=x_Nx.new_zeros(len(x_Nx), 0),
        std_M=torch.ones_like(sigma_N),
        change_M=nothing,
        state_id_M=first_state + numbers,
        sample_M=numbers,
    )


def live_clean(
    policy: VelocityPolicy,
    x: Tensor,
    sigmas_K1: Tensor,
    condition: Condition,
    unconditional: Condition | None,
    guidance: GuidanceConfig,
) -> Tensor:
    """Clean latents from states at ``sigmas_K1[0]``, with the graph of every step; activations are recomputed."""

    def velocity(x: Tensor, sigma_N: Tensor) -> Tensor:
        return policy.velocity(x, sigma_N, condition, unconditional, guidance)

    for i, _ in enumerate(pairwise(sigmas_K1)):
        here, there = _levels(sigmas_K1, i, x)
        v = checkpoint(velocity, x, here, use_reentrant=False)
        assert isinstance(v, Tensor)
        last = i == len(sigmas_K1) - 2
        x = x - per_sample(here, x) * v if last else euler_step(x, v, here, there)
    return x


def _levels(sigmas_T1: Tensor, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
    here, there = (sigmas_T1[i].to(x.device, torch.float32).expand(len(x)) for i in (step, step + 1))
    return here, there
