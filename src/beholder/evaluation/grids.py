"""Images side by side in one PNG; of videos, strips of their frames."""

import os
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from beholder.media import to_pil
from beholder.video import by_count

COLUMNS = 6
STRIP = 4
"""Frames of a video in its cell."""
STRIP_HEIGHT = 128
"""Pixels; larger frames are scaled down, or a grid of 480p videos would be 20,000 pixels wide."""


def strips(videos: Tensor) -> Tensor:
    """``[N, F, 3, H, W]`` to ``[N, 3, h, w]``: a few frames of each, from the first to the last, side by side."""
    shown = videos[:, by_count(videos.shape[1], min(STRIP, videos.shape[1]))]
    height, width = shown.shape[-2:]
    if height > STRIP_HEIGHT:
        size = (STRIP_HEIGHT, round(width * STRIP_HEIGHT / height))
        shown = F.interpolate(shown.flatten(0, 1), size, mode="area").unflatten(0, shown.shape[:2])
    return shown.permute(0, 2, 3, 1, 4).flatten(3)


def save_grid(images: Tensor, path: Path, columns: int = COLUMNS) -> dict[str, int]:
    """Writes images ``[N, 3, H, W]`` row by row at their own size, or strips of videos ``[N, F, 3, H, W]``; the layout,
    for cutting it up again."""
    images = strips(images) if images.ndim == 5 else images
    n, _, height, width = images.shape
    canvas = np.zeros((-(-n // columns) * height, columns * width, 3), np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = np.asarray(to_pil(image))
    save_png(Image.fromarray(canvas), path)
    return {"columns": columns, "height": height, "width": width}


def save_png(image: Image.Image, path: Path) -> None:
    """Written beside and renamed."""
    temporary = path.with_name(path.name + ".tmp")
    image.save(temporary, format="PNG")
    os.replace(temporary, path)
