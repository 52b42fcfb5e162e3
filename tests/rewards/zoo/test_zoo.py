"""What holds for every reward of the zoo: batches, order, prompts, odd images, gradients, precision, listing."""

import importlib
import json
import math
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from published import save_aesthetic, save_clip, save_hps, save_image_reward
from torch import Tensor

from beholder.cli import run
from beholder.errors import InputError
from beholder.rewards import Reward, load_reward, score
from beholder.rewards.reward import BUILT_IN
from beholder.rewards.show import markdown
from beholder.rewards.zoo import ZOO, aesthetic
from beholder.rewards.zoo.scorer import AT_ONCE, StagedScorer

SAVED: dict[str, Callable[[Path], object]] = {
    "pickscore": save_clip,
    "hps": lambda folder: save_hps(folder, "hpc.pth"),
    "hpsv2": lambda folder: save_hps(folder, "HPS_v2_compressed.pt"),
    "hpsv2.1": lambda folder: save_hps(folder, "HPS_v2.1_compressed.pt", 1),
    "imagereward": save_image_reward,
    "clipscore": save_clip,
    "clip": save_clip,
    "aesthetic": save_aesthetic,
    "aesthetic_v1": save_aesthetic,
}
PROMPTS = [
    "a red circle",
    "",
    "日本語のプロンプト",
    "red " * 200,
    "a red circle",
    "  \n",
    "двa кругa 🙂",
    "two squares",
]
DOCS = Path(__file__).parents[3] / "docs" / "rewards.md"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reward]:
    rewards = {}
    for name, save in SAVED.items():
        folder = tmp_path_factory.mktemp(name)
        save(folder)
        rewards[name] = load_reward(f"{name}@{folder}")
    return rewards


def images(count: int = 8, height: int = 37, width: int = 50) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def close(a: Tensor, b: Tensor) -> bool:
    """Within 1e-5, of the largest score where that is more than 1: PickScore is a hundred times a cosine."""
    return bool(((a - b).abs() <= 1e-5 * b.abs().max().clamp(min=1)).all())


@pytest.mark.parametrize("name", SAVED)
def test_scores_do_not_depend_on_batch_or_order(name: str, zoo: dict[str, Reward]) -> None:
    """Also not on prompts that are empty, foreign, too long or repeated among the others."""
    whole = zoo[name].score(images(), PROMPTS)
    assert whole.shape == (8,) and whole.isfinite().all()
    single = torch.cat([zoo[name].score(images()[i : i + 1], [PROMPTS[i]]) for i in range(8)])
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled = zoo[name].score(images()[order], [PROMPTS[i] for i in order])
    assert close(single, whole) and close(shuffled, whole[order])
    many = zoo[name].score(images().repeat(AT_ONCE // 8 + 1, 1, 1, 1), PROMPTS * (AT_ONCE // 8 + 1))
    assert close(many, whole.repeat(AT_ONCE // 8 + 1))


@pytest.mark.parametrize("name", SAVED)
def test_gradients_reach_the_images_and_only_them(name: str, zoo: dict[str, Reward]) -> None:
    given = images().requires_grad_()
    value = zoo[name].score(given, PROMPTS)
    assert close(value.detach(), zoo[name].score(images(), PROMPTS))
    value.sum().backward()
    assert given.grad is not None and given.grad.isfinite().all()
    moving = given.grad.flatten(1).norm(dim=1) > 0
    assert moving.all() or (name == "clipscore" and torch.equal(moving, value.detach() > 0))
    module = network(zoo[name]).module
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("name", ["pickscore", "hpsv2", "imagereward", "aesthetic"])
def test_a_step_along_the_gradient_raises_the_score(name: str, zoo: dict[str, Reward]) -> None:
    given = images(2).requires_grad_()
    value = zoo[name].score(given, PROMPTS[:2])
    (gradient,) = torch.autograd.grad(value.sum(), given)
    moved = (given + 0.02 * gradient.sign()).clamp(0, 1).detach()
    assert (zoo[name].score(moved, PROMPTS[:2]) > value).all()


@pytest.mark.parametrize("name", SAVED)
def test_odd_images(name: str, zoo: dict[str, Reward]) -> None:
    for shape in ((1, 1), (2, 120), (300, 5)):
        value = zoo[name].score(images(2, *shape), PROMPTS[:2])
        assert value.isfinite().all()
    with pytest.raises(InputError, match="1 × 10000 pixels is longer than 64 times"):
        zoo[name].score(images(1, 1, 10_000), ["a"])
    torn = images()
    torn[2, 1, 0, 0] = math.nan
    table = score(torn, PROMPTS, [zoo[name]])
    assert table.failed_N.tolist() == [i == 2 for i in range(8)]
    others = [i for i in range(8) if i != 2]
    assert close(table.values_NM[others, 0], zoo[name].score(images(), PROMPTS)[others])
    assert zoo[name].score(images(0), []).shape == (0,)
    with pytest.raises(InputError, match="8 images but 1 prompts"):
        zoo[name].score(images(), ["a"])
    with pytest.raises(InputError, match=r"expected 0\.\.1"):
        zoo[name].score(images() * 2 - 1, PROMPTS)


@pytest.mark.parametrize("name", SAVED)
def test_autocast_around_it_changes_nothing(name: str, zoo: dict[str, Reward]) -> None:
    alone = zoo[name].score(images(), PROMPTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(zoo[name].score(images(), PROMPTS), alone)
    assert alone.dtype == torch.float32


def test_weights_are_read_at_the_first_score_and_follow_the_images(tmp_path: Path) -> None:
    model = save_clip(tmp_path)
    reward = load_reward(f"clip@{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as weights only"):
        reward.score(images(), PROMPTS)
    save_clip(tmp_path)
    assert reward.score(images(), PROMPTS).isfinite().all()  # what failed once may be tried again
    (tmp_path / "model.safetensors").unlink()
    assert reward.score(images(), PROMPTS).isfinite().all()
    module = network(reward).module
    assert not module.training and next(module.parameters()).dtype == torch.float32
    assert next(module.parameters()).numel() == next(model.parameters()).numel()
    module.to("meta")
    with pytest.raises(NotImplementedError):  # it is moved where the images are; from meta there is no way back
        reward.score(images(), PROMPTS)


def network(reward: Reward):
    assert isinstance(reward.score, StagedScorer)
    return reward.score.network


def test_a_checkpoint_named_twice_is_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_clip(tmp_path / "a")
    save_clip(tmp_path / "b", seed=1)
    monkeypatch.chdir(tmp_path)
    first, again, other = load_reward(f"clip@{tmp_path / 'a'}"), load_reward("clip@a"), load_reward("clip@b")
    assert first.score is again.score and again.name == "clip@a"
    assert len({id(reward.score) for reward in (first, other, load_reward("pickscore@a"))}) == 3
    kept = weakref.ref(first.score)
    del first, again
    assert kept() is None


def test_files_are_scored_by_name_and_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Pictures of different size go through the network together, and score what they score alone."""
    save_clip(tmp_path / "model")
    given = []
    for i, size in enumerate([(40, 50), (33, 32), (64, 200)]):
        pixels = (images(1, *size)[0] * 255).round().to(torch.uint8)
        given.append(pixels[None].float() / 255)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    name = f"pickscore@{tmp_path / 'model'}"
    assert run(["score", str(tmp_path), "--prompt", "a red circle", "--reward", name, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    alone = [load_reward(name).score(image, ["a red circle"]).item() for image in given]
    assert [row[name] for row in rows] == pytest.approx(alone, rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ the table


def test_every_row_names_a_loader_and_says_what_it_is() -> None:
    for name, entry in ZOO.items():
        assert name not in BUILT_IN and "@" not in name and ":" not in name
        module, _, function = entry.loader.partition(":")
        loader = getattr(importlib.import_module(f"beholder.rewards.zoo.{module}"), function)
        assert loader.__doc__ or entry.checkpoint is None
        assert entry.licence and entry.says and len(entry.says) < 120
    assert ZOO["aesthetic"].checkpoint == aesthetic.V2.home and ZOO["aesthetic_v1"].checkpoint == aesthetic.V1.home
    for published in (aesthetic.V1, aesthetic.V2):
        assert published.home.removeprefix("github.com/") in published.url and len(published.sha256) == 64


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(InputError, match=r"'pickscor@/models/x'; did you mean 'pickscore'"):
        load_reward("pickscor@/models/x")


def test_the_verb_lists_them(capsys: pytest.CaptureFixture) -> None:
    assert run(["rewards", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed.keys() == BUILT_IN.keys() | ZOO.keys()
    assert listed["pickscore"]["differentiable"] and not listed["jpeg_compressibility"]["differentiable"]
    assert listed["hpsv2"]["checkpoint"] == "xswu/HPSv2" and listed["hps"]["checkpoint"] == "hps@FILE"
    assert run(["rewards"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in listed)


def test_the_documentation_has_the_same_table() -> None:
    shown = re.search(r"keeps it true -->\n(.*?)<!-- end -->", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert shown.group(1) == markdown(), "run python -m beholder.rewards.show and paste its output"
