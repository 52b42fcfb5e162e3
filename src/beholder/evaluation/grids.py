"""Images side by side in one PNG."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

COLUMNS = 6


def to_pil(image_3HW: Tensor) -> Image.Image:
    """``[3, H, W]`` in 0..1 as an 8-bit picture."""
    return Image.fromarray((image_3HW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def save_grid(images: Tensor, path: Path, columns: int = COLUMNS) -> dict[str, int]:
    """Writes ``[N, 3, H, W]`` row by row at its own size; the layout, for cutting it up again."""
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
