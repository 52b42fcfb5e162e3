"""Optimiser steps on a scored rollout: the second half of an iteration.

Rollouts and updates call the same network in the same precision, so ρ = 1 at the first update of each rollout; the
deviation is measured and logged every time.
"""

import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beholder.config import RunConfig
from beholder.errors import RunError
from beholder.objectives.evidence import BatchStatistics, Evidence, ForwardTerms, ratio_clip
from beholder.objectives.policy_gradient import (
    NEEDS_MEANS,
    PolicyGradientStats,
    needs_batch_statistics,
    policy_gradient,
    scope,
)
from beholder.objectives.preference import gains, output_products, safeguard_factor
from beholder.objectives.regularisers import adapted, transition_kl
from beholder.rollouts.engine import Replay, replay
from beholder.rollouts.kernels import sum_dims
from beholder.rollouts.trajectory import Decisions, Trajectory
from beholder.training.learner import Batch, Learner, compares_with_reference, loss_weights, needs_reference
from beholder.training.pathwise import live_loss
from beholder.training.trust_region import TrustRegion
from beholder.training.update_stats import GradientSignal, UpdateStats


def update(learner: Learner, batch: Batch) -> dict[str, Any]:
    """``loop.epochs`` passes of ``loop.updates`` optimiser steps over disjoint shares; the first is on-policy."""
    config, accelerator, iteration = learner.config, learner.accelerator, learner.progress.iteration
    every, trajectory = config.loop.signal_every, batch.trajectory
    stats = UpdateStats(trajectory.decision_NT.shape[1], accelerator.device, trajectory.first_step)
    measure = every > 0 and accelerator.num_processes == 1 and (iteration - 1) % every == 0
    norms, cosine, lr = [], None, learning_rate(config, learner.progress.optimiser_steps)
    region = None if config.loop.max_kl is None else TrustRegion(learner, batch)
    for epoch in range(config.loop.epochs):
        for number, decision_M in enumerate(shares(learner, batch, epoch)):
            first = epoch == 0 and number == 0
            signal = GradientSignal(learner.policy) if measure and first else None
            accumulate(learner, batch, decision_M, stats, signal)
            stats.first = False
            cosine = cosine if signal is None else signal.cosine()
            norms.append(step(learner, average=region is None))
        if region is not None and region.left():
            break
    with_kl = config.kl.beta > 0 and config.kl.place == "loss"
    summary = stats.summary(accelerator, with_kl, compares_with_reference(config))
    measured = summary["kl"] if config.kl.place == "loss" else batch.stats.get("kl_of_rollout")
    summary |= {"kl": measured, "kl_beta": learner.beta} if config.kl.target is not None else {"kl": measured}
    if measured is not None:
        learner.beta = adapted(learner.beta, measured, config.kl)
    return {
        **summary,
        **trust_region(learner, trajectory),
        **({} if region is None else enforced(learner, region, len(norms))),
        "gradient_cosine": cosine,
        "grad_norm": float(np.mean(norms)),
        "learning_rate": lr,
    }


def trust_region(learner: Learner, trajectory: Trajectory) -> dict[str, list[float] | None]:
    """The clip's ``[low, high]`` per latent dimension and of the joint log-ratio in nats; None where none is clipped.

    GRPO-Guard's depends on the transition: the narrowest, that of the largest standard deviation.
    """
    o, std = learner.config.objective, 1.0
    if o.kind == "guard":
        std = learner.everyone(trajectory.decisions.std_M.max().cpu()[None]).max().item()
    clip = ratio_clip(o, trajectory.n_dims, std)
    joint = None if clip is None else [side * trajectory.n_dims for side in clip]
    return {"clip_per_dimension": None if clip is None else list(clip), "clip_joint": joint}


def enforced(learner: Learner, region: TrustRegion, steps: int) -> dict[str, Any]:
    """The update of ``steps`` scaled back into the trust region; only what is left of it enters the running average."""
    said = region.enforce()
    learner.ema.update(learner.policy.trainable(), learner.progress.optimiser_steps, steps)
    return said


def units(learner: Learner, trajectory: Trajectory) -> Tensor:
    """int64 ``[M]``: decisions that stay in one update: those of one start, or of one prompt where they interact."""
    sample_M = trajectory.decisions.sample_M.cpu()
    together = scope(learner.config.objective) == "group"
    return trajectory.group_N[sample_M] if together else trajectory.start_N[sample_M]


def shares(learner: Learner, batch: Batch, epoch: int) -> list[Tensor]:
    """The decisions of each optimiser step: random shares of the units, each by trained step where asked.

    A share may be empty on one of several processes, where everything is left out.
    """
    config, trajectory = learner.config, batch.trajectory
    rng = np.random.default_rng([config.seed, learner.progress.iteration, 1, *([epoch] if epoch else [])])
    order = np.random.default_rng([config.seed, learner.progress.iteration, 4, epoch])  # of steps: alike everywhere
    unit_M = units(learner, trajectory)
    distinct = unit_M.unique()
    kept_M = ~batch.advantage_MR.isnan().all(1)
    if scope(config.objective) == "group":  # pairs and lists leave out single samples themselves
        kept_M = torch.isin(unit_M, unit_M[kept_M])
    step_M = trajectory.decisions.step_M.cpu()
    found = []
    for part in np.array_split(rng.permutation(len(distinct)), config.loop.updates):
        inside_M = torch.isin(unit_M, distinct[torch.from_numpy(part)])
        everything = (inside_M & kept_M).nonzero().flatten()
        if config.loop.order == "samples":
            found.append(everything)
            continue
        steps = learner.everyone(step_M[everything].unique()).unique()  # every process makes every optimiser step
        for i in order.permutation(len(steps)).tolist():
            found.append(everything[step_M[everything] == steps[i]])
    return found


def accumulate(
    learner: Learner, batch: Batch, decision_M: Tensor, stats: UpdateStats, signal: GradientSignal | None
) -> None:
    """Adds the gradient of one optimiser step: the decisions ``decision_M``, in micro-batches."""
    config, accelerator, trajectory = learner.config, learner.accelerator, batch.trajectory
    count = learner.everyone_sum(len(decision_M)) / accelerator.num_processes  # gradients are averaged over processes
    if len(decision_M) == 0:  # no gradient of one's own, but the others' are waited for
        if needs_batch_statistics(config.objective):
            batch_statistics(learner, batch, [])
        anything = select(trajectory, torch.zeros(1, dtype=torch.int64))
        accelerator.backward(0.0 * replay(learner.policy, trajectory, anything).logp_M.sum())
        return
    unit_M = units(learner, trajectory)[decision_M]
    sample_M = trajectory.decisions.sample_M.cpu()[decision_M]
    second_M = torch.zeros(len(decision_M), dtype=torch.bool)
    if signal is not None:
        second_M = split_by_prompt(trajectory, sample_M, [config.seed, learner.progress.iteration, 2])
    # Units whole, prompts together (shared states meet in one micro-batch), the two halves apart.
    order = np.lexsort((sample_M, unit_M, trajectory.group_N[sample_M], second_M))
    decision_M, unit_M, half = decision_M[order], unit_M[order], int((~second_M).sum()) if signal is not None else 0
    together = scope(config.objective) != "decision"
    bounds = micro_batches(unit_M, config.loop.micro_batch, half, together)
    parts = [decision_M[start:stop] for start, stop in zip(bounds, [*bounds[1:], len(decision_M)], strict=True)]
    measured = batch_statistics(learner, batch, parts) if needs_batch_statistics(config.objective) else None
    for number, (start, index) in enumerate(zip(bounds, parts, strict=True), 1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(learner.policy.network):
            loss = decision_loss(learner, batch, index, stats, measured)
            accelerator.backward(loss * (loss_scale(learner) * len(index) / count))
        if signal is not None and start + len(index) == half:
            signal.first_half()


@torch.no_grad()
def batch_statistics(learner: Learner, batch: Batch, parts: list[Tensor]) -> BatchStatistics:
    """What some objectives must know of the whole update before its first gradient, over all processes."""
    config, sums = learner.config, torch.zeros(6, dtype=torch.float64)
    for index in parts:
        decisions = select(batch.trajectory, index)
        evidence = evidence_of(config, batch.trajectory, decisions, *replayed(learner, batch.trajectory, decisions))
        value_M = batch.advantage_MR[index, 0].to(evidence.log_ratio_M.device)
        rho_M = evidence.log_ratio_M / evidence.n_dims
        desired, undesired = value_M > 0, value_M < 0
        products = (0.0, 0.0)
        if config.objective.preference.safeguard is not None:
            products = output_products(evidence, value_M)
        sums += torch.tensor(
            [desired.sum(), rho_M[desired].sum(), undesired.sum(), rho_M[undesired].sum(), *products],
            dtype=torch.float64,
        )
    sums = learner.accelerator.reduce(sums.to(learner.accelerator.device), "sum").cpu()
    n_w, rho_w, n_l, rho_l, squared, product = sums.tolist()
    means = [rho / n for n, rho in ((n_w, rho_w), (n_l, rho_l)) if n]
    mu = config.objective.preference.safeguard
    return BatchStatistics(
        log_ratio=sum(means) / max(1, len(means)),
        log_ratio_all=(rho_w + rho_l) / max(1.0, n_w + n_l),
        safeguard=1.0 if mu is None else safeguard_factor(squared, product, mu),
    )


def select(trajectory: Trajectory, index: Tensor) -> Decisions:
    return trajectory.decisions.select(index.to(trajectory.decisions.step_M.device))


def micro_batches(unit_M: Tensor, size: int, half: int, together: bool) -> list[int]:
    """Where micro-batches begin: every ``size`` decisions, at ``half``, and (``together``) never inside a unit."""
    n = len(unit_M)
    if not together:
        return sorted({0, *range(0, half, size), *range(half, n, size)})
    edges = [*((unit_M[1:] != unit_M[:-1]).nonzero().flatten() + 1).tolist(), n]
    bounds = [0]
    for edge, following in pairwise(edges):
        if following - bounds[-1] > size or edge == half:
            bounds.append(edge)
    return bounds


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


def replayed(learner: Learner, trajectory: Trajectory, decisions: Decisions) -> tuple[Replay, Replay | None]:
    """The decisions under the present policy, with gradient, and under the reference where something asks for it."""
    config, reference = learner.config, None
    if compares_with_reference(config) or (needs_reference(config) and config.kl.place == "loss"):
        with torch.no_grad(), learner.reference():  # before the policy's graph: weights may be exchanged in place
            reference = replay(learner.policy, trajectory, decisions)
    return replay(learner.policy, trajectory, decisions), reference


def decision_loss(
    learner: Learner, batch: Batch, index_M: Tensor, stats: UpdateStats, measured: BatchStatistics | None
) -> Tensor:
    """The objective and the regulariser of M decisions, their mean; their statistics go into ``stats``."""
    config, trajectory = learner.config, batch.trajectory
    decisions = select(trajectory, index_M)
    if config.objective.kind == "pathwise" and config.rollout.pathwise.inputs == "live":
        loss = live_loss(learner, trajectory, decisions)
        nothing_M = torch.zeros_like(decisions.std_M)
        stats.add(decisions.step_M, PolicyGradientStats(nothing_M / 0, nothing_M > 0), loss.detach(), None)
        return loss
    scored, reference = replayed(learner, trajectory, decisions)
    evidence = replace(evidence_of(config, trajectory, decisions, scored, reference), batch=measured)
    advantage_MR = batch.advantage_MR[index_M].to(decisions.std_M.device)
    losses = [policy_gradient(evidence, column, config.objective) for column in advantage_MR.unbind(1)]
    weights = loss_weights(config, batch.table)
    loss = torch.stack([w * part for w, (part, _) in zip(weights, losses, strict=True)]).sum()
    kl_M = None
    if reference is not None and config.kl.beta > 0 and config.kl.place == "loss":
        kl_M = transition_kl(config.kl, scored, reference)
        gate_M = batch.gate_N.to(kl_M.device)[decisions.sample_M]
        loss = loss + learner.beta * (gate_M * kl_M).mean()
    ratio_M = (scored.logp_M.detach() - decisions.logp_old_M).div(trajectory.n_dims).exp()
    clipped_M = torch.stack([found.clipped_M for _, found in losses]).any(0)
    stats.add(decisions.step_M, PolicyGradientStats(ratio_M, clipped_M), loss.detach(), kl_M)
    if compares_with_reference(config):
        stats.add_gains(gains(evidence, advantage_MR[:, 0]))
    return loss


def evidence_of(
    config: RunConfig, trajectory: Trajectory, decisions: Decisions, scored: Replay, reference: Replay | None
) -> Evidence:
    """What the objective sees of M decisions under the present policy."""
    d, o = decisions, config.objective
    log_ratio_M = scored.logp_M
    if compares_with_reference(config):
        assert reference is not None
        log_ratio_M = scored.logp_M - reference.logp_M
    elif o.anchor == "old":
        log_ratio_M = scored.logp_M - d.logp_old_M
    weight_M = torch.ones_like(d.std_M)
    if o.weighting == "noise":
        weight_M = d.std_M / trajectory.decisions.std_M.mean()
    elif o.weighting == "inverse_dt":
        weight_M = 1 / (d.sigma_next_M - d.sigma_M).abs()
    record_M = None if trajectory.weight_N is None else trajectory.weight_N.to(weight_M)[d.sample_M]
    weight_M = weight_M if record_M is None else weight_M * record_M
    gap_M, forward = None, None
    if scored.transition is None:
        other = None if reference is None else reference.velocity
        forward = ForwardTerms(scored.velocity, d.mean_old_Mx, other, d.next_Mx, d.sigma_M)
    elif o.kind in NEEDS_MEANS:
        gap_M = sum_dims((scored.transition.mean - d.mean_old_Mx).square())
    return Evidence(
        log_ratio_M=log_ratio_M,
        logp_M=scored.logp_M,
        weight_M=weight_M,
        n_dims=trajectory.n_dims,
        std_M=d.std_M,
        gap_M=gap_M,
        step_M=d.step_M,
        sample_M=d.sample_M,
        group_M=trajectory.group_N.to(d.sample_M.device)[d.sample_M],
        forward=forward,
        record_M=record_M,
    )


def learning_rate(config: RunConfig, optimiser_step: int) -> float:
    """Linear warm-up over ``optimiser.warmup`` steps, then constant."""
    warmup = config.optimiser.warmup
    return config.optimiser.lr * (min(1.0, (optimiser_step + 1) / warmup) if warmup else 1.0)


def step(learner: Learner, average: bool = True) -> float:
    """Clips the gradient, steps, averages (unless told not to); the gradient's norm before clipping.

    RunError when it is not finite.
    """
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
    if average:
        learner.ema.update(parameters, learner.progress.optimiser_steps)
    return norm
