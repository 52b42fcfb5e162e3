"""What a reward model sees with: one row each, imported when first named."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from beholder.errors import InputError, nearest

MODULES = {"small": "small:SmallBackbone:SmallConfig", "clip": "clip:ClipBackbone:ClipConfig"}
"""By name: the file in this package, the module in it, and its settings."""


class Backbone(Protocol):
    """An `nn.Module` from pixels and prompts to features ``[N, F]``."""

    name: str

    @property
    def config(self) -> Any:
        """A dataclass that `json` can hold."""
        ...

    @property
    def features(self) -> int: ...

    def head_start(self) -> Tensor:
        """Weights ``[F]`` of a first guess at the reward."""
        ...

    def prepare(self, images: Tensor) -> Tensor:
        """``images [N, 3, H, W]`` in 0..1 → what the network takes, each row for itself; differentiable."""
        ...

    def grounded(self, pixels: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """The features, and a loss ``[N]`` that ties words to pictures without any judgement."""
        ...

    def __call__(self, pixels: Tensor, prompts: list[str]) -> Tensor: ...


def parts_of(name: str) -> tuple[type[Any], type[Any]]:
    """The module and its settings; InputError for an unknown name."""
    if name not in MODULES:
        raise InputError(f"backbone: unknown backbone {name!r}; {nearest(name, MODULES)}")
    file, module, settings = MODULES[name].split(":")
    found = importlib.import_module(f"beholder.rewards.learned.{file}")
    return getattr(found, module), getattr(found, settings)


def new_backbone(name: str, texts: Sequence[str], lora: int = 0) -> Backbone:
    """``small``, which learns to read from these prompts, or ``clip@FOLDER`` with adapters of this rank."""
    kind, _, base = name.partition("@")
    module, settings = parts_of(kind)
    if kind == "clip":
        if not base:
            raise InputError("backbone: clip needs a base, e.g. clip@openai/clip-vit-base-patch32 or clip@FOLDER")
        return module(settings(str(Path(base).resolve()) if Path(base).is_dir() else base, lora))
    if base or lora:
        raise InputError(f"backbone: {kind} is trained whole from nothing; leave out {'@' + base if base else 'lora'}")
    return module.new(texts)
