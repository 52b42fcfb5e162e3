"""Prompts that images of the shapes world do satisfy: captions in hindsight."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from beholder.worlds.shapes.detect import Found, detect_batch
from beholder.worlds.shapes.prompts import NUMBERS, Prompt, Wanted, make_prompt, parse, relation_holds, split
from beholder.worlds.shapes.verifier import check_images, grade


def describe(images_N3HW: np.ndarray, prompts: Sequence[str]) -> list[str | None]:
    """For each image a prompt of its prompt's kind that it shows exactly, its own where that holds.

    Only training prompts are given, so that nothing is learnt about held-out combinations; None where there is none:
    the image shows something that this kind of prompt cannot say, or is not finite.
    """
    asked = [parse(text) for text in prompts]
    finite_N = check_images(images_N3HW)
    found = iter(detect_batch(images_N3HW[finite_N]))
    return [_caption(next(found), p) if fine else None for p, fine in zip(asked, finite_N, strict=True)]


def _caption(found: list[Found], prompt: Prompt) -> str | None:
    if any(f.shape is None or f.colour is None for f in found):
        return None
    if grade(found, prompt) == 1:
        return prompt.text
    allowed = {p.text for p in split("train") if p.kind == prompt.kind}
    for order in permutations(found[:4]):
        text = _said(list(order), prompt)
        if text in allowed and grade(found, parse(text)) == 1:
            return text
    return None


def _said(found: list[Found], prompt: Prompt) -> str | None:
    """What a prompt of this kind says of these objects in this order."""
    shapes, coloured = [Wanted(str(f.shape)) for f in found], [Wanted(str(f.shape), f.colour) for f in found]
    n = len(found)
    if prompt.kind == "counting":
        things = coloured if prompt.wanted[0].colour else shapes
        return make_prompt("counting", tuple(things)).text if n in NUMBERS.values() and len(set(things)) == 1 else None
    if n != len(prompt.wanted):
        return None
    if prompt.kind in ("single", "two"):
        return make_prompt(prompt.kind, tuple(shapes)).text
    if prompt.kind in ("colour", "attribution"):
        return make_prompt(prompt.kind, tuple(coloured)).text
    first, second = found
    for relation in ("left of", "right of", "above", "below"):
        if _axis(relation) == _axis(str(prompt.relation)) and relation_holds(
            relation, first.x, first.y, second.x, second.y
        ):
            return make_prompt("position", tuple(shapes), relation).text
    return None


def _axis(relation: str) -> bool:
    return relation in ("left of", "right of")
