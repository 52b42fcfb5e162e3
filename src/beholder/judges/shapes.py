"""The bundled world's judge: its exact verifier and quality measures behind the questions that it understands.

No model and no download: for trying `ask` and `compare`, and for tests with a known truth.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch

from beholder.errors import InputError
from beholder.judges.checklist_file import load_checklist
from beholder.judges.judge import Answers
from beholder.judges.medium import Medium
from beholder.judges.templates import Templates
from beholder.worlds.shapes.checklist import Seen, answer, look
from beholder.worlds.shapes.prompts import Wanted, parse
from beholder.worlds.shapes.quality import quality
from beholder.worlds.shapes.scenes import SIZE
from beholder.worlds.shapes.verifier import detect, verify

SHOWS = re.compile(r'does the (?:image|picture) show "?(?P<text>[^"?]+)"?\?', re.IGNORECASE)
THERE = re.compile(r"(?:is|are) there (?P<text>.+?)(?: in (?:it|the image|the picture))?\?", re.IGNORECASE)
QUALITY = re.compile(r"is the (?:image|picture) (?P<word>\w+)\?", re.IGNORECASE)
QUALITIES = {"sharp": "sharpness", "clean": "cleanliness", "complete": "completeness"}
UNDERSTOOD = (
    "the shapes judge understands 'Does the image show \"a red circle and a blue square\"?', 'Is there a red circle?', "
    "'Are there three crosses?', 'Is the image sharp?' (clean, complete), and the checklist shapes-details"
)
DETAILS = "shapes-details"


class ShapesJudge:
    """Answers about 32×32 pictures of the shapes world; a question it does not understand is invalid and says so."""

    name = "shapes"

    def ask(self, medium: Medium, questions: Sequence[str]) -> Answers:
        """1 and 0 for what is shown, the measure itself (0..1) for quality; InputError for a picture of other size."""
        if medium.kind != "image":
            raise InputError("model: shapes judges pictures of its world only, not videos; name another model")
        width, height = medium.stills[0].size
        if (width, height) != (SIZE, SIZE):
            raise InputError(
                f"model: shapes judges pictures of its world, {SIZE}×{SIZE} pixels; this has {width}×{height}; name "
                "another model"
            )
        image_3HW = np.asarray(medium.stills[0], np.float32).transpose(2, 0, 1) / 255
        seen = cache(lambda: look(image_3HW))
        answers = [_detail(question, seen) or _answer(image_3HW, " ".join(question.split())) for question in questions]
        return Answers(torch.tensor([yes for yes, _ in answers]), tuple(why for _, why in answers))


@cache
def _details() -> tuple[tuple[str, ...], Templates]:
    """Ids and texts of the bundled checklist."""
    questions = load_checklist(DETAILS).questions
    return tuple(q.id for q in questions), Templates([q.ask for q in questions])


def _detail(question: str, seen: Callable[[], Seen]) -> tuple[float, str] | None:
    """The answer to a question of the bundled checklist; None where it is none of them."""
    names, templates = _details()
    asked = templates.find(question)
    if asked is None:
        return None
    try:
        prompt = None if asked.prompt is None else parse(asked.prompt)
    except InputError:
        return float("nan"), UNDERSTOOD
    return float(bool(answer(seen(), prompt, names[asked.question]))), ""


def _answer(image_3HW: np.ndarray, question: str) -> tuple[float, str]:
    shows, asks_quality, there = (rule.fullmatch(question) for rule in (SHOWS, QUALITY, THERE))
    if asks_quality and asks_quality["word"].lower() in QUALITIES:
        name = QUALITIES[asks_quality["word"].lower()]
        return float(quality(image_3HW[None])[name][0]), ""
    text = (shows or there or {"text": ""})["text"]
    try:
        prompt = parse(text)
    except InputError:
        return float("nan"), UNDERSTOOD
    if shows:
        return float(verify(image_3HW[None], [prompt]).strict[0]), ""
    return float(_holds(image_3HW, prompt.wanted)), ""


def _holds(image_3HW: np.ndarray, wanted: tuple[Wanted, ...]) -> bool:
    """Whether the wanted things are there, whatever else is; a number must be met exactly."""
    found = detect(image_3HW)

    def count(thing: Wanted) -> int:
        return sum(f.shape == thing.shape and thing.colour in (None, f.colour) for f in found)

    same = len(set(wanted)) == 1 and len(wanted) > 1
    return all(count(thing) == len(wanted) if same else count(thing) > 0 for thing in wanted)
