"""Which question of a checklist a text is, and for which prompt it was asked."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from beholder.judges.checklist import SLOT


class Asked(NamedTuple):
    question: int
    """Its place in the list."""
    prompt: str | None
    """What stood for ``[[prompt]]``; None where the question has none."""


class Templates:
    """Questions that may hold ``[[prompt]]``; texts made of them are recognised, whatever their case and spaces."""

    def __init__(self, asks: Sequence[str]) -> None:
        self.asks = tuple(asks)
        self._rules = [re.compile(_pattern(ask), re.IGNORECASE) for ask in asks]

    def find(self, text: str) -> Asked | None:
        """The first question that the text is one of; None where it is none."""
        text = " ".join(text.split())
        for i, rule in enumerate(self._rules):
            found = rule.fullmatch(text)
            if found:
                return Asked(i, found["prompt"] if SLOT in self.asks[i] else None)
        return None


def _pattern(ask: str) -> str:
    """A slot that occurs again must hold the same."""
    first, *others = " ".join(ask.split()).split(SLOT)
    slots = [r"(?P<prompt>.*)", *[r"(?P=prompt)"] * len(others)]
    return re.escape(first) + "".join(slot + re.escape(part) for slot, part in zip(slots, others, strict=False))
