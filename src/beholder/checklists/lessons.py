"""Answers to learn from: which question about which medium, as many yes as no for every question.

Shapes: ``_M`` media, ``_Q`` questions, ``_E`` examples.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from beholder.checklists.annotate import medium_of
from beholder.checklists.answers import answers_of, applying
from beholder.errors import InputError
from beholder.judges.checklist import SLOT, Checklist
from beholder.judges.medium import Medium
from beholder.preferences.schema import RowError
from beholder.preferences.store import PreferenceSet

ROOM = 512 * 2**20
"""Bytes of pictures kept in memory; the others are read again."""


@dataclass
class Lessons:
    """The media of a set, and what is known about each."""

    source: PreferenceSet
    checklist: Checklist
    place_M2: np.ndarray
    """Record and candidate of each medium."""
    yes_MQ: np.ndarray
    """1, 0, or NaN where nobody answered, or where the question does not apply."""
    prompts: list[str]
    _kept: dict[int, Medium] = field(default_factory=dict)
    _room: int = ROOM

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def shows_M(self) -> np.ndarray:
        """Whether a medium has yes to every question about its prompt that applies to it, and to one at least."""
        conditions = {q.only_if for q in self.checklist.questions}
        columns = [i for i, q in enumerate(self.checklist.questions) if SLOT in q.ask and q.id not in conditions]
        said = self.yes_MQ[:, columns]
        return (np.isnan(said) | (said == 1)).all(1) & (said == 1).any(1)

    def medium(self, m: int) -> Medium:
        """Medium ``m``; InputError where it cannot be read."""
        if m not in self._kept:
            i, k = self.place_M2[m].tolist()
            medium = medium_of(self.source[i], k, self.source.where(i))
            size = sum(3 * still.width * still.height for still in medium.stills)
            if size > self._room:
                return medium
            self._room -= size
            self._kept[m] = medium
        return self._kept[m]


def read_lessons(source: PreferenceSet, checklist: Checklist) -> Lessons:
    """All media that have answers; InputError where there are none."""
    place, yes, prompts = [], [], []
    for i, record in enumerate(source.scan(("prompt", "kind", "texts", "answers"))):
        if isinstance(record, RowError):
            raise record
        if not record.answers or record.kind != checklist.media:
            continue
        yes_KQ = applying(checklist, answers_of(record, checklist))
        place += [(i, k) for k in range(record.k)]
        yes += list(yes_KQ)
        prompts += [record.prompt] * record.k
    if not yes:
        raise InputError(
            f"answers: {len(source)} records have none about {checklist.media}s; let a judge answer first: beholder "
            "annotate"
        )
    yes_MQ = np.array(yes)
    hard_MQ = np.where(np.isnan(yes_MQ), np.nan, yes_MQ > 0.5)
    return Lessons(source, checklist, np.array(place), hard_MQ, prompts)


def balanced(yes_MQ: np.ndarray, media: np.ndarray, key: tuple[int, ...], most: int | None = None) -> np.ndarray:
    """Examples ``[E, 2]`` (medium, question) about these media: for every question as many yes as no.

    All of the rarer answer (``most`` at most), and as many of the other, drawn anew for every key. Examples about one
    medium stand together, media in a drawn order. A question with one answer only has no examples.
    """
    chosen = []
    for q in range(yes_MQ.shape[1]):
        rng = np.random.default_rng([*key, q])
        rows = [rng.permutation(media[yes_MQ[media, q] == value]) for value in (1.0, 0.0)]
        n = min(len(rows[0]), len(rows[1]), *([] if most is None else [most]))
        chosen += [(m, q) for side in rows for m in side[:n].tolist()]
    turn = np.empty(len(yes_MQ), np.int64)
    turn[media] = np.random.default_rng([*key, 1 << 20]).permutation(len(media))
    return np.array(sorted(chosen, key=lambda one: (turn[one[0]], one[1])), np.int64).reshape(-1, 2)


def by_medium(example_E2: np.ndarray) -> list[tuple[int, list[int]]]:
    """Each medium with the questions about it, in the order of the examples."""
    found: dict[int, list[int]] = {}
    for m, q in example_E2.tolist():
        found.setdefault(m, []).append(q)
    return list(found.items())
