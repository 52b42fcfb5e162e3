"""What Qwen2-VL sees of an image or a video: a size in multiples of 28, and patches in the order of its merger."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards.zoo.preprocess import Resize, broken, checked, normalised, pillow_resize, smooth_resize

MOST_OBLONG = 200
"""Length over breadth beyond which qwen-vl-utils refuses an image."""
PAIR = 2
"""Frames in one patch; a single one is taken twice, and so is the last of an odd number."""


@dataclass(frozen=True)
class QwenPixels:
    """``images [N, 3, H, W]`` or ``videos [N, F, 3, H, W]`` in 0..1 → the same at the size looked at, normalised.

    An image or a video that holds NaN becomes NaN.
    """

    least: int
    most: int
    """Pixels of one frame."""
    resize: Resize = "pillow"
    """Pillow's for images; for videos that of torchvision, on floats, whose result is rounded to 8 bits."""
    multiple: int = 28

    def __call__(self, media: Tensor) -> Tensor:
        """The values are those of the original; gradients are those of the float resize."""
        if media.ndim == 5:
            seen = self(media.flatten(0, 1)).unflatten(0, media.shape[:2]) if media.numel() else self._nothing(media)
            return seen.masked_fill(seen.isnan().flatten(1).any(1).view(-1, 1, 1, 1, 1), torch.nan)
        images = checked(media).float()
        if len(images) == 0:
            return self._nothing(images)
        shape = looked_at(images.shape[-2], images.shape[-1], self.least, self.most, self.multiple)
        whole = images.detach().nan_to_num(0.5)
        scaled = pillow_resize(whole, shape) if self.resize == "pillow" else _rounded_resize(whole, shape)
        if images.requires_grad and torch.is_grad_enabled():
            smooth = smooth_resize(images, shape)
            scaled = smooth + (scaled - smooth).detach()
        return normalised(scaled).masked_fill(broken(images).view(-1, 1, 1, 1), torch.nan)

    def _nothing(self, media: Tensor) -> Tensor:
        return media.new_zeros(*media.shape[:-2], self.multiple, self.multiple, dtype=torch.float32)


def looked_at(height: int, width: int, least: int, most: int, multiple: int = 28) -> tuple[int, int]:
    """Height and width as multiples, of ``least`` to ``most`` pixels, the shape kept as well as that allows."""
    if min(height, width) < 1 or max(height, width) > MOST_OBLONG * min(height, width):
        raise InputError(
            f"images: {height} × {width} pixels; the longer side may be at most {MOST_OBLONG} times the other, crop it"
        )
    rows, columns = (max(1, round(side / multiple)) for side in (height, width))
    if rows * columns * multiple**2 > most:
        shrink = math.sqrt(height * width / most)
        rows, columns = (max(1, math.floor(side / shrink / multiple)) for side in (height, width))
    elif rows * columns * multiple**2 < least:
        grow = math.sqrt(least / (height * width))
        rows, columns = (math.ceil(side * grow / multiple) for side in (height, width))
    return rows * multiple, columns * multiple


def _rounded_resize(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """8-bit values, resized bicubically with antialiasing as floats, cut off and rounded, as torchvision does it."""
    scaled = smooth_resize((images * 255).round().clamp(0, 255), shape)
    return scaled.clamp(0, 255).round() / 255


def patches(frames_NFCHW: Tensor, patch: int, merge: int) -> tuple[Tensor, Tensor]:
    """Patches ``[Σ pairs · rows · columns, C · 2 · patch²]`` and the grid ``[N, 3]`` of pairs, rows and columns.

    Rows and columns come by blocks of ``merge²`` patches, which the network's merger joins.
    """
    if frames_NFCHW.shape[1] % PAIR:
        frames_NFCHW = torch.cat([frames_NFCHW, frames_NFCHW[:, -1:]], 1)
    n, frames, channels, height, width = frames_NFCHW.shape
    pairs, rows, columns = frames // PAIR, height // patch, width // patch
    blocks = frames_NFCHW.reshape(
        *(n, pairs, PAIR, channels),
        *(rows // merge, merge, patch),
        *(columns // merge, merge, patch),
    )
    flat = blocks.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(n * pairs * rows * columns, -1)
    grid = torch.tensor([[pairs, rows, columns]], device=flat.device).repeat(n, 1)
    return flat, grid
