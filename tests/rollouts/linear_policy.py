"""A policy whose velocity is a known function, and rollouts with it; what the tests of the engine share."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from beholder.config import GuidanceConfig, KernelConfig, PlanConfig, RolloutConfig
from beholder.rollouts.engine import Start, noise_for, rollout
from beholder.rollouts.kernels import trainable_steps
from beholder.rollouts.plans import ODE, StepPlan, draw_plan
from beholder.rollouts.trajectory import Condition, Trajectory

SHAPE = (2, 3)
SIGMAS = torch.tensor([1.0, 0.9, 0.75, 0.5, 0.25, 0.0]).double()
STEPS = len(SIGMAS) - 1
KERNELS = (
    KernelConfig(kind="flow_sde", level=0.7),
    KernelConfig(kind="dance_sde", level=0.3),
    KernelConfig(kind="cps", level=0.8),
    KernelConfig(kind="cps", level=0.8, log_prob="unweighted"),
    KernelConfig(kind="ddim", level=1.0),
    KernelConfig(kind="ddim", level=0.5),
)
PREFIX = PlanConfig(kind="prefix", fraction=0.8)
EVERY_STEP = PlanConfig(kind="all")


@dataclass
class LinearPolicy:
    """v = (1 - σ) x / 2 - target, guided; remembers what it was called with."""

    calls: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def velocity(
        self,
        x: Tensor,
        sigma_N: Tensor,
        condition: Condition,
        unconditional: Condition | None,
        guidance: GuidanceConfig,
    ) -> Tensor:
        self.calls.append((x, sigma_N))
        v_c = self.branch(x, sigma_N, condition)
        if unconditional is None:
            return v_c
        v_u = self.branch(x, sigma_N, unconditional)
        return v_u + guidance.scale * (v_c - v_u)

    def branch(self, x: Tensor, sigma_N: Tensor, condition: Condition) -> Tensor:
        return (1 - sigma_N).view(-1, 1, 1) * x / 2 - condition.tensors["target"].view(-1, 1, 1)

    @property
    def widths(self) -> list[int]:
        """Samples in each call."""
        return [len(x) for x, _ in self.calls]


def asked(**settings: Any) -> RolloutConfig:
    """Three prompts of two starts each over `SIGMAS`, changed by ``settings``."""
    plain = RolloutConfig(steps=STEPS, prompts=3, group=2, kernel=KERNELS[0], plan=PREFIX)
    return replace(plain, **settings)


def plan_for(config: RolloutConfig, sigmas: Tensor = SIGMAS, iteration: int = 0) -> StepPlan:
    trainable = trainable_steps(config.kernel, sigmas)
    return draw_plan(config, trainable, config.prompts, iteration, torch.Generator().manual_seed(5))


def begin(config: RolloutConfig, plan: StepPlan, merge: bool = True) -> Start:
    """The starts of a plan; every start has its own target, and its own noise where it is not shared.

    ``merge`` False gives every sample its own number, so that the engine draws each of them alone.
    """
    group_N = plan.start_N // config.group
    origin_N = group_N if config.shared_noise else plan.start_N
    target = torch.linspace(-1, 1, 1 + int(origin_N.max()))[origin_N]
    return Start(
        prompts=[f"prompt {i}" for i in group_N.tolist()],
        group_N=group_N,
        seed_N=1000 + torch.arange(len(plan)),
        origin_N=origin_N if merge else torch.arange(len(plan)),
        x_Nx=noise_for(origin_N, SHAPE, 0),
        condition=Condition({"target": target}),
        unconditional=Condition({"target": target / 5}) if config.guidance.scale != 1 else None,
    )


def drawn(
    config: RolloutConfig, policy: LinearPolicy | None = None, sigmas: Tensor = SIGMAS, **keep: bool
) -> Trajectory:
    plan = plan_for(config, sigmas)
    return rollout(policy or LinearPolicy(), begin(config, plan), sigmas, plan, config, **keep)


def ode_but(row: int, step: int, rows: int, steps: int = STEPS) -> StepPlan:
    """``rows`` samples of as many starts that follow the ODE, but for one trained step of one of them."""
    draw_NT = torch.full((rows, steps), ODE)
    draw_NT[row, step] = 0
    return StepPlan(torch.arange(rows), draw_NT, draw_NT != ODE, torch.full((rows,), -1))


def taken(trajectory: Trajectory) -> list[tuple[int, int, int]]:
    """``(sample, step, decision)`` of every trained step of every sample."""
    rows, steps = (trajectory.decision_NT >= 0).nonzero(as_tuple=True)
    return list(zip(rows.tolist(), steps.tolist(), trajectory.decision_NT[rows, steps].tolist(), strict=True))


def per_sample_step(trajectory: Trajectory, name: str) -> Tensor:
    """A field of the decisions as ``[N·T taken, ...]``: by sample, then step, whatever their own order."""
    return getattr(trajectory.decisions, name)[trajectory.decision_NT[trajectory.decision_NT >= 0]]
