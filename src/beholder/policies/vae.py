"""Latents to images and back, the same for every latent-diffusion family."""

from typing import Any

import torch
from torch import Tensor


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """``[N, C, h, w]`` scaled latents to float32 images ``[N, 3, H, W]`` in 0..1, with gradient where they have one."""
    shift = vae.config.get("shift_factor") or 0.0
    raw = latents.to(vae.dtype) / vae.config.scaling_factor + shift
    images = vae.decode(raw, return_dict=False)[0].float()
    return (images / 2 + 0.5).clamp(0, 1)


def frames_of(video_NFx: Tensor, frame_NK: Tensor) -> Tensor:
    """``[N, K, ...]``: of each video or its latents ``[N, F, ...]`` its own frames."""
    rows = torch.arange(len(video_NFx), device=video_NFx.device)[:, None]
    return video_NFx[rows, frame_NK.to(video_NFx.device)]


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """Images ``[N, 3, H, W]`` in 0..1 to float32 latents ``[N, C, h, w]``: the posterior's mean, scaled."""
    mean = vae.encode((images * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mean.float()
    return (mean - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor
