"""Weights of a transformers folder or hub name, in one file or in several."""

import json
from pathlib import Path

from torch import Tensor

from beholder.errors import InputError
from beholder.rewards.zoo.files import find_file, read_weights

ONE = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def find_shards(checkpoint: str) -> list[Path]:
    """The files that hold the weights, safetensors before pickles; InputError when one is missing."""
    first = find_file(checkpoint, *NAMES)
    if not first.name.endswith(INDEX):
        return [first]
    try:
        names = sorted(set(json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"rewards: {str(first)!r} is no index of weights") from error
    folder = str(first.parent) if Path(checkpoint).expanduser().exists() else checkpoint
    return [find_file(folder, str(name)) for name in names]


def read_shards(files: list[Path]) -> dict[str, Tensor]:
    """All their tensors."""
    return {name: value for file in files for name, value in read_weights(file).items()}
