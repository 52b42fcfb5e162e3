"""What a preference set holds, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from beholder.errors import InputError
from beholder.preferences.decoding import check_media
from beholder.preferences.schema import COLUMNS, Record, RowError
from beholder.preferences.selection import choose
from beholder.preferences.store import PreferenceSet

TOTALS = (*("records", "pairs", "ties", "without_a_pair", "repeated", "contradictions", "prompts_in_several_splits"),)
NO_MEDIA = tuple(name for name in COLUMNS if name not in ("media", "maps", "context"))


def summarise(
    source: PreferenceSet, media: bool = True, advance: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Counts over the set, as JSON; ``problems`` names every row that cannot be used.

    ``media`` also decodes every image, and finds pairs that are judged again: `repeated`, and `contradictions` among
    them, where the other one won. Memory is bounded by the distinct prompts, annotators and pairs.
    """
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("kinds", "k", "judged by", "ratings", "sources", "splits")
    }
    prompts: dict[bytes, str | None] = {}
    annotators: set[str] = set()
    won: dict[bytes, float] = {}
    totals: Counter[str] = Counter(dict.fromkeys(TOTALS, 0))
    problems: list[str] = []
    for i, record in enumerate(source.scan(COLUMNS if media else NO_MEDIA)):
        advance(1)
        totals["records"] += 1
        try:
            if isinstance(record, RowError):
                raise record
            if media:
                check_media(record, *source.where(i))
        except RowError as error:
            problems.append(str(error))
            continue
        _count(record, counts)
        annotators |= {record.annotator} if record.annotator else set()
        _note_split(record, prompts, totals)
        _note_pairs(record, totals)
        if media and record.k == 2:
            _note_repetition(record, won, totals)
    return {
        **totals,
        "prompts": len(prompts),
        "annotators": len(annotators),
        **{name.replace(" ", "_"): dict(sorted(counter.items())) for name, counter in counts.items()},
        "problems": problems,
    }


def _count(record: Record, counts: dict[str, Counter[str]]) -> None:
    counts["kinds"][record.kind] += 1
    counts["k"][str(record.k)] += 1
    for name in ("votes", "ranks", "ratings", "answers", "maps", "misaligned"):
        if getattr(record, name) not in (None, {}, ()):
            counts["judged by"][name] += 1
    counts["ratings"].update(list(record.ratings))
    for name, value in {"sources": record.source, "splits": record.split}.items():
        if value is not None:
            counts[name][value] += 1


def _note_split(record: Record, prompts: dict[bytes, str | None], totals: Counter[str]) -> None:
    """Counts prompts that stand in several splits, where splits are named: what is learnt there was seen here."""
    key = _digest(record.prompt.encode())
    if prompts.setdefault(key, record.split) not in (record.split, "?"):
        totals["prompts_in_several_splits"] += 1
        prompts[key] = "?"


def _note_pairs(record: Record, totals: Counter[str]) -> None:
    try:
        choices = choose(record)
    except InputError:  # several ratings and nobody's word on which decides: not one pair, until a rule is chosen
        choices = []
    totals["pairs"] += len(choices)
    totals["ties"] += sum(choice.p == 0.5 for choice in choices)
    totals["without_a_pair"] += not choices


def _note_repetition(record: Record, won: dict[bytes, float], totals: Counter[str]) -> None:
    choices = choose(record) if record.votes or record.ranks else []
    if not choices or choices[0].p == 0.5:
        return
    digests = [_digest(m.data if m.data is not None else str(m.path).encode()) for m in record.media]
    key = _digest(record.prompt.encode() + b"".join(sorted(digests)))
    winner = float(digests[choices[0].winner] == min(digests))
    if key in won:
        totals["repeated"] += 1
        totals["contradictions"] += won[key] != winner
    won.setdefault(key, winner)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()
