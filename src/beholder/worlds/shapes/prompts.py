"""Prompts of six kinds after GenEval: their texts, their split, the scenes that satisfy them.

A prompt is a text with its meaning. Train and held-out prompts share words but no combination: a held-out
pair, number or arrangement never appears in a training text, in any order or with any relation.
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from zlib import crc32

import numpy as np

from beholder.errors import InputError
from beholder.worlds.shapes.scenes import COLOURS, SHAPES, SIZE, Scene, Thing, random_background, random_layout

KINDS = ("single", "two", "counting", "colour", "position", "attribution")
NUMBERS = {"two": 2, "three": 3, "four": 4}
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SPLIT_SALT = "13511"
"""Chosen so that the held-out prompts of a kind vary, and every word keeps training prompts in every kind."""
MIN_OFFSET = 3.0
"""Centres must differ by this many pixels along a relation's axis for the relation to hold."""


@dataclass(frozen=True)
class Wanted:
    """One requested object; ``colour`` None means any."""

    shape: str
    colour: str | None = None


@dataclass(frozen=True)
class Prompt:
    text: str
    kind: str
    wanted: tuple[Wanted, ...]
    relation: str | None = None
    """How the first wanted object lies to the second."""

    @property
    def combination(self) -> str:
        """What train and held-out prompts must not share; equal for texts that differ only in order or relation."""
        if self.kind == "position":
            axis = "horizontal" if self.relation in ("left of", "right of") else "vertical"
            return f"position {axis} " + " ".join(sorted(w.shape for w in self.wanted))
        if self.kind == "attribution":
            shapes, colours = sorted(w.shape for w in self.wanted), sorted(str(w.colour) for w in self.wanted)
            return "attribution " + " ".join(shapes + colours)
        return f"{self.kind} " + " ".join(sorted(f"{w.colour} {w.shape}" for w in self.wanted))


def _name(wanted: Wanted) -> str:
    words = [wanted.colour, wanted.shape] if wanted.colour else [wanted.shape]
    return ("an " if words[0] == "orange" else "a ") + " ".join(str(w) for w in words)


def make_prompt(kind: str, wanted: tuple[Wanted, ...], relation: str | None = None) -> Prompt:
    """The prompt with its text, e.g. ``a red circle and a blue square``."""
    if kind == "counting":
        number = {n: word for word, n in NUMBERS.items()}[len(wanted)]
        text = " ".join(word for word in (number, wanted[0].colour, PLURALS[wanted[0].shape]) if word)
    else:
        text = f" {relation or 'and'} ".join(_name(w) for w in wanted)
    return Prompt(text, kind, wanted, relation)


@cache
def all_prompts() -> tuple[Prompt, ...]:
    """Every prompt of the world, in a fixed order."""
    pairs = list(permutations(SHAPES, 2))
    prompts = [make_prompt("single", (Wanted(s),)) for s in SHAPES]
    prompts += [make_prompt("two", (Wanted(a), Wanted(b))) for a, b in pairs]
    prompts += [
        make_prompt("counting", (Wanted(s, c),) * n) for s in SHAPES for c in (None, *COLOURS) for n in NUMBERS.values()
    ]
    prompts += [make_prompt("colour", (Wanted(s, c),)) for s in SHAPES for c in COLOURS]
    prompts += [make_prompt("position", (Wanted(a), Wanted(b)), r) for a, b in pairs for r in RELATIONS]
    prompts += [
        make_prompt("attribution", (Wanted(a, c), Wanted(b, d))) for a, b in pairs for c, d in permutations(COLOURS, 2)
    ]
    return tuple(prompts)


@cache
def _held_out_combinations() -> frozenset[str]:
    """A fifth of each kind's combinations (at least one), chosen by a hash of the combination's name."""
    held: set[str] = set()
    for kind in KINDS:
        names = sorted(
            {p.combination for p in all_prompts() if p.kind == kind}, key=lambda n: crc32((SPLIT_SALT + n).encode())
        )
        held.update(names[: max(1, round(len(names) / 5))])
    return frozenset(held)


@cache
def split(name: str) -> tuple[Prompt, ...]:
    """The prompts of ``"train"`` or ``"held_out"``."""
    if name not in ("train", "held_out"):
        raise ValueError(f"split: {name!r} is not 'train' or 'held_out'")
    held = _held_out_combinations()
    return tuple(p for p in all_prompts() if (p.combination in held) == (name == "held_out"))


@cache
def _by_text() -> dict[str, Prompt]:
    return {p.text: p for p in all_prompts()}


def parse(text: str) -> Prompt:
    """The prompt behind a text; InputError with the grammar for a text the world does not know."""
    prompt = _by_text().get(" ".join(text.lower().split()).rstrip("."))
    if prompt is None:
        raise InputError(
            f"prompt: {text!r} is not a text of the shapes world ({', '.join(SHAPES)} in {', '.join(COLOURS)}); it "
            "knows 'a circle', 'a circle and a square', 'three crosses', 'three red crosses', 'a red circle', "
            "'a circle left of a square' and 'a red circle and a blue square'"
        )
    return prompt


def random_prompts(
    n: int, rng: np.random.Generator, which: str = "train", kinds: tuple[str, ...] = KINDS
) -> list[Prompt]:
    """``n`` prompts, kinds in turn (so that every six prompts hold each kind once), uniform within a kind."""
    pools = {k: [p for p in split(which) if p.kind == k] for k in kinds}
    return [pools[kind][rng.integers(len(pools[kind]))] for kind in (kinds[i % len(kinds)] for i in range(n))]


def relation_holds(relation: str, ax: float, ay: float, bx: float, by: float) -> bool:
    """Whether a at ``(ax, ay)`` lies ``relation`` b, centres at least ``MIN_OFFSET`` apart along the axis."""
    offset = {"left of": bx - ax, "right of": ax - bx, "above": by - ay, "below": ay - by}[relation]
    return offset >= MIN_OFFSET


def scene_for(prompt: Prompt, rng: np.random.Generator) -> Scene:
    """A random scene that satisfies the prompt and shows nothing else."""
    shapes = [w.shape for w in prompt.wanted]
    while True:
        layout = random_layout(shapes, rng)
        if layout is None or not _arranged(prompt, layout):
            continue
        colours = [w.colour or COLOURS[rng.integers(len(COLOURS))] for w in prompt.wanted]
        things = tuple(Thing(s, c, *place) for s, c, place in zip(shapes, colours, layout, strict=True))
        return Scene(things, random_background(rng), noise=float(rng.uniform(0.0, 0.025)))


def _arranged(prompt: Prompt, layout: list[tuple[float, float, float]]) -> bool:
    if prompt.relation is None:
        return True
    (ax, ay, _), (bx, by, _) = layout
    along = abs(ax - bx) if prompt.relation in ("left of", "right of") else abs(ay - by)
    return along >= SIZE / 4 and relation_holds(prompt.relation, ax, ay, bx, by)


def misdescribe(prompt: Prompt, rng: np.random.Generator) -> Prompt:
    """A wrong training caption of the same kind for a training prompt's scene: the errors web captions make.

    Another shape (single, two), number or colour (counting), colour (colour); the opposite relation (position); the
    two colours exchanged (attribution).
    """
    if prompt.kind == "position":
        return make_prompt("position", prompt.wanted, OPPOSITE[str(prompt.relation)])
    if prompt.kind == "attribution":
        a, b = prompt.wanted
        return make_prompt("attribution", (Wanted(a.shape, b.colour), Wanted(b.shape, a.colour)))
    candidates = [p for p in split("train") if _one_apart(p, prompt)]
    return candidates[rng.integers(len(candidates))]


def _one_apart(other: Prompt, prompt: Prompt) -> bool:
    if other.kind != prompt.kind or other.combination == prompt.combination:
        return False
    if prompt.kind in ("counting", "colour"):
        a, b = other.wanted[0], prompt.wanted[0]
        recoloured = len(other.wanted) == len(prompt.wanted) and None not in (a.colour, b.colour)
        return a.shape == b.shape and (a.colour == b.colour or recoloured)
    if prompt.kind == "two":
        return sum(a == b for a, b in zip(other.wanted, prompt.wanted, strict=True)) == 1
    return True
