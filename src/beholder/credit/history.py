"""Recent rewards of each prompt: the baseline of DDPO (2305.13301, appendix D.3)."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class History:
    """A buffer of rewards per prompt text. New rewards enter before they are compared, as officially."""

    def __init__(self, size: int, least: int) -> None:
        self.size, self.least = size, least
        self.rewards: dict[str, deque[float]] = {}

    def update(self, prompts: Sequence[str], reward_N: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (ddof 0), float64 ``[N]``, of each sample's prompt.

        A prompt with fewer than ``least`` rewards takes those of ``reward_N`` as a whole. NaN rewards are not kept.
        """
        for prompt, reward in zip(prompts, reward_N.tolist(), strict=True):
            if reward == reward:
                self.rewards.setdefault(prompt, deque(maxlen=self.size)).append(reward)
        everything = reward_N[~reward_N.isnan()].double()
        ours = (everything.mean().item(), everything.std(correction=0).item())
        found = {}
        for prompt in dict.fromkeys(prompts):
            kept = self.rewards.get(prompt, ())
            found[prompt] = ours if len(kept) < self.least else (float(np.mean(kept)), float(np.std(kept)))
        pairs = torch.tensor([found[prompt] for prompt in prompts], dtype=torch.float64)
        return pairs[:, 0], pairs[:, 1]

    def state(self) -> dict[str, list[float]]:
        return {prompt: list(kept) for prompt, kept in self.rewards.items()}

    def restore(self, state: dict[str, list[float]]) -> None:
        self.rewards = {prompt: deque(kept, maxlen=self.size) for prompt, kept in state.items()}
