"""Preference sets on disk: parquet files in small row groups, so that any record is a short read away.

A set is a file, a folder or a glob pattern; its records are those of its files in the order of their names. Memory is
bounded by a few row groups, whatever the size of the set. `datasets` reads the same files.
"""

import glob
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beholder.errors import InputError, nearest
from beholder.preferences.rows import check, from_row, to_row
from beholder.preferences.schema import COLUMNS, Record, RowError, arrow_schema

GROUP_ROWS = 32
GROUP_BYTES = 4 * 2**20
"""A row group is closed at so many records or bytes of media: what one random access reads."""
CACHE_BYTES = 64 * 2**20
"""Row groups kept in memory, beyond the latest one."""
OPEN_FILES = 16
DICTIONARY = ["prompt", "kind", "annotator", "source", "split", "group"]
MEDIA_BYTES = {"media.list.element.bytes": "NONE", "context.bytes": "NONE", "maps.list.element.bytes": "NONE"}
"""Images are compressed already."""


class PreferenceWriter:
    """Writes one file, a row group at a time, beside it and renamed: the file is complete or not there.

    Use it as a context manager; an exception inside leaves nothing. RowError for a record that contradicts the schema.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._temporary = path.with_name(path.name + ".tmp")
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0
        compression = {f.name: "ZSTD" for f in arrow_schema()} | MEDIA_BYTES
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = pq.ParquetWriter(
            self._temporary,
            arrow_schema(),
            compression=compression,
            use_dictionary=DICTIONARY,
            write_statistics=False,
        )

    def write(self, record: Record) -> None:
        check(record, str(self.path), self.rows)
        self._waiting.append(to_row(record))
        self._bytes += sum(len(m.data or b"") for m in (*record.media, *(h.image for h in record.maps)))
        self.rows += 1
        if len(self._waiting) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_pylist(self._waiting, schema=arrow_schema()))
        self._waiting, self._bytes = [], 0

    def __enter__(self) -> "PreferenceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._file.close()
            if kind is None:
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def write_preferences(path: Path | str, records: Iterable[Record]) -> int:
    """Writes one file; the number of records."""
    with PreferenceWriter(Path(path)) as writer:
        for record in records:
            writer.write(record)
    return writer.rows


def shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation of 0..n-1, a function of these three numbers alone."""
    return np.random.default_rng([seed, epoch]).permutation(n)


class PreferenceSet:
    """The records of some files; made by `open_preferences`. Safe to pickle, not to share between threads."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [str(file) for file in files]
        rows = [_group_rows(file) for file in self.files]
        self._file_of = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        self._group_of = np.concatenate([np.arange(len(r)) for r in rows])
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate(rows), dtype=np.int64)])
        self._first_row = self._starts[np.searchsorted(self._file_of, self._file_of, "left")]
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._cache: OrderedDict[tuple[int, tuple[str, ...]], tuple[pa.Table, int]] = OrderedDict()
        self._cached = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> Record:
        """Record ``i``, checked; RowError where its row contradicts the schema."""
        return self.read(i, COLUMNS)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_cache": OrderedDict(), "_cached": 0}

    def read(self, i: int, columns: Sequence[str]) -> Record:
        """Record ``i`` with only these columns filled in."""
        if not 0 <= i < len(self):
            raise IndexError(f"record {i} of {len(self)}")
        group = int(np.searchsorted(self._starts, i, "right")) - 1
        table = self._table(group, tuple(columns))
        row = table.slice(i - int(self._starts[group]), 1).to_pylist()[0]
        return from_row(row, *self.where(i), with_media=set(columns) == set(COLUMNS))

    def where(self, i: int) -> tuple[str, int]:
        """The file of record ``i`` and its row there, from 0."""
        group = int(np.searchsorted(self._starts, i, "right")) - 1
        return self.files[int(self._file_of[group])], i - int(self._first_row[group])

    def scan(self, columns: Sequence[str] = COLUMNS) -> Iterator[Record | RowError]:
        """Every record with these columns filled in, or what is wrong with its row.

        Without ``media`` a record has K empty ones, and no pixel is read.
        """
        whole = set(columns) == set(COLUMNS)
        wanted = columns if "media" in columns else (*columns, "media.path")
        for group, start in enumerate(self._starts[:-1]):
            number = int(start)
            for batch in self._read(group, wanted).to_batches(max_chunksize=GROUP_ROWS):
                for row in batch.to_pylist():
                    if "media" not in columns:
                        row["media"] = [{} for _ in row.get("media") or ()]
                    try:
                        yield from_row(row, *self.where(number), with_media=whole)
                    except RowError as error:
                        yield error
                    number += 1

    def _table(self, group: int, columns: tuple[str, ...]) -> pa.Table:
        key = (group, columns)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key][0]
        table = self._read(group, columns)
        self._cache[key] = table, table.nbytes
        self._cached += table.nbytes
        while len(self._cache) > 1 and self._cached > CACHE_BYTES:
            self._cached -= self._cache.popitem(last=False)[1][1]
        return table

    def _read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """One row group in the types of the schema; columns that the file lacks are left out."""
        number = int(self._file_of[group])
        file = self._parquet(number)
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        wanted = [c for name in columns for c in _leaves(name, leaves)]
        try:
            table = file.read_row_group(int(self._group_of[group]), columns=wanted, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self.files[number]}: row group {group} cannot be read ({error}); copy the file again"
            ) from error
        return _cast(table, self.files[number])

    def _parquet(self, number: int) -> pq.ParquetFile:
        file = self._open.pop(number, None)
        self._open[number] = file = file or open_parquet(self.files[number])
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file

    def to_dataset(self, streaming: bool = False, cache_dir: Path | None = None) -> Any:
        """The same files as a `datasets.Dataset` (memory-mapped after one conversion) or an `IterableDataset`."""
        from datasets import load_dataset

        cache = None if cache_dir is None else str(cache_dir)
        return load_dataset("parquet", data_files=self.files, split="train", streaming=streaming, cache_dir=cache)


def open_preferences(path: Path | str) -> PreferenceSet:
    """The set in a file, in the ``*.parquet`` files below a folder, or in those a glob pattern names.

    InputError for no such file, a file that is no parquet file, and columns or types the schema does not know.
    """
    return PreferenceSet(parquet_files(path))


def parquet_files(path: Path | str) -> list[Path]:
    """The files of a set, in the order of their names."""
    place = Path(path)
    if place.is_file():
        return [place]
    if place.is_dir():
        found = sorted(place.rglob("*.parquet"))
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not found:
        raise InputError(f"preferences: no file {str(path)!r}; give a .parquet file, a folder with some, or a pattern")
    return found


def open_parquet(file: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"preferences: {file!r} is not a readable parquet file ({error})") from error


def _group_rows(file: str) -> np.ndarray:
    """Rows of each row group; InputError where the columns are not those of the schema."""
    with open_parquet(file) as parquet:
        found = parquet.schema_arrow
        for name in found.names:
            if name not in COLUMNS:
                raise InputError(
                    f"{file}: unknown column {name!r}; {nearest(name, COLUMNS)} (another format? name it with --from)"
                )
        if "prompt" not in found.names or not {"media", "texts"} & set(found.names):
            raise InputError(f"{file}: no column 'prompt' with 'media' or 'texts'; write it with write_preferences")
        _cast(found.empty_table(), file)
        meta = parquet.metadata
        return np.array([meta.row_group(i).num_rows for i in range(meta.num_row_groups)], np.int64)


def _leaves(name: str, leaves: Sequence[str]) -> list[str]:
    """The parquet columns under a column, or those of one leaf: `media.path` reads no bytes."""
    top, _, leaf = name.partition(".")
    return [path for path in leaves if path.split(".")[0] == top and (not leaf or path.endswith(f".{leaf}"))]


def _cast(table: pa.Table, file: str) -> pa.Table:
    """The table in the types of the schema, media without their bytes excepted."""
    columns = {}
    for name in table.column_names:
        column, wanted = table.column(name), arrow_schema().field(name).type
        partial = name == "media" and "bytes" not in str(column.type)
        try:
            columns[name] = column if partial or column.type == wanted else column.cast(wanted)
        except (pa.ArrowException, NotImplementedError) as error:
            raise InputError(f"{file}, {name}: {column.type} is not {wanted} ({error}); convert the column") from error
    return pa.table(columns)
