"""Small sets in which the picture that shows the prompt's colour is liked, and who likes what is known."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from beholder.preferences.schema import Medium, Record
from beholder.preferences.store import write_preferences

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (30, 30, 230), "white": (240, 240, 240)}
THINGS = tuple(f"thing{i}" for i in range(10))


def picture(colour: str, rng: np.random.Generator, size: int = 32) -> bytes:
    """A noisy grey picture with a rectangle of the colour."""
    pixels = rng.integers(60, 110, (size, size, 3), dtype=np.uint8)
    top, left = rng.integers(2, size // 2, 2)
    pixels[top : top + size // 3, left : left + size // 3] = COLOURS[colour]
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return data.getvalue()


def record(number: int, rng: np.random.Generator, k: int = 2, noise: float = 0.0, **more) -> Record:
    """k pictures of different colours, one of them the prompt's; ranked by whether they show it, up to mistakes."""
    colours = [str(c) for c in rng.permutation(list(COLOURS))[:k]]
    wanted = colours[int(rng.integers(k))]
    right = np.array([float(colour == wanted) for colour in colours])
    order = right + noise * rng.gumbel(size=k)
    ranks = (-order).argsort().argsort() + 1.0 if noise else 2.0 - right
    return Record(
        prompt=f"a {wanted} {THINGS[number % len(THINGS)]}",
        media=tuple(Medium(picture(colour, rng)) for colour in colours),
        ranks=tuple(float(rank) for rank in ranks),
        ratings={"shapes": tuple(right.tolist()), "grade": tuple((1 + 4 * right).tolist())},
        group=str(number),
        **more,
    )


def records(n: int, seed: int = 0, **settings) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [record(i, rng, **settings) for i in range(n)]


def save(path: Path, found: Sequence[Record]) -> Path:
    write_preferences(path, found)
    return path


def two_tastes(n: int, seed: int = 0) -> list[Record]:
    """Pairs of a red and a blue picture under one of many prompts; `warm` annotators like red, `cold` ones blue."""
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        who = ("warm", "cold")[i % 2]
        colours = [str(c) for c in rng.permutation(["red", "blue"])]
        liked = colours.index("red" if who == "warm" else "blue")
        found.append(
            Record(
                prompt=f"a {rng.choice(THINGS)} {rng.integers(7)}",
                media=tuple(Medium(picture(colour, rng)) for colour in colours),
                ranks=tuple(1.0 if k == liked else 2.0 for k in range(2)),
                annotator=f"{who}-{rng.integers(3)}",
            )
        )
    return found


def crowds(n: int, people: int = 3, seed: int = 0) -> list[Record]:
    """Each pair of pictures graded 1 … 5 by several people, who mostly give 4 or 5 to what shows the prompt."""
    rng, found = np.random.default_rng(seed), []
    for one in records(n, seed):
        for who in range(people):
            grades = [
                6 - g if right else g
                for right in one.ratings["shapes"]
                for g in rng.choice(3, 1, p=[0.5, 0.3, 0.2]) + 1
            ]
            ratings = {"shapes": one.ratings["shapes"], "grade": tuple(float(g) for g in grades)}
            found.append(replace(one, ranks=None, ratings=ratings, annotator=f"p-{who}"))
    return found


def singles(n: int, seed: int = 0) -> list[Record]:
    """Single pictures with a grade: 5 where it shows the prompt, else 1."""
    found = []
    for i, one in enumerate(records(n, seed)):
        k = i % 2
        ratings = {name: values[k : k + 1] for name, values in one.ratings.items()}
        found.append(replace(one, media=one.media[k : k + 1], ranks=None, ratings=ratings))
    return found


def damaged(one: Record) -> Record:
    return replace(one, media=(Medium(b"no picture", "broken.png"), *one.media[1:]))
