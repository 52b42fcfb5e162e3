"""Latents to images, the same for every latent-diffusion family."""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """``[N, C, h, w]`` scaled latents to float32 images ``[N, 3, H, W]`` in 0..1."""
    shift = vae.config.get("shift_factor") or 0.0
    raw = latents.to(vae.dtype) / vae.config.scaling_factor + shift
    images = vae.decode(raw, return_dict=False)[0].float()
    return (images / 2 + 0.5).clamp(0, 1)
