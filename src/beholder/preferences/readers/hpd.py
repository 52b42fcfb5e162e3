"""Human Preference Dataset v1 (2303.14420) and v2 (2306.09341): JSON lists beside folders of images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from beholder.preferences.readers.sources import Row, find, json_rows, records, split_of
from beholder.preferences.schema import Medium, Record, RowError


def read_hpd_v1(path: Path) -> Iterator[tuple[Row, Record | RowError]]:
    """One person's choice of one among two or more images: `human_preference` is its place in `file_path`."""
    return records(json_rows(path), _choice)


def _choice(row: Row) -> Record:
    v = row.values
    images, chosen = _images(row, v["file_path"]), v["human_preference"]
    if type(chosen) is not int or not 0 <= chosen < len(images):
        raise row.wrong("human_preference", f"{chosen!r} must be 0..{len(images) - 1}, the place of the chosen image")
    return Record(
        prompt=v["prompt"],
        media=images,
        votes=tuple(float(i == chosen) for i in range(len(images))),
        annotator=v.get("user_hash"),
        source="hpd-v1",
        split=split_of(row.file),
        group=None if v.get("id") is None else str(v["id"]),
        meta={"contain_name": v["contain_name"]} if "contain_name" in v else {},
    )


def read_hpd_v2(path: Path) -> Iterator[tuple[Row, Record | RowError]]:
    """`train.json`: pairs with `human_preference` [1, 0] or [0, 1]. `test.json`: lists with `rank`, an average over
    annotators whose own rankings (`raw_annotations`) stay in ``meta``."""
    return records(json_rows(path), lambda row: _ranking(row) if "rank" in row.values else _pair(row))


def _pair(row: Row) -> Record:
    v = row.values
    if v["human_preference"] not in ([1, 0], [0, 1]):
        raise row.wrong("human_preference", f"{v['human_preference']!r} is neither [1, 0] nor [0, 1]")
    return Record(
        prompt=v["prompt"],
        media=_images(row, v["file_path"]),
        votes=tuple(map(float, v["human_preference"])),
        source="hpd-v2",
        split=split_of(row.file),
    )


def _ranking(row: Row) -> Record:
    v = row.values
    shift = max(0.0, 1.0 - min(v["rank"]))  # only the order counts; ours begins at 1
    return Record(
        prompt=v["prompt"],
        media=_images(row, v["image_path"]),
        ranks=tuple(float(rank) + shift for rank in v["rank"]),
        source="hpd-v2",
        split=split_of(row.file),
        meta={"raw_annotations": v["raw_annotations"]} if "raw_annotations" in v else {},
    )


def _images(row: Row, names: Sequence[str]) -> tuple[Medium, ...]:
    return tuple(find(row.file, name) for name in names)
