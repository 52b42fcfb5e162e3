"""VQAScore: CLIP-FlanT5 from its published names, and its numbers derived once more, one image at a time."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published import State, line, noise
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration

from beholder.errors import InputError
from beholder.rewards import load_reward, score
from beholder.rewards.zoo.vqascore import squared
from tiny import t5_tokenizer

VISION = {
    **{"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2},
    **{"image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu", "projection_dim": 48},
}
CONFIG = {
    **{"architectures": ["CLIPT5ForConditionalGeneration"], "model_type": "clip_t5", "d_model": 32, "d_kv": 8},
    **{"d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"},
    **{"vocab_size": 9, "tie_word_embeddings": False, "decoder_start_token_id": 0, "pad_token_id": 0},
    **{"eos_token_id": 1, "layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32, "dropout_rate": 0.1},
    **{"mm_vision_tower": "tower", "mm_hidden_size": 48, "mm_projector_type": "mlp2x_gelu"},
    **{"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "use_mm_proj": True},
    "torch_dtype": "bfloat16",
}
UNUSED_ROWS = 5
"""FlanT5 has more rows than its tokenizer has tokens."""
PROMPTS = ["a red circle", "", 'two "crosses" {and} a blue square on a longer line']


def lively(model: torch.nn.Module, seed: int) -> None:
    make = noise(seed, 0.1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(make(*value.shape))


def save(folder: Path, seed: int = 0) -> tuple[T5ForConditionalGeneration, CLIPVisionModel, State]:
    """Two pickled shards with an index, as on the hub, and the tower's configuration beside them."""
    (folder / "tower").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tower" / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": VISION}))
    t5_tokenizer().save_pretrained(folder)
    said = {k: v for k, v in CONFIG.items() if k not in ("vocab_size", "torch_dtype", "model_type")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = T5ForConditionalGeneration(T5Config(**said, vocab_size=len(t5_tokenizer()) + UNUSED_ROWS)).eval()
        tower = CLIPVisionModel(CLIPVisionConfig(**VISION)).eval()
    words.lm_head.weight = torch.nn.Parameter(noise(seed + 4)(*words.shared.weight.shape))  # FlanT5's is its own
    lively(words, seed)
    lively(tower, seed + 1)
    join = line(noise(seed + 2), "mm_projector.0", 32, 48) | line(noise(seed + 3), "mm_projector.2", 32, 32)
    first = {name: value.clone() for name, value in words.state_dict().items()}
    first["embed_tokens.weight"] = first["shared.weight"].clone()
    second = {f"vision_tower.vision_tower.vision_model.{name}": v.clone() for name, v in tower.state_dict().items()}
    second["vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    second |= join
    where = {}
    for number, part in enumerate((first, second), 1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save(part, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return words, tower, join


def by_hand(parts: tuple[Any, Any, State], image: Tensor, prompt: str) -> float:
    """exp(− mean cross-entropy of "Yes" and its end), the picture padded and resized by Pillow."""
    words, tower, join = parts
    picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    side = max(picture.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    seen = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC)) / 255
    seen = (seen - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    tokenizer = t5_tokenizer()
    system = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions."
    )
    question = f'{system} USER: <image>\nDoes this figure show "{prompt}"? Please answer yes or no. ASSISTANT: '
    before, after = (torch.tensor(tokenizer(half).input_ids) for half in question.split("<image>"))
    assert before[-1] == after[-1] == tokenizer.eos_token_id
    labels = torch.tensor(tokenizer("Yes").input_ids)[None]
    with torch.no_grad():
        pixels = torch.from_numpy(seen).float().permute(2, 0, 1)[None]
        features = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
        hidden = torch.nn.functional.gelu(features @ join["mm_projector.0.weight"].T + join["mm_projector.0.bias"])
        features = hidden @ join["mm_projector.2.weight"].T + join["mm_projector.2.bias"]
        embeds = torch.cat([words.shared(before), features, words.shared(after)])[None]
        logits = words(inputs_embeds=embeds, labels=labels).logits[0, :, : len(tokenizer)]
    return math.exp(-torch.nn.functional.cross_entropy(logits, labels[0]).item())


def images(count: int = 3, height: int = 40, width: int = 57) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp("clip-flant5")
    return f"vqascore@{folder}", save(folder)


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (32, 32), (3, 90)])
def test_values_are_the_likelihood_of_yes_and_its_end(shape: tuple[int, int], saved: tuple[str, Any]) -> None:
    name, parts = saved
    given = images(3, *shape)
    got = load_reward(name).score(given, PROMPTS)
    expected = [by_hand(parts, image, prompt) for image, prompt in zip(given, PROMPTS, strict=True)]
    assert got.tolist() == pytest.approx(expected, rel=2e-4)
    assert len(set(expected)) == 3 and ((got > 0) & (got < 1)).all()


def test_the_square_is_the_authors_to_the_byte() -> None:
    for height, width in ((4, 7), (7, 4), (5, 5)):
        (image,) = images(1, height, width)
        picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
        side = max(height, width)
        square = Image.new("RGB", (side, side), (122, 116, 104))
        square.paste(picture, ((side - width) // 2, (side - height) // 2))
        ours = (squared(image[None])[0] * 255).round().permute(1, 2, 0).numpy()
        assert (ours == np.asarray(square)).all()


def test_values_do_not_depend_on_company(saved: tuple[str, Any]) -> None:
    reward = load_reward(saved[0])
    many = images(10)
    prompts = [PROMPTS[i % 3] for i in range(10)]
    whole = reward.score(many, prompts)
    single = torch.cat([reward.score(many[i : i + 1], prompts[i : i + 1]) for i in range(10)])
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reward.score(many.flip(0), prompts[::-1]).flip(0), whole, atol=1e-5, rtol=1e-5)
    assert reward.score(images(0), []).shape == (0,)


def test_a_torn_image_fails_alone_and_one_too_long_is_refused(saved: tuple[str, Any]) -> None:
    reward = load_reward(saved[0])
    torn = images()
    torn[1, 2, 0, 0] = math.nan
    table = score(torn, PROMPTS, [reward])
    assert table.failed_N.tolist() == [False, True, False]
    torch.testing.assert_close(table.values_NM[[0, 2], 0], reward.score(images(), PROMPTS)[[0, 2]])
    with pytest.raises(InputError, match="longer than 64 times"):
        reward.score(images(1, 1, 100), ["a"])


def test_a_step_along_the_gradient_raises_the_score(saved: tuple[str, Any]) -> None:
    reward = load_reward(saved[0])
    given = images(2).requires_grad_()
    value = reward.score(given, PROMPTS[:2])
    torch.testing.assert_close(value.detach(), reward.score(images(2), PROMPTS[:2]))
    (gradient,) = torch.autograd.grad(value.log().sum(), given)
    moved = (given + 0.01 * gradient.sign()).clamp(0, 1).detach()
    assert (reward.score(moved, PROMPTS[:2]) > value).all()


def test_a_tower_that_is_kept_apart_is_read_from_its_own_folder(saved: tuple[str, Any], tmp_path: Path) -> None:
    save(tmp_path)
    second = tmp_path / "pytorch_model-00002-of-00002.bin"
    state, tower = torch.load(second, weights_only=True), "vision_tower.vision_tower."
    torch.save({name: value for name, value in state.items() if not name.startswith(tower)}, second)
    own = {name.removeprefix(tower): value for name, value in state.items() if name.startswith(tower)}
    save_file({**own, "text_model.x": torch.zeros(1)}, tmp_path / "tower" / "model.safetensors")
    expected = load_reward(saved[0]).score(images(), PROMPTS)
    assert torch.equal(load_reward(f"vqascore@{tmp_path}").score(images(), PROMPTS), expected)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    second = tmp_path / "pytorch_model-00002-of-00002.bin"
    state = torch.load(second, weights_only=True)
    for broken, reason in (
        ({n: v for n, v in state.items() if n != "mm_projector.2.bias"}, "1 tensors missing"),
        ({**state, "extra": torch.zeros(1)}, "1 unexpected"),
        ({**state, "mm_projector.2.bias": torch.zeros(7)}, "does not fit"),
    ):
        torch.save(broken, second)
        with pytest.raises(InputError, match=reason):
            load_reward(f"vqascore@{tmp_path}").score(images(1), ["a"])
    torch.save({"a": Path("x")}, second)
    with pytest.raises(InputError, match="weights only"):
        load_reward(f"vqascore@{tmp_path}").score(images(1), ["a"])
    second.unlink()
    with pytest.raises(InputError, match="holds no pytorch_model-00002-of-00002"):
        load_reward(f"vqascore@{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "mm_vision_tower": None}))
    save_index = tmp_path / "pytorch_model.bin.index.json"
    save_index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}))
    with pytest.raises(InputError, match="names no mm_vision_tower"):
        load_reward(f"vqascore@{tmp_path}")
    save_index.write_text("[]")
    with pytest.raises(InputError, match="no index of weights"):
        load_reward(f"vqascore@{tmp_path}")
