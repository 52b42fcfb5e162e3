"""Rows of public data sets as they lie on disk, one at a time, and the images they name."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TextIO
from zipfile import BadZipFile, ZipFile

import pyarrow as pa

from beholder.errors import InputError
from beholder.preferences.rows import check
from beholder.preferences.schema import Medium, Problem, Record, RowError
from beholder.preferences.store import open_parquet, parquet_files

BATCH = 16
"""Rows of a parquet file in memory at once."""
CHUNK = 2**20
LONGEST = 2**26
"""Characters after which what does not parse is taken for damaged, not for unfinished."""
PARENTS = 4
"""How far above a list of images they are looked for."""


@dataclass(frozen=True)
class Row:
    file: str
    number: int
    values: Mapping[str, Any]
    """The row as the source has it."""

    def wrong(self, field: str, reason: str) -> RowError:
        return RowError(Problem(self.file, self.number, field, reason))


def records(rows: Iterable[Row], make: Callable[[Row], Record]) -> Iterator[tuple[Row, Record | RowError]]:
    """Each row with its record, or with what is wrong with it."""
    for row in rows:
        try:
            record = make(row)
            check(record, row.file, row.number)
        except RowError as error:
            yield row, error
        except (KeyError, IndexError) as error:
            yield row, row.wrong("row", f"no field {error}")
        except (TypeError, ValueError, AttributeError) as error:
            yield row, row.wrong("row", f"{type(error).__name__}: {error}")
        else:
            yield row, record


def parquet_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the parquet files of a set with these columns, whatever else they hold."""
    for file in parquet_files(path):
        with open_parquet(str(file)) as parquet:
            there = parquet.schema_arrow.names
            missing = [name for name in columns if name not in there]
            if missing:
                raise InputError(f"{file}: no column {missing[0]!r} (it has {', '.join(there)}); is it of this format?")
            wanted = [*columns, *(name for name in optional if name in there)]
            try:
                for start, batch in _numbered(parquet.iter_batches(BATCH, columns=wanted)):
                    yield from (Row(str(file), start + j, values) for j, values in enumerate(batch.to_pylist()))
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{file} cannot be read to its end ({error}); download it again") from error


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    start = 0
    for batch in batches:
        yield start, batch
        start += batch.num_rows


def json_files(path: Path) -> list[Path]:
    """A `.json` or `.jsonl` file, or those in a folder."""
    found = [path] if path.is_file() else sorted([*path.glob("*.json"), *path.glob("*.jsonl")])
    if not found:
        raise InputError(f"preferences: no .json file {str(path)!r}; give one, or a folder with some")
    return found


def json_rows(path: Path) -> Iterator[Row]:
    """The objects of JSON arrays or of JSON lines, read in pieces."""
    for file in json_files(path):
        for number, values in enumerate(_objects(file)):
            if not isinstance(values, dict):
                raise InputError(f"{file}, row {number}: {str(values)[:40]!r} is not a JSON object")
            yield Row(str(file), number, values)


def _objects(file: Path) -> Iterator[Any]:
    """Values one after the other, whatever brackets and commas stand between them."""
    decoder, text, between = json.JSONDecoder(), "", re.compile(r"[\s,\[\]]*")
    with file.open(encoding="utf-8-sig") as source:
        while True:
            piece = _piece(source)
            text += piece
            at = between.match(text).end()  # pyright: ignore[reportOptionalMemberAccess]
            while at < len(text):
                try:
                    value, end = decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:
                    if not piece or len(text) - at > LONGEST:
                        raise InputError(f"{file}: not JSON after {text[at : at + 40]!r} ({error.msg})") from error
                    break
                yield value
                at = between.match(text, end).end()  # pyright: ignore[reportOptionalMemberAccess]
            text = text[at:]
            if not piece:
                return


def _piece(source: TextIO) -> str:
    try:
        return source.read(CHUNK)
    except UnicodeDecodeError as error:
        raise InputError(f"{source.name}: not UTF-8 (byte {error.start}); convert it with iconv") from error


def split_of(file: str) -> str | None:
    """`train` of `train-00000-of-00010.parquet`, `metadata-train.parquet`, `train.json` or `train_7.json`."""
    found = re.match(
        r"(?:metadata-)?([a-z_]*?(?:train|test|val|validation|dev)[a-z_]*?)(?=[-_.]\d|[-.])", Path(file).name
    )
    return found[1] if found else None


def medium_of(value: Any) -> Medium:
    """An image column: raw bytes, or the `{bytes, path}` of `datasets.Image`."""
    if isinstance(value, Mapping):
        return Medium(value.get("bytes"), value.get("path"))
    return Medium(value)


def find(file: str, name: str) -> Medium:
    """The image that a list names: beside the list, in the folder of its name, above it, or in a zip on the way.

    One that is nowhere keeps its path beside the list, so that whoever decodes it says so.
    """
    if not name or not isinstance(name, str):
        raise ValueError(f"{name!r} is no image path")
    base = Path(file).parent
    for root in (base, base / Path(file).stem, *list(base.resolve().parents)[:PARENTS]):
        if (root / name).is_file():
            return Medium(path=str((root / name).resolve()))
        packed = _packed(root, PurePosixPath(name))
        if packed is not None:
            return Medium(packed, name)
    return Medium(path=str((base / name).resolve()))


def _packed(root: Path, name: PurePosixPath) -> bytes | None:
    """The bytes of ``a/b/c.webp`` from ``a/b.zip`` or ``a.zip`` below ``root``."""
    for folder in name.parents:
        archive = root / f"{folder}.zip"
        if folder.name and archive.is_file():
            entries = _archive(str(archive))
            for entry in (name, name.relative_to(folder), folder.name / name.relative_to(folder)):
                if str(entry) in entries.NameToInfo:
                    return entries.read(str(entry))
    return None


@lru_cache(maxsize=4)
def _archive(path: str) -> ZipFile:
    try:
        return ZipFile(path)
    except BadZipFile as error:
        raise InputError(f"{path} is not a whole zip file ({error}); download it again") from error
