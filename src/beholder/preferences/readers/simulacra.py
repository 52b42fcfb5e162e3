"""Simulacra Aesthetic Captions: grades from 1 to 10 of single images, in an SQLite file beside a folder of images."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from beholder.errors import InputError
from beholder.preferences.readers.sources import Row, find, records
from beholder.preferences.schema import Record, RowError

QUERY = """
    SELECT ratings.sid AS survey, ratings.iid AS image, ratings.rating AS rating, generations.prompt AS prompt,
           generations.method AS method, paths.path AS path
    FROM ratings
    JOIN images ON images.id = ratings.iid
    JOIN generations ON generations.id = images.gid
    JOIN paths ON paths.iid = images.id
    WHERE ratings.verified = 1 AND ratings.rating IS NOT NULL
    ORDER BY ratings.rowid
"""


def read_simulacra(path: Path) -> Iterator[tuple[Row, Record | RowError]]:
    """One verified rating a record: the rating `aesthetic`, the survey's number as annotator, the image's as group.

    Unverified and empty ratings are not data (the set's own description) and are not read; nor are the upscales.
    """
    return records(_rows(path), _record)


def _rows(path: Path) -> Iterator[Row]:
    files = [path] if path.is_file() else sorted(path.glob("*.sqlite"))
    if not files:
        raise InputError(f"simulacra: no .sqlite file {str(path)!r}")
    for file in files:
        try:
            with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
                database.row_factory = sqlite3.Row
                for number, row in enumerate(database.execute(QUERY)):
                    yield Row(str(file), number, dict(row))
        except sqlite3.Error as error:
            raise InputError(f"{file}: not the SQLite file of the set ({error})") from error


def _record(row: Row) -> Record:
    v = row.values
    if not 1 <= v["rating"] <= 10:
        raise row.wrong("rating", f"{v['rating']!r} is not 1..10")
    return Record(
        prompt=v["prompt"],
        media=(find(row.file, v["path"]),),
        ratings={"aesthetic": (float(v["rating"]),)},
        annotator=str(v["survey"]),
        source="simulacra",
        group=str(v["image"]),
        meta={"method": v["method"]},
    )
