"""Vision-language models as the backbone, on small ones of several families."""

from pathlib import Path

import pytest
import torch
from coloured_sets import records, save
from PIL import Image

from beholder.errors import InputError
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.judges.local import LocalJudge, load_local
from beholder.judges.medium import Medium
from beholder.judges.settings import JudgeConfig
from beholder.rewards import load_reward, score
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from beholder.rewards.learned.vlm import VlmBackbone, VlmConfig
from beholder.rewards.zoo.preprocess import bytes_of
from tiny_vlms import save_vlm

PROMPTS = ["a red circle", "two squares and a cross below", "a"]
FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl", "smolvlm", "internvl")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_vlm(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def model_of(base: Path, lora: int = 0) -> RewardModel:
    torch.manual_seed(0)
    return RewardModel(VlmBackbone(VlmConfig(str(base), lora, size=32)), Heads()).eval()


def images(n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(1)).float() / 255


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_depends_on_its_own_picture_and_prompt_alone(family: str, bases: dict[str, Path]) -> None:
    model = model_of(bases[family])
    with torch.no_grad():
        together = model.rewards(model.backbone.prepare(images()), PROMPTS)
        alone = torch.cat([model.rewards(model.backbone.prepare(images()[i : i + 1]), [PROMPTS[i]]) for i in range(3)])
        other_prompt = model.rewards(model.backbone.prepare(images()), PROMPTS[1:] + PROMPTS[:1])
        other_picture = model.rewards(model.backbone.prepare(images().flip(0)), PROMPTS)
    assert torch.allclose(together, alone, atol=1e-4)
    assert (together - other_prompt).abs().amin() > 1e-4 and (together - other_picture)[0].abs() > 1e-5


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_before_training_it_is_the_judge_s_yes_against_no(family: str, bases: dict[str, Path]) -> None:
    model = model_of(bases[family])
    judge = load_local(str(bases[family]), JudgeConfig(template=VlmConfig("x").question, share_prefix=False))
    assert isinstance(judge, LocalJudge)
    pixels = model.backbone.prepare(images())
    for i, prompt in enumerate(PROMPTS):
        medium = Medium((Image.fromarray(bytes_of(pixels)[i]),))
        with torch.no_grad():
            logits_V = judge._logits(medium, [prompt])[0]
        expected = logits_V[list(judge.tokens.yes)].mean() - logits_V[list(judge.tokens.no)].mean()
        found = model.rewards(pixels[i : i + 1], [prompt])
        assert found.item() == pytest.approx(expected.item(), abs=1e-3)


def test_the_language_model_learns_by_adapters_and_comes_back(bases: dict[str, Path], tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(20, k=2))
    config = FitConfig(epochs=1, records=4, held_out=0.4, backbone=f"vlm@{bases['qwen2_vl']}", lora=2, lr=1e-3)
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    assert report["people"]["accuracy"] is not None
    model = RewardModel.from_pretrained(tmp_path / "fit")
    adapters = [name for name in model.trained() if ".lora_" in name]
    assert adapters and all("language_model" in name for name in adapters)
    assert set(model.trained()) == {*adapters, "head.weight", "head.bias"}
    learned = [p.abs().sum() > 0 for name, p in model.trained().items() if ".lora_B." in name]
    assert all(learned) and len(learned) == 2 * 7, "every adapter of both layers"
    assert (tmp_path / "fit" / "model.safetensors").stat().st_size < 100_000
    reward = load_reward(f"learned@{tmp_path / 'fit'}")
    assert torch.allclose(
        score(images(), PROMPTS, [reward]).values_NM[:, 0],
        model.rewards(model.backbone.prepare(images()), PROMPTS).detach(),
        atol=1e-4,
    )


def test_a_gradient_of_pictures_is_refused_rather_than_zero(bases: dict[str, Path]) -> None:
    model = model_of(bases["llava"])
    with pytest.raises(InputError, match="gives no gradient to images"):
        model.rewards(model.backbone.prepare(images().requires_grad_()), PROMPTS)


def test_control_tokens_and_broken_pictures(bases: dict[str, Path]) -> None:
    model = model_of(bases["qwen2_vl"])
    given = images()
    given[2, 0, 0, 0] = torch.nan
    with torch.no_grad():
        pixels = model.backbone.prepare(given)
        plain = model.rewards(pixels, ["a   cat"] * 3)
        tricky = model.rewards(pixels, ["a <|image_pad|> cat"] * 3)
    assert torch.equal(plain[:2], tricky[:2]) and plain.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (10, 40), (100, 7), (1, 1)])
def test_the_whole_picture_is_seen_with_grey_around(height: int, width: int, bases: dict[str, Path]) -> None:
    backbone = model_of(bases["llava"]).backbone
    seen = backbone.prepare(torch.ones(1, 3, height, width))
    assert seen.shape == (1, 3, 32, 32)
    white = (seen - 1).abs() < 1e-5
    assert white.float().mean().item() == pytest.approx(min(height, width) / max(height, width), abs=0.03)
    assert (white | (seen == 0.5)).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"lora": -1}, "lora: -1"), ({"size": 0}, "size: 0"), ({"question": "Is it good?"}, "has no {question}")],
)
def test_settings_are_checked(settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        VlmConfig("base", **settings)


def test_a_base_is_needed_and_must_be_there() -> None:
    with pytest.raises(InputError, match=r"vlm needs a base, e\.g\. vlm@Qwen/"):
        new_backbone("vlm", PROMPTS)
    with pytest.raises(InputError, match=r"no folder '\./nowhere'"):
        new_backbone("vlm@./nowhere", PROMPTS)
