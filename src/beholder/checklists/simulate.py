"""A set of the bundled world with flawed pictures, exact answers and simulated people: to try a checklist on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from beholder.media import to_png
from beholder.preferences.annotators import Crowd, Taste
from beholder.preferences.schema import Medium, Record
from beholder.preferences.store import write_preferences
from beholder.worlds.shapes.checklist import ABOUT_BOTH, ABOUT_PICTURES, ABOUT_PROMPTS, answer, look
from beholder.worlds.shapes.flaws import flawed_picture
from beholder.worlds.shapes.prompts import random_prompts
from beholder.worlds.shapes.verifier import grade

TASTE = {"shapes_graded": 1.0, "sharpness": 0.3, "cleanliness": 0.3, "completeness": 0.3, "contrast": 0.2}
"""What the simulated people care for: not for the size, the balance or the grain of a picture."""


def simulated_records(
    n: int, k: int, seed: int, temperature: float = 0.1, tie: float = 0.05, annotators: int = 8
) -> Iterator[Record]:
    """``n`` records of ``k`` pictures, ranked by one of some people who share a taste; a function of the arguments."""
    crowd = Crowd({"all": Taste(TASTE)}, annotators, temperature, tie)
    prompts = random_prompts(n, np.random.default_rng([seed, 41]))
    for i, prompt in enumerate(prompts):
        rng = np.random.default_rng([seed, 43, i])
        pixels = [(flawed_picture(prompt, rng) * 255).round().astype(np.uint8) for _ in range(k)]
        seen = [look(image.astype(np.float32) / 255) for image in pixels]
        ratings = {"shapes_graded": tuple(grade(s.found, prompt) for s in seen)}
        ratings |= {name: tuple(s.quality[name] for s in seen) for name in seen[0].quality}
        judge = crowd.draw(1, [seed, i])[0]
        value_KM = np.array(list(ratings.values())).T
        names = (*ABOUT_PICTURES, *ABOUT_PROMPTS, *ABOUT_BOTH)
        yield Record(
            prompt=prompt.text,
            media=tuple(Medium(data=to_png(Image.fromarray(image.transpose(1, 2, 0)))) for image in pixels),
            ranks=tuple(crowd.ranks(value_KM, list(ratings), judge, [seed, i])),
            ratings=ratings,
            answers={name: tuple(float(bool(answer(s, prompt, name))) for s in seen) for name in names},
            annotator=crowd.members[judge][0],
            source="beholder shapes, flawed",
            group=str(i),
        )


def simulate(path: Path, n: int, k: int = 4, seed: int = 0) -> int:
    """Writes such a set; the number of its records."""
    return write_preferences(path, simulated_records(n, k, seed))
