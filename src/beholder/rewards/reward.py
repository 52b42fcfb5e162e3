"""Rewards: ``(images [N, 3, H, W] in 0..1, prompts) → values [N]``, gathered in a table that never hides a failure.

A failed value is NaN: it is excluded from statistics and counted, never taken for a low score.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from beholder.errors import InputError, RunError, nearest
from beholder.rewards import pixels
from beholder.rewards.pairwise import judged
from beholder.rewards.world import shapes_graded, shapes_quality, shapes_reward, shapes_strict
from beholder.rewards.zoo import ZOO, in_zoo, load_scorer

Scorer = Callable[..., Tensor]


@dataclass(frozen=True)
class Reward:
    name: str
    score: Scorer
    """``(images [N, 3, H, W] float32 in 0..1, prompts) → values [N]``, NaN where it failed."""
    differentiable: bool = False
    """Whether gradients flow from the values to the images: for rows that follow them; policy gradients do not ask."""
    pairwise: bool = False
    """Whether ``score`` is a `pairwise.Judge`, whose win rates within a group are the values."""


@dataclass(frozen=True)
class RewardTable:
    """Values ``[N, M]`` of M rewards, kept apart until a scalariser weighs them."""

    values_NM: Tensor
    names: tuple[str, ...]

    @property
    def failed_N(self) -> Tensor:
        """bool [N]: some reward failed on the sample."""
        return self.values_NM.isnan().any(1)

    def weighted(self, weights: Mapping[str, float]) -> Tensor:
        """Σ_m w_m r_m ``[N]`` before credit; NaN where any reward failed."""
        w = torch.tensor([weights[name] for name in self.names], dtype=self.values_NM.dtype)
        return (self.values_NM * w).sum(1)

    def means(self) -> dict[str, float]:
        """Mean of each reward over the samples it did not fail on."""
        return {name: self.values_NM[:, m].nanmean().item() for m, name in enumerate(self.names)}


BUILT_IN: dict[str, Reward] = {
    reward.name: reward
    for reward in (
        Reward("shapes", shapes_reward),
        Reward("shapes_strict", shapes_strict),
        Reward("shapes_graded", shapes_graded),
        Reward("shapes_sharpness", shapes_quality("sharpness")),
        Reward("shapes_cleanliness", shapes_quality("cleanliness")),
        Reward("shapes_completeness", shapes_quality("completeness")),
        Reward("redness", pixels.redness, differentiable=True),
        Reward("brightness", pixels.brightness, differentiable=True),
    )
}


def load_reward(name: str) -> Reward:
    """A built-in reward, one of the zoo (``NAME`` or ``NAME@CHECKPOINT``), or what ``package.module:function`` names.

    That may be a callable with the `Scorer` signature, or a `Reward` put together in Python.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if in_zoo(name):
        scorer, entry = load_scorer(name)
        return Reward(name, scorer, differentiable=entry.differentiable)
    if ":" not in name:
        known = nearest(name.partition("@")[0], [*BUILT_IN, *ZOO])
        raise InputError(f"rewards: unknown reward {name!r}; {known} (or package.module:function)")
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        scorer: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise InputError(f"rewards: {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if isinstance(scorer, Reward):
        return replace(scorer, name=name)
    if not callable(scorer):
        raise InputError(f"rewards: {name!r} is a {type(scorer).__name__}, not a callable (images, prompts) -> values")
    return own_reward(name, cast(Scorer, scorer))


def own_reward(name: str, scorer: Scorer) -> Reward:
    """A reward of the user's; its attributes ``pairwise`` and ``differentiable`` say what it is, where true."""
    said = {flag: bool(getattr(scorer, flag, False)) for flag in ("differentiable", "pairwise")}
    return Reward(name, scorer, **said)


def load_rewards(names: Sequence[str], scorers: Mapping[str, Scorer] | None = None) -> list[Reward]:
    """The rewards called ``names``; those in ``scorers`` are these functions."""
    scorers = scorers or {}
    if not names:
        raise InputError("rewards: none given; name one, e.g. --rewards shapes 1.0 or --rewards mymodule:score 1.0")
    return [own_reward(name, scorers[name]) if name in scorers else load_reward(name) for name in names]


def score(
    images: Tensor, prompts: Sequence[str], rewards: Sequence[Reward], group_N: Tensor | None = None
) -> RewardTable:
    """The table of every reward on every image; InputError when a reward answers in the wrong shape.

    ``group_N`` says which images judges of pairs compare.
    """
    if len(images) != len(prompts):
        raise InputError(f"score: {len(images)} images but {len(prompts)} prompts; give one prompt per image")
    columns = []
    for reward in rewards:
        values = _values(reward, images, prompts, group_N)
        if values.shape != (len(images),):
            raise InputError(
                f"rewards: {reward.name!r} returned shape {tuple(values.shape)}, expected ({len(images)},)"
            )
        columns.append(torch.where(values.isfinite(), values, torch.nan))
    return RewardTable(torch.stack(columns, 1), tuple(reward.name for reward in rewards))


def _values(reward: Reward, images: Tensor, prompts: Sequence[str], group_N: Tensor | None) -> Tensor:
    """What the reward answers; RunError naming it when it raises or answers with something else than numbers."""
    if reward.pairwise and group_N is None:
        raise InputError(f"rewards: {reward.name!r} compares images of one prompt; it cannot score single ones")
    try:
        if reward.pairwise and group_N is not None:
            return judged(reward.score, images, prompts, group_N)
        return torch.as_tensor(reward.score(images, prompts)).to(torch.float32).cpu()
    except (InputError, RunError):
        raise
    except Exception as error:  # a reward is anybody's code; the traceback stays in __cause__
        raise RunError(
            f"rewards: {reward.name!r} raised {type(error).__name__}: {error}; a reward that fails on one image should "
            "return NaN for it"
        ) from error
