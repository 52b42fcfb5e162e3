"""One record for all human (or simulated) feedback, and the columns it is stored in.

A record is K candidates for one prompt with whatever is known about them: a pair is K = 2, a like K = 1, a ranking any
K. Every list about the candidates has K values; NaN (null on disk) means that this one was not judged.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from beholder.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["image", "video", "text"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Medium:
    """An image or a video: encoded ``data``, or the ``path`` of a file. With both, the path is only a name."""

    data: bytes | None = None
    path: str | None = None


@dataclass(frozen=True)
class HeatMap:
    """What a person marked on one candidate, as a grey image: 255 is marked, 0 is not."""

    name: str
    medium: int
    """Which candidate, from 0."""
    image: Medium


@dataclass(frozen=True)
class Record:
    prompt: str
    media: tuple[Medium, ...] = ()
    """The K candidates, where they are images or videos."""
    kind: Kind = "image"
    texts: tuple[str, ...] = ()
    """The K candidates, where they are answers (RLHF-V, RLAIF-V)."""
    context: Medium | None = None
    """What the prompt is about: the image a question is asked of, or one that is to be edited."""
    ranks: tuple[float, ...] | None = None
    """1 is the best, equal ranks tie."""
    votes: tuple[float, ...] | None = None
    """People (or weight) for each candidate."""
    ties: float = 0.0
    """People who found the candidates equally good."""
    ratings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Grades or rewards by dimension, on whatever scale, higher is better."""
    answers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Checklist answers by question: 1 yes, 0 no, between them a probability, NaN where it does not apply."""
    maps: tuple[HeatMap, ...] = ()
    misaligned: tuple[tuple[int, ...], ...] | None = None
    """For each candidate, which of the prompt's `words` it does not show, from 0."""
    annotator: str | None = None
    source: str | None = None
    """The data set or program it comes from."""
    split: str | None = None
    group: str | None = None
    """Records about one prompt or one set of candidates, where the source names it."""
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the source says; stored as JSON."""

    @property
    def k(self) -> int:
        """Number of candidates."""
        return len(self.texts) if self.kind == "text" else len(self.media)

    @property
    def judged(self) -> bool:
        """Whether anything says which candidate is better."""
        return self.votes is not None or self.ranks is not None or bool(self.ratings)


COLUMNS = tuple(f.name for f in fields(Record))
JUDGEMENT = ("kind", "texts", "ranks", "votes", "ties", "ratings", "annotator", "weight")
"""Columns that say who won; a scan of these never reads a pixel."""
SEPARATORS = re.compile(r'[,.?!":; ]')


def words(prompt: str) -> list[str]:
    """The words of a prompt as RichHF-18k counts them: split at any one of ``, . ? ! " : ;`` and the space."""
    return [word for word in SEPARATORS.split(prompt) if word]


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field of one row; rows count from 0."""

    file: str
    row: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}, {self.field}: {self.reason}"


class RowError(InputError):
    """A row that cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@cache
def arrow_schema() -> "pa.Schema":
    """The columns of a parquet file; media are stored as `datasets.Image` stores them."""
    import pyarrow as pa

    medium = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    numbers = pa.list_(pa.float64())
    named = pa.list_(pa.struct([("name", pa.string()), ("values", numbers)]))
    marks = pa.struct([("name", pa.string()), ("medium", pa.int32()), *((f.name, f.type) for f in medium)])
    return pa.schema(
        [
            pa.field("prompt", pa.string(), nullable=False),
            ("media", pa.list_(medium)),
            pa.field("kind", pa.string(), nullable=False),
            ("texts", pa.list_(pa.string())),
            ("context", medium),
            ("ranks", numbers),
            ("votes", numbers),
            ("ties", pa.float64()),
            ("ratings", named),
            ("answers", named),
            ("maps", pa.list_(marks)),
            ("misaligned", pa.list_(pa.list_(pa.int32()))),
            ("annotator", pa.string()),
            ("source", pa.string()),
            ("split", pa.string()),
            ("group", pa.string()),
            ("weight", pa.float64()),
            ("meta", pa.string()),
        ]
    )
