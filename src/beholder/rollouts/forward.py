"""Evidence from the forward process: how well the policy denoises its own clean samples, at random noise levels.

x_t = (1-t) x0 + t ε, target u = ε - x0, error ℓ = mean_D (v(x_t, t) - u)². Any sampler may have drawn x0, and nothing
of its path is kept. A decision is one (sample, t, ε); its evidence ψ = D · e(ℓ, t) stands where a transition's
log-density stands, so every objective that sees ψ and ψ_old alone works on it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from beholder.config import ForwardConfig
from beholder.rollouts.engine import VelocityPolicy, denoising_error, noise_for
from beholder.rollouts.kernels import denoising_evidence, per_sample
from beholder.rollouts.trajectory import Decisions, Trajectory

NOISE_STREAM = 1 << 20
"""Far from the streams of the rollout's steps."""


def draw_times(config: ForwardConfig, sigmas_T1: Tensor, key_N: Tensor) -> Tensor:
    """Noise levels ``[N, J]``, a function of each row's key: equal keys get equal times.

    schedule: the sampler's own levels except the lowest share, in random order and without repetition while they last;
    uniform: in (0, 1); logit_normal: sigmoid of a standard normal.
    """
    normal_NJ = noise_for(key_N, (config.times,), NOISE_STREAM - 1).double()
    if config.time == "logit_normal":
        return torch.sigmoid(normal_NJ).float()
    uniform_NJ = torch.special.ndtr(normal_NJ)
    if config.time == "uniform":
        return uniform_NJ.float().clamp(1e-3, 1 - 1e-3)
    levels = sigmas_T1[: max(1, int((len(sigmas_T1) - 1) * config.fraction))].float()
    order_NT = noise_for(key_N, (len(levels),), NOISE_STREAM - 2).argsort(1)
    return levels[order_NT[:, torch.arange(config.times) % len(levels)]]


@torch.no_grad()
def with_forward_decisions(
    policy: VelocityPolicy,
    trajectory: Trajectory,
    config: ForwardConfig,
    sigmas_T1: Tensor,
    batch: int,
    key_N: Tensor,
    old: bool = True,
) -> Trajectory:
    """The trajectory with ``config.times`` forward decisions per sample in the place of its transitions.

    ``policy`` is the one that drew the samples: its velocities are kept as the old ones where ``old``, which costs a
    network evaluation each; else ψ_old is NaN. Samples of equal ``key_N`` (int64) get the same noise levels and the
    same noise, whatever the batch: their own seed, or one per prompt.
    """
    x0, n, j = trajectory.final_Nx, len(trajectory), config.times
    t_NJ = draw_times(config, sigmas_T1, key_N).to(x0.device)
    parts = []
    for k in range(j):
        noise = noise_for(key_N, tuple(x0.shape[1:]), NOISE_STREAM + k).to(x0.device)
        t = t_NJ[:, k]
        if config.inversion:
            noise = inverted(policy, trajectory, t, config, key_N, NOISE_STREAM + (k + 1) * 4096, batch)
        state, target = x0 * per_sample(1 - t, x0) + noise * per_sample(t, x0), noise - x0
        velocity, logp = state.new_zeros(n, 0), torch.full_like(t, torch.nan)
        if old:
            velocity = _velocities(policy, trajectory, state, t, batch)
            error = denoising_error(trajectory, torch.arange(n, device=x0.device), velocity, target)
            logp = denoising_evidence(config.weight, error, t) * trajectory.n_dims
        numbers = torch.arange(n, device=x0.device)
        parts.append(
            Decisions(
                step_M=torch.full_like(numbers, k),
                sigma_M=t,
                sigma_next_M=torch.zeros_like(t),
                state_Mx=state,
                next_Mx=target,
                logp_old_M=logp,
                mean_old_Mx=velocity,
                std_M=torch.ones_like(t),
                change_M=torch.zeros_like(t),
                state_id_M=numbers + k * n,
                sample_M=numbers,
            )
        )
    decisions = Decisions(**{name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])})
    decision_NT = torch.arange(n, device=x0.device)[:, None] + n * torch.arange(j, device=x0.device)
    return trajectory.with_decisions(decisions, decision_NT, config, len(decisions) if old else 0)


def inverted(
    policy: VelocityPolicy,
    trajectory: Trajectory,
    t: Tensor,
    config: ForwardConfig,
    key_N: Tensor,
    stream: int,
    batch: int,
) -> Tensor:
    """The noise that the policy itself would start from to come by the sample at level ``t`` (InPO, 2503.18454, §3.2).

    DDIM inversion on the straight path: at each of ``config.inversion`` levels up to t, the velocity at that level
    splits the state into image and noise, of which ``config.eta`` is drawn anew. Without guidance.
    """
    x, before = trajectory.final_Nx, torch.zeros_like(t)
    noise = torch.zeros_like(x)
    for i in range(1, config.inversion + 1):
        level = t * i / config.inversion
        v = _velocities(policy, replace(trajectory, unconditional=None), x, level, batch)
        noise = x + per_sample(1 - before, x) * v
        clean = x - per_sample(before, x) * v
        fresh = noise_for(key_N, tuple(x.shape[1:]), stream + i).to(x.device)
        noise = (1 - config.eta**2) ** 0.5 * noise + config.eta * fresh
        x, before = clean * per_sample(1 - level, x) + noise * per_sample(level, x), level
    # what the state at t says of the noise, given the image it must be of
    return (x - trajectory.final_Nx * per_sample(1 - t, x)) / per_sample(t, x)


def _velocities(policy: VelocityPolicy, trajectory: Trajectory, state: Tensor, t: Tensor, batch: int) -> Tensor:
    parts = [slice(i, i + batch) for i in range(0, len(state), batch)]
    unconditional = trajectory.unconditional
    return torch.cat(
        [
            policy.velocity(
                state[part],
                t[part],
                trajectory.condition.select(part),
                None if unconditional is None else unconditional.select(part),
                trajectory.guidance,
            )
            for part in parts
        ]
    )
