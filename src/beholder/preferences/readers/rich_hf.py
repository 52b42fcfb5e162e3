"""RichHF-18k (2312.10240): four scores, two heat maps and misaligned words of an image, in TFRecord files.

The files hold neither images nor prompts: both come from Pick-a-Pic v1 by the image's uid, or from a list of one's own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beholder.errors import InputError
from beholder.media import read_pairs
from beholder.preferences.readers.sources import Row, find, parquet_rows, records, split_of
from beholder.preferences.readers.tfrecord import read_examples
from beholder.preferences.schema import HeatMap, Medium, Record, RowError, words

SCORES = ("aesthetics", "artifact", "misalignment", "overall")
"""All in 0..1 and higher is better; `artifact` is plausibility."""
MAPS = ("artifact", "misalignment")


def read_rich_hf(path: Path, join: Path | None = None) -> Iterator[tuple[Row, Record | RowError]]:
    """The annotated images of a `.tfrecord` file, or of those in a folder.

    ``join`` is where images and prompts are: Pick-a-Pic v1's parquet files, or a JSONL file of ``{"image": path,
    "prompt": text}`` whose file names are the uids.
    """
    if join is None:
        raise InputError(
            "richhf-18k: the files hold no images and no prompts; name with --join Pick-a-Pic v1's parquet files, or a "
            'JSONL file of {"image": path, "prompt": text} lines'
        )
    return records(_joined(path, join), _record)


def _joined(path: Path, join: Path) -> Iterator[Row]:
    """Annotations with their image and prompt, in the order of ``join``; then those it lacks."""
    files = [path] if path.is_file() else sorted(path.glob("*.tfrecord"))
    if not files:
        raise InputError(f"richhf-18k: no .tfrecord file {str(path)!r}")
    waiting: dict[str, list[Row]] = {}
    for file in files:
        for number, example in enumerate(read_examples(file)):
            values: dict[str, Any] = {name: feature[0] if feature else None for name, feature in example.items()}
            uid = Path((values.get("filename") or b"").decode()).stem
            waiting.setdefault(uid, []).append(Row(str(file), number, values))
    for uid, medium, prompt in _pictures(join):
        for row in waiting.pop(uid, ()):
            yield Row(row.file, row.number, {**row.values, "medium": medium, "prompt": prompt})
    yield from (row for rows in waiting.values() for row in rows)


def _pictures(join: Path) -> Iterator[tuple[str, Medium, str]]:
    """uid, image and prompt of everything in ``join``."""
    if join.suffix == ".jsonl":
        yield from ((image.stem, find(str(join), str(image)), prompt) for image, prompt in read_pairs(join))
        return
    sides = [(f"image_{i}_uid", f"jpg_{i}") for i in (0, 1)]
    for row in parquet_rows(join, ["caption", *(name for side in sides for name in side)]):
        for uid, jpg in sides:
            yield row.values[uid], Medium(row.values[jpg], row.values[uid]), row.values["caption"]


def _record(row: Row) -> Record:
    v = row.values
    if "medium" not in v:
        raise row.wrong("filename", f"{v.get('filename')!r} is not among the images of --join")
    labels = v["prompt_misalignment_label"].decode().split()
    if len(labels) != len(words(v["prompt"])):
        raise row.wrong("prompt_misalignment_label", f"{len(labels)} labels for the words of {v['prompt']!r}")
    return Record(
        prompt=v["prompt"],
        media=(v["medium"],),
        ratings={name: (float(v[f"{name}_score"]),) for name in SCORES},
        maps=tuple(HeatMap(name, 0, Medium(v[f"{name}_map"])) for name in MAPS if v.get(f"{name}_map")),
        misaligned=(tuple(i for i, label in enumerate(labels) if label == "0"),),
        source="richhf-18k",
        split=split_of(row.file),
        meta={"filename": v["filename"].decode()},
    )
