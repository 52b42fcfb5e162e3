"""The loop, top to bottom: draw a group of samples per prompt, score them, credit their decisions, update, measure.

Decisions about exactness:
- Every random choice is a function of (seed, iteration, prompt, member). A run resumed from a checkpoint repeats the
  numbers of the run that was never interrupted, and a sample does not depend on how the work is sharded.
- Rollouts and updates call the same network in the same precision, so ρ = 1 at the first update of each rollout; the
  deviation is measured and logged every time.
- Advantages are computed over all processes' samples, so several small processes learn what one large one would.

Names: P prompts, G samples per prompt, N = P·G samples, K trained decisions per sample, M decisions at once.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from beholder.config import RunConfig
from beholder.credit.group import advantages, group_stats
from beholder.errors import RunError
from beholder.objectives.policy_gradient import PolicyGradientStats, ppo_clip
from beholder.objectives.regularisers import transition_kl
from beholder.policies import Policy
from beholder.prompts import PromptSet
from beholder.rewards import Reward, RewardTable, score
from beholder.rollouts.engine import replay, rollout
from beholder.rollouts.kernels import trainable_steps
from beholder.rollouts.plans import draw_plan
from beholder.rollouts.trajectory import Decisions, Trajectory
from beholder.training.ema import EMA
from beholder.training.run_folder import Progress


@dataclass
class Learner:
    """Everything an iteration needs and changes."""

    config: RunConfig
    policy: Policy
    prompts: PromptSet
    rewards: list[Reward]
    optimiser: Any
    ema: EMA
    accelerator: Accelerator
    progress: Progress


@dataclass(frozen=True)
class Batch:
    """A scored rollout: this process's samples and their advantages."""

    trajectory: Trajectory
    advantage_N: Tensor
    table: RewardTable
    """Rewards of all processes' samples."""
    stats: dict[str, Any]


def make_learner(
    config: RunConfig, policy: Policy, prompts: PromptSet, rewards: list[Reward], accelerator: Accelerator
) -> Learner:
    """Optimiser and average over the policy's trainable parameters, wrapped for the accelerator's processes."""
    if config.kl.beta > 0:
        policy.keep_reference()
    o = config.optimiser
    optimiser = torch.optim.AdamW(
        policy.trainable().values(), lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps, weight_decay=o.weight_decay
    )
    policy.network, optimiser = accelerator.prepare(policy.module, optimiser)
    return Learner(
        config, policy, prompts, rewards, optimiser, EMA(config.ema, policy.trainable()), accelerator, Progress()
    )


def iterate(learner: Learner) -> dict[str, Any]:
    """One iteration; the row for `metrics.jsonl`."""
    learner.progress.iteration += 1
    batch = collect(learner)
    stats = update(learner, batch)
    progress, world = learner.progress, learner.accelerator.num_processes
    progress.samples += len(batch.trajectory) * world
    progress.network_evaluations += batch.trajectory.network_evaluations * world
    return {
        "event": "train",
        "iteration": progress.iteration,
        "optimiser_steps": progress.optimiser_steps,
        "samples": progress.samples,
        "network_evaluations": progress.network_evaluations,
        "reward": batch.table.means(),
        **batch.stats,
        **stats,
    }


# ------------------------------------------------------------------------------------------------- draw and score


def sample_seeds(seed: int, iteration: int, group_N: Tensor, member_N: Tensor) -> Tensor:
    """One seed per sample, distinct over iterations, prompts and members; below 2^62."""
    base = (seed * 1_000_003 + iteration) % 2**30
    return (base * 2**16 + group_N) * 2**16 + member_N


def collect(learner: Learner) -> Batch:
    """Draws this process's groups, scores them, and turns all processes' rewards into advantages."""
    config, accelerator = learner.config, learner.accelerator
    r, iteration = config.rollout, learner.progress.iteration
    mine = r.prompts // accelerator.num_processes
    first = accelerator.process_index * mine
    index_P = learner.prompts.draw(r.prompts, [config.seed, iteration])[first : first + mine]
    group_N = torch.arange(first, first + mine).repeat_interleave(r.group)
    member_N = torch.arange(r.group).repeat(mine)
    texts = [learner.prompts.texts[index_P[g - first]] for g in group_N.tolist()]
    trajectory = draw(learner, texts, group_N, member_N)
    images = learner.policy.decode(trajectory.final_Nx, learner.policy.schedule(r.steps)[-1].item(), r.batch)
    table = score(images, texts, learner.rewards)
    everything = RewardTable(_gather(accelerator, table.values_NM), table.names)
    reward_N, all_group_N = everything.weighted(config.rewards), _gather(accelerator, group_N)
    advantage_N = advantages(reward_N, all_group_N, config.credit)
    groups = group_stats(reward_N, all_group_N)
    failed = int(everything.failed_N.sum())
    if failed == len(reward_N):
        raise RunError(f"every reward of iteration {iteration} failed ({failed} samples); try the reward with `score`")
    stats = {
        "reward_std": groups.std,
        "failed_rewards": failed,
        "groups_without_variance": groups.without_variance,
    }
    start = accelerator.process_index * len(texts)
    return Batch(trajectory, advantage_N[start : start + len(texts)], everything, stats)


def _gather(accelerator: Accelerator, value: Tensor) -> Tensor:
    return accelerator.gather(value.to(accelerator.device)).cpu() if accelerator.num_processes > 1 else value


def draw(learner: Learner, texts: list[str], group_N: Tensor, member_N: Tensor) -> Trajectory:
    """The rollout of this process, in batches of ``rollout.batch`` under one plan."""
    config, policy = learner.config, learner.policy
    r, iteration = config.rollout, learner.progress.iteration
    sigmas = policy.schedule(r.steps)
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + iteration) % 2**63)
    everyone = r.prompts * r.group
    plan = draw_plan(r.plan, trainable_steps(r.kernel, sigmas), everyone, iteration - 1, generator)
    seed_N = sample_seeds(config.seed, iteration, group_N, member_N)
    noise_seed_N = sample_seeds(
        config.seed, iteration, group_N, torch.zeros_like(member_N) if r.shared_noise else member_N
    )
    first, parts = learner.accelerator.process_index * len(texts), []
    for i in range(0, len(texts), r.batch):
        rows = slice(i, min(i + r.batch, len(texts)))
        start = policy.start(
            texts[rows],
            group_N[rows],
            seed_N[rows],
            noise_seed_N[rows],
            sigmas[0].item(),
            r.guidance.scale != 1,
            r.shared_noise,
        )
        part = plan.for_samples(slice(first + rows.start, first + rows.stop))
        parts.append(rollout(policy, start, sigmas, part, r.kernel, r.guidance))
    return Trajectory.cat(parts)


# ------------------------------------------------------------------------------------------------- update


def update(learner: Learner, batch: Batch) -> dict[str, Any]:
    """``loop.updates`` optimiser steps over disjoint shares of the samples; the first is exactly on-policy."""
    config, accelerator, iteration = learner.config, learner.accelerator, learner.progress.iteration
    rng = np.random.default_rng([config.seed, iteration, 1])
    shares = np.array_split(rng.permutation(len(batch.trajectory)), config.loop.updates)
    every, stats = config.loop.signal_every, UpdateStats(config.rollout.steps, accelerator.device)
    measure = every > 0 and accelerator.num_processes == 1 and (iteration - 1) % every == 0
    norms, cosine, lr = [], None, learning_rate(config, learner.progress.optimiser_steps)
    for number, rows in enumerate(shares):
        signal = GradientSignal(learner.policy) if measure and number == 0 else None
        accumulate(learner, batch, torch.from_numpy(rows), stats, signal)
        stats.first = False
        cosine = cosine if signal is None else signal.cosine()
        norms.append(step(learner))
    return {
        **stats.summary(accelerator, config.kl.beta > 0),
        "gradient_cosine": cosine,
        "grad_norm": float(np.mean(norms)),
        "learning_rate": lr,
    }


class UpdateStats:
    """Sums over decisions, kept on the device; reduced over processes once an iteration."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)  # decisions, loss, KL, ratio
        self.clipped_2T = torch.zeros(2, steps, dtype=torch.float64, device=device)  # decisions, clipped ones
        self.deviation_2 = torch.zeros(2, dtype=torch.float64, device=device)  # at the first update, at all
        self.first = True
        """Whether the first update is being accumulated: it is on-policy, so nothing can be clipped."""

    @torch.no_grad()
    def add(self, step_M: Tensor, found: PolicyGradientStats, loss: Tensor, kl_M: Tensor | None) -> None:
        m, kl = len(step_M), loss.new_zeros(()) if kl_M is None else kl_M.sum()
        self.sums += torch.stack([loss.new_tensor(m), loss * m, kl, found.ratio_M.sum()]).double()
        deviation = (found.ratio_M - 1).abs().max().double()
        self.deviation_2[1] = torch.maximum(self.deviation_2[1], deviation)
        if self.first:
            self.deviation_2[0] = torch.maximum(self.deviation_2[0], deviation)
            return
        both = torch.stack([torch.ones_like(found.ratio_M), found.clipped_M.float()]).double()
        self.clipped_2T.index_add_(1, step_M, both)

    def summary(self, accelerator: Accelerator, with_kl: bool) -> dict[str, Any]:
        """Means over all processes' decisions; clip shares are of the updates after the first, null without one."""
        decisions, loss, kl, ratio = accelerator.reduce(self.sums, "sum").tolist()
        clipped_2T = accelerator.reduce(self.clipped_2T, "sum")
        deviations = accelerator.gather(self.deviation_2[None]).amax(0).tolist()
        count_T, hit_T = clipped_2T.tolist()
        count = sum(count_T)
        return {
            "loss": loss / decisions,
            "kl": kl / decisions if with_kl else None,
            "ratio_deviation": deviations[0],
            "ratio_max_deviation": deviations[1],
            "ratio_mean": ratio / decisions,
            "clip_fraction": sum(hit_T) / count if count else None,
            "clip_fraction_per_step": {str(t): hit_T[t] / n for t, n in enumerate(count_T) if n},
        }


def accumulate(
    learner: Learner, batch: Batch, row_N: Tensor, stats: UpdateStats, signal: "GradientSignal | None"
) -> None:
    """Adds the gradient of one optimiser step: all decisions of the samples ``row_N``, in micro-batches."""
    config, accelerator, trajectory = learner.config, learner.accelerator, batch.trajectory
    k, size = trajectory.step_NK.shape[1], config.loop.micro_batch
    row_N = row_N[trajectory.group_N[row_N].argsort(stable=True)]  # so that shared states meet in one micro-batch
    second_N = torch.zeros(len(row_N), dtype=torch.bool)
    if signal is not None:
        second_N = split_by_prompt(trajectory, row_N, [config.seed, learner.progress.iteration, 2])
    half_M = int((~second_N).sum()) * k if signal is not None else 0
    row_N = torch.cat([row_N[~second_N], row_N[second_N]])
    row_M, column_M = row_N.repeat_interleave(k), torch.arange(k).repeat(len(row_N))
    bounds = sorted({*range(0, half_M, size), *range(half_M, len(row_M), size)})
    for start, stop in zip(bounds, [*bounds[1:], len(row_M)], strict=True):
        decisions = trajectory.decisions(row_M[start:stop], column_M[start:stop])
        advantage_M = batch.advantage_N[row_M[start:stop]].to(decisions.std_M.device)
        with nullcontext() if stop == len(row_M) else accelerator.no_sync(learner.policy.network):
            loss = decision_loss(learner, decisions, advantage_M, trajectory, stats)
            accelerator.backward(loss * (loss_scale(learner) * (stop - start) / len(row_M)))
        if signal is not None and stop == half_M:
            signal.first_half()


def loss_scale(learner: Learner) -> float:
    """A power of two that keeps float16 gradients at the network's output from underflowing; 1 in other precisions.

    Per latent element they are about A / (D · decisions), 1e-9 for SD3.5, where float16 ends at 6e-8.
    """
    if learner.config.policy.dtype != "float16":
        return 1.0
    r, n_dims = learner.config.rollout, math.prod(learner.policy.family.latent_shape())
    return 2.0 ** math.ceil(math.log2(n_dims * r.prompts * r.group))


def split_by_prompt(trajectory: Trajectory, row_N: Tensor, key: list[int]) -> Tensor:
    """bool [N]: which samples belong to the second half of the prompts, drawn at random; equal texts stay together."""
    texts = [trajectory.prompts[i] for i in row_N.tolist()]
    distinct = sorted(set(texts))
    order = np.random.default_rng(key).permutation(len(distinct))
    second = {distinct[i] for i in order[len(distinct) // 2 :]} if len(distinct) > 1 else set()
    return torch.tensor([text in second for text in texts])


def decision_loss(
    learner: Learner, decisions: Decisions, advantage_M: Tensor, trajectory: Trajectory, stats: UpdateStats
) -> Tensor:
    """The objective and the regulariser of M decisions, their mean; their statistics go into ``stats``."""
    config, policy = learner.config, learner.policy
    scored = replay(policy, decisions)
    weight_M = torch.ones_like(decisions.std_M)
    if config.objective.weighting == "noise":
        weight_M = decisions.std_M / trajectory.std_NK.mean()
    loss, found = ppo_clip(
        scored.logp_M, decisions.logp_old_M, trajectory.n_dims, advantage_M, weight_M, config.objective
    )
    kl_M = None
    if config.kl.beta > 0:
        with torch.no_grad(), policy.reference():
            reference = replay(policy, decisions)
        kl_M = transition_kl(config.kl, scored.transition, scored.velocity, reference.transition, reference.velocity)
        loss = loss + config.kl.beta * kl_M.mean()
    stats.add(decisions.step_M, found, loss.detach(), kl_M)
    return loss


def learning_rate(config: RunConfig, optimiser_step: int) -> float:
    """Linear warm-up over ``optimiser.warmup`` steps, then constant."""
    warmup = config.optimiser.warmup
    return config.optimiser.lr * (min(1.0, (optimiser_step + 1) / warmup) if warmup else 1.0)


def step(learner: Learner) -> float:
    """Clips the gradient, steps, averages; the gradient's norm before clipping. RunError when it is not finite."""
    config, parameters = learner.config, learner.policy.trainable()
    for parameter in parameters.values():
        if parameter.grad is not None:
            parameter.grad /= loss_scale(learner)
    norm = learner.accelerator.clip_grad_norm_(parameters.values(), config.optimiser.max_grad_norm)
    norm = float(norm.item() if isinstance(norm, Tensor) else norm)
    if not math.isfinite(norm):
        raise RunError(
            f"the gradient of iteration {learner.progress.iteration} is not finite; lower optimiser.lr or raise "
            "rollout.kernel.min_std in the run's config.yaml, then go on from the last checkpoint with --resume"
        )
    for group in learner.optimiser.param_groups:
        group["lr"] = learning_rate(config, learner.progress.optimiser_steps)
    learner.optimiser.step()
    learner.optimiser.zero_grad()
    learner.progress.optimiser_steps += 1
    learner.ema.update(parameters, learner.progress.optimiser_steps)
    return norm


class GradientSignal:
    """The cosine between the gradients of two halves of an update that share no prompt: how much of it is signal.

    Around 0 the update is noise whatever the learning rate; use more samples, fewer steps or a denser reward.
    """

    def __init__(self, policy: Policy) -> None:
        self.parameters = list(policy.trainable().values())
        self.first: Tensor | None = None

    def _gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])

    def first_half(self) -> None:
        self.first = self._gradient().clone()

    def cosine(self) -> float | None:
        """None when one half is empty or has no gradient."""
        if self.first is None:
            return None
        second = self._gradient() - self.first
        norms = self.first.norm() * second.norm()
        return (self.first @ second / norms).item() if norms > 0 else None


# ------------------------------------------------------------------------------------------------- state


def state_of(learner: Learner) -> dict[str, Any]:
    """What a checkpoint holds besides the progress."""
    return {
        "parameters": {name: p.detach().cpu() for name, p in learner.policy.trainable().items()},
        "optimiser": learner.optimiser.state_dict(),
        "ema": {"updates": learner.ema.updates, "shadow": {n: v.cpu() for n, v in learner.ema.shadow.items()}},
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
    learner.progress = progress


def timed(action: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    return action(), time.perf_counter() - started
