"""The gold rewards of the shapes world, as rewards like any other."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from beholder.worlds.shapes.prompts import parse
from beholder.worlds.shapes.quality import quality
from beholder.worlds.shapes.verifier import Verdicts, verify


def _verdicts(images: Tensor, prompts: Sequence[str]) -> Verdicts:
    return verify(images.detach().cpu().numpy(), [parse(text) for text in prompts])


def shapes_strict(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """1 where the image shows exactly what the prompt asks and nothing else, 0 elsewhere."""
    return torch.from_numpy(_verdicts(images, prompts).strict)


def shapes_graded(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Partial credit in 0..1; 1 exactly where the strict verdict is 1."""
    return torch.from_numpy(_verdicts(images, prompts).graded)


def shapes_reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """The mean of strict and graded, 0..1: what training on this world uses."""
    verdicts = _verdicts(images, prompts)
    return torch.from_numpy((verdicts.strict + verdicts.graded) / 2)


def shapes_quality(dimension: str) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """One quality dimension (0..1) as a reward; the prompt does not matter."""

    def scorer(images: Tensor, prompts: Sequence[str]) -> Tensor:
        """A quality dimension of the shapes world, 0..1; the prompt does not matter."""
        return torch.from_numpy(quality(images.detach().cpu().numpy())[dimension])

    return scorer
