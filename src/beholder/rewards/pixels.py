"""Dense toy proxies on pixels: easy to raise, easy to over-optimise; they show what reward hacking looks like."""

from collections.abc import Sequence

from torch import Tensor


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Mean of red minus the mean of green and blue, -1..1, whatever the prompt asks."""
    red, green, blue = images.unbind(1)
    return (red - (green + blue) / 2).mean((1, 2))


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Mean pixel value, 0..1."""
    return images.mean((1, 2, 3))
