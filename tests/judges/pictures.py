"""Pictures to show to judges."""

import numpy as np
from PIL import Image

from beholder.judges.medium import Medium


def picture(seed: int, width: int = 56, height: int = 40) -> Image.Image:
    """Random colours in large patches."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)


def medium(*seeds: int) -> Medium:
    """An image, or a video of as many stills as there are seeds."""
    return Medium(tuple(picture(seed) for seed in seeds), "image" if len(seeds) == 1 else "video")
