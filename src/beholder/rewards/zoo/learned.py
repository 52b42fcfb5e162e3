"""Reward models that `beholder fit` made, as rewards like any other."""

from beholder.rewards.learned import RewardModel, find_folder
from beholder.rewards.zoo.scorer import Network, StagedScorer


def load_learned(checkpoint: str) -> StagedScorer:
    """The reward of a fitted model's folder; about 0 on average over what it was fitted on, or in units of ratings."""
    folder = find_folder(checkpoint)

    def load() -> Network:
        model = RewardModel.from_pretrained(folder)
        return Network(model, model.backbone.prepare, model.rewards)

    return StagedScorer(load)
