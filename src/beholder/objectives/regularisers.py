"""Distances between the policy's transition and the reference's, mean over dimensions, ``[M]``, with gradient.

The conventions of the field are not interchangeable: at Flow-GRPO's step sizes they differ by 4 to 112 times.
"""

import math

import torch
from torch import Tensor

from beholder.config import KLConfig
from beholder.rollouts.engine import Replay
from beholder.rollouts.kernels import sum_dims


def transition_kl(config: KLConfig, policy: Replay, reference: Replay) -> Tensor:
    """KL(policy ‖ reference) per dimension under the convention ``config.form``.

    exact: Σ(μ-μ_ref)² / (2c²D), the KL of the two Gaussians. no_dt: over 2s² instead, the exact one times |dt|
    (Flow-GRPO's released code). mean: Σ(μ-μ_ref)²/D. velocity: Σ(v-v_ref)²/D (DiffusionNFT, AWM). k2 and k3 are
    estimates from d = (ψ_ref - ψ)/D at the taken decision: d²/2 and e^d - d - 1 (Schulman's names).
    """
    n_dims = policy.velocity[0].numel()
    if config.form in ("k2", "k3"):
        d = (reference.logp_M - policy.logp_M) / n_dims
        return 0.5 * d.square() if config.form == "k2" else d.expm1() - d
    if config.form == "velocity":
        return sum_dims((policy.velocity - reference.velocity).square()) / n_dims
    move, other = policy.transition, reference.transition
    if move is None or other is None:
        raise ValueError(f"kl.form: {config.form!r} needs transitions; forward evidence has velocities only")
    if config.form == "exact":
        return move.kl_sum(other) / n_dims
    gap = sum_dims((move.mean - other.mean).square()) / n_dims
    return gap if config.form == "mean" else gap / (2 * move.diffusion.square())


def adapted(beta: float, measured: float, config: KLConfig) -> float:
    """β (1 + clip(KL/target - 1, ±0.2) / horizon): the proportional controller of 1909.08593, once an iteration."""
    if config.target is None or not math.isfinite(measured):
        return beta
    error = max(-0.2, min(0.2, measured / config.target - 1))
    return beta * (1 + error / config.horizon)


def gate(reward_NR: Tensor, share: float) -> Tensor:
    """float ``[N]``: 1 for the ``share`` of samples whose first reward the others least agree with, else 0.

    GARDO (2512.24138): disagreement is the rank of the first reward minus the mean rank of the other rewards; only
    samples that the trained reward likes more than the others do are held to the reference. NaN ranks lowest.
    """
    n, rewards = reward_NR.shape
    if share >= 1 or rewards < 2:
        return torch.ones(n)
    rank_NR = reward_NR.nan_to_num(-torch.inf).argsort(dim=0, stable=True).argsort(dim=0).double()
    disagreement = rank_NR[:, 0] - rank_NR[:, 1:].mean(1)
    chosen = disagreement.argsort(dim=0, descending=True, stable=True)[: math.ceil(share * n)]
    return torch.zeros(n).index_fill(0, chosen, 1.0)
