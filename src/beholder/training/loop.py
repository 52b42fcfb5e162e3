"""One iteration, top to bottom: draw a group of samples per prompt, score them, credit their decisions, update.

Names: P prompts, N samples, M trained decisions, R rewards.
"""

import time
from collections.abc import Callable
from typing import Any

from beholder.training.collect import collect
from beholder.training.learner import Learner
from beholder.training.update import update


def iterate(learner: Learner) -> dict[str, Any]:
    """One iteration; the row for `metrics.jsonl`."""
    learner.progress.iteration += 1
    batch = collect(learner)
    stats = update(learner, batch)
    learner.refresh_reference()
    progress, trajectory = learner.progress, batch.trajectory
    progress.samples += len(batch.table.values_NM)
    progress.network_evaluations += learner.everyone_sum(trajectory.network_evaluations)
    return {
        "event": "train",
        "iteration": progress.iteration,
        "optimiser_steps": progress.optimiser_steps,
        "samples": progress.samples,
        "network_evaluations": progress.network_evaluations,
        "reward": batch.table.means() if learner.config.rewards else {},
        **batch.stats,
        **stats,
    }


def timed(action: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    return action(), time.perf_counter() - started
