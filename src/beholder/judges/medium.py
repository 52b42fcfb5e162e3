"""One picture or video as a judge sees it: a few still pictures in order."""

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from beholder.judges.settings import Kind
from beholder.media import to_pil


@dataclass(frozen=True)
class Medium:
    """``stills`` are RGB: one of an image, the sampled frames of a video."""

    stills: tuple[Image.Image, ...]
    kind: Kind = "image"


def as_medium(pixels: Tensor) -> Medium | None:
    """An image ``[3, H, W]`` or a video's frames ``[F, 3, H, W]``, values in 0..1; None where one is not finite."""
    if not bool(pixels.isfinite().all()):
        return None
    if pixels.ndim == 3:
        return Medium((to_pil(pixels),))
    return Medium(tuple(to_pil(frame) for frame in pixels), "video")
