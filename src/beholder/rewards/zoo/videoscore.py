"""VideoScore (2406.15252): five qualities of a video, 1 … 4, by an Idefics2-8B with a regression head (Mantis')."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Idefics2Config, Idefics2Model

from beholder.errors import InputError
from beholder.judges.medium import as_medium
from beholder.judges.processors import load_processor
from beholder.rewards.zoo.clip import filled
from beholder.rewards.zoo.files import agree, find_file
from beholder.rewards.zoo.head import linear
from beholder.rewards.zoo.parts import PartedScorer, Parts
from beholder.rewards.zoo.preprocess import checked
from beholder.rewards.zoo.qwen_reward import working_dtype
from beholder.rewards.zoo.scorer import Network
from beholder.rewards.zoo.shards import find_shards, read_shards
from beholder.rewards.zoo.wordings import worded

NAMES = (
    *("visual quality", "temporal consistency", "dynamic degree"),
    *("text-to-video alignment", "factual consistency"),
)
FRAMES, FRAMES_V11 = 16, 48
PLACE = "<image>"


class VideoScore(nn.Module):
    """score(state at the last token)."""

    def __init__(self, model: Idefics2Model, score: nn.Linear) -> None:
        super().__init__()
        self.model, self.score = model, score

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """The five numbers ``[5]`` of one video, as its processor encodes it."""
        states = self.model(**inputs, use_cache=False).last_hidden_state
        return self.score(states[0, -1].to(self.score.weight.dtype)).float()


def load_videoscore(checkpoint: str) -> PartedScorer:
    """VideoScore: the mean of its five numbers, about 1 … 4; up to 16 frames of a video."""
    return _scorer(checkpoint, FRAMES)


def load_videoscore_v11(checkpoint: str) -> PartedScorer:
    """VideoScore-v1.1: the same from up to 48 frames."""
    return _scorer(checkpoint, FRAMES_V11)


def _scorer(checkpoint: str, frames: int) -> PartedScorer:
    config = find_file(checkpoint, "config.json")
    shards = find_shards(checkpoint)

    def load() -> Network:
        settings = Idefics2Config.from_pretrained(config.parent)
        network = read_videoscore(read_shards(shards), settings, shards[0])
        processor = load_processor(checkpoint, settings, trust_remote_code=False)

        def values(media: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.stack([_one(network, processor, one, text) for one, text in zip(media, prompts, strict=True)])

        return Network(network, _as_given, values)

    return PartedScorer(load, Parts(NAMES, lambda table: table.mean(1), strided(frames)))


def _one(network: VideoScore, processor: Any, frames: Tensor, prompt: str) -> Tensor:
    """NaN for a video that holds NaN, and for a prompt with a control token in it."""
    medium = as_medium(frames)
    tokens = processor.tokenizer.added_tokens_decoder.values()
    if medium is None or any(token.special and token.content in prompt for token in tokens):
        return torch.full((len(NAMES),), torch.nan, device=frames.device)
    text = worded("videoscore", prompt) + f"{PLACE} " * len(medium.stills)
    inputs = processor(text=text, images=list(medium.stills), return_tensors="pt")
    dtype = network.model.dtype
    placed = {
        name: value.to(frames.device, dtype) if value.is_floating_point() else value.to(frames.device)
        for name, value in inputs.items()
    }
    return network(placed)


def _as_given(media: Tensor) -> Tensor:
    """Checked, but as it came: the processor that the checkpoint brings does the rest, one video at a time."""
    checked(media.flatten(0, 1) if media.ndim == 5 else media)
    return media


def read_videoscore(state: dict[str, Tensor], settings: Idefics2Config, source: Path) -> VideoScore:
    """The network from the published tensors, ``model.`` and ``score.``; InputError unless they cover it exactly."""
    body = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    top = {name: value for name, value in state.items() if not name.startswith("model.")}
    wanted = ("score.weight", "score.bias")
    agree(source, [name for name in wanted if name not in top], [name for name in top if name not in wanted])
    if len(top["score.weight"]) != len(NAMES):
        raise InputError(
            f"rewards: {str(source)!r} gives {len(top['score.weight'])} numbers; VideoScore gives {len(NAMES)}"
        )
    dtype = working_dtype()
    model = filled(lambda: Idefics2Model(settings), body, source, dtype)
    return VideoScore(model, linear(top["score.weight"], top["score.bias"]).to(dtype))


def strided(most: int) -> Callable[[Sequence[float]], list[int]]:
    """All frames, or ``most`` of them at 0, n/most, 2n/most …, rounded down."""

    def choose(times: Sequence[float]) -> list[int]:
        total = len(times)
        return list(range(total)) if total <= most else [int(i * (total / most)) for i in range(most)]

    return choose
