"""CLIP as the backbone, on one made from a configuration: PickScore at the start, and what learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coloured_sets import records, save

from beholder.errors import InputError
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.rewards import load_reward
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from rewards.zoo.published import save_clip  # by its whole name: this folder is not the one it lies in

PROMPTS = ["a red circle", "two orange squares", "a red circle"]
QUICK = FitConfig(epochs=2, records=8, held_out=0.4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 40, 48, generator=torch.Generator().manual_seed(0))


def test_before_training_it_is_pickscore(base: Path) -> None:
    model = RewardModel(new_backbone(f"clip@{base}", PROMPTS), Heads()).eval()
    expected = load_reward(f"pickscore@{base}").score(images(), PROMPTS)
    found = model.rewards(model.backbone.prepare(images()), PROMPTS)
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_in_batch_loss_knows_its_own_prompt_and_forgives_the_same_one(base: Path) -> None:
    model = RewardModel(new_backbone(f"clip@{base}", PROMPTS), Heads()).eval()
    pixels = model.backbone.prepare(images())
    states, loss = model.backbone.grounded(pixels, PROMPTS, torch.arange(3))
    assert torch.equal(model.backbone.grounded(pixels, PROMPTS, torch.tensor([2, 0]))[1], loss[[2, 0]])
    assert torch.allclose(states.feature_NF, model.backbone(pixels, PROMPTS))
    odds = torch.stack([model.rewards(pixels, [text] * 3) for text in PROMPTS], 1)  # picture by prompt
    rows = [[0, 1], [0, 1, 2], [1, 2]]  # the third prompt is the first again, and no negative of it
    for i, allowed in enumerate(rows):
        own = odds[i, i]
        expected = (odds[i, allowed].logsumexp(0) + odds[allowed, i].logsumexp(0)) / 2 - own
        assert loss[i].item() == pytest.approx(expected.item(), abs=1e-3)


@pytest.mark.parametrize(("lora", "learns"), [(0, {"head", "logit_scale"}), (2, {"head", "logit_scale", "lora"})])
def test_only_what_was_asked_for_learns_and_is_saved(lora: int, learns: set[str], base: Path, tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(40, k=2))
    config = replace(QUICK, backbone=f"clip@{base}", lora=lora, lr=3e-3, grounding=0.1)
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    assert report["people"]["accuracy"] is not None
    model = RewardModel.from_pretrained(tmp_path / "fit")
    names = model.trained()
    assert all(any(kind in name for kind in learns) for name in names)
    assert {kind for kind in learns for name in names if kind in name} == learns
    assert (tmp_path / "fit" / "model.safetensors").stat().st_size < 200_000
    fresh = RewardModel(new_backbone(f"clip@{base}", PROMPTS, lora), Heads())
    assert any(not torch.equal(names[n], p) for n, p in fresh.trained().items())
    given = images().requires_grad_()
    reward = load_reward(f"learned@{tmp_path / 'fit'}")
    (gradient,) = torch.autograd.grad(reward.score(given, PROMPTS).sum(), given)
    assert gradient.abs().sum() > 0
    again = reward.score(images(), PROMPTS)
    assert torch.allclose(again, model.rewards(model.backbone.prepare(images()), PROMPTS), atol=1e-4)


def test_a_base_that_is_gone_is_named(base: Path, tmp_path: Path) -> None:
    model = RewardModel(new_backbone(f"clip@{base}", PROMPTS), Heads())
    model.save_pretrained(tmp_path / "fit")
    config = (tmp_path / "fit" / "config.json").read_text().replace(str(base), str(tmp_path / "elsewhere"))
    (tmp_path / "fit" / "config.json").write_text(config)
    with pytest.raises(InputError, match=r"no file or folder .*elsewhere"):
        RewardModel.from_pretrained(tmp_path / "fit")
