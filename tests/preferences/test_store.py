"""Files of preference sets: whole or not there, read a piece at a time, in an order that can be made again."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_sets import pair, picture

from beholder.errors import InputError
from beholder.preferences import store
from beholder.preferences.schema import COLUMNS, JUDGEMENT, Medium, Record
from beholder.preferences.store import PreferenceWriter, open_preferences, shuffled, write_preferences


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Record]:
        yield from (pair(i) for i in range(100))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_preferences(tmp_path / "set.parquet", interrupted())
    assert not list(tmp_path.iterdir())
    write_preferences(tmp_path / "set.parquet", [pair(0)])
    with pytest.raises(KeyboardInterrupt):
        write_preferences(tmp_path / "set.parquet", interrupted())
    assert [p.name for p in tmp_path.iterdir()] == ["set.parquet"]
    assert len(open_preferences(tmp_path)) == 1


def test_writing_holds_one_row_group(tmp_path: Path) -> None:
    with PreferenceWriter(tmp_path / "set.parquet") as writer:
        for i in range(100):
            writer.write(pair(i))
            assert len(writer._waiting) < store.GROUP_ROWS
    meta = pq.read_metadata(tmp_path / "set.parquet")
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [32, 32, 32, 4]


def test_large_media_close_a_row_group_early(tmp_path: Path) -> None:
    large = replace(pair(0), media=(Medium(bytes(store.GROUP_BYTES // 4)),) * 2)
    write_preferences(tmp_path / "set.parquet", [large] * 5)
    assert pq.read_metadata(tmp_path / "set.parquet").num_row_groups == 3


def test_a_set_is_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, numbers in {"b/1.parquet": range(40, 45), "a.parquet": range(40), "c.parquet": range(45, 50)}.items():
        write_preferences(tmp_path / name, [pair(i) for i in numbers])
    write_preferences(tmp_path / "empty.parquet", [])
    (tmp_path / "notes.txt").write_text("not part of it")
    there = open_preferences(tmp_path)
    assert len(there) == 50
    assert [there[i].prompt for i in np.random.default_rng(0).permutation(50)] == [
        f"prompt {i}" for i in np.random.default_rng(0).permutation(50)
    ]
    assert there.where(41) == (str(tmp_path / "b" / "1.parquet"), 1)
    assert there.where(33) == (str(tmp_path / "a.parquet"), 33)
    assert [r.prompt for r in open_preferences(str(tmp_path / "?.parquet"))] == [
        f"prompt {i}" for i in (*range(40), *range(45, 50))
    ]
    with pytest.raises(IndexError):
        there[50]


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" + bytes(20) + b"PAR1"], ids=["empty", "text", "broken"])
def test_what_is_no_set_is_said(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*nowhere.*give a .parquet file"):
        open_preferences(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no file"):
        open_preferences(tmp_path)
    (tmp_path / "set.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"set.parquet' is not a readable parquet file"):
        open_preferences(tmp_path)


def test_a_damaged_row_group_is_said(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    write_preferences(path, [pair(i) for i in range(64)])
    data, place = path.read_bytes(), pq.read_metadata(path).row_group(1).column(0).data_page_offset
    path.write_bytes(data[:place] + bytes(200) + data[place + 200 :])
    there = open_preferences(path)
    assert there[0].prompt == "prompt 0"
    with pytest.raises(InputError, match=r"set.parquet: row group 1 cannot be read"):
        there[40]


def test_memory_holds_a_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CACHE_BYTES", 100_000)
    monkeypatch.setattr(store, "OPEN_FILES", 2)
    for part in range(4):
        write_preferences(
            tmp_path / f"{part}.parquet",
            [replace(pair(i), media=(Medium(bytes(500)), Medium(bytes(500)))) for i in range(100)],
        )
    there = open_preferences(tmp_path)
    for i in np.random.default_rng(1).permutation(len(there)):
        there[int(i)]
        assert there._cached == sum(table.nbytes for table, _ in there._cache.values())
        assert there._cached <= 100_000 + 40_000 and len(there._open) <= 2
    assert len(there._cache) > 1


def test_a_scan_of_judgements_reads_no_pixels(tmp_path: Path) -> None:
    write_preferences(tmp_path / "set.parquet", [pair(i) for i in range(40)])
    there = open_preferences(tmp_path)
    for record in there.scan(JUDGEMENT):
        assert isinstance(record, Record)
        assert record.votes == (0, 1) and record.media == (Medium(), Medium()) and record.prompt == ""
    read = there._read(0, (*JUDGEMENT, "media.path"))
    assert "bytes" not in str(read.column("media").type)
    assert [r.prompt for r in there.scan(COLUMNS) if isinstance(r, Record)] == [f"prompt {i}" for i in range(40)]


def test_an_open_set_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write_preferences(tmp_path / "set.parquet", [pair(i) for i in range(40)])
    there = open_preferences(tmp_path)
    assert there[39].prompt == "prompt 39"
    assert pickle.loads(pickle.dumps(there))[38].prompt == "prompt 38"


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    assert sorted(shuffled(100, 3, 7)) == list(range(100))
    assert (shuffled(100, 3, 7) == shuffled(100, 3, 7)).all()
    assert shuffled(10, 0, 0).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]  # what it was when written
    different = {tuple(shuffled(100, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(different) == 16


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_same_file(streaming: bool, tmp_path: Path) -> None:
    from datasets import Image, List

    write_preferences(tmp_path / "set.parquet", [replace(pair(i), ratings={"x": (0.5, 1.0)}) for i in range(40)])
    rows = open_preferences(tmp_path).to_dataset(streaming, tmp_path / "cache")
    decoded = list(rows.cast_column("media", List(Image())))
    assert len(decoded) == 40
    assert decoded[7]["media"][1].getpixel((0, 0)) == (15, 0, 7)
    assert decoded[7]["votes"] == [0, 1] and decoded[7]["ratings"] == [{"name": "x", "values": [0.5, 1.0]}]


def test_media_by_path_lie_beside_their_file(tmp_path: Path) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "a.png").write_bytes(picture())
    record = Record("x", (Medium(path="images/a.png"),), ratings={"like": (1.0,)})
    write_preferences(tmp_path / "set" / "likes.parquet", [record])
    (tmp_path / "set").rename(tmp_path / "moved")
    assert open_preferences(tmp_path / "moved")[0].media[0].path == str(tmp_path / "moved" / "images" / "a.png")
