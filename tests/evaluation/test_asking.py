"""Questions about files: rows, what cannot be read, and the command line of `ask` and `compare`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from beholder.cli import run
from beholder.errors import InputError
from beholder.evaluation.asking import ask
from beholder.evaluation.comparing import Pair, compare, find_pairs
from beholder.evaluation.grids import save_png
from beholder.evaluation.media_files import find_media, read_medium
from beholder.media import to_pil
from beholder.worlds.shapes.prompts import parse, scene_for
from beholder.worlds.shapes.scenes import render
from small_videos import write_video
from tiny_vlms import save_vlm

RED = "a red circle"
Vlm = Callable[[str], Path]


def draw(path: Path, text: str, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(to_pil(torch.from_numpy(render(scene_for(parse(text), rng), rng))), path)
    return path


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return draw(tmp_path / "red.png", RED)


@pytest.fixture
def blue(tmp_path: Path) -> Path:
    return draw(tmp_path / "blue.png", "a blue square")


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vlm("llava", tmp_path_factory.mktemp("llava"))


def printed(line: list[str], capsys: pytest.CaptureFixture, code: int = 0) -> tuple[list[dict], str]:
    capsys.readouterr()
    assert run(line) == code
    out, err = capsys.readouterr()
    return [json.loads(row) for row in out.splitlines()], err


# ------------------------------------------------------------------------------------------------------------ ask


def test_one_row_for_every_file_and_question(red: Path, blue: Path) -> None:
    rows = list(ask([red, blue], ["Is there a red circle?", 'Does the image show "[[prompt]]"?'], "shapes", RED))
    assert [(row["media"], row["answer"], row["probability"]) for row in rows] == [
        *((str(red), "yes", 1.0), (str(red), "yes", 1.0)),
        *((str(blue), "no", 0.0), (str(blue), "no", 0.0)),
    ]
    assert rows[1]["question"] == f'Does the image show "{RED}"?'


def test_questions_on_the_command_line(red: Path, capsys: pytest.CaptureFixture) -> None:
    """Given one by one, together, and behind an equals sign."""
    several = ["--question", "Is there a red circle?", "Is the image sharp?", "--model", "shapes", "--json"]
    rows, err = printed(["ask", str(red), *several, "--question=Are there two crosses?"], capsys)
    assert [row["question"].split()[-1] for row in rows] == ["circle?", "sharp?", "crosses?"]
    assert [row["answer"] for row in rows] == ["yes", "yes", "no"] and err == ""


def test_the_table_shows_answer_and_probability(red: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["ask", str(red), "--question", "Is there a red circle?", "--model", "shapes"]) == 0
    out = capsys.readouterr().out
    assert "Is there a red circle?" in out and "yes" in out and "1.000" in out and "red.png" not in out


def test_what_fails_is_said_and_the_others_are_answered(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "torn.png").write_bytes(red.read_bytes()[:60])
    line = ["ask", str(red), str(tmp_path / "torn.png"), "--question", "Is there a red circle?", "Is it nice?"]
    rows, err = printed([*line, "--model", "shapes", "--json"], capsys)
    assert [row["answer"] for row in rows] == ["yes", None, None, None]
    assert all(row["probability"] is None and row["invalid"] for row in rows[1:])
    assert err.startswith("beholder: 3 of 4 answers are invalid: ") and "torn.png" in err and err.count("\n") == 1


def test_no_valid_answer_is_a_failure(red: Path, capsys: pytest.CaptureFixture) -> None:
    rows, err = printed(["ask", str(red), "--question", "Is it nice?", "--model", "shapes", "--json"], capsys, code=1)
    assert rows[0]["answer"] is None and "1 of 1 answers are invalid" in err


def test_folders_and_globs(tmp_path: Path) -> None:
    files = [draw(tmp_path / name, RED) for name in ("a/b.png", "a/c.png", "d.png")]
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / "e.mp4").touch()
    assert find_media("ask", [tmp_path / "a", tmp_path / "d.png"]) == [
        files[0],
        files[1],
        tmp_path / "a" / "e.mp4",
        files[2],
    ]
    assert find_media("ask", [tmp_path / "*" / "*.png"]) == files[:2]
    with pytest.raises(InputError, match="no image or video"):
        find_media("ask", [tmp_path / "*.jpg"])


def test_a_model_answers_about_images_and_videos(
    llava: Path, red: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    video = write_video(tmp_path / "a.mp4", 17, 8)
    line = ["ask", str(red), str(video), "--question", "Is it?", "--model", str(llava), "--judge.top", "9999", "--json"]
    rows, _ = printed(line, capsys)
    assert [Path(row["media"]).name for row in rows] == ["red.png", "a.mp4"]
    assert all(0 < row["probability"] < 1 for row in rows) and rows[0]["probability"] != rows[1]["probability"]
    fewer, _ = printed([*line, "--frames.count", "1"], capsys)
    assert fewer[0] == rows[0] and fewer[1]["probability"] != rows[1]["probability"]


def test_videos_are_read_as_their_frames(tmp_path: Path) -> None:
    medium = read_medium(write_video(tmp_path / "a.mp4", 17, 8))
    assert medium.kind == "video" and len(medium.stills) == 3


# -------------------------------------------------------------------------------------------------------- compare


def test_the_better_one_and_in_what(red: Path, blue: Path) -> None:
    (row,) = compare([Pair(red, blue, RED)], "shapes")
    assert row["better"] == "first" and row["checklist"] == "shapes"
    assert row["dimensions"]["alignment"] == {"first": 1.0, "second": 0.0, "difference": 1.0}
    shares = [row["dimensions"][name]["difference"] for name in ("alignment", "quality")]
    assert sum(shares) == pytest.approx(row["total"]["difference"], abs=1e-9)


def test_the_order_of_a_pair_does_not_matter(red: Path, blue: Path) -> None:
    (one,), (other,) = (compare([Pair(*pair, RED)], "shapes") for pair in ((red, blue), (blue, red)))
    assert (one["better"], other["better"]) == ("first", "second")
    for name, sides in one["dimensions"].items():
        assert other["dimensions"][name]["difference"] == -sides["difference"]


def test_a_picture_ties_with_itself(red: Path) -> None:
    (row,) = compare([Pair(red, red, RED)], "shapes")
    assert row["better"] == "tie" and row["total"]["difference"] == 0


def test_a_failed_answer_leaves_a_pair_undecided(red: Path, blue: Path, capsys: pytest.CaptureFixture) -> None:
    """The prompt is none of the world's, so the alignment cannot be judged; the quality still can."""
    line = ["compare", str(red), str(blue), "--prompt", "a cat", "--model", "shapes", "--json"]
    (row,), err = printed(line, capsys, code=1)
    assert row["better"] is None and row["total"]["difference"] is None
    assert row["dimensions"]["alignment"]["first"] is None and row["dimensions"]["quality"]["first"] > 0
    assert set(row["failed"]) == {"first", "second"} and "1 of 1 comparisons are invalid" in err


def test_folders_are_compared_name_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder, texts in {"old": ("a blue square", RED, RED), "new": (RED, RED)}.items():
        for i, text in enumerate(texts):
            draw(tmp_path / folder / "sub" / f"{i}.png", text)
    line = ["compare", str(tmp_path / "old"), str(tmp_path / "new"), "--prompt", RED, "--model", "shapes", "--json"]
    rows, _ = printed(line, capsys)
    assert [(Path(row["first"]).name, row["better"]) for row in rows] == [("0.png", "second"), ("1.png", "tie")]


def test_pairs_from_a_file(red: Path, blue: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    lines = [
        {"first": str(red), "second": str(blue), "prompt": "a blue square"},
        {"first": str(red), "second": str(blue)},
    ]
    lines.append({"first": str(red), "second": str(tmp_path / "nowhere.png")})
    (tmp_path / "pairs.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    line = ["compare", "--pairs", str(tmp_path / "pairs.jsonl"), "--prompt", RED, "--model", "shapes", "--json"]
    rows, err = printed(line, capsys)
    assert [row["better"] for row in rows] == ["second", "first", None]
    assert "nowhere.png" in rows[2]["failed"]["second"] and "1 of 3 comparisons are invalid" in err


def test_a_checklist_of_ones_own(red: Path, blue: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    own = "name: squares\nmedia: image\nquestions: [{id: a, ask: 'Is there a square?', dimension: shape, weight: 3}]\n"
    (tmp_path / "own.yaml").write_text(own)
    line = ["compare", str(red), str(blue), "--checklist", str(tmp_path / "own.yaml"), "--model", "shapes", "--json"]
    (row,), _ = printed(line, capsys)
    assert row["better"] == "second" and row["total"] == {"first": -3.0, "second": 3.0, "difference": -6.0}


def test_videos_with_the_published_checklist(llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = (write_video(tmp_path / f"{n}.mp4", n, 8) for n in (9, 30))
    line = ["compare", str(first), str(second), "--prompt", RED, "--model", str(llava), "--judge.top", "9999"]
    (row,), _ = printed([*line, "--json"], capsys)
    assert row["checklist"] == "visionreward-video" and row["better"] in ("first", "second", "tie")
    assert len(row["dimensions"]) == 8 and abs(row["total"]["first"]) <= 0.21645422762093175 + 1e-9
    assert run(line) == 0
    out = capsys.readouterr().out
    assert out.startswith("better: ") and "preservation" in out and "difference" in out


# ------------------------------------------------------------------------------------------------------- mistakes

MISTAKES = {
    "ask red.png --model shapes": ["no question given", "--question"],
    "ask --question Is? --model shapes": ["no image or video"],
    "ask nowhere.png --question Is? --model shapes": ["no file 'nowhere.png'"],
    "ask red.png --question Show[[prompt]]? --model shapes": ["--prompt"],
    "ask red.png --question Is?": ["--model: none given", "zai-org/VisionReward-Image", "Qwen/Qwen3-VL-4B-Instruct"],
    "ask a.mp4 --question Is?": ["--model: none given", "zai-org/VisionReward-Video"],
    "ask red.png --question Is? --model ./nowhere": ["no folder './nowhere'"],
    "ask red.png --question Is? --model http://127.0.0.1:9/v1": ["no server answers at http://127.0.0.1:9/v1"],
    "ask red.png --question Is? --model shapes --judge.bach 3": ["--judge.bach", "'--judge.batch'"],
    "ask red.png --question Is? --model shapes --judge.answers soft": ["'soft'", "probability"],
    "compare red.png --model shapes": ["1 given", "two images"],
    "compare red.png red.png --model shapes": ["--prompt"],
    "compare red.png a.mp4 --prompt x --model shapes": ["images and videos"],
    "compare red.png . --prompt x --model shapes": ["one is a folder"],
    "compare red.png nowhere.png --prompt x --model shapes": ["no file 'nowhere.png'"],
    "compare red.png red.png --prompt x --checklist shape --model shapes": ["did you mean 'shapes'"],
    "compare red.png red.png --prompt x --checklist visionreward-video --model shapes": ["is for videos", "an image"],
    "compare --pairs nowhere.jsonl --prompt x --model shapes": ["no file 'nowhere.jsonl'"],
    "compare a.mp4 a.mp4 --prompt x --checklist shapes --model shapes": ["'a.mp4'"],
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line(
    line: str, red: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(red.parent)
    (red.parent / "a.mp4").touch()
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("beholder: ") and err.count("\n") == 1
    assert all(wanted in err for wanted in MISTAKES[line]), err


def test_folders_without_a_common_name_are_a_mistake(tmp_path: Path) -> None:
    first, second = draw(tmp_path / "a" / "x.png", RED).parent, draw(tmp_path / "b" / "y.png", RED).parent
    with pytest.raises(InputError, match="has the name of one in"):
        find_pairs([first, second], None, None)


@pytest.mark.parametrize("text", ["{", "[]", '{"first": "a"}', '{"first": 1, "second": "a"}'])
def test_a_wrong_line_of_pairs_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"first": "a", "second": "b"}\n' + text)
    with pytest.raises(InputError, match="line 2"):
        find_pairs([], None, tmp_path / "pairs.jsonl")
