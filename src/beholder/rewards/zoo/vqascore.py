"""VQAScore (2404.01291): how likely CLIP-FlanT5 answers "Yes" to whether an image shows its prompt.

CLIP-FlanT5 is a FlanT5 that reads projected features of a CLIP ViT-L/14 at 336 in the middle of its question.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration, T5Tokenizer

from beholder.errors import InputError
from beholder.rewards.zoo.clip import filled
from beholder.rewards.zoo.files import agree, find_file
from beholder.rewards.zoo.preprocess import CLIP_MEAN, Preprocess, checked, resized_shape
from beholder.rewards.zoo.qwen_reward import working_dtype
from beholder.rewards.zoo.scorer import Network, StagedScorer
from beholder.rewards.zoo.shards import find_shards, read_shards

BEFORE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: "
)
AFTER = '\nDoes this figure show "{}"? Please answer yes or no. ASSISTANT: '
ANSWER = "Yes"
LONGEST = 2048
"""Tokens of a question, the image counting as one; the rest is cut off."""
AT_ONCE = 8
"""Images that pass through the network together."""
TOWER = "vision_tower.vision_tower."
ALIASES = ("embed_tokens.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Other names of ``shared.weight``."""
ABSENT = ("vision_model.embeddings.position_ids",)


class ClipT5(nn.Module):
    """T5 whose encoder reads ``before, features of the image, after``."""

    def __init__(self, words: T5ForConditionalGeneration, tower: CLIPVisionModel, layer: int, join: nn.Module) -> None:
        super().__init__()
        self.words, self.tower, self.layer, self.join = words, tower, layer, join

    def forward(
        self, pixels: Tensor, before: Tensor, after_NL: Tensor, real_NL: Tensor, answer: Tensor, known: int
    ) -> Tensor:
        """Log-probability of each token of the answer ``[N, A]`` among the tokenizer's ``known`` tokens.

        ``real_NL`` is where ``after_NL`` is no padding. The authors cut FlanT5's 32,128 rows down to the tokenizer's.
        """
        n = len(pixels)
        dtype = self.words.dtype
        states = self.tower(pixel_values=pixels.to(dtype), output_hidden_states=True).hidden_states
        seen = self.join(states[self.layer][:, 1:])  # all patches, without the class token
        embed = self.words.get_input_embeddings()
        read = torch.cat([embed(before).expand(n, -1, -1), seen, embed(after_NL)], 1)
        first = torch.ones(n, read.shape[1] - after_NL.shape[1], dtype=torch.bool, device=pixels.device)
        logits = self.words(
            inputs_embeds=read,
            attention_mask=torch.cat([first, real_NL], 1),
            labels=answer.repeat(n, 1),
            use_cache=False,
        ).logits
        return logits[..., :known].float().log_softmax(-1).gather(-1, answer.expand(n, -1)[..., None])[..., 0]


@dataclass(frozen=True)
class Padded:
    """Images padded to a square with CLIP's mean colour, the image in its middle, then resized and normalised."""

    size: int

    def __call__(self, images: Tensor) -> Tensor:
        height, width = checked(images).shape[-2:]
        resized_shape(height, width, self.size)  # refuses what is much too long
        return Preprocess(self.size, crop="floor")(squared(images))


def squared(images: Tensor) -> Tensor:
    """``[N, 3, S, S]``, S the longer side; the colour is that of 8-bit CLIP means, an odd margin smaller before."""
    height, width = images.shape[-2:]
    if height == width:
        return images
    side = max(height, width)
    colour = images.new_tensor([int(mean * 255) / 255 for mean in CLIP_MEAN])
    square = colour.view(3, 1, 1).expand(len(images), 3, side, side).clone()
    top, left = (side - height) // 2, (side - width) // 2
    square[..., top : top + height, left : left + width] = images
    return square


def load_vqascore(checkpoint: str) -> StagedScorer:
    """VQAScore, 0 … 1: the geometric mean of P("Yes") and P(end of text).

    A folder or hub name with ``config.json`` and weights; the tokenizer from there, or FlanT5's from the hub. Gradients
    reach the images, which the authors cut off.
    """
    config = find_file(checkpoint, "config.json")
    shards = find_shards(checkpoint)
    own = [config.parent / name for name in ("tokenizer.json", "spiece.model") if (config.parent / name).is_file()]
    said = json.loads(config.read_text(encoding="utf-8"))
    base = "google/flan-t5-xxl" if said.get("d_model", 0) > 2048 else "google/flan-t5-xl"
    folder = own[0].parent if own else find_file(base, "tokenizer.json", "spiece.model").parent
    tower = _tower(said, config.parent)
    read = json.loads(find_file(tower, "config.json").read_text(encoding="utf-8"))
    vision = dict(read.get("vision_config", read))

    def load() -> Network:
        state = read_shards(shards)
        if not any(name.startswith(TOWER) for name in state):  # kept apart: the authors never trained it
            clip = read_shards(find_shards(tower))
            state |= {TOWER + name: value for name, value in clip.items() if name.startswith("vision_model.")}
        model = read_clip_t5(state, said, vision, shards[0])
        tokenizer: Any = T5Tokenizer.from_pretrained(folder, model_max_length=LONGEST)
        if len(tokenizer) > model.words.config.vocab_size:
            raise InputError(
                f"rewards: the tokenizer in {str(folder)!r} has {len(tokenizer)} tokens, the model "
                f"{model.words.config.vocab_size}"
            )

        def values(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.cat(
                [
                    _some(model, tokenizer, pixels[i : i + AT_ONCE], prompts[i : i + AT_ONCE])
                    for i in range(0, len(pixels), AT_ONCE)
                ]
            )

        return Network(model, Padded(int(vision["image_size"])), values)

    return StagedScorer(load)


def _some(model: ClipT5, tokenizer: Any, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    """exp(mean log-probability of the answer's tokens) ``[N]``."""

    def ids(text: str) -> list[int]:
        """With the closing token, which FlanT5 has after each of the two halves."""
        return tokenizer(text)["input_ids"]

    before, answer = (torch.tensor([ids(text)], device=pixels.device) for text in (BEFORE, ANSWER))
    rows = [ids(AFTER.format(prompt))[: LONGEST - before.shape[1] - 1] for prompt in prompts]
    longest, pad = max(map(len, rows)), int(tokenizer.pad_token_id)
    after = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=pixels.device)
    real = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows], device=pixels.device)
    return model(pixels, before, after, real, answer, len(tokenizer)).mean(1).exp()


def _tower(said: Mapping[str, Any], folder: Path) -> str:
    """The folder or hub name of the image half: ``mm_vision_tower``, sought beside the model first."""
    name = said.get("mm_vision_tower")
    if not isinstance(name, str):
        raise InputError(f"rewards: the config.json in {str(folder)!r} names no mm_vision_tower; is it a CLIP-FlanT5?")
    return str(folder / name) if (folder / name).is_dir() else name


def read_clip_t5(state: Mapping[str, Tensor], said: Mapping[str, Any], vision: dict[str, Any], source: Path) -> ClipT5:
    """The model from the published tensors; InputError unless they cover it exactly."""
    kind = said.get("mm_projector_type", "linear")
    if kind != "mlp2x_gelu" or said.get("mm_vision_select_feature", "patch") != "patch":
        raise InputError(f"rewards: {str(source)!r} has a projector {kind!r}; CLIP-FlanT5 has mlp2x_gelu on patches")
    parts: dict[str, dict[str, Tensor]] = {"tower": {}, "join": {}, "words": {}}
    for name, value in state.items():
        part, own = _placed(name)
        if part:
            parts[part][own] = value
    if "shared.weight" not in parts["words"]:
        raise InputError(f"rewards: {str(source)!r} holds no T5: it has no shared.weight")
    settings = T5Config(**{k: v for k, v in said.items() if k not in ("model_type", "architectures", "torch_dtype")})
    settings.vocab_size = len(parts["words"]["shared.weight"])  # resized to the tokenizer
    parts["words"] |= {alias: parts["words"]["shared.weight"] for alias in ALIASES[1:]}
    dtype = working_dtype()
    words = filled(lambda: T5ForConditionalGeneration(settings), parts["words"], source, dtype)
    for name in ("encoder", "decoder"):
        getattr(words, name).embed_tokens.weight = words.shared.weight  # one tensor again
    tower = filled(lambda: CLIPVisionModel(CLIPVisionConfig(**vision)), parts["tower"], source, dtype)
    wide, size = int(vision["hidden_size"]), int(settings.d_model)
    join = nn.Sequential(nn.Linear(wide, size), nn.GELU(), nn.Linear(size, size)).to(dtype)
    try:
        left = join.load_state_dict({name: value.to(dtype) for name, value in parts["join"].items()}, strict=False)
    except RuntimeError as error:  # a shape that differs
        raise InputError(f"rewards: {str(source)!r} does not fit: {str(error).splitlines()[-1].strip()}") from error
    agree(source, left.missing_keys, left.unexpected_keys)
    return ClipT5(words, tower, int(said.get("mm_vision_select_layer", -2)), join)


def _placed(name: str) -> tuple[str, str]:
    """Which part a published tensor belongs to, and its name there; no part for what is said twice or unused."""
    if name.startswith(TOWER):
        own = name.removeprefix(TOWER)
        return ("", "") if own in ABSENT else ("tower", own.removeprefix("vision_model."))
    if name.startswith("mm_projector."):
        return "join", name.removeprefix("mm_projector.")
    return ("", "") if name in ALIASES else ("words", name)
