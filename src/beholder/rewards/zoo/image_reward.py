"""ImageReward (2304.05977): a BLIP whose text encoder looks at the image, and a linear head on its first state."""

import json
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from beholder.errors import InputError
from beholder.rewards.zoo.clip import filled, image_size
from beholder.rewards.zoo.files import find_file, read_weights
from beholder.rewards.zoo.head import linear_head
from beholder.rewards.zoo.preprocess import Preprocess
from beholder.rewards.zoo.scorer import Network, StagedScorer
from beholder.rewards.zoo.texts import tokens

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output on the authors' reference set."""
MAX_TOKENS = 35
TOKENIZER = "google-bert/bert-base-uncased"

VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""Left over from BLIP's own training; the score never meets them."""


class ImageReward(nn.Module):
    """(head(first state of the text encoder that attends to the image) − mean) / std."""

    def __init__(self, vision: BlipVisionModel, text: BlipTextModel, head: nn.Sequential) -> None:
        super().__init__()
        self.vision, self.text, self.head = vision, text, head

    def forward(self, pixels: Tensor, words: dict[str, Tensor]) -> Tensor:
        """Values [N] of pixels [N, 3, S, S] and tokens [N, L]."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        states = self.text(**words, encoder_hidden_states=seen).last_hidden_state
        return (self.head(states[:, 0]).squeeze(-1) - MEAN) / STD


def load_image_reward(checkpoint: str) -> StagedScorer:
    """ImageReward-v1.0, about −2.3 … 2: ``ImageReward.pt``, and ``med_config.json`` beside it.

    Prompts are cut after 35 tokens.
    """
    weights = find_file(checkpoint, "ImageReward.pt")
    beside = str(weights.parent) if Path(checkpoint).expanduser().exists() else checkpoint
    settings = find_file(beside, "med_config.json")
    own = [weights.parent / name for name in ("tokenizer.json", "vocab.txt") if (weights.parent / name).is_file()]
    vocabulary = own[0] if own else find_file(TOKENIZER, "tokenizer.json", "vocab.txt")

    def load() -> Network:
        model = read_image_reward(read_weights(weights), json.loads(settings.read_text(encoding="utf-8")), weights)
        tokenizer = BertTokenizer.from_pretrained(vocabulary.parent)
        if not 0 < len(tokenizer) <= model.text.config.vocab_size:
            raise InputError(
                f"rewards: the tokenizer in {str(vocabulary.parent)!r} has {len(tokenizer)} tokens, the model "
                f"{model.text.config.vocab_size}"
            )

        def values(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
            return model(pixels, tokens(tokenizer, prompts, MAX_TOKENS, pixels.device))

        return Network(model, Preprocess(image_size(model.vision.config)), values)

    return StagedScorer(load)


def read_image_reward(state: Mapping[str, Tensor], settings: Mapping[str, Any], source: Path) -> ImageReward:
    """The model from the published tensors; InputError unless they cover it exactly."""
    if "blip.visual_encoder.patch_embed.proj.weight" not in state:
        raise InputError(f"rewards: {str(source)!r} is no ImageReward checkpoint: it has no blip.visual_encoder")
    absent = [name for name in TEXT_SETTINGS if name not in settings]
    if absent:
        raise InputError(f"rewards: the med_config.json of {str(source)!r} says no {absent[0]}")
    kept = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    patch = kept["blip.visual_encoder.patch_embed.proj.weight"]
    width, positions = patch.shape[0], kept["blip.visual_encoder.pos_embed"].shape[1]
    depth = len({name.split(".")[3] for name in kept if name.startswith("blip.visual_encoder.blocks.")})
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        image_size=patch.shape[-1] * isqrt(positions - 1),
        patch_size=patch.shape[-1],
        layer_norm_eps=1e-6,  # transformers' own default is 1e-5
    )
    text = BlipTextConfig(
        **{name: settings[name] for name in TEXT_SETTINGS},
        encoder_hidden_size=width,  # med_config.json says 768, the official code overwrites it
        is_decoder=True,  # the layers that attend to the image exist only then; it runs as an encoder
    )
    towers = {"vision": {}, "text": {}, "other": {}}
    for name, value in kept.items():
        tower, own = _renamed(name)
        towers[tower][own] = value
    return ImageReward(
        filled(lambda: BlipVisionModel(vision), towers["vision"], source),
        filled(lambda: BlipTextModel(text, add_pooling_layer=False), towers["text"], source),
        linear_head(towers["other"], "mlp.layers.", source),
    )


TEXT_SETTINGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id"),
)


def _renamed(name: str) -> tuple[str, str]:
    """Which part a published tensor belongs to, and transformers' name of it there."""
    if name.startswith("blip.text_encoder."):
        return "text", name.removeprefix("blip.text_encoder.")
    if not name.startswith("blip.visual_encoder."):
        return "other", name
    old = name.removeprefix("blip.visual_encoder.")
    stem, _, kind = old.rpartition(".")
    if old in VISION:
        return "vision", VISION[old]
    if stem in VISION:
        return "vision", f"{VISION[stem]}.{kind}"
    _, number, rest = old.split(".", 2)
    stem, _, kind = rest.rpartition(".")
    return "vision", f"encoder.layers.{number}.{BLOCK.get(stem, stem)}.{kind}"
