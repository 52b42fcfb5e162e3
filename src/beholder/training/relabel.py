"""Feedback as text: what samples are conditioned on while they teach, by how they turned out.

Labels put a quantile of the value before the prompt, so that the policy learns what good and bad look like and is asked
for the best (HPS's bad-token conditioning 2303.14420, Quark 2205.13636); hindsight replaces the prompt by one that the
image does satisfy (HIR, 2302.05206).
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from beholder.config import RelabelConfig
from beholder.errors import InputError
from beholder.rollouts.trajectory import Trajectory
from beholder.training.learner import Learner

Captioner = Callable[[Tensor, Sequence[str]], Sequence[str | None]]
"""``(images [N, 3, H, W] in 0..1, prompts) → texts that the images satisfy``, None where there is none."""


def relabelled(learner: Learner, trajectory: Trajectory, value_N: Tensor, value_E: Tensor) -> tuple[Trajectory, Tensor]:
    """The samples under their new texts, and bool ``[N]``: which of them still have one.

    ``value_N`` of this process's samples are placed among those of all processes, ``value_E``.
    """
    relabel, texts = learner.config.relabel, list(trajectory.prompts)
    kept_N = ~value_N.isnan()
    if relabel.caption:
        found = _captions(learner, trajectory)
        kept_N &= torch.tensor([text is not None for text in found])
        texts = [text or old for text, old in zip(found, texts, strict=True)]
    if relabel.labels:
        which_N = quantiles(value_N, value_E, len(relabel.labels))
        texts = [relabel.labels[q] + text for q, text in zip(which_N.tolist(), texts, strict=True)]
    return replace(trajectory, condition=learner.policy.encode(texts)), kept_N


def quantiles(value_N: Tensor, value_E: Tensor, count: int) -> Tensor:
    """int64 ``[N]``: in which of ``count`` equal shares of the sorted ``value_E`` each value lies, 0 the lowest.

    Equal values lie in the same share: the one of their middle rank.
    """
    known = value_E[~value_E.isnan()].sort().values
    value = value_N.nan_to_num(-torch.inf)
    below, upto = torch.searchsorted(known, value), torch.searchsorted(known, value, right=True)
    middle = (below + upto).double() / 2 / max(1, len(known))
    return (middle * count).long().clamp(0, count - 1)


def _captions(learner: Learner, trajectory: Trajectory) -> list[str | None]:
    r = learner.config.rollout
    sigma = 0.0 if learner.config.data.path else learner.policy.schedule(r.steps)[-1].item()
    images = learner.policy.decode(trajectory.final_Nx, sigma, r.batch)
    found = list(load_captioner(learner.config.relabel)(images, trajectory.prompts))
    if len(found) != len(images):
        raise InputError(f"relabel.caption: {len(found)} texts for {len(images)} images; return one (or None) for each")
    return found


def load_captioner(config: RelabelConfig) -> Captioner:
    """``shapes``, or ``package.module:function``."""
    if config.caption == "shapes":
        from beholder.worlds.shapes.describe import describe

        return lambda images, prompts: describe(images.detach().cpu().numpy(), prompts)
    module, _, name = config.caption.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise InputError(
            f"relabel.caption: {config.caption!r} cannot be imported ({type(error).__name__}: {error}); give shapes or "
            "package.module:function"
        ) from error
    finally:
        sys.path.pop(0)
    return found
