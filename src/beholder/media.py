"""Images and their prompts on disk."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from beholder.errors import InputError


def read_pairs(path: Path) -> list[tuple[Path, str]]:
    """The ``{"image": path, "prompt": text}`` lines of a JSONL file."""
    if not path.is_file():
        raise InputError(f"prompts: no file {str(path)!r}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"prompts: {str(path)!r} is not UTF-8 (byte {error.start}); convert it with iconv") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pairs.append((Path(row["image"]), str(row["prompt"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f'{path}, line {number}: expected {{"image": ..., "prompt": ...}}, got {line!r}'
            ) from error
    if not pairs:
        raise InputError(f"prompts: {str(path)!r} holds no line")
    return pairs


def read_image(path: Path) -> Tensor:
    """An image file as ``[3, H, W]`` float32 in 0..1."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    except FileNotFoundError as error:
        raise InputError(f"image: no file {str(path)!r}") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f"image: {str(path)!r} is not a readable image ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)
