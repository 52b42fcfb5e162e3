"""What every judge offers: the probability that the answer to each question about one medium is yes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from beholder.judges.medium import Medium


@dataclass(frozen=True)
class Answers:
    """Answers to Q questions; one that failed is NaN and says why, never "no"."""

    yes_Q: Tensor
    """float32 [Q] in 0..1: probability of yes, or 0 and 1 where the judge gives hard answers."""
    why_Q: tuple[str, ...]
    """Why each answer is NaN; empty where it is not."""

    def __post_init__(self) -> None:
        if [bool(nan) for nan in self.yes_Q.isnan()] != [bool(why) for why in self.why_Q]:
            raise ValueError("every answer that is NaN needs a reason, and no other has one")


class Judge(Protocol):
    """Anything that answers questions about a picture or a video."""

    name: str

    def ask(self, medium: Medium, questions: Sequence[str]) -> Answers:
        """Every question gets an answer; what goes wrong with one becomes its NaN. InputError for a wrong medium."""
        ...


def all_failed(n: int, why: str) -> Answers:
    """``n`` answers that failed for the same reason."""
    return Answers(torch.full((n,), torch.nan), (why,) * n)


def said_in_short(error: Exception) -> str:
    """The kind of an exception and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason for a failure occurs, commonest first."""
    return dict(Counter(why for why in reasons if why).most_common())
