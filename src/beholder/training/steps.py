"""Rewards of steps where some reward judges noisy states: those states are shown to it, with their noise levels.

Rows that compare candidates of a step (`rollout.branch` ladder: SPO, LPO) and rows with `credit.dense` ask here.
Rewards that know clean images alone keep judging the image that the ODE makes of a candidate, or the predicted clean
one.
Shapes: S states, K rewards, M decisions, N samples, T steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from beholder.config import RunConfig
from beholder.credit.paths import mean_over_samples
from beholder.errors import InputError, RunError
from beholder.rewards import Reward, RewardTable, score
from beholder.rewards.pairwise import win_rates
from beholder.rewards.reward import frames_needed, told
from beholder.rollouts.trajectory import Trajectory
from beholder.training.learner import Learner, reward_weights


def noise_aware(rewards: Sequence[Reward]) -> list[Reward]:
    """Those of the rewards that judge noisy states."""
    return [reward for reward in rewards if reward.noisy is not None]


def asks_of_states(config: RunConfig, rewards: Sequence[Reward]) -> bool:
    """Whether the decisions themselves are judged: candidates of a step, by a reward that can."""
    return config.rollout.branch.kind == "ladder" and bool(noise_aware(rewards))


def check_states(config: RunConfig, rewards: Sequence[Reward]) -> None:
    """InputError for settings that only rewards of whole samples can follow, where states are judged."""
    if not asks_of_states(config, rewards):
        return
    name, credit = noise_aware(rewards)[0].name, config.credit
    if config.kl.place == "reward" and config.kl.beta > 0:
        raise InputError(f"kl.place: 'reward' would not reach the steps that {name!r} judges; use loss")
    if "running" in (credit.baseline, credit.scale):
        raise InputError(f"credit.baseline: 'running' remembers samples, and {name!r} judges steps; use none or group")
    if credit.peers == "samples" and "group" in (credit.baseline, credit.scale):
        raise InputError(f"credit.peers: 'samples' share no step, and {name!r} judges steps; use siblings or depth")
    if credit.weights != "advantage":
        raise InputError(
            f"credit.weights: {credit.weights!r} is of samples' rewards, and {name!r} judges steps; use advantage"
        )
    if credit.novelty:
        raise InputError(f"credit.novelty: shapes the credit of samples, and {name!r} judges steps; leave it out")


def judged(learner: Learner, state_Sx: Tensor, sigma_S: Tensor, sample_S: Tensor, trajectory: Trajectory) -> Tensor:
    """What the noise-aware rewards say of states of these samples ``[S, K]``."""
    frames, rewards = frames_needed(told(noise_aware(learner.rewards), sigma_S))
    frame_SK = None if frames is None else torch.tensor(frames).expand(len(state_Sx), -1)
    images = learner.policy.decode(state_Sx, sigma_S, learner.config.rollout.batch, frame_SK)
    prompts = [trajectory.prompts[n] for n in sample_S.tolist()]
    return score(images, prompts, rewards).values_NM


def decision_rewards(learner: Learner, trajectory: Trajectory, table: RewardTable) -> Tensor | None:
    """Rewards ``[M, R]`` of candidates (R as credit has columns), each of the state that its decision led to.

    None where the row compares no candidates of a step, or no reward judges noisy states: then samples' rewards do.
    Rewards of clean images stay those of the samples.
    """
    config, d = learner.config, trajectory.decisions
    if not asks_of_states(config, learner.rewards):
        return None
    aware = noise_aware(learner.rewards)
    decision_NT = trajectory.decision_NT.cpu()
    columns = [
        mean_over_samples(v[:, None].double().expand(decision_NT.shape), decision_NT, len(d)) for v in table.values_NM.T
    ]
    found_MK = judged(learner, d.next_Mx, d.sigma_next_M, d.sample_M, trajectory).double()
    if config.credit.win_rate:
        _, sibling_M = d.state_id_M.cpu().unique(return_inverse=True)
        found_MK = torch.stack([win_rates(value_M, sibling_M) for value_M in found_MK.unbind(1)], 1)
    for reward, value_M in zip(aware, found_MK.unbind(1), strict=True):
        columns[table.names.index(reward.name)] = value_M
    value_MR = torch.stack(columns, 1)
    if bool(learner.everyone(value_MR.isnan().any(1)).all()):
        raise RunError("every reward of this iteration's noisy states failed; try the reward with `score`")
    if config.credit.combine != "rewards":
        return value_MR
    weights = reward_weights(config, table)
    return (value_MR @ value_MR.new_tensor([weights[name] for name in table.names]))[:, None]


def dense_rewards(learner: Learner, trajectory: Trajectory) -> Tensor:
    """Rewards ``[N, T, 1]`` of the states that steps led to, by the noise-aware rewards, weighted."""
    config, state_NTx, sigma_T = learner.config, trajectory.state_NTx, trajectory.sigma_T
    assert state_NTx is not None and sigma_T is not None
    n, device = len(state_NTx), state_NTx.device
    steps = zip(state_NTx.unbind(1), sigma_T.to(device), strict=True)  # one after another: images of all fill memory
    value_TNK = [judged(learner, x, sigma.expand(n), torch.arange(n), trajectory) for x, sigma in steps]
    value_NTK = torch.stack(value_TNK, 1).double()
    if config.credit.win_rate:
        columns = [[win_rates(value_N, trajectory.group_N) for value_N in v.unbind(1)] for v in value_NTK.unbind(2)]
        value_NTK = torch.stack([torch.stack(column, 1) for column in columns], 2)
    weights = [config.rewards[reward.name] for reward in noise_aware(learner.rewards)]
    return (value_NTK @ value_NTK.new_tensor(weights))[..., None]
