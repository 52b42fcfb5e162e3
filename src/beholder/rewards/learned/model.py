"""A reward model: a backbone that sees image and prompt, and linear heads on its features; in a folder or in memory.

runs/reward/config.json          the backbone with its settings, what the outputs mean, what it was fitted on
runs/reward/model.safetensors    what was trained (a pre-trained base is found again by its name)
runs/reward/README.md            the model card
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from beholder.errors import InputError, nearest
from beholder.rewards.learned.backbones import Backbone, parts_of
from beholder.rewards.learned.heads import Heads, MapHead, WordHead, first_weights
from beholder.rewards.learned.spelling import no_words, rich_hf_words
from beholder.rewards.learned.states import States
from beholder.rewards.zoo.files import agree

FORMAT = 1
MAKE_ONE = "beholder prefer --n 2000 --k 4 --output runs/pairs && beholder fit runs/pairs --output"


@dataclass(frozen=True)
class Familiar:
    """Mean ``[F]`` and whitening ``[F, F]`` of the features of the training images: what the model has seen."""

    mean_F: Tensor
    whitening_FF: Tensor

    @classmethod
    def of(cls, feature_NF: Tensor, shrinkage: float = 0.1) -> "Familiar":
        """(1 − s) · covariance + s · its mean variance · identity, inverted: stable with few images."""
        x = feature_NF.double()
        mean_F = x.mean(0)
        covariance = (x - mean_F).T @ (x - mean_F) / max(1, len(x) - 1)
        spread = covariance.diagonal().mean().clamp_min(1e-12)
        covariance = (1 - shrinkage) * covariance + shrinkage * spread * torch.eye(len(mean_F), dtype=x.dtype)
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance))
        return cls(mean_F.float(), whitening.float())

    def strangeness(self, feature_NF: Tensor) -> Tensor:
        """Mahalanobis distance per dimension ``[N]``: about 1 for what is like the training images."""
        white_NF = (feature_NF - self.mean_F.to(feature_NF)) @ self.whitening_FF.to(feature_NF).T
        return white_NF.square().mean(1).sqrt()


class RewardModel(nn.Module):
    """``(pixels, prompts) → outputs [N, M, E, C]``; `heads` says what they mean."""

    def __init__(self, backbone: Backbone, heads: Heads, fitted: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, heads
        self.head = nn.Linear(backbone.features, heads.size)
        with torch.no_grad():
            self.head.weight.copy_(first_weights(backbone.head_start(), heads))
            self.head.bias.zero_()
        if heads.maps and not backbone.patch_features:
            raise InputError(f"maps: {backbone.name} has no patches to make maps of; take any other backbone")
        if heads.words and not backbone.token_features:
            raise no_words(backbone.name)
        size = backbone.patch_features, backbone.features, len(heads.maps), backbone.map_doublings
        self.map_head = MapHead(*size) if heads.maps else None
        self.word_head = WordHead(backbone.token_features) if heads.words else None
        self.fitted = dict(fitted or {})
        """What it was fitted on, and with which settings."""
        self.familiar: Familiar | None = None

    def forward(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.heads.split(self.head(self.backbone(pixels, list(prompts))))

    def values(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """``[N, M, E]``: every dimension as every copy sees it."""
        return self.heads.values(self(pixels, prompts))

    def rewards(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """``[N]``."""
        return self.heads.rewards(self.values(pixels, prompts))

    @torch.no_grad()
    def parts(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The reward, each dimension, the spread of the copies, and how unlike the training images it is; ``[N]``."""
        self.eval()
        feature_NF = self.backbone(self.backbone.prepare(images), list(prompts))
        value_NME = self.heads.values(self.heads.split(self.head(feature_NF)))
        parts = {"reward": self.heads.rewards(value_NME)}
        if len(self.heads.dimensions) > 1:
            parts |= {name: value_NME[:, m].mean(1) for m, name in enumerate(self.heads.dimensions)}
        if self.heads.copies > 1:
            weight_M1 = value_NME.new_tensor(self.heads.weights)[:, None]
            parts["spread"] = (value_NME * weight_M1).sum(1).std(1)
        if self.familiar is not None:
            parts["strangeness"] = self.familiar.strangeness(feature_NF)
        return parts

    def mapped(self, states: States) -> Tensor:
        """Heat maps ``[N, T, h, w]`` in 0..1 over the square that the network sees."""
        if self.map_head is None or states.patch_NCHW is None:
            raise InputError("maps: this model was fitted without heat maps; fit it with --maps NAME")
        return self.map_head(states.patch_NCHW, states.feature_NF)

    def worded(self, states: States, prompts: Sequence[str]) -> Tensor:
        """Logits ``[N, W]`` that the picture does not show the prompt's words.

        NaN beyond a prompt's last word, and for words that the backbone cuts off.
        """
        if self.word_head is None or states.token_NLC is None:
            raise InputError("words: this model was fitted without words; fit it with --words")
        return self.word_head(states.token_NLC, self.backbone.spelled(list(prompts)).to(states.token_NLC))

    @torch.no_grad()
    def maps(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Heat maps by name, each ``[N, h, w]`` in 0..1; InputError for a model that was fitted without."""
        self.eval()
        return self.named_maps(self.backbone.prepare(images), prompts)

    def named_maps(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The same for prepared images."""
        found_NTHW = self.mapped(self.backbone.states(pixels, list(prompts)))
        return {name: found_NTHW[:, t] for t, name in enumerate(self.heads.maps)}

    @torch.no_grad()
    def words(self, images: Tensor, prompts: Sequence[str]) -> list[list[tuple[str, float]]]:
        """For each image the words of its prompt, and how likely it does not show them, 0..1.

        NaN for a word that the backbone cuts off; InputError for a model that was fitted without words.
        """
        self.eval()
        return self.named_words(self.backbone.prepare(images), prompts)

    def named_words(self, pixels: Tensor, prompts: Sequence[str]) -> list[list[tuple[str, float]]]:
        """The same for prepared images."""
        chance_NW = self.worded(self.backbone.states(pixels, list(prompts)), prompts).sigmoid().tolist()
        said = [rich_hf_words(prompt) for prompt in prompts]
        return [list(zip(one, row, strict=False)) for one, row in zip(said, chance_NW, strict=True)]

    def trained(self) -> dict[str, Tensor]:
        """The tensors that training changed, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def centred(self, mean: float) -> None:
        """Moves the reward by −mean, so that it is 0 on average over the training images; differences stay."""
        share = mean / sum(w * w for w in self.heads.weights)
        offset = tuple(o - share * w for o, w in zip(self.heads.offset, self.heads.weights, strict=True))
        self.heads = replace(self.heads, offset=offset)

    # ------------------------------------------------------------------------------------------------- in a folder

    def save_pretrained(self, folder: Path | str, card: str = "") -> None:
        """Writes the three files, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().cpu().contiguous() for name, p in self.trained().items()}
        if self.familiar is not None:
            tensors |= {
                "familiar.mean": self.familiar.mean_F,
                "familiar.whitening": self.familiar.whitening_FF.contiguous(),
            }
        temporary = folder / "model.safetensors.tmp"
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
            os.replace(temporary, folder / "model.safetensors")
        finally:
            temporary.unlink(missing_ok=True)
        config = {
            "beholder_reward_model": FORMAT,
            "backbone": {"name": self.backbone.name, **asdict(self.backbone.config)},
            "heads": asdict(self.heads),
            "fitted": self.fitted,
        }
        _write(folder / "config.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n")
        _write(folder / "README.md", card or "# A reward model\n")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "RewardModel":
        """The model in a folder; InputError where there is none, or where its tensors are not the model's."""
        folder = find_folder(str(folder))
        config = _read_config(folder)
        name = str(config["backbone"].pop("name", None))
        module, settings = parts_of(name)
        model = cls(module(_filled(settings, config["backbone"], folder)), _filled(Heads, config["heads"], folder))
        model.fitted = config.get("fitted", {})
        tensors = load_file(folder / "model.safetensors")
        if "familiar.mean" in tensors and "familiar.whitening" in tensors:
            model.familiar = Familiar(tensors.pop("familiar.mean"), tensors.pop("familiar.whitening"))
        wanted = model.trained()
        agree(folder / "model.safetensors", wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys())
        for key, parameter in wanted.items():
            if tensors[key].shape != parameter.shape:
                raise InputError(
                    f"rewards: {str(folder)!r}: {key} is {list(tensors[key].shape)}, not {list(parameter.shape)}"
                )
            with torch.no_grad():
                parameter.copy_(tensors[key])
        return model.eval()


def find_folder(checkpoint: str) -> Path:
    """The folder of a fitted model; InputError that says how to make one."""
    folder = Path(checkpoint).expanduser()
    absent = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if absent:
        state = f"has no {absent[0]} yet" if folder.is_dir() else "is not there"
        raise InputError(
            f"rewards: the fitted reward model {checkpoint!r} {state}; make it with: {MAKE_ONE} {checkpoint}"
        )
    return folder


def read_heads(folder: Path) -> Heads:
    """What the outputs of the model in a folder mean, without its weights."""
    return _filled(Heads, _read_config(folder)["heads"], folder)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"rewards: {path} is not JSON ({error}); fit the model again") from error
    if not isinstance(config, dict) or config.get("beholder_reward_model") != FORMAT:
        raise InputError(f"rewards: {path} is not of a reward model of this version; fit the model again")
    return config


def _filled(kind: type[Any], given: Mapping[str, Any], folder: Path) -> Any:
    """The settings ``kind`` from JSON; an unknown or absent name is an InputError."""
    known = {field.name for field in fields(kind)}
    for name in given:
        if name not in known:
            raise InputError(f"rewards: {folder / 'config.json'}: unknown setting {name!r}; {nearest(name, known)}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    except TypeError as error:
        raise InputError(f"rewards: {folder / 'config.json'}: {error}; fit the model again") from error


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
