"""What an iteration needs and changes, and how it is saved and restored."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from beholder.config import RunConfig
from beholder.credit.critic import Critic, state_features
from beholder.credit.history import History
from beholder.policies import Policy
from beholder.prompts import PromptSet
from beholder.rewards import Reward, RewardTable
from beholder.rollouts.trajectory import Trajectory
from beholder.training.ema import EMA, replaced
from beholder.training.run_folder import Progress

if TYPE_CHECKING:
    from beholder.training.read import Comparisons


@dataclass
class Learner:
    config: RunConfig
    policy: Policy
    prompts: PromptSet
    rewards: list[Reward]
    optimiser: Any
    ema: EMA
    accelerator: Accelerator
    progress: Progress
    beta: float
    """The KL weight, which a controller may change."""
    history: History | None = None
    critic: Critic | None = None
    data: "Comparisons | None" = None
    """Preference data to learn from, instead of samples of the policy's own."""
    refreshed: dict[str, Tensor] = field(default_factory=dict)
    """The trained weights that became the reference last, where `kl.refresh` asks for it; empty before."""

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The policy that `kl.reference` names, in place of the trained one. Only between graphs: weights change."""
        if self.config.kl.reference == "ema":
            with self.ema.applied(self.policy.trainable()):
                yield
        elif self.refreshed:
            with replaced(self.policy.trainable(), self.refreshed):
                yield
        else:
            with self.policy.reference():
                yield

    def refresh_reference(self) -> None:
        """The policy as it is becomes its own reference, every `kl.refresh` iterations."""
        every = self.config.kl.refresh
        if every and self.progress.iteration % every == 0:
            self.refreshed = {name: p.detach().clone() for name, p in self.policy.trainable().items()}

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """The policy that draws, `rollout.policy`, in place of the trained one."""
        if self.config.rollout.policy == "ema":
            with self.ema.applied(self.policy.trainable()):
                yield
        else:
            yield

    def everyone(self, value: Tensor) -> Tensor:
        """All processes' rows of a CPU tensor, in the order of the processes."""
        if self.accelerator.num_processes == 1:
            return value
        return torch.cat(gather_object([value]))

    def everyone_sum(self, number: int) -> int:
        return int(self.everyone(torch.tensor([number])).sum())

    def mine(self, rows: int) -> slice:
        """Where this process's ``rows`` are in `everyone`."""
        counts = [rows] if self.accelerator.num_processes == 1 else gather_object([rows])
        first = sum(counts[: self.accelerator.process_index])
        return slice(first, first + rows)


@dataclass(frozen=True)
class Batch:
    """A scored rollout: this process's samples and the advantages of their decisions."""

    trajectory: Trajectory
    advantage_MR: Tensor
    """NaN for a decision that is left out; a column per reward where `credit.combine` is losses."""
    table: RewardTable
    """Rewards of all processes' samples, without probes."""
    gate_N: Tensor
    """1 where a sample feels the KL, else 0."""
    stats: dict[str, Any]


def loss_weights(config: RunConfig, table: RewardTable) -> list[float]:
    """Of the columns of the advantages."""
    return [config.rewards[name] for name in table.names] if config.credit.combine == "losses" else [1.0]


def compares_with_reference(config: RunConfig) -> bool:
    """Whether the objective's log-ratios are to the reference."""
    return config.objective.anchor == "reference" or config.objective.kind == "dspo"


def compares_with_old(config: RunConfig) -> bool:
    """Whether the objective needs what the policy that drew the samples said of them."""
    return config.objective.anchor == "old" or config.objective.kind == "nft"


def reward_weights(config: RunConfig, table: RewardTable) -> Mapping[str, float]:
    """Of the table's columns; feedback that comes with the samples counts as it is."""
    return config.rewards or dict.fromkeys(table.names, 1.0)


def needs_reference(config: RunConfig) -> bool:
    return config.kl.beta > 0 or compares_with_reference(config)


def make_learner(
    config: RunConfig,
    policy: Policy,
    prompts: PromptSet,
    rewards: list[Reward],
    accelerator: Accelerator,
    data: "Comparisons | None" = None,
) -> Learner:
    """Optimiser and average over the policy's trainable parameters, wrapped for the accelerator's processes."""
    if needs_reference(config):
        policy.keep_reference()
    o, c = config.optimiser, config.credit
    optimiser = torch.optim.AdamW(
        policy.trainable().values(), lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps, weight_decay=o.weight_decay
    )
    critic = None
    if c.baseline == "critic":
        x, sigma = torch.zeros(1, *policy.family.latent_shape()), torch.zeros(1)
        features = state_features(x.to(policy.device), sigma.to(policy.device), policy.encode([""]))
        critic = Critic(c.critic, features.shape[1], policy.device, config.seed)
    history = History(c.history, c.history_min, c.ddof) if c.baseline == "running" or c.scale == "running" else None
    policy.network, optimiser = accelerator.prepare(policy.module, optimiser)
    ema = EMA(config.ema, policy.trainable())
    progress, beta = Progress(), config.kl.beta
    return Learner(config, policy, prompts, rewards, optimiser, ema, accelerator, progress, beta, history, critic, data)


def state_of(learner: Learner) -> dict[str, Any]:
    """What a checkpoint holds besides the progress."""
    return {
        "parameters": {name: p.detach().cpu() for name, p in learner.policy.trainable().items()},
        "optimiser": learner.optimiser.state_dict(),
        "ema": {"updates": learner.ema.updates, "shadow": {n: v.cpu() for n, v in learner.ema.shadow.items()}},
        "beta": learner.beta,
        "history": None if learner.history is None else learner.history.state(),
        "critic": None if learner.critic is None else learner.critic.state(),
        "refreshed": {name: value.cpu() for name, value in learner.refreshed.items()},
    }


@torch.no_grad()
def restore(learner: Learner, progress: Progress, state: dict[str, Any]) -> None:
    """The learner as it was at the checkpoint."""
    for name, parameter in learner.policy.trainable().items():
        parameter.copy_(state["parameters"][name])
    learner.optimiser.load_state_dict(state["optimiser"])
    learner.ema.updates = state["ema"]["updates"]
    for name, value in state["ema"]["shadow"].items():
        learner.ema.shadow[name].copy_(value)
    learner.beta = state["beta"]
    learner.refreshed = {name: value.to(learner.policy.device) for name, value in state["refreshed"].items()}
    if learner.history is not None:
        learner.history.restore(state["history"])
    if learner.critic is not None:
        learner.critic.restore(state["critic"])
    learner.progress = progress
