"""RLHF-V (2312.00849) and RLAIF-V (2405.17220): two answers to a question about an image."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from beholder.preferences.readers.sources import Row, medium_of, parquet_rows, records, split_of
from beholder.preferences.schema import Record, RowError

KEPT = ("ds_name", "origin_dataset", "origin_split", "image_path")


def read_rlhf_v(path: Path) -> Iterator[tuple[Row, Record | RowError]]:
    """`text` is a JSON string of question, chosen and rejected; the chosen answer is the rejected one, corrected."""
    return records(parquet_rows(path, ("image", "text"), ("idx", *KEPT)), _corrected)


def _corrected(row: Row) -> Record:
    try:
        text = json.loads(row.values["text"])
    except json.JSONDecodeError as error:
        raise row.wrong("text", f"not JSON ({error})") from error
    return _answers(row, text, "rlhf-v")


def read_rlaif_v(path: Path) -> Iterator[tuple[Row, Record | RowError]]:
    """question, chosen and rejected are columns."""
    columns = ("image", "question", "chosen", "rejected")
    return records(parquet_rows(path, columns, ("idx", *KEPT)), lambda row: _answers(row, row.values, "rlaif-v"))


def _answers(row: Row, text: Mapping[str, Any], source: str) -> Record:
    v = row.values
    return Record(
        prompt=text["question"],
        kind="text",
        texts=(text["chosen"], text["rejected"]),
        context=medium_of(v["image"]),
        votes=(1.0, 0.0),
        source=source,
        split=split_of(row.file),
        group=None if v.get("idx") is None else str(v["idx"]),
        meta={name: v[name] for name in KEPT if v.get(name) is not None},
    )
