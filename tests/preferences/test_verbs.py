"""`beholder prefer` and `beholder preferences` as a person meets them."""

import json
from dataclasses import replace
from pathlib import Path

import public_files as files
import pytest
from small_sets import pair

from beholder.cli import run
from beholder.preferences.schema import Medium
from beholder.preferences.store import open_preferences, write_preferences


def test_prefer_makes_a_set_and_says_what_it_holds(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    line = ["prefer", "--n", "3", "--steps", "3", "--output", str(tmp_path / "set")]
    assert run([*line, "--groups", "exact=shapes:1", "red=redness:1", "--annotators", "4", "--json"]) == 0
    out, err = capfd.readouterr()
    said = json.loads(out)
    assert err == "" and (said["records"], said["pairs"], said["kinds"]) == (3, 3, {"image": 3})
    assert said["ratings"] == {"shapes": 3, "redness": 3} and said["set"] == str(tmp_path / "set")
    assert {str(r.annotator)[:-2] for r in open_preferences(tmp_path / "set")} <= {"exact", "red"}
    assert run(["prefer", "--n", "3", "--steps", "3", "--output", str(tmp_path / "set")]) == 2
    assert "choose another --output" in capfd.readouterr().err


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beholder.preferences import terminal

    def interrupted(*given) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "make_preferences", interrupted)
    assert run(["prefer", "--output", str(tmp_path / "set")]) == 130
    assert "the same command goes on" in capfd.readouterr().err


def test_preferences_looks_at_a_set(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_preferences(tmp_path / "set.parquet", [pair(i, annotator=f"[/red] {i}") for i in range(3)])
    assert run(["preferences", str(tmp_path / "set.parquet")]) == 0
    out, err = capfd.readouterr()
    assert err == "" and "records" in out and "image: 3" in out
    broken = replace(pair(4), media=(Medium(b"x"), Medium(b"y")))
    write_preferences(tmp_path / "set.parquet", [pair(0), broken])
    assert run(["preferences", str(tmp_path), "--json"]) == 2
    out, err = capfd.readouterr()
    assert len(json.loads(out)["problems"]) == 1
    assert err.count("\n") == 1 and "1 of 2 records cannot be used; first" in err and "row 1, media[0]" in err
    assert run(["preferences", str(tmp_path), "--no-media"]) == 0


def test_preferences_converts_a_public_set(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    files.write_pick_a_pic(tmp_path / "in", [files.pick_a_pic_row(0), files.pick_a_pic_row(1, jpg_1=b"x")])
    line = ["preferences", str(tmp_path / "in"), "--from", "pick-a-pic", "--output", str(tmp_path / "set.parquet")]
    assert run(line) == 0
    out, err = capfd.readouterr()
    assert err == "" and "pick-a-pic: 1" in out and "row 1, media[1]: uid-3 is not a readable image" in out
    assert len(open_preferences(tmp_path / "set.parquet")) == 1
    assert run(line) == 2
    assert "exists" in capfd.readouterr().err


MISTAKES = {
    "preferences": ["give a preference set"],
    "preferences nowhere": ["no file 'nowhere'"],
    "preferences . --from pickapic --output x.parquet": ["'pickapic'", "'pick-a-pic'"],
    "preferences . --from hpd-v1": ["--output"],
    "preferences . --output x.parquet": ["--output goes with --from"],
    "preferences . --embed": ["--embed goes with --from"],
    "preferences . --from": ["--from", "no value"],
    "preferences . --from richhf-18k --output x": ["--join"],
    "preferences . --frm hpd-v1": ["--frm"],
    "prefer --n 0": ["n: 0 must be greater than 0"],
    "prefer --rewards redness": ["NAME WEIGHT"],
    "prefer --rewards rednes 1": ["'rednes'", "'redness'"],
    "prefer --groups a=b": ["'a=b'", "NAME=REWARD:WEIGHT"],
    "prefer --annotators 2 --judges 3": ["3 judgements by 2 annotators"],
    "prefer --prompts nowhere.txt": ["nowhere.txt"],
    "prefer --temprature 1": ["--temprature", "'--temperature'"],
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line(
    line: str, capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(line.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("beholder: ") and err.count("\n") == 1
    for wanted in MISTAKES[line]:
        assert wanted in err
    assert not list(tmp_path.iterdir())
