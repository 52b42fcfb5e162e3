"""The rollout engine: draws samples under a kernel and a step plan, and keeps the trained decisions.

It also scores stored decisions again (`replay`), which is how a policy gradient sees them.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from beholder.config import GuidanceConfig, KernelConfig
from beholder.rollouts.kernels import Transition, euler_step, transition
from beholder.rollouts.plans import StepPlan
from beholder.rollouts.trajectory import Condition, Decisions, Trajectory


class VelocityPolicy(Protocol):
    """What the engine needs of a policy; the real one is `beholder.policies.Policy`."""

    def velocity(
        self,
        x: Tensor,
        sigma_N: Tensor,
        condition: Condition,
        unconditional: Condition | None,
        guidance: GuidanceConfig,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Start:
    """Where samples begin: noise in path coordinates at σ_0, with what it is conditioned on."""

    prompts: list[str]
    group_N: Tensor
    seed_N: Tensor
    x_Nx: Tensor
    condition: Condition
    unconditional: Condition | None


def noise_for(seed_N: Tensor, shape: tuple[int, ...], stream: int) -> Tensor:
    """Standard normal noise ``[N, *shape]``, a function of each sample's seed and the ``stream`` alone.

    So a sample is the same whatever the batch, the device count or the sharding it is drawn in. Philox keeps all bits
    of (seed, stream) apart; torch's CPU generator takes the low 32 bits of its seed only.
    """
    keys = [np.random.Philox(key=seed % 2**64 + (stream << 64)) for seed in seed_N.tolist()]
    rows = [np.random.Generator(key).standard_normal(shape, dtype=np.float32) for key in keys]
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def rollout(
    policy: VelocityPolicy,
    start: Start,
    sigmas_T1: Tensor,
    plan: StepPlan,
    kernel: KernelConfig,
    guidance: GuidanceConfig,
) -> Trajectory:
    """Draws ``len(start.prompts)`` samples along ``sigmas_T1`` (descending, ``[T+1]``).

    Stochastic steps of the plan use ``kernel``, the others the ODE. The step noise is a function of the sample's
    seed and the step. Trained decisions are stored in float32 with their log-density.
    """
    n, k = plan.trained_NK.shape
    x = start.x_Nx.float()
    device, trained = x.device, plan.trained_NK.to(x.device)
    state_NKx, next_NKx = x.new_zeros(n, k, *x.shape[1:]), x.new_zeros(n, k, *x.shape[1:])
    logp_NK, std_NK = x.new_zeros(n, k), x.new_zeros(n, k)
    for step in range(len(sigmas_T1) - 1):
        here, there = (sigmas_T1[i].to(device, torch.float32).expand(n) for i in (step, step + 1))
        v = policy.velocity(x, here, start.condition, start.unconditional, guidance)
        if not plan.stochastic_T[step]:
            x = euler_step(x, v, here, there)
            continue
        move = transition(kernel, x, v, here, there)
        x_next = move.sample(noise_for(start.seed_N, tuple(x.shape[1:]), step + 1).to(device))
        rows, columns = (trained == step).nonzero(as_tuple=True)
        if len(rows):
            state_NKx[rows, columns], next_NKx[rows, columns] = x[rows], x_next[rows]
            logp_NK[rows, columns] = move.log_prob_sum(x_next)[rows].float()
            std_NK[rows, columns] = move.std[rows].float()
        x = x_next
    branches = 1 if start.unconditional is None else 2
    sigmas = sigmas_T1.to(device, torch.float32)
    return Trajectory(
        prompts=start.prompts,
        group_N=start.group_N,
        seed_N=start.seed_N,
        step_NK=trained,
        sigma_NK=sigmas[trained],
        sigma_next_NK=sigmas[trained + 1],
        state_NKx=state_NKx,
        next_NKx=next_NKx,
        logp_old_NK=logp_NK,
        std_NK=std_NK,
        final_Nx=x,
        condition=start.condition,
        unconditional=start.unconditional,
        kernel=kernel,
        guidance=guidance,
        network_evaluations=n * (len(sigmas_T1) - 1) * branches,
    )


@dataclass(frozen=True)
class Replay:
    """M decisions scored by the present policy."""

    transition: Transition
    velocity: Tensor
    logp_M: Tensor


def replay(policy: VelocityPolicy, decisions: Decisions) -> Replay:
    """Scores stored decisions under the present policy, with gradient."""
    d = decisions
    v = policy.velocity(d.state_Mx, d.sigma_M, d.condition, d.unconditional, d.guidance)
    move = transition(d.kernel, d.state_Mx, v, d.sigma_M, d.sigma_next_M)
    return Replay(move, v, move.log_prob_sum(d.next_Mx))


@torch.no_grad()
def sample_ode(policy: VelocityPolicy, start: Start, sigmas_T1: Tensor, guidance: GuidanceConfig) -> Tensor:
    """Deterministic sampling: the final latents in path coordinates, ``[N, ...]``."""
    x = start.x_Nx.float()
    for here, there in pairwise(sigmas_T1):
        sigma, sigma_next = here.float().expand(len(x)).to(x.device), there.float().expand(len(x)).to(x.device)
        v = policy.velocity(x, sigma, start.condition, start.unconditional, guidance)
        x = euler_step(x, v, sigma, sigma_next)
    return x
