"""A checklist: yes-no questions whose weighted answers make a score (VisionReward, 2412.21059).

The checklist is data, read from YAML or JSON (``checklist_file``) or from the authors' own files (``official``).
"""

from dataclasses import dataclass, replace
from typing import Literal

from beholder.errors import InputError, nearest
from beholder.judges.settings import Kind

SLOT = "[[prompt]]"
"""Where a question holds the prompt."""
Coding = Literal["signed", "binary", "probability"]


@dataclass(frozen=True)
class Question:
    """One question; yes is always the good answer."""

    id: str
    ask: str
    """Its text, with ``[[prompt]]`` where the prompt goes."""
    dimension: str
    sub_dimension: str = ""
    weight: float = 0.0
    """Of a weight 0, only the answer matters: as a mask, or to be looked at."""
    only_if: str | None = None
    """The id of a question that must be answered yes for this one to count."""
    coding: Coding | None = None
    """Instead of the checklist's."""


@dataclass(frozen=True)
class Checklist:
    """Questions about one kind of medium, and how their answers make a number."""

    name: str
    media: Kind
    questions: tuple[Question, ...]
    coding: Coding = "signed"
    """What an answer counts: signed −1 or 1, binary 0 or 1 (yes above one half), probability the number itself."""
    reduction: Literal["sum", "mean"] = "sum"
    """Of weighted answers; mean divides by the number of questions with a weight."""
    intercept: float = 0.0
    source: str = ""
    """Where the questions and weights come from, and their licence."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def needs_prompt(self) -> bool:
        return any(SLOT in question.ask for question in self.questions)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those with a weight, in the order of the questions."""
        return tuple(dict.fromkeys(q.dimension for q in self.questions if q.weight))

    @property
    def divisor(self) -> int:
        """What the sum of weighted answers is divided by."""
        return sum(1 for q in self.questions if q.weight) if self.reduction == "mean" else 1

    def texts(self, prompt: str | None) -> list[str]:
        """What is asked about a medium drawn for this prompt; InputError where a prompt is needed and None is given."""
        if prompt is None and self.needs_prompt:
            raise InputError(f"prompt: the checklist {self.name!r} asks about the prompt; give the one that was drawn")
        return [q.ask.replace(SLOT, prompt or "") for q in self.questions]

    def needed(self) -> "Checklist":
        """The questions that a score depends on: those with a weight and their masks."""
        masks = {q.only_if for q in self.questions if q.weight}
        return replace(self, questions=tuple(q for q in self.questions if q.weight or q.id in masks))

    def coding_of(self, question: Question) -> Coding:
        return question.coding or self.coding


def _check(checklist: Checklist) -> None:
    where, seen = f"checklist {checklist.name!r}", set()
    if not any(q.weight for q in checklist.questions):
        raise InputError(f"{where}: no question has a weight; give weight to at least one")
    for question in checklist.questions:
        if question.id in seen:
            raise InputError(f"{where}: two questions are called {question.id!r}; rename one")
        seen.add(question.id)
        if not question.ask.strip():
            raise InputError(f"{where}: question {question.id!r} asks nothing; write its text under ask")
        if not abs(question.weight) < float("inf"):
            raise InputError(f"{where}: question {question.id!r} has weight {question.weight}; give a finite number")
    masks = {q.id: q.only_if for q in checklist.questions}
    for question in checklist.questions:
        if question.only_if is None:
            continue
        if question.only_if not in masks:
            raise InputError(
                f"{where}: {question.id!r} counts only if {question.only_if!r}, which is no question of it; "
                f"{nearest(question.only_if, masks)}"
            )
        if masks[question.only_if] is not None:
            raise InputError(
                f"{where}: {question.id!r} counts only if {question.only_if!r}, which has a condition of its own; "
                "name one without"
            )
