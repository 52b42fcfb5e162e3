"""Small pictures and records for the tests of preferences."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from beholder.preferences.schema import HeatMap, Medium, Record

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, form: str = "PNG", **settings) -> bytes:
    data = io.BytesIO()
    image.save(data, format=form, **settings)
    return data.getvalue()


def picture(colour: tuple[int, ...] = RED, size: tuple[int, int] = (4, 3), form: str = "PNG") -> bytes:
    """The bytes of a plain image."""
    return encoded(Image.new("RGB", size, colour), form)


def numbered(i: int, form: str = "PNG") -> bytes:
    """An image that says its number in red and green."""
    return picture((i % 256, i // 256, 7), form=form)


def number_of(image) -> int:
    """The number of a decoded `numbered` image."""
    red, green = (round(float(image[c, 0, 0]) * 255) for c in (0, 1))
    return red + 256 * green


def pair(i: int, **given) -> Record:
    """Two numbered images, 2i and 2i + 1, the second one preferred unless something else is given."""
    judged = given if {"votes", "ranks", "ratings"} & set(given) else {"votes": (0.0, 1.0), **given}
    return Record(f"prompt {i}", (Medium(numbered(2 * i)), Medium(numbered(2 * i + 1))), **judged)


def full_record(folder: Path) -> Record:
    """A record with every field."""
    (folder / "a.png").write_bytes(picture())
    return Record(
        prompt="a cat, und ein Hund: 猫",
        media=(Medium(b"one", "one.png"), Medium(path=str(folder / "a.png")), Medium(b"three")),
        ranks=(1.0, 2.5, float("nan")),
        votes=(7.0, 3.0, 0.0),
        ties=2.0,
        ratings={"sharpness": (0.5, -1.0, float("nan")), "safety": (0.0, 1e9, 3.0)},
        answers={"is there a cat?": (1.0, 0.0, 0.25)},
        maps=(HeatMap("artifact", 2, Medium(b"map")),),
        misaligned=((), (0, 1), (5,)),
        annotator="anna",
        source="nowhere",
        split="train",
        group="g1",
        weight=0.5,
        meta={"uids": ["x", "y"], "size": 3},
    )


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)
