"""Draw (or read), score, credit: the first half of an iteration.

Statistics are taken over all processes' samples, so several small processes learn what one large one would.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch import Tensor

from beholder.config import RelabelConfig
from beholder.credit.assign import Scored, assign, critic_rewards
from beholder.credit.critic import state_features
from beholder.credit.group import group_spread, group_stats
from beholder.credit.paths import dense_returns, gae
from beholder.errors import RunError
from beholder.evaluation.novelty import novelty
from beholder.objectives.regularisers import gate, transition_kl
from beholder.rewards import Reward, RewardTable, score
from beholder.rewards.pairwise import win_rates
from beholder.rewards.reward import frames_needed
from beholder.rollouts.engine import replay
from beholder.rollouts.trajectory import Trajectory
from beholder.training.draw import draw
from beholder.training.learner import Batch, Learner, compares_with_old, reward_weights
from beholder.training.pathwise import follow_rewards
from beholder.training.read import data_samples, real_samples, renoised
from beholder.training.relabel import relabelled
from beholder.training.steps import decision_rewards, dense_rewards


def collect(learner: Learner) -> Batch:
    """This process's groups, drawn or read, with the advantages that all processes' rewards give them."""
    config, accelerator, iteration = learner.config, learner.accelerator, learner.progress.iteration
    share = config.rollout.prompts // accelerator.num_processes
    groups = list(range(accelerator.process_index * share, (accelerator.process_index + 1) * share))
    if config.objective.kind == "pathwise":
        return follow_rewards(learner, groups)
    reading: dict[str, Any] = {}
    if config.data.path:
        trajectory, table, reading = data_samples(learner, groups)
    else:
        trajectory, table = drawn(learner, groups)
    rewards, groups_E = (
        learner.everyone(_sample_rewards(learner, table, trajectory)),
        learner.everyone(trajectory.group_N),
    )
    found = group_stats(rewards, groups_E)
    for number in range(1, config.rollout.redraw + 1):
        lacking = share - int(_teaching(learner, table, trajectory).sum())
        if lacking == 0:
            break
        again = draw(learner, number, groups[:lacking])
        more = scored(learner, again)
        table = RewardTable.cat([table, more])
        trajectory = Trajectory.cat([trajectory, again])
    labelled_N = None
    if config.relabel != RelabelConfig():
        values_N = _sample_rewards(learner, table, trajectory)
        trajectory, labelled_N = relabelled(learner, trajectory, values_N, learner.everyone(values_N))
    if config.rollout.forward.times:
        trajectory = renoised(learner, trajectory, config.rollout.forward, compares_with_old(config))
    mine, values = learner.mine(len(trajectory)), learner.everyone(table.values_NM)
    newness = None if table.novelty_N is None else learner.everyone(table.novelty_N)
    everything = RewardTable(values, table.names, newness)
    reward_ER, weight_R, kl = combined(learner, everything, trajectory, mine)
    if bool(everything.failed_N.all()):
        raise RunError(
            f"every reward of iteration {iteration} failed ({len(values)} samples); try the reward with `score`"
        )
    dull_N = torch.zeros(len(trajectory), dtype=torch.bool)
    if config.rollout.redraw:  # what was drawn in the place of dull prompts stands for them, in credit's statistics too
        _, number_N = trajectory.group_N.unique(return_inverse=True)
        dull_N = ~_teaching(learner, table, trajectory)[number_N]
        reward_ER = reward_ER.masked_fill(learner.everyone(dull_N)[:, None], torch.nan)
    judged_MR = decision_rewards(learner, trajectory, table)
    advantage_MR, extra = credit(learner, trajectory, reward_ER, weight_R, mine, newness, judged_MR)
    trajectory = trajectory.without_paths()  # of all steps, not of the trained ones; the update has no use for them
    advantage_MR[dull_N[trajectory.decisions.sample_M.cpu()]] = torch.nan
    if labelled_N is not None:
        advantage_MR[~labelled_N[trajectory.decisions.sample_M.cpu()]] = torch.nan
    told = everything.among(learner.everyone(trajectory.probe_N) < 0)
    gate_N = gate(values, config.kl.gate)[mine]
    if config.rollout.real.images:
        real = real_samples(learner, groups)
        real = renoised(learner, real, config.rollout.forward, compares_with_old(config))
        value_MR = torch.full((len(real.decisions), advantage_MR.shape[1]), config.rollout.real.value)
        trajectory, advantage_MR = Trajectory.cat([trajectory, real]), torch.cat([advantage_MR, value_MR])
        gate_N = torch.cat([gate_N, torch.ones(len(real))])
    stats = {
        "reward_std": found.std,
        "failed_rewards": int(told.failed_N.sum()),
        "groups_without_variance": found.without_variance,
        **({"kl_of_rollout": kl} if kl is not None else {}),
        **reading,
        **extra,
    }
    return Batch(trajectory, advantage_MR, told, gate_N, stats)


def drawn(learner: Learner, groups: list[int]) -> tuple[Trajectory, RewardTable]:
    """Fresh samples and their rewards; without any, all count as what real images are preferred to (SPIN)."""
    trajectory = draw(learner, 0, groups)
    if not learner.rewards:
        return trajectory, RewardTable(torch.full((len(trajectory), 1), -1.0), ("own",))
    return trajectory, scored(learner, trajectory)


def scored(
    learner: Learner,
    trajectory: Trajectory,
    latents: Tensor | None = None,
    asked: Sequence[Reward] | None = None,
) -> RewardTable:
    """Rewards, or those asked, of the final images, or of clean latents (σ = 0) predicted for the same samples."""
    r, sigma = learner.config.rollout, 0.0
    if latents is None:
        latents, sigma = trajectory.final_Nx, learner.policy.schedule(r.steps)[-1].item()
    frames, rewards = frames_needed(learner.rewards if asked is None else asked)
    frame_NK = None if frames is None else torch.tensor(frames).expand(len(latents), -1)
    images = learner.policy.decode(latents, sigma, r.batch, frame_NK)
    table = score(images, trajectory.prompts, rewards, trajectory.group_N)
    if learner.config.credit.novelty:
        found = novelty(images, trajectory.group_N.to(images.device), learner.config.credit.novelty)
        table = replace(table, novelty_N=found)
    if not learner.config.credit.win_rate:
        return table
    return replace(
        table, values_NM=torch.stack([win_rates(v, trajectory.group_N) for v in table.values_NM.unbind(1)], 1)
    )


def _sample_rewards(learner: Learner, table: RewardTable, trajectory: Trajectory) -> Tensor:
    return torch.where(trajectory.probe_N < 0, table.weighted(reward_weights(learner.config, table)), torch.nan)


def _teaching(learner: Learner, table: RewardTable, trajectory: Trajectory) -> Tensor:
    """bool per prompt drawn by this process, in the order of their numbers: its samples' rewards differ."""
    _, group_N = trajectory.group_N.unique(return_inverse=True)
    return group_spread(_sample_rewards(learner, table, trajectory), group_N) >= 1e-8


def combined(
    learner: Learner, everything: RewardTable, trajectory: Trajectory, mine: slice
) -> tuple[Tensor, Tensor, float | None]:
    """``(reward_ER, weight_R, mean KL per decision)``: the columns credit works on, the KL taken off where asked."""
    config = learner.config
    if config.credit.combine != "rewards":
        weights = torch.tensor([config.rewards[name] for name in everything.names])
        return everything.values_NM, weights, None
    reward_E, kl = everything.weighted(reward_weights(config, everything)), None
    if config.kl.place == "reward" and learner.beta > 0:
        kl_M = kl_of_rollout(learner, trajectory)
        taken = trajectory.decision_NT >= 0
        kl_N = torch.where(taken, kl_M[trajectory.decision_NT.clamp_min(0)], 0).sum(1).cpu()
        reward_E = reward_E - learner.beta * learner.everyone(kl_N)
        kl = learner.everyone(kl_M.cpu()).mean().item()
    return reward_E[:, None], torch.ones(1), kl


@torch.no_grad()
def kl_of_rollout(learner: Learner, trajectory: Trajectory) -> Tensor:
    """The KL of each decision of a rollout to the reference, per dimension, ``[M]``."""
    d, size, parts = trajectory.decisions, learner.config.loop.micro_batch, []
    for i in range(0, len(d), size):
        part = d.select(torch.arange(i, min(i + size, len(d)), device=d.step_M.device))
        with learner.reference():
            reference = replay(learner.policy, trajectory, part)
        parts.append(transition_kl(learner.config.kl, replay(learner.policy, trajectory, part), reference))
    return torch.cat(parts)


def credit(
    learner: Learner,
    trajectory: Trajectory,
    reward_ER: Tensor,
    weight_R: Tensor,
    mine: slice,
    novelty_E: Tensor | None = None,
    judged_MR: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Advantages ``[M, R]`` and what the critic has to report; ``judged_MR`` are the decisions' own rewards."""
    c, d = learner.config.credit, trajectory.decisions
    group_E, probe_E = learner.everyone(trajectory.group_N), learner.everyone(trajectory.probe_N)
    running, running_NT, values, dense, features, stats = None, None, None, None, None, {}
    several = learner.history is not None and learner.accelerator.num_processes > 1
    texts = gather_object(trajectory.prompts) if several else trajectory.prompts
    if learner.history is not None and c.dense == "none":
        names = [texts, *([f"{r} {text}" for text in texts] for r in range(1, reward_ER.shape[1]))]  # a history each
        moments = [learner.history.update(own, v) for own, v in zip(names, reward_ER.unbind(1), strict=True)]
        running = (torch.stack([m for m, _ in moments], 1), torch.stack([s for _, s in moments], 1))
    if learner.critic is not None:
        features = state_features(d.state_Mx, d.sigma_M, trajectory.condition.select(d.sample_M))
        values = learner.critic.values(features)
    if c.dense == "anchors":
        dense = step_rewards(learner, trajectory)
        if learner.history is not None:
            return_ET = learner.everyone(dense_returns(dense[..., 0].double(), c.discount))
            mean_ET, std_ET = learner.history.update_steps(texts, return_ET)
            running_NT = mean_ET[mine], std_ET[mine]
    given = Scored(
        reward_ER, group_E, probe_E, mine, weight_R, running, values, dense, running_NT, novelty_E, judged_MR
    )
    advantage_MR = assign(c, trajectory, given, learner.everyone)
    if learner.critic is not None and features is not None and values is not None:
        reward_N = critic_rewards(c, given)[mine]
        _, return_M = gae(reward_N, values, trajectory.decision_NT.cpu(), c.discount, c.critic.lam)
        loss = learner.critic.fit(
            features, return_M, values, learner.accelerator.reduce if learner.accelerator.num_processes > 1 else None
        )
        stats["critic_loss"] = learner.everyone(torch.tensor([loss])).mean().item()
        every = c.critic.reset_every
        if every and learner.progress.iteration % every == 0:
            generator = torch.Generator().manual_seed((learner.config.seed * 7919 + learner.progress.iteration) % 2**63)
            everyones = learner.everyone(features.cpu()).to(features.device)  # the same neurons in every process
            stats["critic_neurons_reset"] = learner.critic.reset_active(everyones, generator)
    return advantage_MR, stats


def step_rewards(learner: Learner, trajectory: Trajectory) -> Tensor:
    """Rewards ``[N, T, 1]`` of every step: of its noisy state by the rewards that can, of anchors by the others."""
    ordinary = [reward for reward in learner.rewards if reward.noisy is None]
    if len(ordinary) == len(learner.rewards):
        return anchored_rewards(learner, trajectory)
    noisy = dense_rewards(learner, trajectory)
    return noisy if not ordinary else noisy + anchored_rewards(learner, trajectory, ordinary)


def anchored_rewards(learner: Learner, trajectory: Trajectory, asked: Sequence[Reward] | None = None) -> Tensor:
    """Rewards ``[N, T, 1]`` of the clean latents predicted at the first, an anchor and the last step (SDPO, §4.2).

    The anchor is the step whose prediction resembles both ends least (cosine of latents). Other steps get the mean of
    the three rewards, weighted by the resemblance to each.
    """
    clean = trajectory.clean_NTx.flatten(2)
    n, steps = clean.shape[:2]
    likeness = [F.cosine_similarity(clean, clean[:, i : i + 1], dim=2) for i in (0, steps - 1)]
    anchor_N = (likeness[0] + likeness[1])[:, 1:-1].argmin(1) + 1 if steps > 2 else torch.zeros(n, dtype=torch.int64)
    rows = torch.arange(n, device=clean.device)
    likeness.insert(1, F.cosine_similarity(clean, clean[rows, anchor_N][:, None], dim=2))
    measured = []
    for at in (torch.zeros_like(anchor_N), anchor_N, torch.full_like(anchor_N, steps - 1)):
        table = scored(learner, trajectory, trajectory.clean_NTx[rows, at], asked)
        measured.append(table.weighted(learner.config.rewards).double())
    like_3NT = torch.stack(likeness).double().cpu().clamp_min(1e-6)
    reward_NT = (like_3NT * torch.stack(measured)[:, :, None]).sum(0) / like_3NT.sum(0)
    for values, at in zip(measured, (0, anchor_N.cpu(), steps - 1), strict=True):
        reward_NT[rows.cpu(), at] = values
    return reward_NT[..., None]
