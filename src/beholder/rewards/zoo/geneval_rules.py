"""Whether detected objects are what a GenEval prompt asks (2310.11513), and how nearly (Flow-GRPO, 2505.05470).

Boxes are x1, y1, x2, y2 in pixels, y downwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from beholder.rewards.zoo.geneval_prompts import Asked, Clause

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
"""Least score of a detection; the second where the tag is counting."""
MOST_OBJECTS = 16
"""Detections of a class that are looked at, the surest first."""
POSITION_THRESHOLD = 0.1
"""Share of the boxes' sizes by which their centres must lie apart before any relation holds."""
MIN_DIRECTION = 0.5
"""Least share of the distance along the axis of a relation."""


@dataclass(frozen=True)
class Detection:
    name: str
    box: tuple[float, float, float, float]
    score: float = 1.0
    mask: np.ndarray | None = None
    """bool [H, W], where the detector has one."""


Detected = Mapping[str, Sequence[Detection]]
"""By class, surest first."""
ColoursOf = Callable[[Sequence[Detection]], Sequence[str]]
"""The colour of each of these objects of one class."""


def select(detections: Sequence[Detection], tag: str) -> dict[str, list[Detection]]:
    """What counts as found: above the threshold, and no more than `MOST_OBJECTS` of a class."""
    least = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    found: dict[str, list[Detection]] = {}
    for one in sorted(detections, key=lambda d: -d.score):
        if one.score > least and len(found.setdefault(one.name, [])) < MOST_OBJECTS:
            found[one.name].append(one)
    return found


def relations(a: Detection, b: Detection) -> set[str]:
    """How a lies to b: with o the offset of the centres and r = max(|o| − 0.1 (size_a + size_b), 0) · sign(o), the
    relations along whose axis r / ‖o‖ exceeds ½; two on a diagonal, none where the boxes are too near."""
    boxes = np.array([a.box, b.box])
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, np.abs(boxes[:, 2:] - boxes[:, :2])
    offset = centres[0] - centres[1]
    revised = np.maximum(np.abs(offset) - POSITION_THRESHOLD * sizes.sum(0), 0) * np.sign(offset)
    if (np.abs(revised) < 1e-3).all():
        return set()
    dx, dy = revised / np.linalg.norm(offset)
    held = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}
    return {relation for relation, share in held.items() if share > MIN_DIRECTION}


def _lies(clause: Clause, found: Sequence[Detection], targets: Sequence[Detection]) -> bool:
    return all(clause.relation in relations(a, b) for a in found for b in targets)


def correct(asked: Asked, detected: Detected, colours_of: ColoursOf) -> bool:
    """GenEval's verdict: every clause holds for the surest ``count`` objects of its class, and nothing excluded is
    there. Other objects do not matter."""
    groups: list[Sequence[Detection] | None] = []
    for clause in asked.include:
        found = detected.get(clause.name, ())[: clause.count]
        holds = len(found) == clause.count
        if holds and clause.colour:
            holds = list(colours_of(found)).count(clause.colour) >= clause.count
        if holds and clause.relation:
            targets = groups[clause.to]
            holds = targets is not None and _lies(clause, found, targets)
        groups.append(found if holds else None)
    return None not in groups and all(len(detected.get(one.name, ())) < one.count for one in asked.exclude)


def graded(asked: Asked, detected: Detected, colours_of: ColoursOf, as_released: bool = True) -> float:
    """Flow-GRPO's reward: the mean of all parts, at most 1, and below 0 for a crowd of the wanted object.

    Each clause gives 1 − |n − found| / n. Where exactly n are found, a colour gives 1 − |n − right| / n more, and a
    relation 1 or 0; where not, a clause with either of them gives one more 0. `exclude` does not count.

    ``as_released`` keeps what the code does and the paper does not say: a relation that does not hold gives 0 and 1, so
    that a pair in the wrong places earns 3/4; else it gives 0, and such a pair earns 2/3.
    """
    parts: list[float] = []
    groups: list[Sequence[Detection] | None] = []
    for clause in asked.include:
        found, n = detected.get(clause.name, ()), clause.count
        parts.append(1 - abs(n - len(found)) / n)
        exact = holds = len(found) == n
        if not exact and (clause.colour or clause.relation):
            parts.append(0.0)
        if exact and clause.colour:
            right = list(colours_of(found)).count(clause.colour)
            holds = right == n
            parts.append(1 - abs(n - right) / n)
        if exact and holds and clause.relation:
            targets = groups[clause.to]
            holds = targets is not None and _lies(clause, found, targets)
            parts += [1.0] if holds else [0.0, 1.0] if as_released and targets is not None else [0.0]
        groups.append(found if holds else None)
    return sum(parts) / len(parts)
