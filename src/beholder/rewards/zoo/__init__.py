"""The published reward models: one row each, imported when first named.

    load_reward("pickscore")                           its default checkpoint, from the hub
    load_reward("pickscore@/models/PickScore_v1")      a folder, a file or another hub name

A loader is ``checkpoint → Scorer``: it checks at once that the files are there, and reads the weights when first used.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from beholder.errors import InputError


@dataclass(frozen=True)
class Entry:
    """A row of the zoo."""

    loader: str
    """``module:function`` in this package."""
    checkpoint: str | None
    """Where it is loaded from unless the user says: a hub name. Empty: the user must say. None: it has no weights."""
    licence: str
    """Of the code and, where the authors state another, of the weights."""
    differentiable: bool
    """Whether gradients reach the images."""
    says: str


ZOO: dict[str, Entry] = {
    "pickscore": Entry(
        *("clip:load_pickscore", "yuvalkirstain/PickScore_v1", "MIT", True),
        "PickScore: 100 · cosine of a CLIP ViT-H/14 trained on Pick-a-Pic",
    ),
    "hps": Entry(
        *("open_clip:load_hps", "", "Apache-2.0", True),
        "HPS v1 (hpc.pth): cosine of a CLIP ViT-L/14 trained on Discord choices",
    ),
    "hpsv2": Entry(
        *("open_clip:load_hpsv2", "xswu/HPSv2", "Apache-2.0", True),
        "HPSv2: cosine of a CLIP ViT-H/14 trained on HPDv2",
    ),
    "hpsv2.1": Entry(
        *("open_clip:load_hpsv21", "xswu/HPSv2", "Apache-2.0", True),
        "HPSv2.1: HPSv2 trained further",
    ),
    "imagereward": Entry(
        *("image_reward:load_image_reward", "THUDM/ImageReward", "Apache-2.0", True),
        "ImageReward: BLIP whose text encoder looks at the image",
    ),
    "clipscore": Entry(
        *("clip:load_clipscore", "openai/clip-vit-base-patch32", "MIT", True),
        "CLIPScore: 2.5 · max(cosine, 0), captions of a photo",
    ),
    "clip": Entry(
        *("clip:load_similarity", "openai/clip-vit-large-patch14", "MIT", True),
        "cosine of image and prompt in any CLIP",
    ),
    "aesthetic": Entry(
        *("aesthetic:load_aesthetic", "github.com/christophschuhmann/improved-aesthetic-predictor", "Apache-2.0", True),
        "LAION aesthetic v2: rating from the CLIP ViT-L/14 embedding",
    ),
    "aesthetic_v1": Entry(
        *("aesthetic:load_aesthetic_v1", "github.com/LAION-AI/aesthetic-predictor", "MIT", True),
        "LAION aesthetic v1: one linear layer on the embedding",
    ),
    "visionreward": Entry(
        *("visionreward:load_visionreward", "zai-org/VisionReward-Image-bf16", "Apache-2.0; CogVLM2's own", False),
        "VisionReward: weighted yes-no answers of a judge, visionreward@MODEL (any vision-language model or server)",
    ),
    "learned": Entry(
        *("learned:load_learned", "runs/reward", "yours", True),
        "a reward model of your own, fitted by `beholder fit`: learned@FOLDER",
    ),
    "jpeg_compressibility": Entry(
        *("jpeg:load_compressibility", None, "Apache-2.0", False),
        "minus the kilobytes of the image as a JPEG (DDPO)",
    ),
    "jpeg_incompressibility": Entry(
        *("jpeg:load_incompressibility", None, "Apache-2.0", False),
        "the kilobytes of the image as a JPEG (DDPO)",
    ),
}


_IN_USE: WeakValueDictionary[tuple[str, str], Callable[..., Any]] = WeakValueDictionary()
"""By row and checkpoint, as long as anybody holds them: to train on a reward and evaluate with it takes one model."""


def in_zoo(name: str) -> bool:
    """Whether ``NAME`` or ``NAME@CHECKPOINT`` names a row."""
    return name.partition("@")[0] in ZOO


def load_scorer(name: str) -> tuple[Callable[..., Any], Entry]:
    """The scorer called ``NAME`` or ``NAME@CHECKPOINT``, and its row."""
    row, at, checkpoint = name.partition("@")
    entry = ZOO[row]
    if entry.checkpoint is None and at:
        raise InputError(f"rewards: {row!r} has no weights; leave out {at + checkpoint!r}")
    checkpoint = checkpoint or entry.checkpoint or ""
    if entry.checkpoint is not None and not checkpoint:
        raise InputError(f"rewards: {row!r} is on no hub; download it and name the file, e.g. {row}@/models/{row}.pth")
    key = (row, str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint)
    scorer = _IN_USE.get(key)
    if scorer is None:
        module, _, function = entry.loader.partition(":")
        scorer = getattr(importlib.import_module(f"{__name__}.{module}"), function)(checkpoint)
        _IN_USE[key] = scorer
    return scorer, entry
