"""Step plans: which of the T denoising steps are stochastic, and which of those are trained, by whom.

A plan is data; the engine obeys it and knows no method's name.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.config import PlanConfig
from beholder.errors import InputError


@dataclass(frozen=True)
class StepPlan:
    stochastic_T: Tensor
    """bool [T]: drawn by the stochastic kernel; the others follow the ODE."""
    trained_NK: Tensor
    """int64 [N, K]: ascending indices of each sample's trained steps, all stochastic."""

    def for_samples(self, rows: slice) -> "StepPlan":
        return StepPlan(self.stochastic_T, self.trained_NK[rows])


def draw_plan(config: PlanConfig, trainable_T: Tensor, n: int, iteration: int, generator: torch.Generator) -> StepPlan:
    """The plan of one iteration for ``n`` samples.

    ``trainable_T`` bool [T] says which steps have a density worth training (`kernels.trainable_steps`).
    ``iteration`` counts from 0 and moves windows; ``generator`` draws random ones. InputError when nothing is left.
    """
    steps = len(trainable_T)
    if config.kind == "random":
        return _random_per_sample(config, trainable_T, n, generator)
    if config.kind in ("all", "prefix"):
        last = steps if config.kind == "all" else int(config.fraction * steps)
        stochastic = torch.ones(steps, dtype=torch.bool)
        chosen = [i for i in range(last) if trainable_T[i]]
    else:
        chosen = [i for i in window(config, steps, iteration, generator) if trainable_T[i]]
        stochastic = torch.zeros(steps, dtype=torch.bool)
        stochastic[chosen] = True
    if not chosen:
        raise InputError(
            f"rollout.plan: kind {config.kind!r} leaves no trainable step of {steps} "
            f"(trainable: {trainable_T.nonzero().flatten().tolist()}); widen the plan or lower rollout.kernel.min_std"
        )
    return StepPlan(stochastic, torch.tensor(chosen).expand(n, -1))


def window(config: PlanConfig, steps: int, iteration: int, generator: torch.Generator) -> range:
    """The steps of this iteration's window."""
    places = window_places(config, steps)
    if config.kind == "window":
        first = config.start
    elif config.kind == "random_window":
        first = config.start + int(torch.randint(places, (), generator=generator))
    else:
        # MixGRPO (2507.21802) lets its window shrink past the end and then train nothing for a while; ours rolls back.
        moves = (iteration // config.every) * config.stride
        first = config.start + moves % places
    return range(first, first + config.size)


def window_places(config: PlanConfig, steps: int) -> int:
    """How many places a window has before ``stop`` (default: all but the last step); InputError when it has none."""
    stop = min(config.stop if config.stop is not None else steps - 1, steps)
    places = stop - config.start - config.size + 1
    if places < 1:
        raise InputError(
            f"rollout.plan.size: a window of {config.size} does not fit steps {config.start}..{stop - 1} of "
            f"rollout.steps {steps}; use a smaller size or a wider start..stop"
        )
    return places


def _random_per_sample(config: PlanConfig, trainable_T: Tensor, n: int, generator: torch.Generator) -> StepPlan:
    """DanceGRPO: every step is stochastic, each sample trains its own random share of them."""
    candidates = trainable_T.nonzero().flatten()
    k = min(int(config.fraction * len(trainable_T)), len(candidates))
    if k < 1:
        raise InputError(f"rollout.plan.fraction: {config.fraction} of {len(trainable_T)} steps is no step; raise it")
    order = torch.rand(n, len(candidates), generator=generator).argsort(1)[:, :k]
    return StepPlan(torch.ones(len(trainable_T), dtype=torch.bool), candidates[order].sort(1).values)
