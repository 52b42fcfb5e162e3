"""Exact answers to a checklist about pictures of the world: what verifier and quality measures say, as yes or no.

The questions' words are in ``judges/checklists/shapes-details.yaml``; here are their truths, by id.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from beholder.worlds.shapes.detect import Found, detect
from beholder.worlds.shapes.prompts import Prompt, Wanted, relation_holds
from beholder.worlds.shapes.quality import noise_variance, quality
from beholder.worlds.shapes.scenes import SIZE
from beholder.worlds.shapes.verifier import grade


@dataclass(frozen=True)
class Seen:
    """A picture, as far as answers go."""

    found: list[Found]
    quality: dict[str, float]
    noise: float
    """Standard deviation of its grain."""

    @property
    def shapes(self) -> list[Found]:
        return [f for f in self.found if f.shape is not None]


def look(image_3HW: np.ndarray) -> Seen:
    """What there is to know about one finite image in 0..1."""
    measured = {name: float(value[0]) for name, value in quality(image_3HW[None]).items()}
    return Seen(detect(image_3HW), measured, noise_variance(np.asarray(image_3HW, np.float32)) ** 0.5)


ABOUT_PICTURES: dict[str, Callable[[Seen], bool]] = {
    "something": lambda s: bool(s.shapes),
    "recognisable": lambda s: len(s.shapes) == len(s.found) > 0,
    "one-colour": lambda s: all(f.purity >= 0.97 for f in s.found),
    "not-broken": lambda s: s.quality["completeness"] >= 0.85,
    "whole": lambda s: s.quality["completeness"] >= 0.92,
    "not-blurry": lambda s: s.quality["sharpness"] >= 0.6,
    "sharp": lambda s: s.quality["sharpness"] >= 0.95,
    "not-dirty": lambda s: s.quality["cleanliness"] >= 0.6,
    "clean": lambda s: s.quality["cleanliness"] >= 0.95,
    "not-faint": lambda s: s.quality["contrast"] >= 0.5,
    "strong": lambda s: s.quality["contrast"] >= 0.8,
    "grain": lambda s: s.noise <= 0.02,
    "large": lambda s: bool(s.shapes) and float(np.mean([f.radius for f in s.shapes])) >= 5.5,
    "balanced": lambda s: bool(s.found) and _off_centre(s.found) <= 5.0,
}
ABOUT_PROMPTS: dict[str, Callable[[Prompt], bool]] = {
    "names-colour": lambda p: any(w.colour for w in p.wanted),
    "names-place": lambda p: p.relation is not None,
}
ABOUT_BOTH: dict[str, Callable[[Seen, Prompt], bool]] = {
    "shows": lambda s, p: grade(s.found, p) == 1,
    "nearly-shows": lambda s, p: grade(s.found, p) >= 0.6,
    "shapes": lambda s, p: not _more(Counter(w.shape for w in p.wanted), Counter(f.shape for f in s.shapes)),
    "colours": lambda s, p: not _more(_coloured(p), Counter((f.shape, f.colour) for f in s.shapes)),
    "palette": lambda s, p: (
        not _more(Counter(c for _, c in _coloured(p).elements()), Counter(f.colour for f in s.found))
    ),
    "place": lambda s, p: _placed(s, p.wanted, p.relation),
    "enough": lambda s, p: len(s.shapes) >= len(p.wanted),
    "no-extras": lambda s, p: len(s.found) <= len(p.wanted),
}


def answer(seen: Seen, prompt: Prompt | None, name: str) -> bool | None:
    """The answer to the question ``name``; None where it is about a prompt and there is none."""
    if name in ABOUT_PICTURES:
        return ABOUT_PICTURES[name](seen)
    if prompt is None:
        return None
    return ABOUT_PROMPTS[name](prompt) if name in ABOUT_PROMPTS else ABOUT_BOTH[name](seen, prompt)


def answers(images_N3HW: np.ndarray, prompts: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """1 and 0 ``[N]`` by question, NaN for an image with NaN or infinite pixels."""
    names = [*ABOUT_PICTURES, *ABOUT_PROMPTS, *ABOUT_BOTH]
    rows = []
    for image_3HW, prompt in zip(images_N3HW, prompts, strict=True):
        seen = look(image_3HW) if np.isfinite(image_3HW).all() else None
        rows.append([np.nan if seen is None else float(bool(answer(seen, prompt, name))) for name in names])
    return dict(zip(names, np.array(rows).reshape(-1, len(names)).T, strict=True))


def _more(wanted: Counter[Any], there: Counter[Any]) -> Counter[Any]:
    """What is wanted beyond what is there."""
    return wanted - there


def _coloured(prompt: Prompt) -> Counter[tuple[str, str | None]]:
    """The wanted things of which a colour is asked."""
    return Counter((w.shape, w.colour) for w in prompt.wanted if w.colour)


def _placed(seen: Seen, wanted: Sequence[Wanted], relation: str | None) -> bool:
    """Whether some two found objects are the wanted shapes in the wanted relation."""
    if relation is None:
        return True
    first, second = (w.shape for w in wanted)
    return any(
        (a.shape, b.shape) == (first, second) and relation_holds(relation, a.x, a.y, b.x, b.y)
        for a, b in permutations(seen.shapes, 2)
    )


def _off_centre(found: Sequence[Found]) -> float:
    """Pixels from the middle to the centre of the objects' area."""
    area = np.array([f.area for f in found])
    x, y = (float(np.average([getattr(f, axis) for f in found], weights=area)) for axis in "xy")
    return float(np.hypot(x - SIZE / 2, y - SIZE / 2))
