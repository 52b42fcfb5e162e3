"""Rows that follow the reward's own gradient: the first half of their iteration, and the loss of live steps."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from beholder.config import RunConfig
from beholder.errors import InputError
from beholder.policies import Policy
from beholder.rewards import Reward, RewardTable, score
from beholder.rewards.reward import answered, frames_needed
from beholder.rollouts.engine import Start, noise_for
from beholder.rollouts.pathwise import Path, direction, directions, follow, live_clean, taught_steps
from beholder.rollouts.trajectory import Decisions, Trajectory
from beholder.training.draw import starts
from beholder.training.learner import Batch, Learner
from beholder.training.read import real_samples, renoised

RENOISED_STREAM = 1 << 21


def follow_rewards(learner: Learner, groups: list[int]) -> Batch:
    """Samples of this process's prompts, their rewards, and what each step's velocity must do to raise them."""
    config, r = learner.config, learner.config.rollout
    sigmas, found = starts(learner, groups)
    steps = _steps(learner, len(sigmas) - 1)
    parts = [_followed(learner, start, sigmas, steps) for start in found]
    trajectory = Trajectory.cat([trajectory for trajectory, _ in parts])
    table = RewardTable(torch.cat([t.values_NM for _, t in parts]), parts[0][1].names)
    values = learner.everyone(table.values_NM)
    everything = RewardTable(values, table.names)
    reward_E = everything.weighted(config.rewards)
    advantage_N = torch.where(reward_E[learner.mine(len(table.values_NM))].isnan(), torch.nan, 1.0)
    advantage_M = advantage_N[trajectory.decisions.sample_M.cpu()]
    gate_N = torch.ones(len(trajectory))
    if r.real.images:
        real = _towards_real(learner, groups)
        share = len(trajectory.decisions) / len(real.decisions)  # so that the value weighs one mean against the other
        advantage_M = torch.cat([advantage_M, torch.full((len(real.decisions),), r.real.value * share)])
        trajectory, gate_N = Trajectory.cat([trajectory, real]), torch.ones(len(gate_N) + len(real))
    stats = {
        "reward_std": reward_E[~reward_E.isnan()].std(correction=0).item(),
        "failed_rewards": int(everything.failed_N.sum()),
        "groups_without_variance": None,
    }
    return Batch(trajectory, advantage_M[:, None], everything, gate_N, stats)


def check_frames(config: RunConfig, policy: Policy) -> None:
    """InputError where `rollout.pathwise.frames` asks for frames that the policy does not draw."""
    asked, drawn = config.rollout.pathwise.frames, policy.family.frames
    if asked is None or (drawn is not None and asked <= drawn):
        return
    name = "rollout.pathwise.frames"
    if drawn is None:
        raise InputError(f"{name}: {policy.family.pipeline_class} draws images, which have no frames; leave it out")
    raise InputError(f"{name}: {asked} of the {drawn} frames that are drawn; use at most {drawn}")


def frames_scored(learner: Learner, seed_N: Tensor) -> Tensor | None:
    """int64 ``[N, K]``: the frames of each sample that are decoded and scored, ascending; drawn by its seed where
    `rollout.pathwise.frames` says how many, else those the rewards see. None: all, or images."""
    count, drawn = learner.config.rollout.pathwise.frames, learner.policy.family.frames
    if count is None or drawn is None:
        frames, _ = frames_needed(learner.rewards)
        return None if frames is None else torch.tensor(frames).expand(len(seed_N), -1)
    rngs = [np.random.default_rng([seed, 7]) for seed in seed_N.tolist()]
    return torch.from_numpy(np.sort(np.stack([rng.choice(drawn, count, replace=False) for rng in rngs]), 1))


def _rewards(learner: Learner) -> list[Reward]:
    """The rewards as they see what `frames_scored` leaves of a video."""
    if learner.config.rollout.pathwise.frames is None:
        return frames_needed(learner.rewards)[1]
    return [replace(reward, frames=None) for reward in learner.rewards]


def _steps(learner: Learner, steps: int) -> list[int]:
    """Which steps learn, the last of them the one that predicts the image; the same in all processes."""
    p = learner.config.rollout.pathwise
    rng = np.random.default_rng([learner.config.seed, learner.progress.iteration, 6])
    if p.inputs == "live":
        count = int(rng.integers(1, p.steps + 1)) if p.random else p.steps
        return list(range(max(0, steps - count), steps))
    stop = int(rng.integers(min(int(p.first * steps), steps - 1), steps))
    return taught_steps(stop, p.steps)


def _followed(learner: Learner, start: Start, sigmas: Tensor, steps: list[int]) -> tuple[Trajectory, RewardTable]:
    r = learner.config.rollout
    path = follow(learner.policy, start, sigmas, steps, r.guidance)
    stop, cost = steps[-1], len(start.prompts) * (steps[-1] + 1)
    frame_NK = frames_scored(learner, start.seed_N)
    if r.pathwise.inputs == "live":
        table = _judged(learner, path.clean_Nx, start.prompts, frame_NK)
        decisions = direction(path.states[0], sigmas[steps[0]].item(), path.clean_Nx[:, :0], steps[0], 0)
        decision_NS = torch.arange(len(start.prompts), device=path.clean_Nx.device)[:, None]
        return _trajectory(learner, start, path, decisions, decision_NS, cost), table
    table, gradient_Nx = reward_gradient(learner, path.clean_Nx, start.prompts, frame_NK)
    decisions, decision_NS = directions(path, sigmas, gradient_Nx)
    kept = [decisions]
    for copy in range(r.pathwise.renoised):  # the last step again from the image under other noise (DRaFT-LV)
        sigma = sigmas[stop].item()
        noise = noise_for(start.seed_N, tuple(path.clean_Nx.shape[1:]), RENOISED_STREAM + copy)
        x = (1 - sigma) * path.clean_Nx + sigma * noise.to(path.clean_Nx.device)
        again = follow(learner.policy, replace(start, x_Nx=x), sigmas[stop:], [0], r.guidance)
        _, gradient_Nx = reward_gradient(learner, again.clean_Nx, start.prompts, frame_NK)
        first = int(kept[-1].state_id_M.max()) + 1
        scale = -sigma * (1 + r.pathwise.renoised)
        kept.append(direction(x, sigma, scale * gradient_Nx, stop, first))
        cost += len(start.prompts)
    if r.pathwise.renoised:  # the first step's share of the larger mean
        kept[0] = replace(kept[0], next_Mx=kept[0].next_Mx * (1 + r.pathwise.renoised))
        decision_NS = torch.cat([decision_NS + k * len(start.prompts) for k in range(len(kept))], 1)
    joined = Decisions(**{name: torch.cat([getattr(d, name) for d in kept]) for name in vars(kept[0])})
    return _trajectory(learner, start, path, joined, decision_NS, cost), table


def _trajectory(
    learner: Learner, start: Start, path: Path, decisions: Decisions, decision_NS: Tensor, cost: int
) -> Trajectory:
    r, n = learner.config.rollout, len(start.prompts)
    return Trajectory(
        prompts=start.prompts,
        group_N=start.group_N,
        start_N=torch.arange(n) + int(start.group_N[0]) * 2**16,
        probe_N=torch.full((n,), -1),
        seed_N=start.seed_N,
        decisions=decisions,
        decision_NT=decision_NS,
        final_Nx=path.clean_Nx,
        clean_NTx=path.clean_Nx.new_zeros(n, 0),
        condition=start.condition,
        unconditional=start.unconditional,
        kernel=r.kernel,
        guidance=r.guidance,
        evidence="direction",
        forward=r.forward,
        network_evaluations=cost * (1 if start.unconditional is None else 2),
    )


def _judged(learner: Learner, clean_Nx: Tensor, prompts: list[str], frame_NK: Tensor | None) -> RewardTable:
    with torch.no_grad():
        images = learner.policy.decode(clean_Nx, 0.0, learner.config.rollout.batch, frame_NK)
        return score(images, prompts, _rewards(learner))


def reward_gradient(
    learner: Learner, clean_Nx: Tensor, prompts: list[str], frame_NK: Tensor | None = None
) -> tuple[RewardTable, Tensor]:
    """The rewards of clean latents, and ∂ Σ_r w_r R_r / ∂ x̂0 of each sample; 0 where a reward failed."""
    x = clean_Nx.detach().requires_grad_()
    with torch.enable_grad():
        total_N, table = weighted_rewards(learner, x, prompts, frame_NK)
        (gradient_Nx,) = torch.autograd.grad(total_N.sum(), x)
    return table, gradient_Nx.nan_to_num(0.0)


def weighted_rewards(
    learner: Learner, clean_Nx: Tensor, prompts: list[str], frame_NK: Tensor | None = None
) -> tuple[Tensor, RewardTable]:
    """Σ_r w_r R_r ``[N]`` with gradient, limited by the ceiling, 0 where a reward failed; and the rewards."""
    config, columns = learner.config, []
    images = learner.policy.decode(clean_Nx, 0.0, len(clean_Nx), frame_NK)
    for reward in _rewards(learner):
        values = answered(reward, images, prompts)
        ceiling = config.rollout.pathwise.ceiling
        columns.append((values, values if ceiling is None else values.clamp_max(ceiling)))
    weights = [config.rewards[reward.name] for reward in learner.rewards]
    total_N = sum((w * limited for w, (_, limited) in zip(weights, columns, strict=True)), start=clean_Nx.new_zeros(()))
    assert isinstance(total_N, Tensor)
    values_NM = torch.stack([values.detach().cpu() for values, _ in columns], 1)
    names = tuple(reward.name for reward in learner.rewards)
    return torch.where(total_N.isfinite(), total_N, 0.0), RewardTable(
        torch.where(values_NM.isfinite(), values_NM, torch.nan), names
    )


def live_loss(learner: Learner, trajectory: Trajectory, decisions: Decisions) -> Tensor:
    """Minus the mean reward of samples continued from their stored states with the whole graph."""
    d, r = decisions, learner.config.rollout
    sigmas, rows = learner.policy.schedule(r.steps), d.sample_M
    condition = trajectory.condition.select(rows)
    unconditional = None if trajectory.unconditional is None else trajectory.unconditional.select(rows)
    levels = sigmas[len(sigmas) - 1 - _steps_left(sigmas, d) :]
    clean = live_clean(learner.policy, d.state_Mx, levels, condition, unconditional, trajectory.guidance)
    prompts = [trajectory.prompts[i] for i in rows.tolist()]
    frame_NK = frames_scored(learner, trajectory.seed_N[rows.cpu()])
    return -weighted_rewards(learner, clean, prompts, frame_NK)[0].mean()


def _steps_left(sigmas: Tensor, d: Decisions) -> int:
    """From the states' step (which counts from where this iteration started) by their noise level to the end."""
    first = int((sigmas.float() - d.sigma_M[0].cpu()).abs().argmin())
    return len(sigmas) - 1 - first


def _towards_real(learner: Learner, groups: list[int]) -> Trajectory:
    """Real images as directions of lower denoising error: minus the gradient of mean_D (v - u)²/2 in v."""
    forward = replace(learner.config.rollout.forward, times=max(1, learner.config.rollout.forward.times))
    real = renoised(learner, real_samples(learner, groups), forward, old=True)
    d = real.decisions
    towards = replace(
        d, next_Mx=-(d.mean_old_Mx - d.next_Mx) / real.n_dims, mean_old_Mx=d.state_Mx.new_zeros(len(d), 0)
    )
    return replace(real, decisions=towards, evidence="direction")
