"""HPS v1, HPSv2 and HPSv2.1: cosines of a CLIP in the layout of OpenAI and open_clip, read into transformers' CLIP."""

from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path

from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from beholder.errors import InputError
from beholder.rewards.zoo.clip import TOKENIZER, Clip, filled, find_tokenizer, read_tokenizer
from beholder.rewards.zoo.files import find_file, read_weights
from beholder.rewards.zoo.preprocess import Preprocess, Resize
from beholder.rewards.zoo.scorer import Network, StagedScorer

MAXIMUM_TOKEN = 2
"""transformers' old mark for a text's embedding at its highest token, which is where OpenAI and open_clip take it."""

NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
"""Tensors, or layers with a weight and a bias, that only change their names."""
TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
LAYERS = {
    "transformer.resblocks": "text_model.encoder.layers",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
}
LAYER_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
FUSED = ("q_proj", "k_proj", "v_proj")
"""What open_clip keeps in one matrix of three times the height."""


def load_hps(checkpoint: str) -> StagedScorer:
    """HPS v1 (2303.14420), ``hpc.pth``: cos(image, text) of a ViT-L/14; prompts are cut after 77 tokens."""
    return _scorer(checkpoint, "hpc.pth", "quick_gelu", "pillow")


def load_hpsv2(checkpoint: str, antialias: bool = True) -> StagedScorer:
    """HPSv2 (2306.09341), ``HPS_v2_compressed.pt``: cos(image, text) of a ViT-H/14, about 0.25 … 0.33.

    No logit scale, as in the official ``score``; its tables show 100 times the cosine. The official transform resizes
    float tensors: with ``antialias`` under torchvision 0.17 or newer, without it under what was current when the
    model came out. Prompts are cut after 77 tokens. The original computes in half precision, this in float32.
    """
    return _scorer(checkpoint, "HPS_v2_compressed.pt", "gelu", "tensor", antialias)


def load_hpsv21(checkpoint: str, antialias: bool = True) -> StagedScorer:
    """HPSv2.1, ``HPS_v2.1_compressed.pt``: as `load_hpsv2` with newer weights."""
    return _scorer(checkpoint, "HPS_v2.1_compressed.pt", "gelu", "tensor", antialias)


def _scorer(checkpoint: str, name: str, activation: str, resize: Resize, antialias: bool = True) -> StagedScorer:
    weights = find_file(checkpoint, name)
    own = any((weights.parent / file).is_file() for file in ("tokenizer.json", "vocab.json"))
    words = find_tokenizer(str(weights.parent) if own else TOKENIZER)

    def load() -> Network:
        state = read_weights(weights)
        config = clip_config(state, activation, weights)
        model = filled(lambda: CLIPModel(config), to_transformers(state), weights)
        clip = Clip(model, read_tokenizer(words, model))
        return Network(model, Preprocess(clip.size, resize, antialias=antialias), clip.cosine)

    return StagedScorer(load)


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's (and OpenAI's) tensors under transformers' names; names that are of neither stay as they are."""
    return {name: value for old, tensor in state.items() for name, value in _renamed(old, tensor)}


def _renamed(old: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    stem, _, kind = old.rpartition(".")
    if old in TRANSPOSED:
        yield TRANSPOSED[old], tensor.T.contiguous()
    elif old in NAMES:
        yield NAMES[old], tensor
    elif stem in NAMES:
        yield f"{NAMES[stem]}.{kind}", tensor
    else:
        yield from _renamed_in_layer(old, tensor)


def _renamed_in_layer(old: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    for tower, layers in LAYERS.items():
        number, _, rest = old.removeprefix(f"{tower}.").partition(".")
        if not old.startswith(f"{tower}.") or not number.isdigit():
            continue
        stem, _, kind = rest.rpartition(".")
        if stem in LAYER_NAMES:
            yield f"{layers}.{number}.{LAYER_NAMES[stem]}.{kind}", tensor
            return
        if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
            for part, value in zip(FUSED, tensor.chunk(3), strict=True):
                yield f"{layers}.{number}.self_attn.{part}.{rest.rpartition('_')[2]}", value.contiguous()
            return
    yield old, tensor


def clip_config(state: Mapping[str, Tensor], activation: str, source: Path) -> CLIPConfig:
    """The configuration that the shapes tell; heads are 64 wide as in every CLIP, 80 in the image half of ViT-H/14."""
    try:
        patches, words = state["visual.positional_embedding"], state["positional_embedding"]
        conv, width = state["visual.conv1.weight"], state["ln_final.weight"].shape[0]
        vision_width, patch, embedding = conv.shape[0], conv.shape[-1], state["text_projection"].shape[1]
        vocabulary = state["token_embedding.weight"].shape[0]
    except KeyError as error:
        raise InputError(f"rewards: {str(source)!r} is no open_clip checkpoint: it has no tensor {error}") from error
    shared = {"hidden_act": activation, "projection_dim": embedding}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": _depth(state, "transformer.resblocks."),
        "num_attention_heads": width // 64,
        "max_position_embeddings": words.shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": MAXIMUM_TOKEN,
        "pad_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": 4 * vision_width,
        "num_hidden_layers": _depth(state, "visual.transformer.resblocks."),
        "num_attention_heads": vision_width // (80 if vision_width == 1280 else 64),
        "image_size": patch * isqrt(patches.shape[0] - 1),
        "patch_size": patch,
    }
    return CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=embedding)


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
