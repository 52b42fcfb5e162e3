"""Values made of segments: the whole is their mean or sum, and a label of the whole teaches what a part is worth."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from coloured_sets import records, save
from PIL import Image
from segment_sets import Told, clip, pictures, scene, videos
from torch import Tensor

from beholder.cli import run
from beholder.errors import InputError
from beholder.fitting.batches import gather
from beholder.fitting.labels import read_labels
from beholder.fitting.pictures import Pictures
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.media import from_pil, to_pil
from beholder.preferences.schema import Medium, Record
from beholder.preferences.store import open_preferences
from beholder.rewards import load_reward, score
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from beholder.rewards.learned.segments import Of, Segmentation, cut, laid_out, pooled_outputs
from beholder.rewards.reward import answered, for_videos
from beholder.video import FrameConfig, write_video

PROMPTS = ["a red circle", "two squares and a cross", "a"]
GRIDS = {"small": 4, "blip": 4, "clip": 3, "siglip": 4, "richhf": 1}
KINDS = tuple(GRIDS)
QUICK = FitConfig(epochs=2, records=8, held_out=0.4, lr=3e-3, grounding=0.0)
LEARN = replace(QUICK, epochs=8, held_out=0.3)


def model_of(base: str, heads: Heads | None = None, **segments: Any) -> RewardModel:
    """An untrained one whose head says something of everything."""
    torch.manual_seed(0)
    model = RewardModel(new_backbone(base, PROMPTS), heads or Heads(), segmentation=Segmentation(**segments)).eval()
    with torch.no_grad():
        model.head.weight.add_(0.3 * torch.randn_like(model.head.weight))
        model.head.bias.add_(0.2 * torch.randn_like(model.head.bias))
    return model


def clips(frames: int = 2) -> Tensor:
    """Three videos."""
    return torch.rand(3, frames, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------------------------------- what they are


@pytest.mark.parametrize("pool", ["mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reward_is_the_mean_or_sum_of_its_patches(kind: str, pool: str, backbone: Callable[[str], str]) -> None:
    model = model_of(backbone(kind), of="patches", pool=pool)
    media, how = clips(), torch.mean if pool == "mean" else torch.sum
    with torch.no_grad():
        found = model.segments(media[:, 0], PROMPTS)
        of_videos = model.segments(media, PROMPTS)
        picture, video = (model.rewards(model.prepare(x), PROMPTS) for x in (media[:, 0], media))
    side = found.shape[-1]
    assert found.shape == (3, side, side) and of_videos.shape == (3, 2, side, side)
    assert torch.allclose(how(found, (1, 2)), picture, atol=1e-5)
    assert torch.allclose(how(of_videos, (1, 2, 3)), video, atol=1e-5)
    assert torch.allclose(of_videos[:, 0], found, atol=1e-5), "a frame is worth what it is worth alone"
    if side > 1:
        assert found.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("kind", [*KINDS, "vlm"])
def test_a_video_is_the_mean_of_its_frames(kind: str, backbone: Callable[[str], str]) -> None:
    model, media = model_of(backbone(kind)), clips()
    with torch.no_grad():
        one_by_one = torch.stack([model.rewards(model.prepare(media[:, f]), PROMPTS) for f in range(2)], 1)
        found = model.segments(media, PROMPTS)
        assert torch.allclose(found, one_by_one, atol=1e-5)
        assert torch.allclose(model.rewards(model.prepare(media), PROMPTS), one_by_one.mean(1), atol=1e-5)
        assert model.segments(media[:, 0], PROMPTS).shape == (3, 1), "a picture is a video of one frame"
        parts = model.parts(media, PROMPTS)
    assert torch.allclose(parts["reward"], one_by_one.mean(1), atol=1e-5)


@pytest.mark.parametrize("of", ["frames", "patches"])
def test_grades_of_the_whole_are_those_of_its_segments_mixed(of: Of) -> None:
    heads = Heads(outputs=3, grades=(1.0, 2.0, 5.0), copies=2)
    model, media = model_of("small", heads, of=of), clips()
    with torch.no_grad():
        states, owner_F, n = model._states(model.prepare(media), PROMPTS)
        each = model.each(states).softmax(-1)
        mixed = each.reshape(3, -1, 1, 2, 3).mean(1)
        whole = model(model.prepare(media), PROMPTS).softmax(-1)
        value = model.values(model.prepare(media), PROMPTS)
    assert n == 3 and owner_F.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.allclose(whole, mixed, atol=1e-6)
    assert torch.allclose(value, mixed @ torch.tensor(heads.grades), atol=1e-5)
    reward = model.rewards(model.prepare(media), PROMPTS)
    assert torch.allclose(model.segments(media, PROMPTS).flatten(1).mean(1), reward, atol=1e-5)


def test_a_sum_adds_values_but_not_uncertainties() -> None:
    output = torch.randn(5, 2, 1, 1, 2)
    owner = torch.tensor([0, 0, 1, 1, 1])
    found = pooled_outputs(output, owner, 2, Heads(outputs=2), "sum")
    assert torch.allclose(found[1, 0, 0, 0], output[2:, :, 0, 0, 0].sum())
    assert torch.allclose(found[1, 0, 0, 1], output[2:, :, 0, 0, 1].mean())


def test_the_worst_of_an_ensemble_is_taken_of_every_frame() -> None:
    model, media = model_of("small", Heads(copies=3, reduce="worst")), clips()
    with torch.no_grad():
        each = torch.stack([model.values(model.prepare(media[:, f]), PROMPTS)[:, 0].amin(1) for f in range(2)], 1)
        assert torch.allclose(model.segments(media, PROMPTS), each, atol=1e-5)
        assert torch.allclose(model.rewards(model.prepare(media), PROMPTS), each.mean(1), atol=1e-5)


@pytest.mark.parametrize("side", [2, 3, 4, 7, 8, 14])
def test_regions_part_the_patches(side: int) -> None:
    patch = torch.arange(2 * side**2).float().view(2, side**2, 1)
    regions, real = cut(patch)
    count = min(4, side)
    found = [regions[q][real[q]][:, 0].tolist() for q in range(len(regions))]
    assert len(found) == 2 * count**2 and sorted(v for one in found for v in one) == patch.flatten().tolist()
    for n in range(2):
        for r, one in enumerate(found[n * count**2 : (n + 1) * count**2]):
            places = [divmod(int(v) - n * side**2, side) for v in one]
            assert {(y * count // side, x * count // side) for y, x in places} == {divmod(r, count)}
    grid = laid_out(torch.stack([torch.tensor([min(one)]) for one in found]), 2)
    assert grid.shape == (2, 1, count, count) and (grid.diff(dim=2) > 0).all() and (grid.diff(dim=3) > 0).all()


def test_a_region_of_the_small_network_knows_its_surroundings_only() -> None:
    model = model_of("small", of="patches")
    picture = clips()[:1, 0]
    other = picture.clone()
    other[:, :, 20:, :] = 0.2
    one, two = (model.segments(x, PROMPTS[:1])[0] for x in (picture, other))
    assert torch.equal(one[:2], two[:2]) and (one[3] != two[3]).all(), "rows 0 to 20 are the window of the upper half"


def test_gradients_reach_every_frame_that_is_seen(tmp_path: Path) -> None:
    for of, pool in (("frames", "mean"), ("patches", "sum")):
        model = model_of("small", of=of, pool=pool, videos=True)
        model.save_pretrained(tmp_path / of)
        reward = load_reward(f"learned@{tmp_path / of}")
        assert reward.differentiable and reward.pool == pool
        (seen,) = for_videos([reward], total=9, fps=8, most=2)
        media = clips(9).requires_grad_()
        value = answered(seen, media, PROMPTS)
        chosen = media.detach()[:, [0, 8]]
        assert torch.allclose(value, model.rewards(model.prepare(chosen), PROMPTS), atol=1e-5)
        assert torch.allclose(score(media.detach(), PROMPTS, [seen]).values_NM[:, 0], value.detach(), atol=1e-5)
        value.sum().backward()
        assert media.grad is not None
        size = media.grad.abs().amax((2, 3, 4))
        assert (size[:, [0, 8]] > 0).all() and (size[:, 1:8] == 0).all()


# ----------------------------------------------------------------------------------------------------- what is learnt


def located(model: RewardModel, told: list[Told]) -> float:
    """How often the highest of four segments is the one with the red circle."""
    right = []
    for one in told:
        for media, place in zip(one.media, one.places, strict=True):
            found = model.segments(media[None], [one.record.prompt])
            found = torch.nn.functional.adaptive_avg_pool2d(found[:, None], 2) if found.ndim == 3 else found
            right += [] if place < 0 else [int(found.argmax()) == place]
    return float(np.mean(right))


def test_the_region_that_decides_is_found_without_being_shown(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    save(tmp_path / "set.parquet", [told.record for told in pictures(80)])
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(LEARN, segments="patches", shift=0))
    assert report["people"]["accuracy"] > 0.8
    model = RewardModel.from_pretrained(tmp_path / "fit")
    unseen = pictures(40, seed=1)
    assert located(model, unseen) > 0.75, "chance is 0.25"
    _scored_by_patches(tmp_path, unseen[0], model, capfd)


def _scored_by_patches(folder: Path, told: Told, model: RewardModel, capfd: pytest.CaptureFixture) -> None:
    """`beholder score` prints the grid, and writes it as a picture."""
    k = told.places.index(max(told.places))
    to_pil(told.media[k]).save(folder / "liked.png")
    name = f"learned@{folder / 'fit'}"
    line = ["score", str(folder / "liked.png"), "--prompt", "circles 3", "--reward", name, "--json"]
    capfd.readouterr()
    assert run([*line, "--maps", str(folder / "heat")]) == 0
    row = json.loads(capfd.readouterr().out)
    grid = torch.tensor(row["parts"][name]["segments"])
    assert torch.allclose(grid, model.segments(told.media[k][None], ["circles 3"])[0], atol=1e-4)
    assert row[name] == pytest.approx(grid.mean().item(), abs=1e-4)
    written = from_pil(Image.open(row["parts"][name]["maps"]["segments"]))[0]
    low, high = grid.amin(), grid.amax()
    coarse = torch.nn.functional.adaptive_avg_pool2d(written[None, None], 4)[0, 0]
    assert written.shape == (32, 32) and (coarse - (grid - low) / (high - low)).abs().mean() < 0.1


def test_the_frame_that_decides_is_found_without_being_shown(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    save(tmp_path / "set.parquet", [told.record for told in videos(tmp_path, 50)])
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(LEARN, pool="sum"))
    assert report["people"]["accuracy"] > 0.8 and not report["problems"]
    model = RewardModel.from_pretrained(tmp_path / "fit")
    assert model.segmentation == Segmentation(pool="sum", videos=True)
    assert located(model, videos(tmp_path, 20, seed=1)) > 0.75, "chance is 0.25"
    name = f"learned@{tmp_path / 'fit'}"
    files = [str(tmp_path / f"1-0-{k}.mp4") for k in range(2)]
    capfd.readouterr()
    assert run(["score", *files, "--prompt", "circles 0", "--reward", name, "--json"]) == 0
    for line in capfd.readouterr().out.splitlines():
        row = json.loads(line)
        frames = row["parts"][name]["segments"]
        assert len(frames) == 4 and row[name] == pytest.approx(sum(frames), abs=1e-4)


# ---------------------------------------------------------------------------------------------------- sets of videos


def graded_videos(folder: Path, n: int) -> Path:
    """VisionRewardDB-Video's `train`: videos by path, each with grades and answers; what has grade 4 is red."""
    (folder / "videos").mkdir(parents=True)
    (folder / "train").mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        shown = [scene(["red" if i % 2 else "blue"], ((16.0, 16.0),), rng) for _ in range(4)]
        write_video(folder / "videos" / f"{i}.mp4", torch.stack(shown), 1)
        rows.append(
            {
                "video_path": f"videos/{i}.mp4",
                "internal_id": f"v{i}",
                "prompt": f"circles {i}",
                "url": "https://gone",
                "annotation": {"alignment": 4 * (i % 2), "stability": 2},
                "meta_result": [1, -1],
                "meta_mask": [1, 1],
            }
        )
    (folder / "videos" / "3.mp4").write_bytes((folder / "videos" / "3.mp4").read_bytes()[:300])
    pq.write_table(pa.Table.from_pylist(rows), folder / "train" / "train-00000-of-00001.parquet")
    return folder


def test_graded_videos_of_a_public_set_are_fitted_and_score_files(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    source = graded_videos(tmp_path / "db", 40)
    assert run(["preferences", str(source), "--from", "visionrewarddb-video", "--output", str(tmp_path / "set")]) == 0
    line = ["fit", str(tmp_path / "set"), "--output", str(tmp_path / "fit"), "--loss", "regression", "--epochs", "5"]
    line += ["--by", "alignment", "1.0", "--held-out", "0.3", "--grounding", "0", "--frames", "6", "--json"]
    line += ["--records", "4", "--patience", "5"]
    assert run([*line[:2], *line[4:], "--output", str(tmp_path / "other"), "--pool", "sum"]) == 2
    assert "which a sum has no unit of; take mean" in capfd.readouterr().err
    assert run(line) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["ratings"]["alignment"]["pearson"] > 0.5
    (problem,) = report["problems"]
    assert "row 3, media[0]" in problem and "is not a readable video" in problem
    name = f"learned@{tmp_path / 'fit'}"
    clip_file = str(source / "videos" / "5.mp4")
    assert run(["score", clip_file, "--prompt", "circles 5", "--reward", name, "--json"]) == 0
    row = json.loads(capfd.readouterr().out)
    assert len(row["parts"][name]["segments"]) == 6, "as many frames as it was fitted with"
    assert row[name] == pytest.approx(np.mean(row["parts"][name]["segments"]), abs=1e-4)


def test_bytes_and_paths_pictures_and_videos_stand_in_one_set(tmp_path: Path) -> None:
    frames, _ = clip(tmp_path / "a.mp4", True, np.random.default_rng(0))
    data = (tmp_path / "a.mp4").read_bytes()
    video = Record("p", (Medium(data, "a.mp4"), Medium(path="a.mp4")), kind="video", ranks=(1.0, 2.0))
    torn = replace(video, media=(Medium(data[:500], "torn.mp4"), Medium(path="gone.mp4")))
    source = open_preferences(save(tmp_path / "set.parquet", [video, *records(1), torn]))
    labels = read_labels(source, ())
    seen = Pictures(labels, lambda images: images, 16, FrameConfig(count=2))
    by_bytes, by_path = seen.read(0) or []
    assert labels.videos and torch.equal(by_bytes, by_path) and (by_bytes - frames[[0, 3]]).abs().mean() < 0.05
    assert seen.read(2) is None and [problem.field for problem in labels.problems.values()] == ["media[0]"]
    assert "torn.mp4 is not a readable video" in next(iter(labels.problems))
    batch = gather(labels, seen, [0, 1, 2], torch.device("cpu"))
    assert batch is not None and batch.record_N.tolist() == [0, 0, 1, 1]
    assert batch.owner_F.tolist() == [0, 0, 1, 1, 2, 3]
    assert batch.said_F == [batch.prompts[n] for n in (0, 0, 1, 1, 2, 3)]
    assert batch.frames_of(torch.tensor([1, 3])).tolist() == [2, 3, 5]
    assert seen.longest == 2 and Pictures(labels, lambda images: images, 0).longest == 24


def test_pictures_and_videos_are_fitted_together_and_scored_alike(tmp_path: Path) -> None:
    told = [*videos(tmp_path, 15), *pictures(15)]
    save(tmp_path / "set.parquet", [one.record for one in told])
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(QUICK, members=2, epochs=1))
    assert report["records"]["train"] + report["records"]["stop"] + report["records"]["report"] == 30
    reward = load_reward(f"learned@{tmp_path / 'fit'}")
    picture = told[-1].media[0]
    still = picture.expand(1, 5, -1, -1, -1)
    prompt = [told[-1].record.prompt]
    assert torch.allclose(answered(reward, still, prompt), answered(reward, picture[None], prompt), atol=1e-5)


# --------------------------------------------------------------------------------------------- folders and bad input


def test_a_model_of_segments_comes_back(tmp_path: Path) -> None:
    model = model_of("small", of="patches", pool="sum", frames=5)
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    assert again.segmentation == model.segmentation
    assert torch.equal(again.segments(clips(), PROMPTS), model.segments(clips(), PROMPTS))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["segments"] == asdict(model.segmentation)
    (tmp_path / "config.json").write_text(json.dumps({**config, "segments": {"of": "patchs"}}))
    with pytest.raises(InputError, match="segments: 'patchs'; did you mean 'patches'"):
        RewardModel.from_pretrained(tmp_path)
    del config["segments"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert RewardModel.from_pretrained(tmp_path).segmentation == Segmentation()


@pytest.mark.parametrize(
    ("kind", "heads", "segments", "says"),
    [
        ("vlm", Heads(), {"of": "patches"}, "segments: vlm has no patches in a square"),
        ("small", Heads(copies=2, reduce="worst"), {"of": "patches"}, "segments: worst is taken of the copies'"),
        ("small", Heads(noisy="shapes"), {"of": "patches"}, "segments: patches are not told noise levels"),
        ("small", Heads(outputs=2, grades=(1.0, 2.0)), {"pool": "sum"}, "pool: a sum of grades is no grade"),
    ],
)
def test_segments_that_cannot_be(
    kind: str, heads: Heads, segments: dict[str, Any], says: str, backbone: Callable[[str], str]
) -> None:
    with pytest.raises(InputError, match=says):
        model_of(backbone(kind), heads, **segments)


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frames: 0 must be 1 or more"):
        FitConfig(frames=0)
    clip(tmp_path / "b.mp4", True, np.random.default_rng(0))
    media = (Medium(path="b.mp4"), Medium(path="b.mp4"))
    save(tmp_path / "set.parquet", [Record(f"p {i}", media, kind="video", ranks=(1.0, 2.0)) for i in range(9)])
    for name, config in {"maps": replace(QUICK, maps=("x",)), "words": replace(QUICK, words=True)}.items():
        with pytest.raises(InputError, match=f"{name}: only pictures can teach it, and the set has videos"):
            fit_reward(tmp_path / "set.parquet", tmp_path / name, config)
