"""Scoring files: batches, odd and broken files, globs, and a log that an interrupted run goes on from."""

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from beholder.cli import run
from beholder.errors import InputError
from beholder.evaluation import prefetch, scoring
from beholder.evaluation.score_log import ScoreLog
from beholder.evaluation.scoring import score_files
from beholder.media import read_image
from beholder.rewards import Reward
from beholder.rewards.zoo.preprocess import Preprocess
from beholder.rewards.zoo.scorer import Network, StagedScorer
from small_videos import write_video
from tiny_vlms import save_vlm

MODULE = """
import torch
asked = []
def mean(images, prompts):
    asked.append(len(images))
    return images.mean((1, 2, 3))
def tired(images, prompts):
    if sum(asked) >= 6:
        raise KeyboardInterrupt
    return mean(images, prompts)
def choosy(images, prompts):
    return torch.where(torch.tensor(["bad" in text for text in prompts]), torch.nan, images.mean((1, 2, 3)))
"""


@pytest.fixture
def mine(own_module: Callable[[str], str]) -> str:
    """A module of the user's, with a record of how many images came at once."""
    return own_module(MODULE)


def staged() -> Reward:
    """A reward in two stages: a random linear map of 8 × 8 pixels, and the length of the prompt."""
    torch.manual_seed(0)
    layer = nn.Linear(3 * 8 * 8, 1)

    def values(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return layer(pixels.flatten(1))[:, 0] + torch.tensor([float(len(text)) for text in prompts])

    return Reward("staged", StagedScorer(lambda: Network(layer, Preprocess(8), values)))


def flat(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.mean((1, 2, 3))


def scored(folder: Path, rewards: Sequence[Reward], batch: int = 4) -> list[dict]:
    pairs = [(path, f"prompt {path.stem}") for path in sorted(folder.iterdir())]
    return [row for rows in score_files(pairs, rewards, batch) for row in rows]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# ------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("batch", [1, 5, 16])
def test_rows_are_those_of_single_files_in_order(batch: int, folder: Path) -> None:
    rewards = [staged(), Reward("flat", flat)]
    rows = scored(folder, rewards, batch)
    assert [Path(row["image"]).name for row in rows] == [f"{i:02d}.png" for i in range(12)]
    for row in rows:
        image = read_image(Path(row["image"]))[None]
        for reward in rewards:
            assert row[reward.name] == pytest.approx(reward.score(image, [row["prompt"]]).item(), abs=1e-5)


def test_equal_sizes_go_together_and_prepared_ones_always(
    mine: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["score", str(folder), "--prompt", "x", "--reward", f"{mine}:mean", "--batch", "6", "--json"]) == 0
    assert len(lines(capsys.readouterr().out)) == 12
    assert sys.modules[mine].asked == [2, 4, 2, 4]
    calls, reward = [], staged()
    network = reward.score.network  # type: ignore[attr-defined]
    noted = Network(network.module, network.prepare, lambda x, texts: calls.append(len(x)) or network.values(x, texts))
    scored(folder, [Reward("noted", StagedScorer(lambda: noted))], 6)
    assert calls == [6, 6]


def test_a_score_does_not_depend_on_what_else_is_there(folder: Path) -> None:
    together = {row["image"]: row["staged"] for row in scored(folder, [staged()], 8)}
    (folder / "03.png").write_bytes(b"nothing")
    (folder / "05.png").unlink()
    for row in scored(folder, [staged()], 3):
        assert row["staged"] is None if "03" in row["image"] else abs(row["staged"] - together[row["image"]]) <= 1e-5


# ----------------------------------------------------------------------------------------------------------- odd files


def test_odd_files_are_scored_or_fail_alone(tmp_path: Path) -> None:
    """Every mode Pillow writes, one pixel and ten thousand; what cannot be read says why."""
    odd = tmp_path / "odd"
    odd.mkdir()
    grey = np.full((12, 10), 128, np.uint8)
    Image.fromarray(grey).save(odd / "grey.png")
    Image.fromarray(grey).convert("RGBA").save(odd / "rgba.png")
    Image.fromarray(grey).convert("P").save(odd / "palette.png")
    Image.fromarray(grey).convert("1").save(odd / "bits.png")
    Image.fromarray(grey).convert("CMYK").save(odd / "cmyk.jpg", quality=100)
    Image.fromarray(np.full((12, 10), 128 * 257, np.uint16)).save(odd / "deep.png")
    Image.new("RGB", (1, 1), (128, 128, 128)).save(odd / "one.png")
    Image.new("RGB", (10_000, 200), (128, 128, 128)).save(odd / "long.png")
    Image.new("RGB", (10_000, 10), (128, 128, 128)).save(odd / "thread.png")
    frames = [Image.new("RGB", (12, 10), (128, 128, 128)), Image.new("RGB", (12, 10), (255, 0, 0))]
    frames[0].save(odd / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    turned = Image.new("RGB", (12, 10), (128, 128, 128))
    turned.save(odd / "turned.jpg", quality=100, exif=turned.getexif().tobytes())
    (odd / "torn.png").write_bytes((odd / "grey.png").read_bytes()[:45])
    rows = {Path(row["image"]).name: row for row in scored(odd, [staged(), Reward("flat", flat)])}
    assert rows["torn.png"]["flat"] is rows["torn.png"]["staged"] is None and "torn.png" in rows["torn.png"]["error"]
    assert rows["thread.png"]["staged"] is None and "64 times its breadth" in rows["thread.png"]["error"]
    for name in rows.keys() - {"torn.png", "bits.png"}:
        assert rows[name]["flat"] == pytest.approx(128 / 255, abs=0.01), name
        if name != "thread.png":
            assert rows[name]["staged"] is not None and "error" not in rows[name]


def test_every_reward_that_refuses_a_file_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (10_000, 10), (128, 128, 128)).save(tmp_path / "thread.png")
    first, second = replace(staged(), name="first"), replace(staged(), name="second")
    (row,) = scored(tmp_path, [first, Reward("flat", flat), second])
    assert row["first"] is row["second"] is None and row["flat"] is not None
    assert row["error"].startswith(f"{tmp_path / 'thread.png'}: first: ") and "; second: " in row["error"]
    assert row["error"].count("64 times its breadth") == 2 and "\n" not in row["error"]


def test_broken_files_are_counted_at_the_end(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for i in (2, 5, 7, 9):
        (folder / f"{i:02d}.png").write_bytes(b"hello")
    assert run(["score", str(folder), "--prompt", "x", "--reward", "redness", "--json"]) == 0
    out, err = capsys.readouterr()
    rows = lines(out)
    assert [i for i, row in enumerate(rows) if row["redness"] is None] == [2, 5, 7, 9]
    assert all(("error" in row) == (row["redness"] is None) for row in rows)
    assert err.count("\n") == 1 and "4 of 12 images could not be scored" in err and "02.png" in err and "1 more" in err
    assert run(["score", str(folder), "--prompt", "x", "--reward", "redness"]) == 0
    assert capsys.readouterr().out.count("failed") == 4


def test_failures_of_a_reward_are_counted_too(mine: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = [{"image": str(path), "prompt": "bad" if "1" in path.name else "good"} for path in folder.iterdir()]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    assert run(["score", "--prompts", str(folder / "list.jsonl"), "--reward", f"{mine}:choosy", "--json"]) == 0
    out, err = capsys.readouterr()
    assert sum(row[f"{mine}:choosy"] is None for row in lines(out)) == 3
    assert f"{mine}:choosy failed on 3 of 12 images" in err


def test_when_nothing_can_be_read_it_is_a_mistake(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"hello")
    assert run(["score", str(folder), "--prompt", "x", "--reward", "redness"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "none of 12 images could be scored" in err


# --------------------------------------------------------------------------------------------------------------- globs


def test_globs_folders_and_files(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "deeper").mkdir()
    (folder / "notes.txt").write_text("no picture")
    Image.new("RGB", (4, 4)).save(folder / "deeper" / "x[1].png")
    options = ["--prompt", "x", "--reward", "brightness", "--json"]
    for pattern, count in (
        ("0*.png", 10),
        ("*", 12),
        ("**/*.png", 13),
        ("deeper", 1),
        ("deeper/x[1].png", 1),
        ("0[0-3].png", 4),
    ):
        assert run(["score", str(folder / pattern), *options]) == 0
        assert len(lines(capsys.readouterr().out)) == count, pattern
    assert run(["score", str(folder / "z*.png"), *options]) == 2
    assert "no image or video in" in capsys.readouterr().err


def test_a_batch_of_none_is_refused(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["score", str(folder), "--prompt", "x", "--reward", "redness", "--batch", "0"]) == 2
    assert "batch: 0 must be 1 or more" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- output


def test_an_interrupted_run_goes_on(mine: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = tmp_path / "out" / "scores.jsonl"
    command = ["score", str(folder), "--prompt", "x", "--batch", "3", "--output", str(log), "--reward", f"{mine}:tired"]
    assert run(command) == 130
    before = lines(log.read_text())
    assert [Path(row["image"]).name for row in before] == [f"{i:02d}.png" for i in range(6)]
    with log.open("a") as file:
        file.write('{"image": "pict')  # as a kill leaves it
    sys.modules[mine].asked.clear()
    sys.modules[mine].tired = sys.modules[mine].mean
    capsys.readouterr()
    assert run(command) == 0
    assert sum(sys.modules[mine].asked) == 6
    rows = lines(log.read_text())
    assert rows[:6] == before
    assert [Path(row["image"]).name for row in rows] == [f"{i:02d}.png" for i in range(12)]
    out = capsys.readouterr().out
    assert "12 rows in" in out and "6 of them from before" in out and "mean 0.5" in out
    assert run([*command, "--json"]) == 0  # nothing is left
    summary = json.loads(capsys.readouterr().out)
    assert sum(sys.modules[mine].asked) == 6 and log.read_text().count("\n") == 12
    mean = sum(row[f"{mine}:tired"] for row in rows) / 12
    assert summary == {
        **{"output": str(log), "rows": 12, "kept": 12},
        **{"means": {f"{mine}:tired": pytest.approx(mean)}, "failed": {f"{mine}:tired": 0}},
    }


def test_failed_rows_are_kept_and_new_files_added(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = tmp_path / "scores.jsonl"
    (folder / "04.png").write_bytes(b"hello")
    command = ["score", str(folder), "--prompt", "x", "--reward", "redness", "--output", str(log)]
    assert run(command) == 0
    Image.new("RGB", (4, 4), (255, 0, 0)).save(folder / "new.png")
    assert run(command) == 0
    rows = lines(log.read_text())
    assert len(rows) == 13 and rows[4]["redness"] is None and "error" in rows[4]
    assert rows[12]["redness"] == 1.0 and rows[12]["image"].endswith("new.png")
    assert "1 failed" in capsys.readouterr().out


def test_a_log_of_something_else_is_left_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = tmp_path / "scores.jsonl"
    command = ["score", str(folder), "--prompt", "x", "--reward", "redness", "--output", str(log)]
    for content, wanted in (
        ('{"image": "a.png", "prompt": "x", "brightness": 1}\n', "holds brightness, this run scores redness"),
        ('{"image": "a.png", "prompt": "x", "redness": 1}\nhello\n', "line 2 is no row of scores"),
        ('["a.png", "x", 1]\n', "line 1 is no row of scores"),
        ('{"prompt": "x", "redness": 1}\n', "line 1 is no row of scores"),
    ):
        log.write_text(content)
        assert run(command) == 2
        assert wanted in capsys.readouterr().err and log.read_text() == content


def test_a_pair_that_occurs_twice_has_two_rows(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    pairs = [(Path("a"), "x"), (Path("a"), "x"), (Path("a"), "y")]
    log = ScoreLog(file, ["r"])
    assert log.left(pairs) == pairs
    log.write([{"image": "a", "prompt": "x", "r": 1.0}])
    assert ScoreLog(file, ["r"]).left(pairs) == pairs[1:]
    log.write([{"image": "a", "prompt": "x", "r": 1.0}])
    assert ScoreLog(file, ["r"]).left(pairs) == pairs[2:]
    assert ScoreLog(None, ["r"]).left(pairs) == pairs


# ------------------------------------------------------------------------------------------------------------ prefetch


def test_files_are_read_ahead_but_not_too_far(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    lock = threading.Lock()

    def load(path: Path) -> str:
        with lock:
            started.append(path.name)
        return path.name

    paths = sorted(folder.iterdir())
    reading = prefetch.prefetched(paths, load, 4)
    assert next(reading) == "00.png"
    time.sleep(0.3)
    assert len(started) == 4  # one was taken; a fourth waits until the next is asked for
    assert list(reading) == [path.name for path in paths[1:]] and sorted(started) == [p.name for p in paths]
    monkeypatch.setattr(prefetch, "AHEAD", 1300)  # two files of 600 pixels
    started.clear()
    reading = prefetch.prefetched(paths[1:], load, 100)
    next(reading)
    time.sleep(0.3)
    assert len(started) == 2
    reading.close()
    assert len(started) == 2


def test_one_file_larger_than_the_bound_goes_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "AHEAD", 10)
    monkeypatch.setattr(scoring, "AHEAD", 10)
    rows = scored(folder, [Reward("flat", flat), staged()], 4)
    assert len(rows) == 12 and all(row["flat"] is not None for row in rows)
    assert prefetch.pixels_of(folder / "00.png") == 625 and prefetch.pixels_of(folder / "none.png") == 0


def test_what_a_loader_raises_reaches_the_caller(folder: Path) -> None:
    def load(path: Path) -> str:
        raise InputError(f"no {path.name}")

    with pytest.raises(InputError, match=r"no 00.png"):
        list(prefetch.prefetched(sorted(folder.iterdir()), load, 3))


def test_a_checklist_says_what_its_score_is_made_of(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Also in a log, which goes on all the same."""
    for i in range(3):
        Image.fromarray(np.full((32, 32, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    line = [
        "score",
        str(tmp_path),
        "--prompt",
        "a red circle",
        "--reward",
        "visionreward@shapes",
        "brightness",
        "--json",
    ]
    assert run(line) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    for row in rows:
        parts = row["parts"]["visionreward@shapes"]
        assert set(parts) == {"dimensions", "questions", "failed"} and list(row["parts"]) == ["visionreward@shapes"]
        assert sum(parts["dimensions"].values()) == pytest.approx(row["visionreward@shapes"], abs=1e-9)
        assert parts["questions"]["shows"] == 0
    log = [*line, "--output", str(tmp_path / "log.jsonl")]
    assert [run(log), run(log)] == [0, 0]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kept"] == 3
    assert run([*line[:3], "a cat", *line[4:]]) == 0
    assert "visionreward@shapes failed on 3 of 3 images; 3 × the shapes judge understands" in capsys.readouterr().err


def test_videos_are_scored_by_what_takes_videos(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The others refuse them, one by one."""
    video = write_video(tmp_path / "a.mp4", 17, 8)
    model = save_vlm("llava", tmp_path / "vlm")
    line = ["score", str(video), "--prompt", "a cat", "--json", "--reward", f"visionreward@{model}"]
    assert run(line) == 0
    (row,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert set(row["parts"][f"visionreward@{model}"]["questions"]) >= {"alignment-1", "physics-4"}
    assert run([*line[:-1], "visionreward@shapes"]) == 2
    assert "no checklist for videos" in capsys.readouterr().err


def test_a_folder_holds_images_and_videos(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", 17, 8)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "in" / "b.png")
    assert run(["score", str(tmp_path / "in"), "--prompt", "a cat", "--reward", "redness", "--json"]) == 0
    rows = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["a.mp4", "b.png"]
    assert None not in [row["redness"] for row in rows]


def test_values_that_are_no_number_are_none(folder: Path) -> None:
    infinite = Reward("infinite", lambda images, prompts: torch.full((len(images),), math.inf))
    assert all(row["infinite"] is None and "error" not in row for row in scored(folder, [infinite]))
