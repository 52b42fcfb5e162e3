"""Pick-a-Pic v1 and v2 (2305.01569): one judgement of two images a row, parquet with the JPEGs inside."""

from collections.abc import Iterator
from pathlib import Path

from beholder.preferences.readers.sources import Row, parquet_rows, records, split_of
from beholder.preferences.schema import Medium, Record, RowError

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "user_id")
KEPT = ("image_0_uid", "image_1_uid", "model_0", "model_1", "ranking_id", "are_different", "num_example_per_prompt")
"""What goes into ``meta``."""


def read_pick_a_pic(path: Path) -> Iterator[tuple[Row, Record | RowError]]:
    """Labels 1/0 are a vote, ½/½ a tie; rows shown but never judged (`has_label` false) keep their images alone.

    `meta` keeps what filters ask for: `num_example_per_prompt` (PickScore weighs by its inverse), the models, and
    `are_different`.
    """
    return records(parquet_rows(path, COLUMNS, KEPT), _record)


def _record(row: Row) -> Record:
    v = row.values
    labels = (v["label_0"], v["label_1"])
    if v["has_label"] and labels not in ((1, 0), (0, 1), (0.5, 0.5)):
        raise row.wrong("label_0, label_1", f"{labels} is none of (1, 0), (0, 1) and (0.5, 0.5)")
    tie = labels == (0.5, 0.5)
    return Record(
        prompt=v["caption"],
        media=(Medium(v["jpg_0"], v.get("image_0_uid")), Medium(v["jpg_1"], v.get("image_1_uid"))),
        votes=None if not v["has_label"] else (0.0, 0.0) if tie else labels,
        ties=float(tie and v["has_label"]),
        annotator=None if v["user_id"] is None else str(v["user_id"]),
        source="pick-a-pic",
        split=split_of(row.file),
        meta={name: v[name] for name in KEPT if name in v},
    )
