"""Video generators through the loop: every kind of evidence, reward gradients of chosen frames, runs and samples."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import TEXTS, first_batch, gradient_of, learner_of, tiny_config, weights_of
from PIL import Image
from torch import Tensor

from beholder.cli import run as beholder
from beholder.config import RunConfig
from beholder.config_file import read_config
from beholder.errors import InputError
from beholder.evaluation.diversity import diversity
from beholder.evaluation.grids import COLUMNS, save_grid
from beholder.methods import find_method
from beholder.methods.row import vary
from beholder.rewards import Reward
from beholder.training.align import Run
from beholder.training.learner import Learner
from beholder.training.loop import iterate
from beholder.training.pathwise import frames_scored, reward_gradient
from beholder.training.update import accumulate
from beholder.training.update_stats import UpdateStats
from beholder.training.validator import problems
from beholder.video import FrameConfig, read_video
from tiny import VIDEO_SIZE

SIZES = {"policy__resolution": VIDEO_SIZE, "rollout__prompts": 2, "rollout__group": 2, "rollout__steps": 3}
MODELSCOPE, WAN = {**SIZES, "policy__frames": 3}, {**SIZES, "policy__frames": 5}
GRADIENT = {
    "objective__kind": "pathwise",
    "credit__baseline": "none",
    "credit__scale": "none",
    "rollout__group": 1,
    "kl__form": "velocity",
}


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def made(folder: Path, **settings: Any) -> Learner:
    return learner_of(tiny_config(folder, **settings), [Reward("redness", redness, differentiable=True)])


def gradient(learner: Learner) -> Tensor:
    batch = first_batch(learner)
    rows = torch.arange(len(batch.trajectory.decisions))
    accumulate(learner, batch, rows, UpdateStats(8, torch.device("cpu")), None)
    return gradient_of(learner)


ROWS: dict[str, dict[str, Any]] = {
    "transitions": {},
    "re-noised videos": {"rollout__forward__times": 2, "objective__clip_high": 1e-2, "kl__form": "velocity"},
    "preferences": {"rollout__forward__times": 1, "objective__kind": "preference", "objective__anchor": "reference"},
    "the reward's gradient": {**GRADIENT, "rollout__pathwise__frames": 1},
    "a live gradient": {**GRADIENT, "rollout__pathwise__inputs": "live", "rollout__pathwise__steps": 2},
}


@pytest.mark.parametrize("row", ROWS)
def test_every_kind_of_evidence_learns_on_videos(row: str, tiny_wan_folder: Path) -> None:
    learner = made(tiny_wan_folder, **{**WAN, **ROWS[row]})
    before, stats = weights_of(learner), iterate(learner)
    assert stats["failed_rewards"] == 0 and -1 <= stats["reward"]["redness"] <= 1
    assert stats["grad_norm"] > 0 and not torch.equal(weights_of(learner), before)
    if row in ("transitions", "re-noised videos"):
        assert stats["ratio_deviation"] <= 1e-6


# ------------------------------------------------------------------------------------------------------------- VADER


def test_one_frame_of_each_video_is_decoded_for_its_reward(
    tiny_text_to_video_sd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    for frames in (None, 2, 1):
        learner = made(tiny_text_to_video_sd_folder, **{**MODELSCOPE, **GRADIENT}, rollout__pathwise__frames=frames)
        vae = learner.policy.pipeline.vae
        decode, seen = vae.decode, []
        monkeypatch.setattr(vae, "decode", lambda z, *a, **k: (seen.append(len(z)), decode(z, *a, **k))[1])  # noqa: B023
        batch = first_batch(learner)
        decoded.append(sum(seen))
        moved = batch.trajectory.decisions.next_Mx.abs().amax((1, 3, 4)) > 0  # by sample and frame
        assert moved.sum(1).tolist() == [frames or 3] * 2
        chosen = frames_scored(learner, batch.trajectory.seed_N)
        assert chosen is None or torch.equal(moved.nonzero()[:, 1].view(2, -1), chosen)
    assert decoded == [6, 4, 2]


def test_only_what_rewards_see_is_decoded(tiny_text_to_video_sd_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rewards that look at two frames between them; the third is not decoded, with and without gradient."""
    rewards = [Reward("redness", redness, differentiable=True, frames=(2,)), Reward("again", redness, frames=(0, 2))]
    for settings in (MODELSCOPE, {**MODELSCOPE, **GRADIENT}):
        config = tiny_config(tiny_text_to_video_sd_folder, **settings, rewards={"redness": 1.0, "again": 0.0})
        learner = learner_of(config, rewards)
        vae = learner.policy.pipeline.vae
        decode, seen = vae.decode, []
        monkeypatch.setattr(vae, "decode", lambda z, *a, **k: (seen.append(len(z)), decode(z, *a, **k))[1])  # noqa: B023
        batch = first_batch(learner)
        n = len(batch.trajectory)
        assert seen == [n, n]
        end = 0.0 if "kl__form" in settings else learner.policy.schedule(3)[-1].item()
        whole = learner.policy.decode(batch.trajectory.final_Nx, end, n)
        want = torch.stack([redness(whole[:, 2], []), (redness(whole[:, 0], []) + redness(whole[:, 2], [])) / 2], 1)
        torch.testing.assert_close(batch.table.values_NM, want, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_frame_is_its_finite_difference(tiny_text_to_video_sd_folder: Path) -> None:
    learner = made(tiny_text_to_video_sd_folder, **{**MODELSCOPE, **GRADIENT})
    shape, frame_NK = learner.policy.family.latent_shape(), torch.tensor([[2], [0]])
    clean = 0.3 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    table, got = reward_gradient(learner, clean, list(TEXTS[:2]), frame_NK)
    whole = learner.policy.decode(clean, 0.0, 2)
    by_hand = redness(whole[torch.arange(2), frame_NK[:, 0]], [])
    torch.testing.assert_close(table.values_NM[:, 0], by_hand, rtol=1e-4, atol=1e-6)
    way = got / got.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
    ends = [redness(learner.policy.decode(clean + e * way, 0.0, 2, frame_NK)[:, 0], []) for e in (2e-3, -2e-3)]
    want = (ends[0] - ends[1]) / 4e-3
    torch.testing.assert_close((got * way).flatten(1).sum(1), want, rtol=1e-2, atol=1e-6)


def test_the_last_step_replayed_is_the_last_step_live(tiny_text_to_video_sd_folder: Path) -> None:
    settings = {**MODELSCOPE, **GRADIENT, "rollout__pathwise__frames": 1}
    given = gradient(made(tiny_text_to_video_sd_folder, **settings))
    live = gradient(made(tiny_text_to_video_sd_folder, **settings, rollout__pathwise__inputs="live"))
    in_parts = gradient(made(tiny_text_to_video_sd_folder, **settings, rollout__batch=1, loop__micro_batch=1))
    assert given.norm() > 0
    assert (given - live).norm() <= 1e-4 * given.norm() and (given - in_parts).norm() <= 1e-4 * given.norm()
    other = gradient(made(tiny_text_to_video_sd_folder, **{**settings, "rollout__pathwise__frames": 2}))
    assert (given - other).norm() > 0.05 * given.norm()


def test_frames_are_drawn_by_the_seed_of_the_sample(tiny_wan_folder: Path) -> None:
    learner = made(tiny_wan_folder, **{**WAN, **GRADIENT}, rollout__pathwise__frames=2)
    seed_N = torch.arange(200)
    drawn = frames_scored(learner, seed_N)
    assert drawn is not None and drawn.shape == (200, 2) and (drawn[:, 0] < drawn[:, 1]).all()
    assert drawn.unique().tolist() == [0, 1, 2, 3, 4]
    again = frames_scored(learner, seed_N[7:9])
    assert again is not None and torch.equal(again, drawn[7:9])


def run_of(config: RunConfig, folder: Path) -> Run:
    return Run(replace(config, output=str(folder)), lambda row: None, None, {})


def test_frames_of_images_or_too_many_are_refused(tiny_sd3_folder: Path, tiny_wan_folder: Path, tmp_path: Path) -> None:
    gradients = {**GRADIENT, "optimiser__lr": 1e-4}
    still = tiny_config(tiny_sd3_folder, **gradients, rollout__pathwise__frames=1)
    many = tiny_config(tiny_wan_folder, **{**WAN, **gradients}, rollout__pathwise__frames=6)
    for config, said in ((still, "draws images, which have no frames"), (many, "6 of the 5 frames that are drawn")):
        config = vary(config, "draft-k", {"prompts": "shapes:train", "evaluation.rewards": ("redness",)})
        with pytest.raises(InputError, match=rf"rollout\.pathwise\.frames: .*{said}"):
            run_of(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    none = vary(find_method("vader").preset("published"), "vader", {"rollout.pathwise.frames": 0})
    assert any("rollout.pathwise.frames" in problem for problem in problems(none))


def test_the_published_row_is_the_released_modelscope_configuration() -> None:
    config = find_method("vader").preset("published")
    p = config.rollout.pathwise
    assert (p.inputs, p.steps, p.frames, p.first, p.renoised) == ("given", 1, 1, 1.0, 0)
    assert (config.policy.resolution, config.policy.frames, config.policy.lora.rank) == (384, 16, 16)
    assert (config.rollout.steps, config.rollout.guidance.scale, config.optimiser.lr) == (25, 9.0, 2e-4)
    assert config.rollout.prompts * config.rollout.group == 4 * 4 and config.rewards == {"aesthetic": 0.1}


# ---------------------------------------------------------------------------------------------------- runs and files


def test_a_run_on_videos_and_its_samples(tiny_wan_folder: Path, tmp_path: Path) -> None:
    """`beholder align flow-grpo` for two iterations, its report, and `beholder sample` with what it learnt."""
    run, n = tmp_path / "run", 3
    sizes = ("--policy.resolution", "16", "--policy.frames", "5", "--policy.max-sequence-length", "16")
    options = [
        *("--preset", "shapes", "--policy.model", str(tiny_wan_folder), *sizes, "--policy.training", "lora"),
        *("--rewards", "redness", "1.0", "jpeg_compressibility", "0.1", "--reward-frames", "2"),
        *("--evaluation.rewards", "redness", "--evaluation.images", str(n), "--evaluation.grid", str(n)),
        *("--evaluation.every", "2", "--evaluation.steps", "2", "--rollout.steps", "3", "--rollout.prompts", "2"),
        *("--rollout.group", "2", "--rollout.batch", "4", "--loop.iterations", "2", "--loop.micro-batch", "4"),
        *("--loop.updates", "1", "--output", str(run)),
    ]
    assert beholder(["align", "flow-grpo", *options]) == 0
    config = read_config(run / "config.yaml")
    assert (config.policy.frames, config.reward_frames) == (5, 2)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows] == ["evaluation", "train", "train", "evaluation"]
    assert all(row["failed_rewards"] == 0 for row in rows) and 0 < rows[0]["diversity"] < 1
    with Image.open(run / "samples" / "iteration_00002.png") as grid:
        assert grid.size == (COLUMNS * 4 * VIDEO_SIZE, VIDEO_SIZE)
    assert beholder(["report", str(run)]) == 0 and (run / "report.html").stat().st_size > 10_000

    folder = tmp_path / "samples"
    drawing = ("--n", "2", "--steps", "2", "--resolution", "16", "--frames", "5", "--output", str(folder))
    assert beholder(["sample", "--model", str(tiny_wan_folder), "--prompt", "a red circle", *drawing]) == 0
    written = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    assert [Path(row["image"]).name for row in written] == ["000_00.mp4", "000_01.mp4"]
    videos = [read_video(Path(row["image"]), FrameConfig(count=5)) for row in written]
    assert {tuple(video.shape) for video in videos} == {(5, 3, 16, 16)}
    assert (videos[0] - videos[1]).abs().mean() > 0.01
    assert (folder / "grid.png").exists()


def test_samples_need_pyav_before_anything_is_drawn(
    tiny_wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    options = ("--prompt", "a red circle", "--output", str(tmp_path / "out"))
    assert beholder(["sample", "--model", str(tiny_wan_folder), *options]) != 0
    assert "pip install 'beholder[video]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_grid_of_videos_shows_strips_of_frames(tmp_path: Path) -> None:
    level = torch.linspace(0, 1, 7).view(1, 7, 1, 1, 1)
    layout = save_grid(level.expand(2, 7, 3, 4, 6), tmp_path / "small.png", columns=1)
    assert layout == {"columns": 1, "height": 4, "width": 24}
    with Image.open(tmp_path / "small.png") as grid:
        assert grid.size == (24, 8)
        assert [grid.getpixel((x, 5))[0] for x in (0, 6, 12, 18)] == [0, 85, 170, 255]  # pyright: ignore
    layout = save_grid(level.expand(2, 7, 3, 256, 384), tmp_path / "large.png", columns=2)
    assert layout == {"columns": 2, "height": 128, "width": 4 * 192}


def test_videos_of_one_prompt_differ_as_their_frames_do() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    group_N = torch.tensor([0, 0, 1, 1])
    at_rest = images[:, None].expand(4, 5, 3, 16, 16)
    assert diversity(at_rest, group_N) == pytest.approx(diversity(images, group_N), rel=1e-5)
