"""Rewards that are cosines of CLIP embeddings in transformers' layout: PickScore, CLIPScore, plain similarity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionModelWithProjection, PreTrainedModel

from beholder.errors import InputError
from beholder.rewards.zoo.files import agree, find_file, read_weights
from beholder.rewards.zoo.preprocess import Crop, Preprocess
from beholder.rewards.zoo.scorer import Network, StagedScorer
from beholder.rewards.zoo.texts import clip_clean, once, tokens

TOKENIZER = "openai/clip-vit-large-patch14"
"""Every CLIP has this vocabulary."""

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class Clip:
    """A CLIP, its tokenizer, and what its original does to texts before that."""

    model: CLIPModel
    tokenizer: CLIPTokenizer
    clean: Callable[[str], str] = clip_clean

    @property
    def size(self) -> int:
        return image_size(self.model.vision_model.config)

    def cosine(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """cos(image, text) [N]; a prompt that occurs twice is encoded once."""
        return (unit(image_embedding(self.model, pixels)) * self.texts(prompts, pixels.device)).sum(-1)

    def texts(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Unit vectors [N, D]; the state at the first end-of-text token, so padding does not matter."""
        texts, place = once(prompts)
        length = self.model.text_model.config.max_position_embeddings
        inputs = tokens(self.tokenizer, [self.clean(text) for text in texts], length, device)
        embedded = self.model.text_projection(self.model.text_model(**inputs).pooler_output)
        return unit(embedded)[place.to(device)]


def load_pickscore(checkpoint: str) -> StagedScorer:
    """PickScore (2305.01569): exp(logit_scale) · cos(image, text), about 16 … 26; prompts are cut after 77 tokens."""

    def values(clip: Clip, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return clip.model.logit_scale.exp() * clip.cosine(pixels, prompts)

    return _scorer(checkpoint, values, clean=str, crop="floor")


def load_clipscore(checkpoint: str) -> StagedScorer:
    """CLIPScore (2104.08718): 2.5 · max(cos, 0) with "A photo depicts " before the caption; cut after 77 tokens.

    Without a gradient where the cosine is negative.
    """

    def values(clip: Clip, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return 2.5 * clip.cosine(pixels, [f"A photo depicts {text}" for text in prompts]).clamp(min=0)

    return _scorer(checkpoint, values)


def load_similarity(checkpoint: str) -> StagedScorer:
    """cos(image, text) of any CLIP, −1 … 1, without prefix or scale; prompts are cut after 77 tokens."""
    return _scorer(checkpoint, Clip.cosine)


def _scorer(
    checkpoint: str,
    values: Callable[[Clip, Tensor, Sequence[str]], Tensor],
    clean: Callable[[str], str] = clip_clean,
    crop: Crop = "round",
) -> StagedScorer:
    config, weights = find_model(checkpoint)
    words = find_tokenizer(checkpoint)

    def load() -> Network:
        model = read_clip(CLIPModel, config, weights)
        clip = Clip(model, read_tokenizer(words, model), clean)
        return Network(model, Preprocess(clip.size, crop=crop), lambda *given: values(clip, *given))

    return StagedScorer(load)


def find_model(checkpoint: str) -> tuple[Path, Path]:
    """The configuration and the weights of a transformers folder or hub name."""
    if Path(checkpoint).expanduser().is_file():
        raise InputError(f"rewards: {checkpoint!r} is a file; name the folder that holds it and its config.json")
    return find_file(checkpoint, "config.json"), find_file(checkpoint, "model.safetensors", "pytorch_model.bin")


def read_clip(kind: type[Model], config: Path, weights: Path) -> Model:
    """A CLIP, or its image half, in float32."""
    settings: Any = CLIPConfig.from_pretrained(config.parent)
    state = {name: value for name, value in read_weights(weights).items() if not name.endswith("position_ids")}
    if kind is CLIPVisionModelWithProjection:
        settings.vision_config.projection_dim = settings.projection_dim  # the whole model goes by the latter
        settings = settings.vision_config
        state = {
            name: value for name, value in state.items() if name.startswith(("vision_model.", "visual_projection."))
        }
    return filled(lambda: kind(settings), state, weights)


def filled(
    build: Callable[[], Model], state: Mapping[str, Tensor], source: Path, dtype: torch.dtype = torch.float32
) -> Model:
    """The model that ``build`` makes with these weights, in ``dtype``; InputError unless they cover it exactly."""
    with init_empty_weights(include_buffers=False):
        model = build()
    try:
        left = model.load_state_dict(
            {name: value.to(dtype) for name, value in state.items()}, strict=False, assign=True
        )
    except RuntimeError as error:  # a shape that differs
        raise InputError(f"rewards: {str(source)!r} does not fit: {str(error).splitlines()[-1].strip()}") from error
    agree(source, left.missing_keys, left.unexpected_keys)
    return model


def find_tokenizer(checkpoint: str) -> Path:
    """The folder with the tokenizer of a folder or hub name."""
    file = find_file(checkpoint, "tokenizer.json", "vocab.json")
    if file.name == "vocab.json":
        find_file(checkpoint, "merges.txt")
    return file.parent


def read_tokenizer(folder: Path, model: CLIPModel) -> CLIPTokenizer:
    """The tokenizer in the folder; InputError when it has more tokens than the model, or none."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    known = model.text_model.config.vocab_size
    if not 3 < len(tokenizer) <= known:
        raise InputError(f"rewards: the tokenizer in {str(folder)!r} has {len(tokenizer)} tokens, the model {known}")
    return tokenizer


def image_size(config: Any) -> int:
    """Side of the square images that a vision tower takes."""
    return int(config.image_size)


def image_embedding(model: CLIPModel | CLIPVisionModelWithProjection, pixels: Tensor) -> Tensor:
    """The projected embedding [N, D], not normalised."""
    return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)


def unit(embedding: Tensor) -> Tensor:
    """The embedding at length 1."""
    return embedding / embedding.norm(dim=-1, keepdim=True)
