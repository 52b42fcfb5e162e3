"""Draws the samples of an iteration, on-policy.

Every random choice is a function of (seed, iteration, prompt, member), so a sample does not depend on how the work is
sharded.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from beholder.objectives.policy_gradient import NEEDS_MEANS
from beholder.rollouts.engine import Start, rollout
from beholder.rollouts.kernels import trainable_steps
from beholder.rollouts.plans import compress_tail, draw_plan, ode_plan
from beholder.rollouts.trajectory import Trajectory
from beholder.training.learner import Learner


def sample_seeds(seed: int, iteration: int, group_N: Tensor, member_N: Tensor) -> Tensor:
    """One seed per sample, distinct over iterations, prompts and members; below 2^62."""
    base = (seed * 1_000_003 + iteration) % 2**30
    return (base * 2**16 + group_N) * 2**16 + member_N


def prompt_indices(learner: Learner, number: int) -> list[int]:
    """The prompts of drawing ``number`` of this iteration, of all processes."""
    config = learner.config
    key = [config.seed, learner.progress.iteration, *([number] if number else [])]
    return learner.prompts.draw(config.rollout.prompts, key)


def draw(learner: Learner, number: int, groups: list[int]) -> Trajectory:
    """The samples of the prompts ``groups`` of drawing ``number``, in batches of ``rollout.batch`` under one plan."""
    config, policy = learner.config, learner.policy
    r, iteration = config.rollout, learner.progress.iteration
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + iteration + number * 2**40) % 2**63)
    sigmas = policy.schedule(r.steps)
    trainable, skipped = trainable_steps(r.kernel, sigmas), steps_skipped(learner)
    trainable[:skipped] = False
    if r.forward.times:
        plan = ode_plan(r, r.prompts)
    else:
        plan = draw_plan(r, trainable, r.prompts, iteration - 1, generator)
        sigmas, plan = compress_tail(sigmas, plan, r.tail)
    sigmas, plan = sigmas[skipped:], plan.without(skipped)
    each = len(plan) // r.prompts
    group_N = torch.tensor(groups).repeat_interleave(each)
    member_N = torch.arange(each).repeat(len(groups))
    plan = plan.select(group_N * each + member_N)
    plan = replace(plan, start_N=plan.start_N + number * r.prompts * r.group)
    group_N = group_N + number * r.prompts
    seed_N = sample_seeds(config.seed, iteration, group_N, member_N)
    prompt_seed_N = sample_seeds(config.seed, iteration, group_N, torch.zeros_like(member_N))
    starts_N = sample_seeds(config.seed, iteration, group_N, plan.start_N % r.group)
    origin_N = prompt_seed_N if r.shared_noise else starts_N
    # What is compared with its siblings is drawn with them: one start, or where they share their noise one prompt.
    leaves = each if r.shared_noise and config.credit.peers == "siblings" else each // r.group
    size, parts = max(leaves, r.batch // leaves * leaves), []
    for i in range(0, len(group_N), size):
        rows = slice(i, min(i + size, len(group_N)))
        start = _start(learner, number, group_N[rows], seed_N[rows], origin_N[rows], sigmas[0].item(), skipped)
        keep = config.objective.kind in NEEDS_MEANS or config.loop.max_kl is not None
        part = plan.select(torch.arange(rows.start, rows.stop))
        dense = config.credit.dense != "none"
        states = dense and any(reward.noisy is not None for reward in learner.rewards)
        with learner.drawing():
            parts.append(rollout(policy, start, sigmas, part, r, keep, dense, states))
    return replace(Trajectory.cat(parts), first_step=skipped)


def starts(learner: Learner, groups: list[int]) -> tuple[Tensor, Iterator[Start]]:
    """The schedule and, in batches, the starts of this process's samples, for samplers without a step plan."""
    config, r = learner.config, learner.config.rollout
    skipped = steps_skipped(learner)
    sigmas = learner.policy.schedule(r.steps)[skipped:]
    group_N = torch.tensor(groups).repeat_interleave(r.group)
    member_N = torch.arange(r.group).repeat(len(groups))
    seed_N = sample_seeds(config.seed, learner.progress.iteration, group_N, member_N)
    first_N = sample_seeds(config.seed, learner.progress.iteration, group_N, torch.zeros_like(member_N))
    origin_N = first_N if r.shared_noise else seed_N
    parts = (slice(i, i + r.batch) for i in range(0, len(group_N), r.batch))
    sigma = sigmas[0].item()
    return sigmas, (_start(learner, 0, group_N[p], seed_N[p], origin_N[p], sigma, skipped) for p in parts)


def _start(
    learner: Learner, number: int, group_N: Tensor, seed_N: Tensor, origin_N: Tensor, sigma: float, skipped: int
) -> Start:
    """Noise, or where ``skipped`` steps are left out noised real images of the prompts."""
    index_P, first, clean = prompt_indices(learner, number), number * learner.config.rollout.prompts, None
    if skipped:
        chosen = zip(group_N.tolist(), origin_N.tolist(), strict=True)
        clean = learner.policy.encode_images([real_image(learner, index_P[g - first], o) for g, o in chosen])
    texts = [learner.prompts.texts[index_P[g - first]] for g in group_N.tolist()]
    guided = learner.config.rollout.guidance.scale != 1
    return learner.policy.start(texts, group_N, seed_N, origin_N, sigma, guided, clean)


def steps_skipped(learner: Learner) -> int:
    """How many steps this iteration leaves out because it starts from noised real images; the same everywhere."""
    config, reset = learner.config, learner.config.rollout.reset
    chance = np.random.default_rng([config.seed, learner.progress.iteration, 3]).random()
    return reset.step if chance < reset.share else 0


def real_image(learner: Learner, index: int, seed: int) -> Tensor:
    assert learner.prompts.image is not None
    return learner.prompts.image(index, seed)
