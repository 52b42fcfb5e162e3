"""ImageReward: the published tensors find their place, and the score is the one written down by hand."""

import json
from pathlib import Path

import pytest
import torch
from by_hand import image_reward
from published import BERT_WORDS, MED_CONFIG, SMALL_MED, image_reward_state, meta, save_image_reward
from transformers import BertTokenizer

from beholder.errors import InputError
from beholder.rewards import load_reward
from beholder.rewards.zoo.image_reward import MAX_TOKENS, read_image_reward
from beholder.rewards.zoo.preprocess import Preprocess

PROMPTS = ["red circles, red!", "", "日 zebra", "red " * 80]


def images() -> torch.Tensor:
    return torch.rand(4, 3, 50, 40, generator=torch.Generator().manual_seed(0))


def test_the_published_size() -> None:
    """ImageReward.pt: 625 tensors, 446,665,953 numbers without the position ids; all have their place or are unused."""
    state = image_reward_state(meta, 1024, 24, 16, 14, MED_CONFIG)
    assert len(state) == 625
    numbers = {name: value.numel() for name, value in state.items() if not name.endswith("position_ids")}
    assert sum(numbers.values()) == 446_665_953
    head = {name: torch.zeros(value.shape) for name, value in state.items() if name.startswith("mlp.")}
    model = read_image_reward(state | head, MED_CONFIG, Path("here"))
    unused = sum(count for name, count in numbers.items() if name.startswith(("blip.vision_proj", "blip.text_proj")))
    assert sum(value.numel() for value in model.parameters()) == 446_665_953 - unused
    assert model.vision.config.num_attention_heads == 16 and model.vision.config.layer_norm_eps == 1e-6
    assert model.text.config.encoder_hidden_size == 1024


def test_the_score_by_hand(tmp_path: Path) -> None:
    state = save_image_reward(tmp_path)
    reward = load_reward(f"imagereward@{tmp_path}")
    assert reward.differentiable
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    given = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    pixels = Preprocess(32)(images())
    wanted = image_reward(state, SMALL_MED, pixels, given.input_ids, given.attention_mask)
    got = reward.score(images(), PROMPTS)
    assert torch.allclose(got, wanted, atol=2e-6)
    assert len({round(value, 4) for value in got.tolist()}) == 4


def test_words_after_the_35th_token_do_not_count(tmp_path: Path) -> None:
    save_image_reward(tmp_path)
    reward = load_reward(f"imagereward@{tmp_path}")
    long = "red " * (MAX_TOKENS - 2)
    got = reward.score(images()[:1].expand(3, -1, -1, -1), [long, long + "circle a b c", "circle " + long])
    assert got[0] == pytest.approx(got[1].item(), abs=1e-6) and abs(got[0] - got[2]) > 1e-6


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"blip.visual_encoder.norm.bias": None}, "1 tensors missing.*'post_layernorm.bias'"),
        ({"blip.text_encoder.encoder.layer.1.crossattention.self.key.bias": None}, "crossattention.self.key.bias"),
        (
            {"blip.visual_encoder.blocks.0.extra.weight": torch.zeros(1)},
            "1 unexpected.*'encoder.layers.0.extra.weight'",
        ),
        ({"mlp.layers.7.bias": None}, "no head of five linear layers"),
        ({"blip.visual_encoder.patch_embed.proj.weight": None}, "no ImageReward checkpoint"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(change: dict, wanted: str, tmp_path: Path) -> None:
    state = save_image_reward(tmp_path) | change
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "ImageReward.pt")
    with pytest.raises(InputError, match=wanted):
        load_reward(f"imagereward@{tmp_path}").score(images(), PROMPTS)


def test_what_must_lie_beside_it(tmp_path: Path) -> None:
    save_image_reward(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(BERT_WORDS + tuple(f"word{i}" for i in range(9))) + "\n")
    with pytest.raises(InputError, match=r"the tokenizer in .* the model"):
        load_reward(f"imagereward@{tmp_path}").score(images(), PROMPTS)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(InputError, match="google-bert/bert-base-uncased"):
        load_reward(f"imagereward@{tmp_path}")
    (tmp_path / "med_config.json").unlink()
    with pytest.raises(InputError, match=r"holds no med_config.json"):
        load_reward(f"imagereward@{tmp_path / 'ImageReward.pt'}")


def test_a_configuration_without_a_size_is_named(tmp_path: Path) -> None:
    save_image_reward(tmp_path)
    short = {name: value for name, value in SMALL_MED.items() if name != "hidden_size"}
    (tmp_path / "med_config.json").write_text(json.dumps(short))
    with pytest.raises(InputError, match=r"med_config.json.*hidden_size"):
        load_reward(f"imagereward@{tmp_path}").score(images(), PROMPTS)
