"""TextToVideoSDPipeline: Stable Diffusion's ε-prediction on a UNet over space and time. ModelScope's 1.7B, Zeroscope.

Everything of the path is `SDFamily`'s; here are the third axis of the latents, a VAE that sees one frame at a time, and
adapters, which diffusers' UNet3DConditionModel does not take by itself.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from beholder.config import PolicyConfig
from beholder.policies.sd import SDFamily, root
from beholder.policies.vae import decode_latents, encode_images, frames_of
from beholder.rollouts.kernels import per_sample


@cache
def adaptable(kind: type) -> type:
    """The model class with diffusers' adapter methods, under its own name, so that it is saved as what it is."""
    from diffusers.loaders import PeftAdapterMixin

    return kind if issubclass(kind, PeftAdapterMixin) else type(kind.__name__, (PeftAdapterMixin, kind), {})


class TextToVideoSDFamily(SDFamily):
    pipeline_class = "TextToVideoSDPipeline"
    fps = 8
    DEFAULT_FRAMES = 16
    """What the pipeline itself draws."""

    def __init__(self, pipeline: Any, config: PolicyConfig) -> None:
        super().__init__(pipeline, replace(config, frames=None))
        self.frames = config.frames or self.DEFAULT_FRAMES
        pipeline.unet.__class__ = adaptable(type(pipeline.unet))

    def latent_shape(self) -> tuple[int, ...]:
        channels, height, width = super().latent_shape()
        return (channels, self.frames or self.DEFAULT_FRAMES, height, width)

    def decode(self, x: Tensor, sigma_N: Tensor, frame_NK: Tensor | None = None) -> Tensor:
        """Frame by frame, so that what is not asked for costs nothing."""
        z_NFx = (x / per_sample(root(sigma_N), x)).transpose(1, 2)
        z_NFx = z_NFx if frame_NK is None else frames_of(z_NFx, frame_NK)
        return torch.stack([decode_latents(self.pipeline.vae, z) for z in z_NFx.unbind(1)], 1)

    def to_latents(self, media: Tensor) -> Tensor:
        return torch.stack([encode_images(self.pipeline.vae, frame) for frame in media.unbind(1)], 2)
