"""ImageRewardDB (2304.05977): ranks and three grades of the images of a prompt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beholder.preferences.readers.sources import Row, find, json_rows, parquet_rows, records, split_of
from beholder.preferences.schema import Record, RowError

COLUMNS = ("image_path", "prompt_id", "prompt", "rank")
GRADES = {"overall_rating": "overall", "image_text_alignment_rating": "alignment", "fidelity_rating": "fidelity"}
"""Columns of grades from 1 to 7, and what we call them."""


def read_image_reward_db(path: Path) -> Iterator[tuple[Row, Record | RowError]]:
    """The hub's `metadata-*.parquet` or its JSON lists (one image a row), or the repository's `test.json`.

    Images lie in folders or in the hub's zips (`images/train/train_1.zip`), unpacked or not. Equal ranks are ties.
    """
    listed = path.suffix in (".json", ".jsonl") or (path.is_dir() and not any(path.glob("*.parquet")))
    rows = json_rows(path) if listed else parquet_rows(path, COLUMNS, (*GRADES, "classification"))
    return records(_by_prompt(rows), lambda row: _repository(row) if "generations" in row.values else _record(row))


def _by_prompt(rows: Iterator[Row]) -> Iterator[Row]:
    """One row for all images of a prompt, in the order of its first one; rows of the repository's form as they are."""
    found: dict[tuple[str, Any], Row] = {}
    for row in rows:
        if "generations" in row.values:
            yield row
            continue
        first = found.setdefault((row.file, row.values.get("prompt_id")), Row(row.file, row.number, {"images": []}))
        first.values["images"].append(row.values)
    yield from found.values()


def _record(row: Row) -> Record:
    images = row.values["images"]
    first = images[0]
    given = {name: said for name, said in GRADES.items() if name in first}
    return Record(
        prompt=first["prompt"],
        media=tuple(find(row.file, image["image_path"]) for image in images),
        ranks=tuple(float(image["rank"]) for image in images),
        ratings={said: tuple(float(image[name]) for image in images) for name, said in given.items()},
        source="imagerewarddb",
        split=split_of(row.file),
        group=first["prompt_id"],
        meta={"classification": first["classification"]} if first.get("classification") is not None else {},
    )


def _repository(row: Row) -> Record:
    v = row.values
    return Record(
        prompt=v["prompt"],
        media=tuple(find(row.file, name) for name in v["generations"]),
        ranks=tuple(map(float, v["ranking"])),
        source="imagerewarddb",
        split=split_of(row.file),
        group=str(v["id"]),
    )
