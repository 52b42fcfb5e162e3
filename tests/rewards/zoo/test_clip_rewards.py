"""PickScore, CLIPScore and similarity in transformers' layout, against the model used directly as their authors do."""

import json
from pathlib import Path

import pytest
import torch
from published import save_clip
from torch import Tensor
from transformers import CLIPModel

from beholder.errors import InputError
from beholder.rewards import load_reward
from beholder.rewards.zoo.preprocess import Preprocess
from beholder.rewards.zoo.texts import clip_clean
from tiny import clip_tokenizer

PROMPTS = ["a red circle", "two blue squares", "", "a red circle"]


def images(seed: int = 0) -> Tensor:
    return torch.rand(4, 3, 45, 61, generator=torch.Generator().manual_seed(seed))


def cosines(model: CLIPModel, pixels: Tensor, prompts: list[str]) -> Tensor:
    """As a user of transformers would, each text padded to the full length."""
    given = clip_tokenizer()(prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels).pooler_output
        text = model.get_text_features(**given).pooler_output
    return torch.cosine_similarity(image, text)


@pytest.mark.parametrize("pickle", [False, True], ids=["safetensors", "pickle of tensors"])
def test_pickscore(pickle: bool, tmp_path: Path) -> None:
    """exp(logit_scale) · cos, from either file of the published repository; transformers' own crop."""
    model = save_clip(tmp_path, pickle=pickle)
    got = load_reward(f"pickscore@{tmp_path}").score(images(), PROMPTS)
    wanted = cosines(model, Preprocess(32, crop="floor")(images()), PROMPTS) * model.logit_scale.exp()
    assert torch.allclose(got, wanted.detach(), rtol=1e-5, atol=1e-4)
    assert 90 < model.logit_scale.exp() < 110 and got.std() > 0.1


def test_clipscore_and_similarity(tmp_path: Path) -> None:
    """2.5 · max(cos, 0) with the caption's prefix; and the bare cosine, which may be negative."""
    model = save_clip(tmp_path)
    pixels = Preprocess(32)(images())
    plain = load_reward(f"clip@{tmp_path}").score(images(), PROMPTS)
    assert torch.allclose(plain, cosines(model, pixels, PROMPTS), atol=1e-6)
    score = load_reward(f"clipscore@{tmp_path}").score(images(), PROMPTS)
    prefixed = cosines(model, pixels, [f"A photo depicts {text}" for text in PROMPTS])
    assert torch.allclose(score, 2.5 * prefixed.clamp(min=0), atol=1e-6)
    with torch.no_grad():
        model.visual_projection.weight.neg_()
    model.save_pretrained(tmp_path)
    flipped = load_reward(f"clip@{tmp_path}").score(images(), PROMPTS)
    assert torch.allclose(flipped, -plain, atol=1e-6)
    clamped = load_reward(f"clipscore@{tmp_path}").score(images(), PROMPTS)
    assert torch.allclose(clamped, 2.5 * (-prefixed).clamp(min=0), atol=1e-6)
    assert (torch.stack([score, clamped]) > 0).sum(0).tolist() == [1] * 4  # one of the two signs is cut off


def test_a_prompt_is_encoded_once_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_clip(tmp_path)
    reward = load_reward(f"clip@{tmp_path}")
    network = reward.score.network  # type: ignore[attr-defined]
    texts, forward = [], network.module.text_model.forward
    monkeypatch.setattr(
        network.module.text_model, "forward", lambda **given: texts.append(len(given["input_ids"])) or forward(**given)
    )
    reward.score(images(), PROMPTS)
    assert texts == [3]


# ------------------------------------------------------------------------------------------------------------- prompts


def test_cleaning_is_openais_and_not_pickscores(tmp_path: Path) -> None:
    """Curly quotes, HTML entities and broken encodings are mended for CLIPScore and HPS, not for PickScore."""
    assert clip_clean("  don’t &amp;amp;\n “ｆｕｌｌ” schÃ¶n ") == 'don\'t & "full" schön'
    save_clip(tmp_path)
    curly, straight = ["a circle’s red"] * 4, ["a circle's red"] * 4
    for name, same in (("clip", True), ("clipscore", True), ("pickscore", False)):
        reward = load_reward(f"{name}@{tmp_path}")
        assert torch.equal(reward.score(images(), curly), reward.score(images(), straight)) is same


def test_tokens_after_the_77th_do_not_count(tmp_path: Path) -> None:
    save_clip(tmp_path)
    reward = load_reward(f"pickscore@{tmp_path}")
    long = "red " * 75  # with the marks of start and end, 77
    first, more, other = reward.score(images()[:1].expand(3, -1, -1, -1), [long, long + "circle", "circle " + long])
    assert first == pytest.approx(more.item(), rel=1e-5)
    assert abs(first - other) > 1e-3


# --------------------------------------------------------------------------------------------------------- bad folders


def test_what_is_wrong_with_a_folder_is_said_when_it_is_named(tmp_path: Path) -> None:
    save_clip(tmp_path)
    for missing, wanted in (
        ("tokenizer.json", r"holds no tokenizer.json or vocab.json"),
        ("model.safetensors", r"holds no model.safetensors or pytorch_model.bin"),
        ("config.json", r"holds no config.json"),
    ):
        (tmp_path / missing).unlink()
        with pytest.raises(InputError, match=wanted):
            load_reward(f"pickscore@{tmp_path}")
    for name, wanted in (
        (f"pickscore@{tmp_path / 'tokenizer_config.json'}", "is a file; name the folder"),
        ("pickscore@/nowhere/at/all", "no file or folder '/nowhere/at/all'"),
        ("pickscore@./nowhere", "no file or folder"),
        ("pickscore@no-one/nothing", r"'no-one/nothing' is no file or folder here, and the hub gave no config.json"),
    ):
        with pytest.raises(InputError, match=wanted):
            load_reward(name)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save_clip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"16 tensors missing, 0 unexpected"):
        load_reward(f"clip@{tmp_path}").score(images(), PROMPTS)
    config["vision_config"] |= {"num_hidden_layers": 2, "intermediate_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="size mismatch"):
        load_reward(f"clip@{tmp_path}").score(images(), PROMPTS)
