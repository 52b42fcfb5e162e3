"""BLIP as the backbone: ImageReward or a retrieval model before the first step, and what learns."""

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
from rewards.zoo.published import BERT_WORDS, SMALL_MED, save_image_reward

PROMPTS = ["a red circle", "two squares", "a cat"]


def save_retrieval(folder: Path) -> tf.BlipForImageTextRetrieval:
    """A folder of transformers' BLIP for image-text retrieval."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**half, "vocab_size": SMALL_MED["vocab_size"], "encoder_hidden_size": 32, "max_position_embeddings": 64}
    vision = {**half, "image_size": 32, "patch_size": 8}
    config = tf.BlipConfig(text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tf.BlipForImageTextRetrieval(config).eval()
        for value in model.parameters():
            value.data += 0.1 * torch.randn_like(value)
    model.config.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")
    return model


@pytest.fixture(scope="module")
def image_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image_reward")
    save_image_reward(folder)
    return folder


def images(n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 40, 48), generator=torch.Generator().manual_seed(0)).float() / 255


def test_before_training_it_is_image_reward_up_to_a_constant(image_reward: Path) -> None:
    model = RewardModel(new_backbone(f"blip@{image_reward}", PROMPTS), Heads()).eval()
    with torch.no_grad():
        expected = load_reward(f"imagereward@{image_reward}").score(images(), PROMPTS)
        found = model.rewards(model.backbone.prepare(images()), PROMPTS)
    assert found.std() > 1e-3
    assert torch.allclose(found - found[0], expected - expected[0], atol=1e-4)


def test_before_training_a_retrieval_model_says_how_well_they_match(tmp_path: Path) -> None:
    original = save_retrieval(tmp_path)
    model = RewardModel(new_backbone(f"blip@{tmp_path}", PROMPTS), Heads()).eval()
    shown = [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in images()]
    pixels = tf.BlipImageProcessorPil(size={"height": 32, "width": 32})(shown, return_tensors="pt")["pixel_values"]
    words = tf.BertTokenizer.from_pretrained(tmp_path)(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        odds = original(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=pixels, use_itm_head=True
        ).itm_score
        found = model.rewards(model.backbone.prepare(images()), PROMPTS)
    expected = odds[:, 1] - odds[:, 0]
    assert torch.allclose(found - found[0], expected - expected[0], atol=1e-4) and found.std() > 1e-3


@pytest.mark.parametrize("lora", [0, 2])
def test_only_what_was_asked_for_learns_and_is_saved(lora: int, image_reward: Path, tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(20, k=2))
    config = FitConfig(epochs=1, records=4, held_out=0.4, backbone=f"blip@{image_reward}", lora=lora, lr=1e-3)
    fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    model = RewardModel.from_pretrained(tmp_path / "fit")
    adapters = {name for name in model.trained() if ".lora_" in name}
    assert set(model.trained()) == {*adapters, "head.weight", "head.bias"} and bool(adapters) == bool(lora)
    assert all(p.abs().sum() > 0 for name, p in model.trained().items() if ".lora_B." in name)
    if lora:
        assert {name.split(".")[1] for name in adapters} == {"vision", "text"}
        assert any("crossattention" in name for name in adapters)
    given = images().requires_grad_()
    reward = load_reward(f"learned@{tmp_path / 'fit'}")
    (gradient,) = torch.autograd.grad(reward.score(given, PROMPTS).sum(), given)
    assert gradient.abs().sum() > 0


def test_what_is_no_blip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match="is of type 'clip', not a blip"):
        new_backbone(f"blip@{tmp_path}", PROMPTS)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no ImageReward\.pt or config\.json"):
        new_backbone(f"blip@{tmp_path}", PROMPTS)
