"""Public sets as ours: what is kept, what is left out and said, nothing half-written."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import public_files as files
import pytest
from small_sets import pair

from beholder.errors import InputError
from beholder.preferences import convert as module
from beholder.preferences.convert import convert
from beholder.preferences.schema import Record, RowError
from beholder.preferences.store import open_preferences
from beholder.preferences.summary import summarise
from beholder.preferences.views import pairs


def pick_a_pic(folder: Path) -> Path:
    """Five rows: the second has an odd label, the fourth a damaged image."""
    rows = [files.pick_a_pic_row(i) for i in range(5)]
    rows[1]["label_0"] = 0.7
    rows[3]["jpg_1"] = rows[3]["jpg_1"][:100]
    return files.write_pick_a_pic(folder, rows)


def test_what_cannot_be_used_is_left_out_and_said(tmp_path: Path) -> None:
    heard: list[int] = []
    problems = convert(pick_a_pic(tmp_path / "in"), "pick-a-pic", tmp_path / "set.parquet", advance=heard.append)
    assert [r.prompt[-1] for r in open_preferences(tmp_path / "set.parquet")] == ["0", "2", "4"]
    assert [(p.row, p.field) for p in problems] == [(1, "label_0, label_1"), (3, "media[1]")]
    assert all(p.file.endswith("abc123.parquet") for p in problems) and sum(heard) == 5
    assert len(pairs(open_preferences(tmp_path / "set.parquet"))) == 3


def test_media_can_be_left_unread(tmp_path: Path) -> None:
    problems = convert(pick_a_pic(tmp_path / "in"), "pick-a-pic", tmp_path / "set.parquet", media=False)
    assert [p.row for p in problems] == [1] and len(open_preferences(tmp_path / "set.parquet")) == 4
    assert [p.split(", ")[1] for p in summarise(open_preferences(tmp_path / "set.parquet"))["problems"]] == ["row 2"]


@pytest.mark.parametrize("embed", [True, False])
def test_files_are_named_or_taken_in(embed: bool, tmp_path: Path) -> None:
    rows = [files.hpd_v1_row(0, 1)]
    files.write_images(tmp_path / "in", rows[0]["file_path"])
    files.write_json(tmp_path / "in" / "train.json", rows)
    convert(tmp_path / "in", "hpd-v1", tmp_path / "set.parquet", embed=embed)
    assert len(dict(pairs(open_preferences(tmp_path / "set.parquet")).epoch(0, 0))) == 1
    shutil.rmtree(tmp_path / "in")
    view = pairs(open_preferences(tmp_path / "set.parquet"))
    assert len(dict(view.epoch(0, 0))) == (1 if embed else 0) and len(view.problems) == (0 if embed else 1)


def test_a_large_set_is_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 4)
    files.write_pick_a_pic(tmp_path / "in", [files.pick_a_pic_row(i) for i in range(9)])
    convert(tmp_path / "in", "pick-a-pic", tmp_path / "set")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [f"part-{i:05d}.parquet" for i in range(3)]
    assert [r.prompt[-1] for r in open_preferences(tmp_path / "set")] == list("012345678")


@pytest.fixture(params=["set", "set.parquet"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def stops(monkeypatch: pytest.MonkeyPatch, rows: Callable[[], Iterator]) -> None:
    monkeypatch.setattr(module, "read_public", lambda *given: rows())


def test_an_interruption_leaves_nothing(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[tuple[object, Record | RowError]]:
        row = type("Row", (), {"file": "f", "number": 0})()
        yield from ((row, pair(i)) for i in range(50))
        raise KeyboardInterrupt

    stops(monkeypatch, rows)
    with pytest.raises(KeyboardInterrupt):
        convert(Path("x"), "pick-a-pic", output)
    assert not list(output.parent.iterdir())


def test_what_is_there_is_not_replaced(output: Path, tmp_path: Path) -> None:
    output.touch()
    with pytest.raises(InputError, match="exists; choose another --output"):
        convert(pick_a_pic(tmp_path / "in"), "pick-a-pic", output)
    assert output.read_bytes() == b""


def test_a_set_without_one_usable_record_is_an_error(output: Path, tmp_path: Path) -> None:
    files.write_pick_a_pic(tmp_path / "in", [files.pick_a_pic_row(0, jpg_0=b"x")])
    with pytest.raises(InputError, match=r"holds no record that can be used; first .*row 0, media\[0\]: uid-0 is not"):
        convert(tmp_path / "in", "pick-a-pic", output)
    assert not output.exists()
