"""CLIP as the backbone: PickScore's reward, exp(logit scale) · cos(picture, prompt), before the first step.

The features are the products of the two unit embeddings' coordinates times the scale; a head of ones sums them to
PickScore's value, and training turns the ones into weights. With LoRA the two towers learn as well. Only what was
trained is saved; the base is found again by its name. Shapes: ``_N`` images, ``_F`` the embeddings' width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPModel

from beholder.errors import InputError
from beholder.rewards.zoo.clip import (
    find_model,
    find_tokenizer,
    image_embedding,
    image_size,
    read_clip,
    read_tokenizer,
    unit,
)
from beholder.rewards.zoo.preprocess import Preprocess
from beholder.rewards.zoo.texts import once, tokens

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class ClipConfig:
    base: str
    """A transformers folder or hub name."""
    lora: int = 0
    """Rank of the adapters in both towers; 0 trains the head and the scale alone."""

    def __post_init__(self) -> None:
        if self.lora < 0:
            raise InputError(f"lora: {self.lora} must not be negative")


class ClipBackbone(nn.Module):
    """``(pixels [N, 3, S, S], prompts) → features [N, F]``."""

    name = "clip"

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        settings, weights = find_model(config.base)
        self.clip = read_clip(CLIPModel, settings, weights)
        self.tokenizer = read_tokenizer(find_tokenizer(config.base), self.clip)
        self.preprocess = Preprocess(image_size(self.clip.vision_model.config), crop="floor")
        self.clip.requires_grad_(False)
        if config.lora:
            _add_adapters(self.clip, config.lora)
        self.clip.logit_scale.requires_grad_(True)

    @property
    def features(self) -> int:
        return self.clip.visual_projection.out_features

    def head_start(self) -> Tensor:
        """Weights ``[F]`` that a head begins with: ones."""
        return torch.ones(self.features)

    def prepare(self, images: Tensor) -> Tensor:
        """PickScore's pre-processing; differentiable."""
        return self.preprocess(images)

    def forward(self, pixels: Tensor, prompts: list[str]) -> Tensor:
        picture_NF, text_NF = self._embedded(pixels, prompts)
        return self.clip.logit_scale.exp() * picture_NF * text_NF

    def grounded(self, pixels: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """The features, and PickScore's in-batch loss ``[N]``: the mean of picture → prompt and prompt → picture.

        Pictures of one and the same prompt are not each other's negatives.
        """
        picture_NF, text_NF = self._embedded(pixels, prompts)
        scale = self.clip.logit_scale.exp()
        _, place_N = once(prompts)
        own_N = torch.arange(len(prompts), device=pixels.device)
        other_NN = place_N[:, None] != place_N[None]
        allowed_NN = (other_NN | torch.eye(len(prompts), dtype=torch.bool)).to(pixels.device)
        odds_NN = (scale * picture_NF @ text_NF.T).masked_fill(~allowed_NN, -torch.inf)
        losses = [cross_entropy(odds, own_N, reduction="none") for odds in (odds_NN, odds_NN.T)]
        return scale * picture_NF * text_NF, (losses[0] + losses[1]) / 2

    def _embedded(self, pixels: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Unit vectors of the pictures and of their prompts, each ``[N, F]``."""
        texts, place_N = once(prompts)
        text: Any = self.clip.text_model
        inputs = tokens(self.tokenizer, texts, text.config.max_position_embeddings, pixels.device)
        text_PF = unit(self.clip.text_projection(text(**inputs).pooler_output))
        return unit(image_embedding(self.clip, pixels)), text_PF[place_N.to(pixels.device)]


def _add_adapters(clip: CLIPModel, rank: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(TARGETS))
    inject_adapter_in_model(config, clip)
    for name, parameter in clip.named_parameters():
        parameter.requires_grad_(".lora_" in name)
