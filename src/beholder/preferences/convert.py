"""Public data sets as sets of ours."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from beholder.errors import InputError
from beholder.preferences.decoding import check_media
from beholder.preferences.readers import read_public
from beholder.preferences.schema import Medium, Problem, Record, RowError
from beholder.preferences.store import PreferenceWriter, write_preferences

SHARD = 10_000
"""Records in each file of a folder."""


def convert(
    path: Path,
    name: str,
    output: Path,
    join: Path | None = None,
    embed: bool = False,
    media: bool = True,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Problem]:
    """Writes the set ``output``, a `.parquet` file or a folder of several; what was left out, and why.

    ``media`` decodes every image, and leaves out records with one that cannot be. ``embed`` takes the bytes of files
    into the set; otherwise it holds their absolute paths. Written beside and renamed. InputError where nothing is left.
    """
    if output.exists():
        raise InputError(f"output: {str(output)!r} exists; choose another --output")
    problems: list[Problem] = []
    kept = _kept(path, name, join, embed, media, problems, advance)
    first = next(kept, None)
    if first is None:
        reason = f"; first {problems[0]}" if problems else ""
        raise InputError(f"preferences: {str(path)!r} holds no record that can be used{reason}")
    records = _after(first, kept)
    if output.suffix == ".parquet":
        write_preferences(output, records)
        return problems
    temporary = output.with_name(output.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write_shards(temporary, records)
        os.replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return problems


def _after(first: Record, rest: Iterator[Record]) -> Iterator[Record]:
    yield first
    yield from rest


def _write_shards(folder: Path, records: Iterator[Record]) -> None:
    for number, first in enumerate(records):  # the inner loop takes the rest of the shard from the same iterator
        with PreferenceWriter(folder / f"part-{number:05d}.parquet") as writer:
            writer.write(first)
            for record in records:
                writer.write(record)
                if writer.rows == SHARD:
                    break


def _kept(
    path: Path,
    name: str,
    join: Path | None,
    embed: bool,
    media: bool,
    problems: list[Problem],
    advance: Callable[[int], None],
) -> Iterator[Record]:
    """The records that can be used; the others go to ``problems``."""
    for row, record in read_public(name, path, join):
        advance(1)
        try:
            if isinstance(record, RowError):
                raise record
            if media:
                check_media(record, row.file, row.number)
            yield _embedded(record, row.file, row.number) if embed else record
        except RowError as error:
            problems.append(error.problem)


def _embedded(record: Record, file: str, number: int) -> Record:
    media = tuple(_bytes(medium, file, number, f"media[{i}]") for i, medium in enumerate(record.media))
    context = None if record.context is None else _bytes(record.context, file, number, "context")
    return replace(record, media=media, context=context)


def _bytes(medium: Medium, file: str, number: int, field: str) -> Medium:
    if medium.data is not None:
        return medium
    try:
        return Medium(Path(str(medium.path)).read_bytes(), Path(str(medium.path)).name)
    except OSError as error:
        raise RowError(Problem(file, number, field, f"{medium.path!r} cannot be read ({error.strerror})")) from error
