"""Step plans: which steps of which sample are stochastic, which are trained, and where samples branch.

A plan is data; the engine obeys it and knows no method's name. Samples that make the same draws from the same start
are one sample until their draws differ, so branching, shared noise and trunks are all the same thing: equal rows.

Names: T steps, S starts (initial noises), L samples grown from one start, N = S·L samples.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beholder.config import BranchConfig, PlanConfig, ProbeConfig, RolloutConfig
from beholder.errors import InputError

WINDOWS = ("window", "random_window", "moving_window")
ODE = -1
"""The number of the draw where none is made."""


@dataclass(frozen=True)
class StepPlan:
    start_N: Tensor
    """int64: number of the sample's start, counted over all prompts; ``rollout.group`` starts belong to a prompt."""
    draw_NT: Tensor
    """int64: `ODE`, or which of the draws made in the same state this sample follows, from 0."""
    trained_NT: Tensor
    """bool: the decisions that are trained, all of them stochastic."""
    probe_N: Tensor
    """int64: -1 for a sample; otherwise the sample only measures the value of its start's state at that step."""

    def __len__(self) -> int:
        return len(self.start_N)

    def select(self, rows: Tensor) -> "StepPlan":
        return StepPlan(self.start_N[rows], self.draw_NT[rows], self.trained_NT[rows], self.probe_N[rows])

    def without(self, first: int) -> "StepPlan":
        """The plan of the same samples begun ``first`` steps later; probes of earlier states measure the first one."""
        probe_N = torch.where(self.probe_N < 0, -1, (self.probe_N - first).clamp_min(0))
        return replace(self, draw_NT=self.draw_NT[:, first:], trained_NT=self.trained_NT[:, first:], probe_N=probe_N)


def draw_plan(
    config: RolloutConfig, trainable_T: Tensor, prompts: int, iteration: int, generator: torch.Generator
) -> StepPlan:
    """The plan of one iteration for ``prompts`` prompts; samples are sorted by prompt and start.

    ``trainable_T`` bool [T] says which steps have a density worth training (`kernels.trainable_steps`).
    ``iteration`` counts from 0 and moves windows; ``generator`` draws random ones. InputError when nothing is left.
    """
    starts = prompts * config.group
    stochastic_T, trained_ST = choose_steps(config.plan, trainable_T, prompts, config.group, iteration, generator)
    draw_LT, trained_LT = grow(config.branch, stochastic_T, trained_ST.any(0))
    probe_L = torch.full((len(draw_LT),), -1)
    if config.probe.kind != "none":
        draw_LT, trained_LT, probe_L = add_probes(config.probe, draw_LT, trained_LT, trained_ST.any(0))
    leaves = len(draw_LT)
    start_N = torch.arange(starts).repeat_interleave(leaves)
    draw_NT, trained_NT = draw_LT.repeat(starts, 1), trained_LT.repeat(starts, 1) & trained_ST[start_N]
    if config.shared_noise:  # starts of one prompt are one state: their draws must differ to be different samples
        span = int(draw_LT.max()) + 1
        draw_NT = torch.where(draw_NT == ODE, ODE, draw_NT + span * (start_N % config.group)[:, None])
    return StepPlan(start_N, draw_NT, trained_NT, probe_L.repeat(starts))


def ode_plan(config: RolloutConfig, prompts: int) -> StepPlan:
    """Every sample by the ODE alone, with nothing to train on its path."""
    starts = prompts * config.group
    nowhere = torch.zeros(starts, config.steps, dtype=torch.bool)
    return StepPlan(
        torch.arange(starts), torch.full_like(nowhere, ODE, dtype=torch.int64), nowhere, -torch.ones(starts).long()
    )


def samples_per_start(config: RolloutConfig, trained_steps: int) -> int:
    """How many samples grow from one start, probes apart; ``trained_steps`` matters for spurs and ladders only."""
    branch = config.branch
    if branch.kind == "tree":
        return branch.width ** len(branch.steps)
    return {"none": 1, "fan": branch.width}.get(branch.kind, branch.width * trained_steps)


# ------------------------------------------------------------------------------------------------- which steps


def choose_steps(
    config: PlanConfig, trainable_T: Tensor, prompts: int, group: int, iteration: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """``(stochastic_T, trained_ST)``, both bool; ``group`` starts for each of the prompts."""
    steps = len(trainable_T)
    everywhere = torch.ones(steps, dtype=torch.bool)
    if config.last == "ode":
        everywhere[-1] = False
        trainable_T = trainable_T & everywhere
    if config.kind == "random":
        return everywhere, _random_per_start(config, trainable_T, int(everywhere.sum()), prompts * group, generator)
    if config.kind == "geometric" and trainable_T.any():
        return everywhere, _geometric(config, trainable_T, prompts, generator).repeat_interleave(group, 0)
    if config.kind in ("all", "prefix", "geometric"):
        chosen = range(int(config.fraction * steps) if config.kind == "prefix" else steps)
    elif config.kind == "suffix":
        chosen = range(steps - suffix_length(config, steps, iteration), steps)
    else:
        chosen = window(config, trainable_T, iteration, generator)
    trained = torch.zeros(steps, dtype=torch.bool)
    trained[list(chosen)] = True
    trained &= trainable_T
    if not trained.any():
        raise InputError(
            f"rollout.plan: kind {config.kind!r} leaves no trainable step of {steps} "
            f"(trainable: {trainable_T.nonzero().flatten().tolist()}); widen the plan or lower rollout.kernel.min_std"
        )
    ode_outside = config.kind in WINDOWS and config.outside == "ode"
    return trained if ode_outside else everywhere, trained.expand(prompts * group, -1)


def _random_per_start(
    config: PlanConfig, trainable_T: Tensor, stochastic: int, starts: int, generator: torch.Generator
) -> Tensor:
    """DanceGRPO: each sample trains its own random share of the ``stochastic`` steps."""
    candidates = trainable_T.nonzero().flatten()
    k = min(int(config.fraction * stochastic), len(candidates))
    if k < 1:
        raise InputError(f"rollout.plan.fraction: {config.fraction} of {stochastic} steps is no step; raise it")
    order = torch.rand(starts, len(candidates), generator=generator).argsort(1)[:, :k]
    return torch.zeros(starts, len(trainable_T), dtype=torch.bool).scatter(1, candidates[order], True)


def _geometric(config: PlanConfig, trainable_T: Tensor, prompts: int, generator: torch.Generator) -> Tensor:
    """Dense Reward View (2402.08265, §3): step t is drawn in proportion to decay^t, the same steps for the samples of a
    prompt, which are compared; here without repetition. Bool [prompts, T]."""
    candidates = trainable_T.nonzero().flatten()
    chance = (config.decay ** candidates.double()).expand(prompts, -1)
    chosen = torch.multinomial(chance, min(config.size, len(candidates)), generator=generator)
    return torch.zeros(prompts, len(trainable_T), dtype=torch.bool).scatter(1, candidates[chosen], True)


def suffix_length(config: PlanConfig, steps: int, iteration: int) -> int:
    """B²-DiffuRL's backward progress: ``size`` last steps at first, all of them by iteration ``every``."""
    grown = (steps - config.size + 1) * min(iteration, config.every) // config.every
    return min(steps, config.size + grown)


def window(config: PlanConfig, trainable_T: Tensor, iteration: int, generator: torch.Generator) -> range:
    """The steps of this iteration's window; one that moves turns back where nothing is left to train."""
    steps = len(trainable_T)
    if config.kind != "window" and bool(trainable_T.any()):
        reach = max(int(trainable_T.nonzero().max()) + 1, config.start + config.size)
        config = replace(config, stop=min(steps - 1 if config.stop is None else config.stop, reach))
    places = window_places(config, steps)
    first = config.start
    if config.kind == "random_window":
        first += int(torch.randint(places, (), generator=generator))
    elif config.kind == "moving_window":
        first += window_position(config, places, iteration)
    return range(first, first + config.size)


def window_position(config: PlanConfig, places: int, iteration: int) -> int:
    """Where a moving window stands, 0 .. places - 1 (MixGRPO 2507.21802, §3.2).

    The released code lets its window shrink past the end and then trains nothing for a while; ours rolls back.
    """
    positions = range(0, places, config.stride) if config.stride else range(1)
    stays = [stay(config, position, places) for position in positions]
    left = iteration % sum(stays)
    for position, iterations in zip(positions, stays, strict=True):
        if left < iterations:
            return position
        left -= iterations
    raise AssertionError("unreachable")


def stay(config: PlanConfig, position: int, places: int) -> int:
    """Iterations a moving window stays at a position: constant, or fewer towards the end (MixGRPO's two decays)."""
    if config.pace == "decay":
        last = places + config.size - 1
        return max(1, int(config.every - (config.every - 1) * position / last))
    if config.pace == "exp_decay":
        return math.ceil(config.every * math.exp(-0.1 * max(0, position - 13)))
    return config.every


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


# ------------------------------------------------------------------------------------------------- which branches


def grow(config: BranchConfig, stochastic_T: Tensor, chosen_T: Tensor) -> tuple[Tensor, Tensor]:
    """``(draw_LT, may_train_LT)`` of the samples grown from one start.

    none: one sample. fan: ``width`` samples that part at the first chosen step (B²-DiffuRL). tree: every sample splits
    into ``width`` at each of ``steps`` (BranchGRPO). spurs: an ODE trunk that at each chosen step sends out ``width``
    samples, each of one stochastic step and the ODE after it (TempFlow-GRPO). ladder: the same, but the trunk goes on
    through one of the samples it sent out (SPO): its first, which is as random as any.
    """
    steps, chosen = len(stochastic_T), chosen_T.nonzero().flatten().tolist()
    one = torch.where(stochastic_T, 0, ODE)
    if config.kind == "none":
        return one[None], chosen_T[None]
    if config.kind == "fan":
        later = torch.arange(steps) >= chosen[0]
        branch_L = torch.arange(config.width)[:, None]
        return torch.where(later & stochastic_T, branch_L, one), (later & chosen_T).expand(config.width, -1)
    if config.kind in ("spurs", "ladder"):
        draw = torch.full((len(chosen), config.width, steps), ODE)
        trained = torch.zeros(len(chosen), config.width, steps, dtype=torch.bool)
        for i, step in enumerate(chosen):
            draw[i, :, step], trained[i, :, step] = torch.arange(config.width), True
            if config.kind == "ladder":
                draw[i, :, chosen[:i]] = 0
        return draw.flatten(0, 1), trained.flatten(0, 1)
    leaves = config.width ** len(config.steps)
    draw_LT = one.repeat(leaves, 1)
    for i, step in enumerate(config.steps):
        draw_LT[:, step] = torch.arange(leaves) // config.width ** (len(config.steps) - 1 - i) % config.width
    return draw_LT, chosen_T.expand(leaves, -1)


def add_probes(
    config: ProbeConfig, draw_LT: Tensor, trained_LT: Tensor, chosen_T: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples that only measure values: the ODE from the start (greedy), or fresh continuations (vine).

    greedy: ReMax (2310.10505), V(s_0) is the reward of the deterministic sample from the same noise. vine: VinePPO
    (2410.01679), V(s_k) is the mean over ``config.samples`` continuations drawn from the state before each decision.
    """
    if config.kind == "greedy":
        probes, at = torch.full_like(draw_LT[:1], ODE), [0]
    else:
        chosen = chosen_T.nonzero().flatten().tolist()
        at = [step for step in chosen for _ in range(config.samples)]
        probes = draw_LT[:1].repeat(len(at), 1)
        for row, step in enumerate(at):
            fresh = (torch.arange(probes.shape[1]) >= step) & (probes[row] != ODE)
            probes[row, fresh] = 1 + row
    nothing = torch.zeros_like(probes, dtype=torch.bool)
    probe_L = torch.tensor([-1] * len(draw_LT) + at)
    return torch.cat([draw_LT, probes]), torch.cat([trained_LT, nothing]), probe_L


# ------------------------------------------------------------------------------------------------- how long the tail


def compress_tail(sigmas_T1: Tensor, plan: StepPlan, share: float) -> tuple[Tensor, StepPlan]:
    """The schedule and plan with fewer ODE steps after the last stochastic one (MixGRPO-Flash, 2507.21802, §3.3).

    ``int((1 + steps after it) · share)`` noise levels from there to the end, as in the released code, but never fewer
    than the two of one step: its single level does not reach the end. New levels are equally spaced in unshifted time,
    as the old ones were.
    """
    steps = len(sigmas_T1) - 1
    stochastic = (plan.draw_NT != ODE).any(0).nonzero().flatten()
    first = int(stochastic[-1]) + 1 if len(stochastic) else 0
    n = max(1, int((steps - first + 1) * share) - 1)
    if n >= steps - first:
        return sigmas_T1, plan
    places = torch.linspace(first, steps, n + 1, dtype=torch.float64)
    tail = between(sigmas_T1.double(), places)
    kept = torch.cat([sigmas_T1[:first].double(), tail]).to(sigmas_T1.dtype)
    cut = slice(0, first + n)
    return kept, replace(plan, draw_NT=plan.draw_NT[:, cut], trained_NT=plan.trained_NT[:, cut])


def between(sigmas_T1: Tensor, places: Tensor) -> Tensor:
    """Noise levels at fractional step numbers: linear in time t = 1 - place / T, after taking off any timestep shift.

    A shift s multiplies σ/(1-σ) by s, so ``logit σ - logit t`` is interpolated: constant for a shifted schedule.
    """
    steps = len(sigmas_T1) - 1
    whole = torch.arange(1, steps, dtype=torch.float64)
    offset = torch.logit(sigmas_T1[1:-1]) - torch.logit(1 - whole / steps)
    low = places.floor().clamp(1, max(1, steps - 1)).long()
    high = (low + 1).clamp(max=steps - 1)
    share = (places - low).clamp(0, 1)
    shifted = offset[low - 1] * (1 - share) + offset[high - 1] * share
    values = torch.sigmoid(torch.logit(1 - places / steps) + shifted)
    exact = places == places.round()
    return torch.where(exact, sigmas_T1[places.round().long()], values)


def planned_evaluations(plan: StepPlan, sigmas_T1: Tensor, config: RolloutConfig) -> int:
    """Network evaluations a rollout of ``plan`` takes, drawn as one batch: its nodes at every step, times the branches
    of guidance."""
    _, plan = compress_tail(sigmas_T1, plan, config.tail)
    node_N = plan.start_N // config.group if config.shared_noise else plan.start_N
    span, count = int(plan.draw_NT.max()) + 2, 0
    for draw_N in plan.draw_NT.unbind(1):
        _, node_N = node_N.unique(return_inverse=True)
        count += int(node_N.max()) + 1
        node_N = node_N * span + draw_N - ODE
    return count * (1 if config.guidance.scale == 1 else 2)
