"""Runs of seconds on the tiny pipelines: their configuration, in Python and as command-line options.

Only what makes a method is taken from its preset, so that tests do not move when presets are tuned.
"""

from dataclasses import replace
from pathlib import Path

from beholder.config import (
    EMAConfig,
    EvaluationConfig,
    LoopConfig,
    ObjectiveConfig,
    OptimiserConfig,
    PlanConfig,
    PolicyConfig,
    RolloutConfig,
    RunConfig,
)
from beholder.methods import find_method

TEXT_TOKENS = 16


def small_run(
    folder: Path, output: Path, method: str = "flow-grpo-fast", *, iterations: int = 2, rewards: str = "redness"
) -> RunConfig:
    """The method on the pipeline in ``folder`` with 2 prompts × 4 samples × 4 steps, adapters and an average."""
    preset = find_method(method).preset("shapes")
    fast = PlanConfig(kind="random_window", size=2, stop=3)
    return replace(
        preset,
        rewards={rewards: 1.0},
        output=str(output),
        policy=PolicyConfig(model=str(folder), max_sequence_length=TEXT_TOKENS),
        rollout=RolloutConfig(
            steps=4,
            prompts=2,
            group=4,
            batch=8,
            kernel=replace(preset.rollout.kernel, min_std=1e-3),
            plan=fast if method == "flow-grpo-fast" else PlanConfig(kind="prefix"),
        ),
        objective=ObjectiveConfig(clip_low=1e-2, clip_high=1e-2),
        optimiser=OptimiserConfig(lr=1e-3),
        ema=EMAConfig(decay=0.9),
        loop=LoopConfig(iterations=iterations, updates=2, micro_batch=8, checkpoint_every=1, signal_every=1),
        evaluation=EvaluationConfig(every=2, images=6, rewards=(rewards,), grid=6),
    )


def small_options(folder: Path, output: Path, *more: str, iterations: int = 2) -> list[str]:
    """What follows `beholder align METHOD` for a run of the same size, without the average."""
    return [
        *("--preset", "shapes", "--policy.model", str(folder), "--policy.max-sequence-length", str(TEXT_TOKENS)),
        *("--policy.training", "lora", "--ema.decay", "0", "--optimiser.lr", "0.001"),
        *("--rewards", "redness", "1.0", "--evaluation.rewards", "redness", "--evaluation.images", "6"),
        *("--evaluation.grid", "6", "--evaluation.every", "2", "--evaluation.steps", "4"),
        *("--rollout.steps", "4", "--rollout.prompts", "2", "--rollout.group", "4", "--rollout.batch", "8"),
        *("--rollout.no-shared-noise", "--rollout.plan.size", "1", "--rollout.plan.stop", "2"),
        *("--loop.iterations", str(iterations), "--loop.micro-batch", "8", "--loop.checkpoint-every", "1"),
        *("--output", str(output), *more),
    ]
