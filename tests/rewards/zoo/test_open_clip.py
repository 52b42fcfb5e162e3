"""HPS v1, v2 and v2.1: published tensors find their place, and the score is the one written down by hand."""

from pathlib import Path

import pytest
import torch
from by_hand import clip_cosines
from published import meta, noise, open_clip_state, save_hps, small_open_clip, vit_h_14
from transformers import CLIPModel

from beholder.errors import InputError
from beholder.rewards import load_reward
from beholder.rewards.zoo.clip import filled
from beholder.rewards.zoo.open_clip import clip_config, load_hpsv2, to_transformers
from beholder.rewards.zoo.preprocess import Preprocess
from tiny import clip_tokenizer

FILES = {"hps": "hpc.pth", "hpsv2": "HPS_v2_compressed.pt", "hpsv2.1": "HPS_v2.1_compressed.pt"}
PROMPTS = ["a red circle", "", "two blue squares left of a green cross", "a red circle"]
HERE = Path("here")


def images(count: int = 4, height: int = 50, width: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


# -------------------------------------------------------------------------------------------------------- the tensors


def test_the_published_size() -> None:
    """HPSv2's file: 686 tensors, 986,109,441 parameters; every one has its place and no place is left."""
    state = vit_h_14()
    assert len(state) == 686
    model = filled(lambda: CLIPModel(clip_config(state, "gelu", HERE)), to_transformers(state), HERE)
    assert sum(value.numel() for value in model.parameters()) == sum(value.numel() for value in state.values())
    assert sum(value.numel() for value in model.parameters()) == 986_109_441
    config = model.config
    assert (config.vision_config.num_attention_heads, config.text_config.num_attention_heads) == (16, 16)
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (224, 14)


def test_vit_l_14_has_heads_of_64() -> None:
    """HPS v1's network, OpenAI's ViT-L/14: 427,616,513 parameters."""
    state = open_clip_state(meta, 768, 1024, (12, 24), 14, 16, 768, 49408)
    config = clip_config(state, "quick_gelu", HERE)
    assert (config.vision_config.num_attention_heads, config.text_config.num_attention_heads) == (16, 12)
    assert config.vision_config.hidden_act == "quick_gelu"
    model = filled(lambda: CLIPModel(config), to_transformers(state), HERE)
    assert sum(value.numel() for value in model.parameters()) == 427_616_513


def test_no_number_is_lost_or_invented() -> None:
    """The renamed tensors hold the same numbers: fused projections are cut in three, projections transposed."""
    state = small_open_clip()
    renamed = to_transformers(state)
    block, layer = "visual.transformer.resblocks.1", "vision_model.encoder.layers.1.self_attn"
    parts = [renamed[f"{layer}.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), state[f"{block}.attn.in_proj_weight"])
    assert torch.equal(renamed["text_projection.weight"], state["text_projection"].T)
    assert torch.equal(renamed["visual_projection.weight"], state["visual.proj"].T)
    before = torch.cat([value.flatten() for value in state.values()]).sort().values
    after = torch.cat([value.flatten() for value in renamed.values()]).sort().values
    assert torch.equal(before, after)


# ---------------------------------------------------------------------------------------------------------- the score


@pytest.mark.parametrize("name", FILES)
def test_the_score_by_hand(name: str, tmp_path: Path) -> None:
    state = save_hps(tmp_path, FILES[name])
    reward = load_reward(f"{name}@{tmp_path}")
    assert reward.differentiable and reward.name == f"{name}@{tmp_path}"
    got = reward.score(images(), PROMPTS)
    pixels = Preprocess(32, "pillow" if name == "hps" else "tensor")(images())
    ids = clip_tokenizer()(PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    wanted = clip_cosines(state, pixels, ids, quick=name == "hps").diagonal()
    assert torch.allclose(got, wanted, atol=2e-6)
    other = clip_cosines(state, pixels, ids, quick=name != "hps").diagonal()
    assert not torch.allclose(got, other, atol=1e-4)


def test_the_file_itself_and_its_antialiasing(tmp_path: Path) -> None:
    save_hps(tmp_path, FILES["hpsv2"])
    file = str(tmp_path / FILES["hpsv2"])
    smooth, rough = load_hpsv2(file), load_hpsv2(file, antialias=False)
    assert torch.equal(smooth(images(), PROMPTS), load_reward(f"hpsv2@{tmp_path}").score(images(), PROMPTS))
    assert not torch.allclose(smooth(images(), PROMPTS), rough(images(), PROMPTS), atol=1e-5)
    small = images(4, 32, 32)  # nothing is resized
    assert torch.equal(smooth(small, PROMPTS), rough(small, PROMPTS))


def test_a_checkpoint_of_a_parallel_training(tmp_path: Path) -> None:
    state = save_hps(tmp_path, "hpc.pth")
    first = load_reward(f"hps@{tmp_path}").score(images(), PROMPTS)
    torch.save({"state_dict": {f"module.{name}": value.half() for name, value in state.items()}}, tmp_path / "hpc.pth")
    assert torch.equal(load_reward(f"hps@{tmp_path}").score(images(), PROMPTS), first)


# ----------------------------------------------------------------------------------------------------------- bad files


def test_a_tensor_too_few_or_too_many_is_named(tmp_path: Path) -> None:
    state = save_hps(tmp_path, "hpc.pth")
    for change, wanted in (
        ({"ln_final.bias": None}, "1 tensors missing, 0 unexpected .*'text_model.final_layer_norm.bias' is missing"),
        ({"head.weight": torch.zeros(2)}, "0 tensors missing, 1 unexpected .*'head.weight'"),
        ({"ln_final.weight": None}, "no open_clip checkpoint.*'ln_final.weight'"),
        ({"visual.ln_post.bias": torch.zeros(3)}, r"size mismatch for vision_model.post_layernorm.bias"),
    ):
        changed = {name: value for name, value in (state | change).items() if value is not None}
        torch.save({"state_dict": changed}, tmp_path / "hpc.pth")
        with pytest.raises(InputError, match=wanted):
            load_reward(f"hps@{tmp_path}").score(images(), PROMPTS)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_hps(tmp_path, "hpc.pth")
    state = open_clip_state(noise(0), 64, 64, (1, 1), 8, 4, 32, 20)
    torch.save({"state_dict": state}, tmp_path / "hpc.pth")
    with pytest.raises(InputError, match=r"the tokenizer in .* has .* tokens, the model 20"):
        load_reward(f"hps@{tmp_path}").score(images(), PROMPTS)


def test_without_a_tokenizer_beside_it_the_hub_is_asked(tmp_path: Path) -> None:
    save_hps(tmp_path / "whole", "hpc.pth")
    (tmp_path / "alone").mkdir()
    (tmp_path / "whole" / "hpc.pth").rename(tmp_path / "alone" / "hpc.pth")
    with pytest.raises(InputError, match="openai/clip-vit-large-patch14"):
        load_reward(f"hps@{tmp_path / 'alone' / 'hpc.pth'}")
    with pytest.raises(InputError, match="'hps' is on no hub"):
        load_reward("hps")
