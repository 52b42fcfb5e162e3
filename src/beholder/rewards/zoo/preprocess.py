"""From images to what a network sees: the resize, crop and normalisation of the original code, without torchvision.

Two resizes occur. Most originals resize 8-bit images with Pillow, whose rounding a network notices; HPSv2 makes a float
tensor first and resizes that. Both scale the short side to ``size`` and cut the centre out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from beholder.errors import InputError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Resize = Literal["pillow", "tensor"]
Crop = Literal["round", "floor"]

LONGEST = 64
"""Length over breadth beyond which an image is refused: the originals scale it up before they cut the centre out."""
SLACK = 0.01
"""How far past 0 and 1 rounding may push a pixel; further out, the image is on another scale."""


@dataclass(frozen=True)
class Preprocess:
    """``images [N, 3, H, W] float in 0..1 → pixels [N, 3, size, size] float32``, normalised by CLIP's mean and std."""

    size: int
    resize: Resize = "pillow"
    """Bicubic on 8-bit values by Pillow, or bicubic on float values."""
    crop: Crop = "round"
    """Where an odd margin goes: torchvision rounds half of it to even, transformers rounds down."""
    antialias: bool = True
    """Of the float resize; Pillow's always is."""

    def __call__(self, images: Tensor) -> Tensor:
        """What the original feeds its network, also when gradients are wanted.

        The values are always those of the original transform. Gradients of the 8-bit one pass straight through its
        rounding: they are those of the antialiased bicubic resize on float values. An image that holds NaN becomes NaN.
        """
        images = checked(images).float()
        shape = resized_shape(images.shape[-2], images.shape[-1], self.size)
        if len(images) == 0:
            return images.new_zeros(0, 3, self.size, self.size)
        if self.resize == "tensor":
            scaled = smooth_resize(images, shape, self.antialias)
        else:
            scaled = pillow_resize(images, shape)
            if images.requires_grad and torch.is_grad_enabled():
                smooth = smooth_resize(images, shape)
                scaled = smooth + (scaled - smooth).detach()
        return normalised(self.centre(scaled)).masked_fill(broken(images).view(-1, 1, 1, 1), torch.nan)

    def centre(self, scaled: Tensor) -> Tensor:
        """The central ``[N, 3, size, size]``."""
        top, left = (self._margin(length) for length in scaled.shape[-2:])
        return scaled[..., top : top + self.size, left : left + self.size]

    def _margin(self, length: int) -> int:
        spare = length - self.size
        return round(spare / 2) if self.crop == "round" else spare // 2


def checked(images: Tensor) -> Tensor:
    """The images as they came; InputError when they are not float ``[N, 3, H, W]`` in 0..1."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(f"images: {images.dtype} {list(images.shape)} given; expected float [N, 3, H, W] in 0..1")
    if images.numel():
        given = images.detach()
        given = given.nan_to_num(0.5) if given.amax().isnan() else given
        low, high = given.amin(), given.amax()  # aminmax is ten times slower on images as they are read
        if low < -SLACK or high > 1 + SLACK:
            raise InputError(
                f"images: values from {low:.3g} to {high:.3g}; expected 0..1, scale them once before scoring"
            )
    return images


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width when the short side becomes ``size``; the long side is rounded down, as everywhere."""
    short, long = min(height, width), max(height, width)
    if short == 0:
        raise InputError(f"images: {height} × {width} pixels; an image needs at least one")
    if long > LONGEST * short:
        raise InputError(f"images: {height} × {width} pixels is longer than {LONGEST} times its breadth; crop it first")
    scaled = int(size * long / short)
    return (size, scaled) if height == short else (scaled, size)


def smooth_resize(images: Tensor, shape: tuple[int, int], antialias: bool = True) -> Tensor:
    """Bicubic (a = −½ with antialiasing, −¾ without) on float values, not clamped: torchvision's on tensors."""
    return interpolate(images, size=shape, mode="bicubic", align_corners=False, antialias=antialias)


def pillow_resize(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bicubic on 8-bit values by Pillow, image by image; float in 0..1 again, without gradients."""
    height, width = shape
    scaled = [
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        for image in bytes_of(images)
    ]
    return torch.from_numpy(np.stack(scaled)).to(images.device).permute(0, 3, 1, 2).float() / 255


def bytes_of(images: Tensor) -> np.ndarray:
    """8-bit values ``[N, H, W, 3]``, rounded to the nearest; anything where the image holds NaN."""
    values = (images.detach() * 255).round_().clamp_(0, 255).to(torch.uint8)
    return values.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def broken(images: Tensor) -> Tensor:
    """bool [N]: the image holds NaN."""
    return torch.stack([image.amax().isnan() for image in images.detach()])


def normalised(values: Tensor) -> Tensor:
    """(value − mean) / std per channel, CLIP's."""
    mean, std = (values.new_tensor(numbers).view(3, 1, 1) for numbers in (CLIP_MEAN, CLIP_STD))
    return (values - mean) / std
