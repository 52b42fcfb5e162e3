"""What rewards say of a batch: combinations, remembered values, frames of videos, prompts that cannot be used."""

import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from beholder.cli import run
from beholder.errors import RunError
from beholder.evaluation import prefetch
from beholder.evaluation.answers import column, prepare
from beholder.evaluation.scoring import score_files
from beholder.media import read_image
from beholder.rewards import Reward, combine, load_reward, score
from beholder.rewards.cache import cached
from beholder.rewards.combine import Moments, log_sigmoid, normalised, sum_of, weighted, worst_of
from beholder.rewards.frames import in_file
from beholder.rewards.reward import for_videos, own_reward
from beholder.rewards.zoo.parts import PartedScorer, Parts
from beholder.rewards.zoo.preprocess import Preprocess
from beholder.rewards.zoo.scorer import Network, StagedScorer
from beholder.serving.scoring import describe, score_items
from beholder.serving.worker import Item
from beholder.video import Every, read_video
from small_videos import write_video

MODULE = """
import torch
from beholder.rewards import combine, load_reward

asked = []


def picky(images, prompts):
    asked.append(len(images))
    if "bad" in prompts:
        raise ValueError("no such word")
    return images.mean((1, 2, 3))


def pairs(first, second, prompts):
    return torch.ones(len(first))


pairs.pairwise = True
taste = combine.weighted(load_reward("shapes"), 2)
"""


@pytest.fixture
def mine(own_module: Callable[[str], str]) -> str:
    return own_module(MODULE)


class Watched:
    """A network of 8 × 8 pixels; it notes who prepares them, and how many come at once."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.layer, self.resize = nn.Linear(3 * 8 * 8, 2), Preprocess(8)
        self.threads: set[str] = set()
        self.batches: list[int] = []

    def prepare(self, images: Tensor) -> Tensor:
        self.threads.add(threading.current_thread().name.partition("_")[0])
        return self.resize(images)

    def values(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        self.batches.append(len(pixels))
        return self.layer(pixels.flatten(1)) + torch.tensor([float(len(text)) for text in prompts])[:, None]

    def network(self) -> Network:
        return Network(self.layer, self.prepare, self.values)

    def staged(self, name: str = "staged") -> Reward:
        return Reward(
            name,
            StagedScorer(lambda: Network(self.layer, self.prepare, lambda x, texts: self.values(x, texts)[:, 0])),
        )

    def parted(self, name: str = "parted") -> Reward:
        return Reward(name, PartedScorer(self.network, Parts(("a", "b"), lambda table: table.sum(1))))


def scored(folder: Path, rewards: Sequence[Reward], batch: int = 6) -> list[dict]:
    pairs = [(path, f"prompt {path.stem}") for path in sorted(folder.iterdir())]
    return [row for rows in score_files(pairs, rewards, batch) for row in rows]


def flat(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.mean((1, 2, 3))


def count(videos: Tensor, prompts: Sequence[str]) -> Tensor:
    """How many frames it sees."""
    return torch.full((len(videos),), float(videos.shape[1]))


count.video = True


# -------------------------------------------------------------------------------------------------------- combinations


def test_members_are_prepared_by_threads_and_asked_in_batches(folder: Path) -> None:
    one, other = Watched(), Watched(1)
    inner = normalised(one.parted(), Moments(1.0, 2.0))
    made = sum_of([inner, worst_of([other.staged(), Reward("flat", flat)])], [1, 3])
    rows = scored(folder, [made])
    assert one.batches == other.batches == [6, 6]
    assert one.threads == other.threads == {"read"}
    for row in rows:
        image = read_image(Path(row["image"]))[None]
        assert row[made.name] == pytest.approx(made.score(image, [row["prompt"]]).item(), abs=1e-5)


def test_what_members_say_is_kept(folder: Path) -> None:
    made = normalised(Watched().parted(), Moments(1.0, 2.0))
    for row in scored(folder, [made]):
        (member,) = row["parts"][made.name]["members"]
        assert member["reward"] == "parted" and sum(member["parts"].values()) == pytest.approx(
            member["value"], rel=1e-5
        )
        assert row[made.name] == pytest.approx((member["value"] - 1) / 2, rel=1e-5)


def test_members_of_one_name_are_told_apart(folder: Path) -> None:
    pair = [Watched().staged("same"), replace(Watched(1).staged("same"))]
    made = sum_of(pair, [1, 100])
    for row in scored(folder, [made]):
        first, second = row["parts"][made.name]["members"]
        assert first["value"] != second["value"]
        assert row[made.name] == pytest.approx(first["value"] + 100 * second["value"], rel=1e-5)


def test_a_member_that_refuses_fails_the_combination_and_says_why(folder: Path) -> None:
    Image.new("RGB", (10_000, 10)).save(folder / "thread.png")
    (folder / "torn.png").write_bytes(b"hello")
    made = sum_of([Watched().staged(), Reward("flat", flat)])
    *whole, thread, torn = scored(folder, [made])
    assert all(row[made.name] is not None and "error" not in row for row in whole)
    assert thread[made.name] is torn[made.name] is None
    assert "staged: " in thread["error"] and "64 times its breadth" in thread["error"]
    assert "not a readable image" in torn["error"] and torn["error"].count("torn.png") == 1


@pytest.mark.parametrize("file", [None, "scores.sqlite"])
def test_what_is_remembered_is_not_asked_again(folder: Path, tmp_path: Path, file: str | None) -> None:
    watched = Watched()
    plain = watched.parted()
    made = cached(plain, None if file is None else tmp_path / file)
    before = scored(folder, [plain])
    watched.batches.clear()
    first, again = scored(folder, [made]), scored(folder, [weighted(made, 2)])
    assert watched.batches == [6, 6] and watched.threads == {"read"}
    for row, one, two in zip(before, first, again, strict=True):
        assert row["parted"] == one["parted"] == pytest.approx(two["2·parted"] / 2)
        assert one["parts"] == row["parts"]
    image = read_image(folder / "00.png")[None]
    assert made.score(image, ["prompt 00"]).item() == first[0]["parted"] and len(watched.batches) == 2


# --------------------------------------------------------------------------------------------------------------- videos


def test_a_reward_of_ones_own_gets_every_frame_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", 60, 2)  # half a minute: more than 24 frames, at less than one a second apart
    video = tmp_path / "a.mp4"
    some = replace(own_reward("some", count), look=Every(2.0))
    ((row,),) = score_files([(video, "x")], [own_reward("count", count), some])
    assert row["count"] == 60 and row["some"] == len(some.look([i / 2 for i in range(60)]))  # type: ignore[misc]


def test_combinations_of_rewards_of_videos_see_videos(tmp_path: Path) -> None:
    """Each member the frames of its own rule, of a file as of the same video when it is drawn."""
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", 33, 8)
    every, two, one = (
        replace(own_reward(name, count), look=look)
        for name, look in (("every", None), ("two", Every(0.5)), ("one", Every(1.0)))
    )
    made = sum_of([weighted(every, 1), normalised(two, Moments(0, 1)), cached(one)], [1, 100, 10_000])
    rested = sum_of([two, one], [100, 10_000])
    assert made.video and rested.video and made.look is None and rested.look == Every(0.5)
    ((row,),) = score_files([(tmp_path / "a.mp4", "x")], [made, rested])
    assert row[made.name] == 33 + 100 * 9 + 10_000 * 5 and row[rested.name] == 100 * 9 + 10_000 * 5
    drawn = for_videos([made, rested], 33, 8, 4)
    assert [reward.frames for reward in drawn] == [None, tuple(range(0, 33, 4))]
    table = score(torch.rand(2, 33, 3, 4, 4), ["x", "x"], drawn)
    assert table.values_NM.tolist() == [[row[made.name], row[rested.name]]] * 2


def test_a_combination_of_rewards_of_images_scores_frames(tmp_path: Path) -> None:
    """The same as where it is called with the frames: the worst of each, and then the mean."""
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", 33, 8)
    dark = Reward("dark", lambda images, prompts: 0.2 - images.mean((1, 2, 3)))
    watched = Watched()
    made = worst_of([Reward("flat", flat), dark, weighted(watched.staged(), 0.1), cached(dark)])
    ((row,),) = score_files([(tmp_path / "a.mp4", "x")], [made])
    video = read_video(tmp_path / "a.mp4", choose=in_file(False, None))
    assert len(video) == 5 and not made.video and watched.batches == [5]
    assert row[made.name] == pytest.approx(score(video[None], ["x"], [made]).values_NM.item(), abs=1e-6)
    frames = row["parts"][made.name]["frames"]
    assert [len(frame["members"]) for frame in frames] == [4] * 5
    assert [min(one["value"] for one in frame["members"]) for frame in frames] == [frame["value"] for frame in frames]


def test_files_of_videos_count_with_the_frames_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    one_a_second = [in_file(False, None)]
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "libx264")):
        path = write_video(tmp_path / name, 33, 8, (64, 48), codec)
        assert prefetch.pixels_of(path) == 33 * 64 * 48, name
        assert prefetch.pixels_of(path, one_a_second) == 5 * 64 * 48
        assert prefetch.pixels_of(path, [*one_a_second, in_file(True, None)]) == (5 + 33) * 64 * 48
    (tmp_path / "torn.mp4").write_bytes(b"hello")
    assert prefetch.pixels_of(tmp_path / "torn.mp4") == prefetch.pixels_of(tmp_path / "none.mp4") == 0
    monkeypatch.setattr(prefetch, "AHEAD", 2 * 33 * 64 * 48)
    started: list[Path] = []
    files = [tmp_path / "a.mp4"] * 9
    reading = prefetch.prefetched(files, started.append, 100)
    next(reading)
    assert len(started) <= 3
    reading.close()


# -------------------------------------------------------------------------------------------------- unusable prompts


def prompts_file(folder: Path, bad: Sequence[int], prompt: str = "a cat") -> Path:
    """The pictures at the size of the shapes world, one a line."""
    for path in folder.iterdir():
        Image.open(path).resize((32, 32)).save(path)
    pairs = [
        {"image": str(path), "prompt": prompt if i in bad else "a red circle"}
        for i, path in enumerate(sorted(folder.iterdir()))
    ]
    file = folder.parent / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, pairs)))
    return file


def test_a_prompt_that_a_reward_cannot_use_fails_alone(
    mine: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file, log, names = prompts_file(folder, [3, 7]), tmp_path / "scores.jsonl", ["shapes", f"{mine}:taste", "redness"]
    line = ["score", "--prompts", str(file), "--reward", *names, "--output", str(log), "--batch", "5", "--json"]
    assert run(line) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["failed"] == {"shapes": 2, f"{mine}:taste": 2, "redness": 0}
    assert "2 of 12 images could not be scored" in err and "a cat" in err
    rows = [json.loads(text) for text in log.read_text().splitlines()]
    for i, row in enumerate(rows):
        assert row["redness"] is not None and ("error" in row) == (i in (3, 7))
        assert [row[name] is None for name in names[:2]] == [i in (3, 7)] * 2
        assert i in (3, 7) or row[names[1]] == 2 * row["shapes"]
    assert (
        rows[3]["error"].startswith(f"{rows[3]['image']}: shapes: ") and f"; {mine}:taste: shapes: " in rows[3]["error"]
    )
    assert "\n" not in rows[3]["error"]
    assert run(line) == 0 and json.loads(capsys.readouterr().out)["kept"] == 12


def test_of_one_file_alone_it_is_a_mistake(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["score", str(folder / "00.png"), "--prompt", "a cat", "--reward", "shapes"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "a cat" in err
    assert run(["score", str(folder), "--prompt", "a cat", "--reward", "shapes"]) == 2
    assert "none of 12 images could be scored" in capsys.readouterr().err


def test_what_no_other_file_would_mend_ends_the_run(mine: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    file = prompts_file(folder, [1], "bad")
    assert run(["score", "--prompts", str(file), "--reward", f"{mine}:picky", "--batch", "12"]) != 0
    assert "ValueError: no such word" in capsys.readouterr().err
    assert len(sys.modules[mine].asked) <= 2  # two sizes, none tried singly
    assert run(["score", "--prompts", str(file), "--reward", f"{mine}:pairs"]) == 2
    assert "cannot score single ones" in capsys.readouterr().err


def test_members_are_asked_once_where_a_combination_raises() -> None:
    """The reference of one prompt is missing: the others' values do not cost a second question."""
    watched = Watched()
    made = log_sigmoid(watched.staged(), {"known": 1.0})
    images = torch.rand(4, 3, 20, 20)
    said = column(made, [prepare(image, [made]) for image in images], ["known", "other", "known", "known"])
    assert watched.batches == [4] and [answer.value is None for answer in said] == [False, True, False, False]
    assert "no reference for the prompt 'other'" in said[1].why
    alone = made.score(images[2:3], ["known"]).item()
    assert said[2].value == pytest.approx(alone, abs=1e-6)


# -------------------------------------------------------------------------------------------------------------- serving


def item(prompt: str, names: Sequence[str]) -> Item:
    return Item(prompt, bytes([51]) * 6144, tuple(names), (2, 3, 32, 32), "uint8")


def test_the_server_says_the_same_of_combinations(mine: str) -> None:
    rewards = [load_reward(f"{mine}:taste"), sum_of([own_reward("count", count), own_reward("other", count)])]
    names = [reward.name for reward in rewards]
    good, bad = score_items([item("a red circle", names), item("a cat", names)], rewards, 10_000)
    assert good.values[names[1]] == bad.values[names[1]] == 4 and names[0] in good.values
    assert "a cat" in bad.failed[names[0]] and "shapes: " in bad.failed[names[0]]


def test_a_reward_that_raises_fails_its_item_alone_on_a_server(mine: str) -> None:
    picky = load_reward(f"{mine}:picky")
    good, bad = score_items([item("x", [picky.name]), item("bad", [picky.name])], [picky], 10_000)
    assert good.values == {picky.name: pytest.approx(0.2)} and "no such word" in bad.failed[picky.name]
    with pytest.raises(RunError, match="no such word"):
        column(picky, [prepare(torch.rand(3, 4, 4), [picky])], ["bad"])


def test_what_is_served_says_whether_it_takes_videos() -> None:
    rows = [
        describe(reward)
        for reward in (
            load_reward("shapes"),
            load_reward("visionreward@shapes"),
            own_reward("mine:count", count),
            combine.mean_of([replace(own_reward("a", count), look=Every(seconds)) for seconds in (2.0, 0.5)]),
        )
    ]
    assert [(row.video, row.video_seconds) for row in rows] == [(False, None), (True, 1.0), (True, None), (True, 0.5)]
