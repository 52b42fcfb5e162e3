"""The exact verifier of the shapes world: whether an image shows what its prompt says, and how nearly.

Shapes: ``_N`` images, ``_3HW`` RGB in 0..1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from beholder.errors import InputError
from beholder.worlds.shapes.detect import Found, detect, detect_batch
from beholder.worlds.shapes.prompts import Prompt, Wanted, relation_holds
from beholder.worlds.shapes.scenes import SIZE

__all__ = ["Found", "Verdicts", "check_images", "detect", "grade", "verify"]

PRESENT = 0.2
"""Credit for a clean shape of the world in the place of a wanted one; the rest is for its attributes."""
WRONG_RELATION = 0.5
"""Factor on the credit when a requested relation does not hold."""
MOST_CONSIDERED = 6
"""Only the largest so many recognised objects are tried as the wanted ones."""


@dataclass(frozen=True)
class Verdicts:
    """``strict [N]`` 0 or 1, ``graded [N]`` in 0..1 and 1 just where strict is 1; both NaN for a non-finite image."""

    strict: np.ndarray
    graded: np.ndarray


def verify(images_N3HW: np.ndarray, prompts: Sequence[Prompt]) -> Verdicts:
    """The verdicts of each image on its own prompt; see ``grade`` for the formula.

    Strict is 1 when the image shows exactly the requested objects and nothing else: every component of at least
    ``detect.MIN_PIXELS`` foreground pixels is an object, recognised or not. An image with NaN or infinite pixels
    gets NaN, not 0.
    """
    finite_N = check_images(images_N3HW)
    if len(prompts) != len(images_N3HW):
        raise InputError(f"prompts: {len(prompts)} for {len(images_N3HW)} images; give one prompt per image")
    graded_N = np.full(len(prompts), np.nan)
    asked = [prompt for prompt, finite in zip(prompts, finite_N, strict=True) if finite]
    graded_N[finite_N] = [grade(f, p) for f, p in zip(detect_batch(images_N3HW[finite_N]), asked, strict=True)]
    return Verdicts(np.where(finite_N, (graded_N == 1.0).astype(float), np.nan), graded_N)


def check_images(images_N3HW: np.ndarray) -> np.ndarray:
    """Which images ``[N]`` are finite; InputError for a wrong shape or values outside 0..1 by more than 1e-3."""
    if images_N3HW.ndim != 4 or images_N3HW.shape[1:] != (3, SIZE, SIZE):
        raise InputError(
            f"images: shape {images_N3HW.shape} is not [N, 3, {SIZE}, {SIZE}]; stack RGB images channels first"
        )
    finite_N = np.asarray(np.isfinite(images_N3HW).all(axis=(1, 2, 3)))
    values = images_N3HW[finite_N]
    low, high = values.min(initial=0.0), values.max(initial=1.0)
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(f"images: values span {low:.4g}..{high:.4g}, not 0..1; divide by 255 or clip before verifying")
    return finite_N


def grade(found: Sequence[Found], prompt: Prompt) -> float:
    """Partial credit in 0..1; 1 exactly when the found objects are the wanted ones and nothing else.

    graded = max over assignments of [mean_i credit_i * r] * (n / (n + e))^2, over the n wanted objects, with
    credit_i = 0 when nothing recognisable is assigned, else PRESENT + (1 - PRESENT) * (share of the asked attributes,
    shape and, where asked, colour, that are right); r = 1, or WRONG_RELATION when a requested relation does not hold;
    e = extra objects: all found, recognised or not, beyond n, and unrecognised ones even within n.
    """
    n = len(prompt.wanted)
    shapely = [f for f in found if f.shape is not None]
    extras = max(len(shapely) - n, 0) + len(found) - len(shapely)
    # Leaving a wanted object without a found one never pays, so None only fills up.
    candidates: list[Found | None] = [*shapely[:MOST_CONSIDERED], *[None] * (n - len(shapely))]
    best = max(_credit(chosen, prompt) for chosen in permutations(candidates, n))
    return best * (n / (n + extras)) ** 2


def _credit(chosen: tuple[Found | None, ...], prompt: Prompt) -> float:
    mean = sum(_object_credit(f, w) for f, w in zip(chosen, prompt.wanted, strict=True)) / len(chosen)
    return mean if prompt.relation is None or _related(chosen, prompt.relation) else WRONG_RELATION * mean


def _object_credit(found: Found | None, wanted: Wanted) -> float:
    if found is None:
        return 0.0
    right = [found.shape == wanted.shape] + ([found.colour == wanted.colour] if wanted.colour else [])
    return PRESENT + (1 - PRESENT) * sum(right) / len(right)


def _related(chosen: tuple[Found | None, ...], relation: str) -> bool:
    first, second = chosen
    return first is not None and second is not None and relation_holds(relation, first.x, first.y, second.x, second.y)
