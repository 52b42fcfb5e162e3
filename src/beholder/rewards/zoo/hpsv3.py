"""HPSv3 (2508.03789): Qwen2-VL-7B whose head gives the mean and the spread of a preference score."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from beholder.rewards.zoo.files import find_file, read_weights
from beholder.rewards.zoo.parts import PartedScorer, Parts
from beholder.rewards.zoo.qwen_pixels import QwenPixels
from beholder.rewards.zoo.qwen_reward import find_beside, fits, outputs, read_body, read_talk
from beholder.rewards.zoo.scorer import Network
from beholder.rewards.zoo.wordings import worded

BASE = "Qwen/Qwen2-VL-7B-Instruct"
"""Where configuration and tokenizer come from unless they lie beside the weights."""
PIXELS = 256 * 28 * 28
"""At least and at most, so an image becomes about 256 tokens."""
HIDDEN = (1024, 16)


def load_hpsv3(checkpoint: str) -> PartedScorer:
    """HPSv3: μ, about 0 … 15; σ = exp of the head's second output is told beside it.

    ``HPSv3.safetensors``; ``config.json`` and the tokenizer of Qwen2-VL-7B-Instruct from beside it or from the hub.
    Gradients reach the images; the authors' differentiable variant resizes bilinearly instead of bicubically.
    """
    weights = find_file(checkpoint, "HPSv3.safetensors")
    config = find_beside(weights, BASE, "config.json")
    folder = find_beside(weights, BASE, "tokenizer.json").parent
    find_beside(weights, BASE, "tokenizer_config.json")

    def load() -> Network:
        state = read_weights(weights)
        network = read_body(state, config, weights, head(_width(state)))
        talk = read_talk(folder, ("<|Reward|>",), "<|image_pad|>")
        fits(talk, network, folder)

        def values(seen: Tensor, prompts: Sequence[str]) -> Tensor:
            given = outputs(network, talk, seen, prompts, [worded("hpsv3", prompt) for prompt in prompts])[:, 0]
            return torch.stack([given[:, 0], given[:, 1].exp()], 1)

        return Network(network, QwenPixels(PIXELS, PIXELS), values)

    return PartedScorer(load, Parts(("mu", "sigma"), lambda table: table[:, 0]))


def head(width: int) -> nn.Sequential:
    """``[N, width] → [N, 2]``: three linear layers, in float32."""
    first, second = HIDDEN
    return nn.Sequential(
        *(nn.Linear(width, first), nn.ReLU(), nn.Dropout(0.05)),
        *(nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 2)),
    )


def _width(state: dict[str, Tensor]) -> int:
    """Of the states that the head takes."""
    return state["rm_head.0.weight"].shape[1] if "rm_head.0.weight" in state else 1
