"""Rewards: ``(images [N, 3, H, W] in 0..1, prompts) → values [N]``, gathered in a table that never hides a failure.

A failed value is NaN: it is excluded from statistics and counted, never taken for a low score. A video
``[N, F, 3, H, W]`` is worth the mean of its frames to a reward of images (the sum, if that says so); rewards of videos
say that they are.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from beholder.errors import InputError, RunError, nearest
from beholder.rewards import pixels
from beholder.rewards.combination import Combination
from beholder.rewards.frames import Pool, chosen, frames_seen, of_frames, over_frames
from beholder.rewards.pairwise import judged
from beholder.rewards.world import shapes_graded, shapes_quality, shapes_reward, shapes_strict
from beholder.rewards.zoo import ZOO, in_zoo, load_scorer
from beholder.rewards.zoo.parts import PartedScorer
from beholder.video import Choose

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
    video: bool = False
    """Whether ``score`` takes videos ``[N, F, 3, H, W]``; else the frames of a video are scored one by one."""
    look: Choose | None = None
    """Its rule for the frames of a video that it sees, drawn or of a file; none leaves it to who shows the video."""
    frames: tuple[int, ...] | None = None
    """The frames of a drawn video that it is given; none gives all."""
    pool: Pool = "mean"
    """How a reward of images makes one value of a video's frames."""
    noisy: Scorer | None = None
    """``(images, prompts, sigma_N) → values [N]``: what it says of noisy states that were decoded, told their noise
    levels in 0..1; none knows clean images alone. Rows that reward steps use it (`training.steps`)."""


@dataclass(frozen=True)
class RewardTable:
    """Values ``[N, M]`` of M rewards, kept apart until a scalariser weighs them."""

    values_NM: Tensor
    names: tuple[str, ...]
    novelty_N: Tensor | None = None
    """How new each sample is among those of its prompt, where credit asks for it (`credit.novelty`)."""

    @property
    def failed_N(self) -> Tensor:
        """bool [N]: some reward failed on the sample."""
        return self.values_NM.isnan().any(1)

    @classmethod
    def cat(cls, tables: "Sequence[RewardTable]") -> "RewardTable":
        """The samples of all tables, which have the same columns."""
        known = [t.novelty_N for t in tables if t.novelty_N is not None]
        return cls(torch.cat([t.values_NM for t in tables]), tables[0].names, torch.cat(known) if known else None)

    def among(self, chosen_N: Tensor) -> "RewardTable":
        """The samples of a bool mask."""
        newness = None if self.novelty_N is None else self.novelty_N[chosen_N]
        return RewardTable(self.values_NM[chosen_N], self.names, newness)

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
        video = getattr(scorer, "video", entry.video)  # behind an address: as listed there
        pool = scorer.parts.pool if isinstance(scorer, PartedScorer) else "mean"
        kinds = entry.differentiable, entry.pairwise, video, getattr(scorer, "frames", None)
        return Reward(name, scorer, *kinds, pool=pool, noisy=getattr(scorer, "noisy", None))
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
    """A reward of the user's; its attributes ``differentiable``, ``pairwise``, ``video`` say what it is, where true.

    A ``noisy`` one is a function: see `Reward`.
    """
    differentiable, pairwise, video = (bool(getattr(scorer, f, False)) for f in ("differentiable", "pairwise", "video"))
    return Reward(name, scorer, differentiable, pairwise, video, noisy=getattr(scorer, "noisy", None))


def load_rewards(names: Sequence[str], scorers: Mapping[str, Scorer] | None = None) -> list[Reward]:
    """The rewards called ``names``; those in ``scorers`` are these functions."""
    scorers = scorers or {}
    if not names:
        raise InputError("rewards: none given; name one, e.g. --rewards shapes 1.0 or --rewards mymodule:score 1.0")
    return [own_reward(name, scorers[name]) if name in scorers else load_reward(name) for name in names]


def for_videos(rewards: Sequence[Reward], total: int, fps: int, most: int) -> list[Reward]:
    """The rewards as they see videos of ``total`` frames, ``fps`` a second: see `frames_seen`.

    Members of a combination of rewards of videos see those of their own rules.
    """
    return [_shown(reward, total, fps, most) for reward in rewards]


def _shown(reward: Reward, total: int, fps: int, most: int) -> Reward:
    scorer = reward.score
    if not (reward.video and isinstance(scorer, Combination)):
        return replace(reward, frames=frames_seen(total, fps, reward.video, reward.look, most))
    frames, members = frames_needed(for_videos(scorer.members, total, fps, most))
    scorer = replace(scorer, members=tuple(members))
    return replace(reward, frames=None if frames is None else tuple(frames), score=scorer)


def frames_needed(rewards: Sequence[Reward]) -> tuple[list[int] | None, list[Reward]]:
    """The frames of a video that any of the rewards sees, ascending, and the rewards as they see those alone.

    ``(None, the rewards)`` where one of them sees all frames.
    """
    each = [reward.frames for reward in rewards]
    seen = sorted({frame for frames in each if frames is not None for frame in frames})
    if not seen or None in each:
        return None, list(rewards)
    return seen, [replace(r, frames=tuple(seen.index(frame) for frame in r.frames or ())) for r in rewards]


def told(rewards: Sequence[Reward], sigma_N: Tensor) -> list[Reward]:
    """Those of the rewards that judge noisy states, as they judge states of these noise levels."""
    return [replace(reward, score=partial(reward.noisy, sigma_N=sigma_N)) for reward in rewards if reward.noisy]


def score(
    images: Tensor, prompts: Sequence[str], rewards: Sequence[Reward], group_N: Tensor | None = None
) -> RewardTable:
    """The table of every reward on every image or video; InputError when a reward answers in the wrong shape.

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
    if group_N is None:
        refuse_judge(reward)
    try:
        return answered(reward, images, prompts, group_N).cpu()
    except (InputError, RunError):
        raise
    except Exception as error:  # a reward is anybody's code; the traceback stays in __cause__
        raise RunError(
            f"rewards: {reward.name!r} raised {type(error).__name__}: {error}; a reward that fails on one image should "
            "return NaN for it"
        ) from error


def refuse_judge(reward: Reward) -> None:
    """InputError for a judge of pairs, which has nothing to say of a single image."""
    if reward.pairwise:
        raise InputError(f"rewards: {reward.name!r} compares images of one prompt; it cannot score single ones")


def answered(reward: Reward, media: Tensor, prompts: Sequence[str], group_N: Tensor | None = None) -> Tensor:
    """The reward's values of images or of its frames of videos, float32, with gradient where they have one."""
    media = chosen(media, reward.frames) if media.ndim == 5 else media
    if media.ndim == 5 and not reward.video:
        return over_frames(of_frames(lambda frame: answered(reward, frame, prompts, group_N), media), reward.pool)
    if reward.pairwise and group_N is not None:
        return judged(reward.score, media, prompts, group_N)
    return torch.as_tensor(reward.score(media, prompts)).to(torch.float32)
