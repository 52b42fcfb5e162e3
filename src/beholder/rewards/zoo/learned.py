"""Reward models that `beholder fit` made, as rewards like any other."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from beholder.rewards.learned import RewardModel, find_folder
from beholder.rewards.learned.model import read_heads
from beholder.rewards.zoo.parts import PartedScorer, Parts
from beholder.rewards.zoo.scorer import Network, StagedScorer


def load_learned(checkpoint: str) -> StagedScorer:
    """The reward of a fitted model's folder; about 0 on average over what it was fitted on, or in units of ratings.

    One with several dimensions or copies says what each gives; one fitted with words, how likely each is misaligned.
    """
    folder = find_folder(checkpoint)
    heads = read_heads(folder)
    values = len(heads.dimensions), heads.copies
    several = values != (1, 1) or heads.words or bool(heads.maps)

    def load() -> Network:
        model = RewardModel.from_pretrained(folder)

        def table(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
            return model.values(pixels, prompts).flatten(1)

        return Network(model, model.backbone.prepare, table if several else model.rewards)

    if not several:
        return StagedScorer(load)

    def total(table: Tensor) -> Tensor:
        return heads.rewards(table.view(len(table), *values))

    @torch.no_grad()
    def words(pixels: Tensor, prompts: Sequence[str]) -> list[dict[str, Any]]:
        said = cast(RewardModel, scorer.network.module).named_words(pixels, prompts)
        return [{"words": [(word, None if math.isnan(chance) else chance) for word, chance in one]} for one in said]

    def maps(pixels: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        return cast(RewardModel, scorer.network.module).named_maps(pixels, prompts)

    copies = [""] if heads.copies == 1 else [f" {i + 1}" for i in range(heads.copies)]
    names = tuple(name + copy for name in heads.dimensions for copy in copies)
    given = {"more": words if heads.words else None, "maps": maps if heads.maps else None}
    scorer = PartedScorer(load, Parts(names, total, **given))
    return scorer
