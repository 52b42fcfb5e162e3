"""What is liked: rewards, from exact verifiers to any Python callable, and the table they fill."""

from beholder.rewards.reward import Reward, RewardTable, Scorer, load_reward, load_rewards, score

__all__ = ["Reward", "RewardTable", "Scorer", "load_reward", "load_rewards", "score"]
