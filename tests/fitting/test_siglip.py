"""SigLIP as the backbone, on one made from a configuration, against transformers' own model and image processor."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as tf
from coloured_sets import records, save
from PIL import Image
from safetensors.torch import save_file

from beholder.errors import InputError
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.rewards import load_reward
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from tiny import clip_tokenizer

PROMPTS = ["a red circle", "two orange squares", "a red circle"]
LENGTH = 16


def save_siglip(folder: Path, resample: int = 3) -> Path:
    """A folder as on the hub; its tokenizer is CLIP's, of a class that any folder may name."""
    words = clip_tokenizer()
    half = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**half, "vocab_size": len(words), "max_position_embeddings": LENGTH, "projection_size": 32}
    config = tf.SiglipConfig(text_config=text, vision_config={**half, "image_size": 32, "patch_size": 8})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tf.SiglipModel(config)
        for value in model.parameters():
            value.data += 0.1 * torch.randn_like(value)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    words.save_pretrained(folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "tokenizer_class": "CLIPTokenizer"}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    tf.SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=resample).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("siglip"))


def images(n: int = 3) -> torch.Tensor:
    bytes_ = torch.randint(0, 256, (n, 3, 40, 56), generator=torch.Generator().manual_seed(0))
    return bytes_.float() / 255


@pytest.mark.parametrize("resample", [2, 3])
def test_before_training_it_is_siglip_without_its_bias(resample: int, tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "base", resample)
    model = RewardModel(new_backbone(f"siglip@{folder}", PROMPTS), Heads()).eval()
    original: tf.SiglipModel = tf.SiglipModel.from_pretrained(folder).eval()
    processor = tf.SiglipImageProcessorPil.from_pretrained(folder)
    shown = [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in images()]
    pixels = processor(shown, return_tensors="pt")["pixel_values"]
    ids = clip_tokenizer()(PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = original(pixel_values=pixels, input_ids=ids).logits_per_image.diagonal() - original.logit_bias
        found = model.rewards(model.backbone.prepare(images()), PROMPTS)
    assert torch.allclose(model.backbone.prepare(images()), pixels, atol=1e-5)
    assert torch.allclose(found, expected, atol=1e-4) and found.std() > 1e-3


def test_it_learns_with_adapters_and_comes_back(base: Path, tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(30, k=2))
    config = FitConfig(epochs=2, held_out=0.4, backbone=f"siglip@{base}", lora=2, lr=3e-3, grounding=0.1)
    fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    model = RewardModel.from_pretrained(tmp_path / "fit")
    adapters = [name for name in model.trained() if ".lora_" in name]
    assert adapters and all(".self_attn." in name for name in adapters), "never inside the pooling head"
    assert all(p.abs().sum() > 0 for name, p in model.trained().items() if ".lora_B." in name), "each of them learned"
    given = images().requires_grad_()
    reward = load_reward(f"learned@{tmp_path / 'fit'}")
    (gradient,) = torch.autograd.grad(reward.score(given, PROMPTS).sum(), given)
    assert gradient.abs().sum() > 0
    assert torch.allclose(
        reward.score(images(), PROMPTS), model.rewards(model.backbone.prepare(images()), PROMPTS), atol=1e-4
    )


def test_a_broken_picture_fails_alone(base: Path) -> None:
    model = RewardModel(new_backbone(f"siglip@{base}", PROMPTS), Heads()).eval()
    given = images()
    given[1, 0, 0, 0] = torch.nan
    assert model.rewards(model.backbone.prepare(given), PROMPTS).isnan().tolist() == [False, True, False]


def test_what_is_no_pair_of_towers_is_refused(base: Path, tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "other")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "model_type": "siglip2"}))
    with pytest.raises(InputError, match=r"is of type 'siglip2'; expected clip or siglip"):
        new_backbone(f"siglip@{folder}", PROMPTS)
    save_siglip(folder)
    given = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**given, "resample": 0}))
    with pytest.raises(InputError, match="resample 0"):
        new_backbone(f"siglip@{folder}", PROMPTS)
    with pytest.raises(InputError, match=r"siglip needs a base, e\.g\. siglip@google/"):
        new_backbone("siglip", PROMPTS)
    assert replace(new_backbone(f"siglip@{base}", PROMPTS).config, lora=0).base == str(base)
