"""Learners of a second on the tiny SD3 pipeline, and rewards for them; what the tests of an iteration share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from beholder.config import EMAConfig, KernelConfig, LoopConfig, LoraConfig, PolicyConfig, RolloutConfig, RunConfig
from beholder.methods.row import vary
from beholder.policies import load_policy
from beholder.prompts import PromptSet
from beholder.rewards import Reward, load_rewards
from beholder.rollouts.engine import replay
from beholder.rollouts.kernels import Transition
from beholder.training.collect import collect
from beholder.training.learner import Batch, Learner, make_learner

TEXTS = (
    *("a photo of a red circle", "two orange squares", "three yellow triangles", "four green crosses"),
    *("a cyan circle and a blue cat", "a purple square left of a white triangle"),
)


def tiny_config(folder: Path, **changes: Any) -> RunConfig:
    """4 prompts × 3 samples × 4 steps of the pipeline in ``folder``; settings by path, dots as two underscores."""
    config = RunConfig(
        method="flow-grpo",
        rewards={"redness": 1.0},
        policy=PolicyConfig(model=str(folder), max_sequence_length=16, lora=LoraConfig(rank=4, alpha=8)),
        rollout=RolloutConfig(steps=4, prompts=4, group=3, batch=64, kernel=KernelConfig(min_std=1e-3)),
        ema=EMAConfig(),
        loop=LoopConfig(updates=1, micro_batch=64, signal_every=0),
    )
    return vary(config, "flow-grpo", {name.replace("__", "."): value for name, value in changes.items()})


def learner_of(config: RunConfig, rewards: Sequence[Reward] = (), texts: tuple[str, ...] = TEXTS) -> Learner:
    """A learner before its first iteration; ``rewards`` take the place of the configured ones."""
    policy = load_policy(config.policy)
    chosen = list(rewards) or load_rewards(list(config.rewards))
    return make_learner(config, policy, PromptSet(texts), chosen, Accelerator(cpu=True))


def first_batch(learner: Learner) -> Batch:
    """What the first iteration learns from."""
    learner.progress.iteration = 1
    return collect(learner)


def gradient_of(learner: Learner) -> Tensor:
    """What has been accumulated so far, flat."""
    return torch.cat([p.grad.flatten() for p in learner.policy.trainable().values() if p.grad is not None])


def weights_of(learner: Learner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learner.policy.trainable().values()])


@torch.no_grad()
def transitions(learner: Learner, batch: Batch) -> Transition:
    """Those of all decisions under the present policy."""
    move = replay(learner.policy, batch.trajectory, batch.trajectory.decisions).transition
    assert move is not None
    return move


def reward_of(score: Callable[[Tensor, Sequence[str]], Tensor], name: str = "redness") -> Reward:
    return Reward(name, score)


def constant_for(texts: Sequence[str]) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """The redness of an image, but ½ for every image of ``texts``."""

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        dull = torch.tensor([prompt in texts for prompt in prompts])
        return torch.where(dull, 0.5, images[:, 0].mean((1, 2)).cpu())

    return score


def failing_on(row: int) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """The redness of an image, NaN for one of them."""

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        values = images[:, 0].mean((1, 2)).cpu()
        values[row] = torch.nan
        return values

    return score
