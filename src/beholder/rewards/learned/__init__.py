"""Reward models of one's own, fitted by `beholder fit`: ``learned@FOLDER``.

model = RewardModel.from_pretrained("runs/reward")
model.parts(images, prompts)["reward"]
"""

from beholder.rewards.learned.backbones import new_backbone
from beholder.rewards.learned.heads import Heads
from beholder.rewards.learned.model import RewardModel, find_folder

__all__ = ["Heads", "RewardModel", "find_folder", "new_backbone"]
