"""One picture or video as a judge sees it: a few still pictures in order."""

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from beholder.judges.settings import Kind


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
        return Medium((as_still(pixels),))
    return Medium(tuple(as_still(frame) for frame in pixels), "video")


def as_still(image_3HW: Tensor) -> Image.Image:
    """``[3, H, W]`` in 0..1 as an 8-bit picture."""
    return Image.fromarray((image_3HW.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
