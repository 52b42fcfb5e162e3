"""File sizes as rewards (DDPO, 2305.13301): kilobytes of the image as a JPEG of quality 95."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from beholder.rewards.zoo.preprocess import broken, bytes_of, checked

Scorer = Callable[[Tensor, Sequence[str]], Tensor]


def jpeg_incompressibility(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Size in units of 1000 bytes; the prompt does not matter. NaN where the image holds NaN."""
    sizes = torch.tensor([_kilobytes(image) for image in bytes_of(checked(images))])
    return sizes.masked_fill(broken(images).cpu(), torch.nan)


def jpeg_compressibility(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Minus the size in units of 1000 bytes."""
    return -jpeg_incompressibility(images, prompts)


def load_incompressibility(checkpoint: str) -> Scorer:
    return jpeg_incompressibility


def load_compressibility(checkpoint: str) -> Scorer:
    return jpeg_compressibility


def _kilobytes(image: np.ndarray) -> float:
    data = io.BytesIO()
    Image.fromarray(image).save(data, format="JPEG", quality=95)
    return data.tell() / 1000
