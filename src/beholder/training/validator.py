"""Refuses settings that cannot work before any work is done: the setting, the reason, the nearest valid choice."""

import math
from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any

from beholder.config import LoraConfig, RunConfig
from beholder.errors import InputError
from beholder.rollouts.plans import window_places

POSITIVE = {
    "rollout.steps": lambda c: c.rollout.steps,
    "rollout.prompts": lambda c: c.rollout.prompts,
    "rollout.group": lambda c: c.rollout.group,
    "rollout.batch": lambda c: c.rollout.batch,
    "rollout.plan.size": lambda c: c.rollout.plan.size,
    "rollout.plan.every": lambda c: c.rollout.plan.every,
    "rollout.guidance.scale": lambda c: c.rollout.guidance.scale,
    "credit.clip": lambda c: c.credit.clip,
    "objective.clip_low": lambda c: c.objective.clip_low,
    "objective.clip_high": lambda c: c.objective.clip_high,
    "optimiser.lr": lambda c: c.optimiser.lr,
    "optimiser.max_grad_norm": lambda c: c.optimiser.max_grad_norm,
    "ema.every": lambda c: c.ema.every,
    "loop.iterations": lambda c: c.loop.iterations,
    "loop.updates": lambda c: c.loop.updates,
    "loop.micro_batch": lambda c: c.loop.micro_batch,
    "loop.checkpoint_every": lambda c: c.loop.checkpoint_every,
    "loop.keep": lambda c: c.loop.keep,
    "evaluation.images": lambda c: c.evaluation.images,
    "evaluation.grid": lambda c: c.evaluation.grid,
    "policy.lora.rank": lambda c: c.policy.lora.rank,
    "policy.lora.alpha": lambda c: c.policy.lora.alpha,
}
NOT_NEGATIVE = {
    "seed": lambda c: c.seed,
    "kl.beta": lambda c: c.kl.beta,
    "rollout.kernel.level": lambda c: c.rollout.kernel.level,
    "rollout.kernel.min_std": lambda c: c.rollout.kernel.min_std,
    "rollout.plan.start": lambda c: c.rollout.plan.start,
    "rollout.plan.stride": lambda c: c.rollout.plan.stride,
    "credit.eps": lambda c: c.credit.eps,
    "credit.ddof": lambda c: c.credit.ddof,
    "optimiser.weight_decay": lambda c: c.optimiser.weight_decay,
    "optimiser.warmup": lambda c: c.optimiser.warmup,
    "optimiser.eps": lambda c: c.optimiser.eps,
    "evaluation.every": lambda c: c.evaluation.every,
    "loop.signal_every": lambda c: c.loop.signal_every,
}
OPTIONAL_POSITIVE = {
    "policy.resolution": lambda c: c.policy.resolution,
    "policy.max_sequence_length": lambda c: c.policy.max_sequence_length,
    "rollout.plan.stop": lambda c: c.rollout.plan.stop,
    "loop.minutes": lambda c: c.loop.minutes,
    "evaluation.steps": lambda c: c.evaluation.steps,
    "evaluation.guidance": lambda c: c.evaluation.guidance,
}
BELOW_ONE = {
    "optimiser.beta1": lambda c: c.optimiser.beta1,
    "optimiser.beta2": lambda c: c.optimiser.beta2,
    "ema.decay": lambda c: c.ema.decay,
}


def validate(config: RunConfig, processes: int = 1) -> None:
    """InputError with the first problem found."""
    for problem in problems(config, processes):
        raise InputError(problem)


def problems(config: RunConfig, processes: int = 1) -> Iterable[str]:
    yield from _not_finite(vars(config))
    yield from _ranges(config)
    yield from _combinations(config)
    yield from _shares(config, processes)
    if config.rollout.prompts % processes:
        yield (
            f"rollout.prompts: {config.rollout.prompts} prompts do not divide over {processes} processes; "
            f"use {-(-config.rollout.prompts // processes) * processes}"
        )


def _not_finite(settings: dict[str, Any], prefix: str = "") -> Iterable[str]:
    """Every float, whatever its range, that is infinite or no number."""
    for name, value in settings.items():
        if is_dataclass(value) or isinstance(value, dict):
            yield from _not_finite(value if isinstance(value, dict) else vars(value), f"{prefix}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{prefix}{name}: {value} is not a finite number"


def _ranges(config: RunConfig) -> Iterable[str]:
    for name, read in POSITIVE.items():
        if not read(config) > 0:
            yield f"{name}: {read(config)} must be greater than 0"
    for name, read in NOT_NEGATIVE.items():
        if not read(config) >= 0:
            yield f"{name}: {read(config)} must not be negative"
    for name, read in OPTIONAL_POSITIVE.items():
        if read(config) is not None and not read(config) > 0:
            yield f"{name}: {read(config)} must be greater than 0, or left out"
    for name, read in BELOW_ONE.items():
        if not 0 <= read(config) < 1:
            yield f"{name}: {read(config)} is not in [0, 1); 0 turns the average off"
    if not 0 < config.rollout.plan.fraction <= 1:
        yield f"rollout.plan.fraction: {config.rollout.plan.fraction} is not in (0, 1]"
    if not config.rewards:
        yield "rewards: none given; name one, e.g. --rewards shapes 1.0 or --rewards mymodule:score 1.0"
    if not config.evaluation.rewards:
        yield "evaluation.rewards: none given; name what is measured, e.g. --evaluation.rewards shapes_strict"


def _combinations(config: RunConfig) -> Iterable[str]:
    kernel, rollout, credit = config.rollout.kernel, config.rollout, config.credit
    if kernel.kind == "euler":
        yield (
            "rollout.kernel.kind: 'euler' is deterministic, so its decisions have no density for the policy gradient "
            "of objective; use flow_sde, dance_sde or cps"
        )
    elif kernel.level == 0:
        yield f"rollout.kernel.level: 0 makes {kernel.kind} deterministic: no density for objective; use 0.7"
    if kernel.kind == "cps" and kernel.level > 1:
        yield f"rollout.kernel.level: cps takes a share in (0, 1], got {kernel.level}; use 0.8"
    if kernel.log_prob == "unweighted" and kernel.kind != "cps":
        yield f"rollout.kernel.log_prob: 'unweighted' belongs to kernel cps, not {kernel.kind}; use gaussian"
    if rollout.group == 1 and credit.baseline == "group":
        yield "rollout.group: a group of 1 has no spread for credit.baseline 'group'; use 2 or more, or baseline none"
    elif rollout.group == 1 and credit.scale == "group":
        yield "rollout.group: a group of 1 has no spread for credit.scale 'group'; use 2 or more, or scale batch"
    elif credit.scale == "group" and credit.ddof >= rollout.group:
        yield f"credit.ddof: {credit.ddof} leaves nothing of a group of {rollout.group}; use a larger rollout.group"
    yield from _plan(config)
    if config.policy.adapter is not None and config.policy.lora != LoraConfig():
        yield "policy.lora: policy.adapter brings its own rank, alpha and targets; leave policy.lora out"
    if config.policy.training == "full" and config.policy.dtype != "float32":
        yield f"policy.dtype: policy.training full learns in float32, not {config.policy.dtype}; use float32 or lora"


def _plan(config: RunConfig) -> Iterable[str]:
    plan, steps = config.rollout.plan, config.rollout.steps
    if plan.kind in ("prefix", "random") and int(plan.fraction * steps) < 1:
        yield f"rollout.plan.fraction: {plan.fraction} of rollout.steps {steps} is no step; use a larger one"
    if plan.kind in ("window", "random_window", "moving_window"):
        try:
            window_places(plan, steps)
        except InputError as error:
            yield str(error)


def _shares(config: RunConfig, processes: int) -> Iterable[str]:
    samples = config.rollout.prompts * config.rollout.group // processes
    if config.loop.updates > samples:
        yield (
            f"loop.updates: {config.loop.updates} updates share the {samples} samples of a process "
            "(rollout.prompts x rollout.group / processes); use fewer updates"
        )
