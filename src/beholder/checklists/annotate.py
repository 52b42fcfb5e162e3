"""A preference set with a judge's answers in it: a checklist is put to every medium, once.

The result is a folder of shards, a set like any other. A shard is written whole or not at all, so the same command goes
on after an interruption.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from beholder.errors import InputError
from beholder.evaluation.media_files import read_medium
from beholder.judges.checklist import Checklist
from beholder.judges.judge import Answers, Judge, all_failed, count_reasons
from beholder.judges.medium import Medium
from beholder.media import to_pil
from beholder.preferences.decoding import decode
from beholder.preferences.schema import Record
from beholder.preferences.store import PreferenceSet, PreferenceWriter, open_parquet, open_preferences
from beholder.training.run_folder import settle

SHARD = 128
"""Records of a shard: what an interruption may cost."""


def annotate(
    data: Path | str,
    checklist: Checklist,
    judge: Judge,
    output: Path,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Writes the set with answers; what was done, with the reasons of answers that failed.

    A failed answer is null. ``advance`` hears of every record, also of those there. InputError where the set or the
    folder cannot be used, and for media of another kind than the checklist's.
    """
    source = open_preferences(data)
    settings = {"data": str(data), "records": len(source), "judge": judge.name, "checklist": asdict(checklist)}
    settle(output, "annotated.json", settings)
    asked, reasons = 0, []
    for shard, first in enumerate(range(0, len(source), SHARD)):
        numbers = range(first, min(first + SHARD, len(source)))
        path = output / f"shard-{shard:05d}.parquet"
        if _records_in(path) == len(numbers):
            advance(len(numbers))
            continue
        with PreferenceWriter(path) as writer:
            for record, answers in _answered(source, numbers, checklist, judge):
                writer.write(record)
                asked += sum(len(one.why_Q) for one in answers)
                reasons += [why for one in answers for why in one.why_Q if why]
                advance(1)
    return {
        "records": len(source),
        "questions": len(checklist.questions),
        "answers": asked,
        "failed": len(reasons),
        "reasons": count_reasons(reasons),
    }


def _records_in(path: Path) -> int | None:
    if not path.exists():
        return None
    with open_parquet(str(path)) as file:
        return file.metadata.num_rows


def _answered(
    source: PreferenceSet, numbers: range, checklist: Checklist, judge: Judge
) -> Iterator[tuple[Record, list[Answers]]]:
    for i in numbers:
        record, place = source[i], source.where(i)
        if record.kind != checklist.media:
            raise InputError(
                f"{place[0]}, row {place[1]}, kind: {record.kind!r}, and the checklist {checklist.name!r} is for "
                f"{checklist.media}s; name another with --checklist"
            )
        texts = checklist.texts(record.prompt)
        found = [_ask(judge, record, k, texts, place) for k in range(record.k)]
        columns = zip(*(one.yes_Q.tolist() for one in found), strict=True)
        said = dict(zip((q.id for q in checklist.questions), columns, strict=True))
        yield replace(record, answers={**record.answers, **said}), found


def _ask(judge: Judge, record: Record, k: int, texts: list[str], place: tuple[str, int]) -> Answers:
    try:
        medium = medium_of(record, k, place)
    except InputError as error:
        return all_failed(len(texts), str(error))
    return judge.ask(medium, texts)


def medium_of(record: Record, k: int, place: tuple[str, int]) -> Medium:
    """Candidate ``k`` as a judge sees it; InputError where it cannot be read."""
    stored = record.media[k]
    if record.kind == "image":
        return Medium((to_pil(decode(stored, *place, f"media[{k}]")),))
    if stored.path is None or stored.data is not None:
        raise InputError(f"{place[0]}, row {place[1]}, media[{k}]: a video is read from a file; store its path")
    return read_medium(Path(stored.path))
