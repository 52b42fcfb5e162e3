"""How new a sample is among those of its prompt (GARDO, 2512.24138, §4.3): what a high reward is multiplied with."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from beholder.errors import InputError
from beholder.evaluation.diversity import pooled
from beholder.media import to_pil

PIXELS = "pixels"
Distances = Callable[[Tensor], Tensor]
"""``images [N, 3, H, W] or videos [N, F, 3, H, W] in 0..1 → distances [N, N]``, 0 on the diagonal."""


def novelty(images: Tensor, group_N: Tensor, features: str) -> Tensor:
    """Distance to the nearest other sample of the prompt, over its mean in the group, float64 ``[N]``.

    ``features`` are ``pixels``, whose distance is the RMS difference that `diversity` averages, or those of a vision
    model by folder or hub name, whose distance is 1 - cosine (GARDO: DINOv3). 1 in a group of one or of equal samples.
    """
    distances, factor_N = distances_by(features), torch.ones(len(images), dtype=torch.float64)
    for group in group_N.unique():
        rows = (group_N == group).nonzero().flatten()
        if len(rows) < 2:
            continue
        between = distances(images[rows]).double().cpu()
        nearest = between.fill_diagonal_(torch.inf).amin(1)
        if nearest.mean() > 0:
            factor_N[rows.cpu()] = nearest / nearest.mean()
    return factor_N


def distances_by(features: str) -> Distances:
    """The distance that ``features`` names; InputError where no model is found under it."""
    return _pixel_distances if features == PIXELS else _model_distances(features)


def _pixel_distances(images: Tensor) -> Tensor:
    small = pooled(images)
    return torch.cdist(small, small, compute_mode="donot_use_mm_for_euclid_dist") / small.shape[1] ** 0.5


@lru_cache(maxsize=1)
def _model_distances(name: str) -> Distances:
    """Of the pooled output of a vision model (its first token where it has none), all frames of a video in a row."""
    from transformers import AutoImageProcessor, AutoModel

    try:
        processor: Any = AutoImageProcessor.from_pretrained(name, use_fast=False)
        model: Any = AutoModel.from_pretrained(name).eval().requires_grad_(False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"credit.novelty: {name!r} is neither pixels nor a vision model ({reason})") from error

    @torch.no_grad()
    def distances(images: Tensor) -> Tensor:
        frames = images.flatten(0, -4)
        model.to(images.device)
        pixels = processor([to_pil(frame) for frame in frames], return_tensors="pt")["pixel_values"]
        out = model(pixels.to(images.device))
        pool = getattr(out, "pooler_output", None)
        feature = out.last_hidden_state[:, 0] if pool is None else pool
        unit = F.normalize(feature.float().reshape(len(images), -1), dim=1)
        return (1 - unit @ unit.T).clamp_min(0)

    return distances
