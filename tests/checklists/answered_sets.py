"""Preference sets with checklist answers whose truth is known."""

from pathlib import Path

import numpy as np
from scipy.special import expit

from beholder.judges.checklist import Checklist, Question
from beholder.preferences.schema import Medium, Record
from beholder.preferences.store import write_preferences

WEIGHTS = {"right": 2.0, "bright": 1.0, "idle": 0.0, "smile": 1.5}
"""What people care for."""


def portraits() -> Checklist:
    """Four questions, one of which applies only where there is a face."""
    return Checklist(
        name="portraits",
        media="image",
        coding="binary",
        questions=(
            Question("right", 'Does it show "[[prompt]]"?', "alignment", weight=1.0),
            Question("bright", "Is it bright?", "beauty"),
            Question("idle", "Is it idle?", "beauty"),
            Question("face", "Is there a face?", "content"),
            Question("smile", "Does the face smile?", "content", only_if="face"),
        ),
    )


def answered_records(n: int, seed: int = 0, ties: float = 0.0) -> list[Record]:
    """Pairs of pictures (of which only the names matter), judged by the logistic model; a share of them ties."""
    rng, records = np.random.default_rng(seed), []
    for i in range(n):
        answers = {name: rng.integers(0, 2, 2).astype(float) for name in ("right", "bright", "idle", "face", "smile")}
        counted = {**answers, "smile": answers["smile"] * answers["face"]}
        gap = sum(weight * (counted[name][0] - counted[name][1]) for name, weight in WEIGHTS.items())
        first = rng.random() < expit(gap)
        ranks = (1.0, 1.0) if rng.random() < ties else (1.0, 2.0) if first else (2.0, 1.0)
        records.append(
            Record(
                prompt=f"prompt {i // 2}",
                media=(Medium(path=f"{i}a.png"), Medium(path=f"{i}b.png")),
                ranks=ranks,
                answers={name: tuple(value.tolist()) for name, value in answers.items()},
            )
        )
    return records


def answered_set(path: Path, n: int, seed: int = 0, ties: float = 0.0) -> Path:
    """They as a set on disk."""
    write_preferences(path, answered_records(n, seed, ties))
    return path
