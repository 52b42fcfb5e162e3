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
from beholder.rollouts.trajectory import Condition, Decisions, Trajectory, first_of_each


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
    origin_N: Tensor | None = None
    """int64: samples with the same number start from the same noise and prompt; None means all differ."""


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
    seed and the step. Trained decisions are stored in float32 with their log-density. Samples of one origin are one
    sample up to and including the network call of the first stochastic step, and are drawn as one (the trunk).
    """
    n, k = plan.trained_NK.shape
    device, trained, steps = start.x_Nx.device, plan.trained_NK.to(start.x_Nx.device), len(sigmas_T1) - 1
    state_NKx = start.x_Nx.new_zeros(n, k, *start.x_Nx.shape[1:], dtype=torch.float32)
    next_NKx = torch.zeros_like(state_NKx)
    logp_NK, std_NK = state_NKx.new_zeros(n, k), state_NKx.new_zeros(n, k)
    origin_N = torch.arange(n) if start.origin_N is None else start.origin_N
    trunk_O, member_N = first_of_each(origin_N)
    fans_out = int(plan.stochastic_T.int().argmax()) if bool(plan.stochastic_T.any()) else steps - 1
    x, now = start.x_Nx.float()[trunk_O], select(start, trunk_O)
    evaluations = 0
    for step in range(steps):
        here, there = (sigmas_T1[i].to(device, torch.float32).expand(len(x)) for i in (step, step + 1))
        v = policy.velocity(x, here, now.condition, now.unconditional, guidance)
        evaluations += len(x) * (1 if now.unconditional is None else 2)
        if step == fans_out:
            x, v, now, here, there = x[member_N], v[member_N], start, here[:1].expand(n), there[:1].expand(n)
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
    sigmas = sigmas_T1.to(device, torch.float32)
    return Trajectory(
        prompts=start.prompts,
        group_N=start.group_N,
        seed_N=start.seed_N,
        origin_N=member_N,
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
        fans_out=fans_out,
        network_evaluations=evaluations,
    )


def select(start: Start, row_O: Tensor) -> Start:
    """The starts of the rows ``row_O``."""
    return Start(
        prompts=[start.prompts[i] for i in row_O.tolist()],
        group_N=start.group_N[row_O],
        seed_N=start.seed_N[row_O],
        x_Nx=start.x_Nx[row_O],
        condition=start.condition.select(row_O),
        unconditional=None if start.unconditional is None else start.unconditional.select(row_O),
    )


@dataclass(frozen=True)
class Replay:
    """M decisions scored by the present policy."""

    transition: Transition
    velocity: Tensor
    logp_M: Tensor


def replay(policy: VelocityPolicy, decisions: Decisions) -> Replay:
    """Scores stored decisions under the present policy, with gradient; equal states share one network call."""
    d = decisions
    row_U, member_M = first_of_each(d.state_id_M)
    unconditional = None if d.unconditional is None else d.unconditional.select(row_U)
    v = policy.velocity(d.state_Mx[row_U], d.sigma_M[row_U], d.condition.select(row_U), unconditional, d.guidance)
    v = v[member_M]
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
