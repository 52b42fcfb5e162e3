"""Distances between the policy's transition and the reference's, mean over dimensions, ``[N]``, with gradient.

The conventions of the field are not interchangeable: at Flow-GRPO's step sizes they differ by 4 to 112 times.
"""

from torch import Tensor

from beholder.config import KLConfig
from beholder.rollouts.kernels import Transition, sum_dims


def transition_kl(
    config: KLConfig, move: Transition, velocity: Tensor, reference: Transition, reference_velocity: Tensor
) -> Tensor:
    """KL(policy ‖ reference) per dimension under the convention ``config.form``.

    exact: Σ(μ-μ_ref)² / (2c²D), the KL of the two Gaussians. no_dt: over 2s² instead, the exact one times |dt|
    (Flow-GRPO's released code). mean: Σ(μ-μ_ref)²/D. velocity: Σ(v-v_ref)²/D (DiffusionNFT, AWM).
    """
    n_dims = move.mean[0].numel()
    if config.form == "velocity":
        return sum_dims((velocity - reference_velocity).square()) / n_dims
    if config.form == "exact":
        return move.kl_sum(reference) / n_dims
    gap = sum_dims((move.mean - reference.mean).square()) / n_dims
    return gap if config.form == "mean" else gap / (2 * move.diffusion.square())
