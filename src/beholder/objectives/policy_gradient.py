"""Policy gradients over denoising decisions: each objective is one small function of log-ratios and advantages.

Evidence ψ is a log-density summed over the D latent dimensions. Following DDPO and every flow method since, ratios are
of the mean: ρ = exp((ψ - ψ_anchor) / D). Clip ranges are therefore tiny (1e-4 bounds the joint log-ratio by D·1e-4).

Shapes: ``[M]`` decisions. A NaN advantage (failed reward, or a decision left out) contributes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from beholder.config import ObjectiveConfig

Scope = Literal["decision", "sample", "group"]


@dataclass(frozen=True)
class Evidence:
    """M decisions as an objective sees them."""

    log_ratio_M: Tensor
    """ψ - ψ_anchor in nats, with gradient."""
    weight_M: Tensor
    """Factor on each decision's term."""
    n_dims: int
    std_M: Tensor
    """c of the transition."""
    gap_M: Tensor | None
    """Σ_D (μ - μ_old)², with gradient, for the objectives that ask for it (`NEEDS_MEANS`)."""
    step_M: Tensor
    sample_M: Tensor
    group_M: Tensor
    forward: "ForwardTerms | None" = None
    """What forward evidence was made of, for objectives that ask for it (`NEEDS_FORWARD`)."""


@dataclass(frozen=True)
class ForwardTerms:
    """Velocities at re-noised samples, ``[M, ...]``, and the noise levels ``[M]``."""

    velocity: Tensor
    velocity_old: Tensor
    target: Tensor
    t_M: Tensor


@dataclass(frozen=True)
class PolicyGradientStats:
    ratio_M: Tensor
    clipped_M: Tensor
    """bool: the clip removed this decision's gradient."""


Terms = tuple[Tensor, Tensor]
"""Loss of each decision (or sample, pair, list) whose mean is minimised, and which decisions were clipped."""


def clip_range(config: ObjectiveConfig, n_dims: int) -> tuple[float, float]:
    """(low, high) per dimension; a joint trust region of c nats is c / D per dimension."""
    divisor = n_dims if config.trust_region == "joint" else 1
    return config.clip_low / divisor, config.clip_high / divisor


def policy_gradient(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> tuple[Tensor, PolicyGradientStats]:
    """The loss of ``config.kind`` and what happened to the ratios."""
    terms, clipped_M = OBJECTIVES[config.kind](e, advantage_M, config)
    ratio_M = (e.log_ratio_M.detach() / e.n_dims).exp()
    loss = terms.mean() if len(terms) else 0.0 * e.log_ratio_M.sum()
    return loss, PolicyGradientStats(ratio_M, (clipped_M & ~advantage_M.isnan()).detach())


def _pessimistic(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Terms:
    """max(-A ρ, -A clip(ρ, 1-ε_low, 1+ε_high)); a NaN advantage gives 0."""
    advantage = advantage.nan_to_num(0.0)
    plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)
    return torch.maximum(plain, clipped), clipped > plain


def _ratio(e: Evidence) -> Tensor:
    return (e.log_ratio_M / e.n_dims).exp()


def ppo_clip(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """1707.06347, eq. 7; Flow-GRPO 2505.05470, eq. 5. Unequal ranges: DAPO's clip-higher (2503.14476, eq. 10)."""
    loss_M, clipped_M = _pessimistic(_ratio(e), advantage_M, *clip_range(config, e.n_dims))
    return e.weight_M * loss_M, clipped_M


def reinforce(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """-A ψ / D (DDPO-SF, 2305.13301, eq. 4)."""
    loss_M = -advantage_M.nan_to_num(0.0) * e.log_ratio_M / e.n_dims
    return e.weight_M * loss_M, torch.zeros_like(loss_M, dtype=torch.bool)


def hard_clip(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """-A clip(ρ): no gradient outside the range, whatever the sign of A (DPOK's released code)."""
    low, high = clip_range(config, e.n_dims)
    ratio = _ratio(e)
    outside = (ratio < 1 - low) | (ratio > 1 + high)
    return e.weight_M * -advantage_M.nan_to_num(0.0) * ratio.clamp(1 - low, 1 + high), outside


def _moved(e: Evidence) -> Tensor:
    """KL(old ‖ new) per dimension, Σ (μ-μ_old)² / (2 c² D)."""
    assert e.gap_M is not None
    return e.gap_M / (2 * e.std_M.square() * e.n_dims)


def guard(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """GRPO-Guard (2510.22319): ρ = exp((Δψ/D + b) c) with b = mean (μ-μ_old)²/(2c²).

    Adding b takes the bias out of the log-ratio and c its dependence on the step: one clip range fits all steps. The
    released code takes b over the whole micro-batch; the paper's is per decision, as here.
    """
    ratio = ((e.log_ratio_M / e.n_dims + _moved(e)) * e.std_M).exp()
    loss_M, clipped_M = _pessimistic(ratio, advantage_M, *clip_range(config, e.n_dims))
    return e.weight_M * loss_M, clipped_M


def kl_mask(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """Flow-DPPO (2606.11025): -A ρ, dropped where KL(old ‖ new) ≥ ``clip_high`` and the update would push on."""
    ratio = _ratio(e)
    _, limit = clip_range(config, e.n_dims)
    outward = ((ratio > 1) & (advantage_M > 0)) | ((ratio < 1) & (advantage_M < 0))
    masked = (_moved(e) >= limit) & outward
    return e.weight_M * torch.where(masked, 0.0, -advantage_M.nan_to_num(0.0) * ratio), masked


def gspo(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """GSPO (2507.18071, eq. 5): one ratio per sample, of the mean log-ratio of its decisions. ``[N]``."""
    _, member_M = e.sample_M.unique(return_inverse=True)
    zero = e.log_ratio_M.new_zeros(int(member_M.max()) + 1)
    count = zero.index_add(0, member_M, torch.ones_like(e.log_ratio_M))
    mean = zero.index_add(0, member_M, e.log_ratio_M / e.n_dims) / count
    advantage = zero.index_add(0, member_M, advantage_M.to(zero.dtype)) / count
    weight = zero.index_add(0, member_M, e.weight_M.to(zero.dtype)) / count
    loss, clipped = _pessimistic(mean.exp(), advantage, *clip_range(config, e.n_dims))
    return weight * loss, clipped[member_M]


# ------------------------------------------------------------------------------------------------- pairs and lists


def _table(e: Evidence) -> Tensor:
    """``[Q, G]``: the decisions of each (prompt, step), by sample. ValueError when prompts differ in their number."""
    key = e.group_M * (int(e.step_M.max()) + 1) + e.step_M
    order = (key * (int(e.sample_M.max()) + 1) + e.sample_M).argsort(stable=True)
    _, count = key.unique(return_counts=True)
    if len(count.unique()) != 1:
        raise ValueError("objective: pairs and lists need the same steps of every sample of a prompt")
    return order.view(len(count), -1)


def _pairs(e: Evidence, advantage_M: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of every pair of samples of one prompt at one step, both with a valid advantage."""
    table = _table(e)
    i, j = torch.triu_indices(table.shape[1], table.shape[1], 1, device=table.device)
    first, second = table[:, i].flatten(), table[:, j].flatten()
    valid = ~(advantage_M[first].isnan() | advantage_M[second].isnan())
    return first[valid], second[valid]


def pair_square(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """SDPO (2411.11727): max over clipped and unclipped of (λ^t (l_1 - l_2) / temperature - (A_1 - A_2))²."""
    low, high = clip_range(config, e.n_dims)
    log_ratio = e.log_ratio_M / e.n_dims
    near = log_ratio.clamp(-low, high)
    first, second = _pairs(e, advantage_M)
    target = advantage_M[first] - advantage_M[second]
    scale = config.discount ** e.step_M[first].float() / config.temperature
    plain, clipped = ((scale * (value[first] - value[second]) - target).square() for value in (log_ratio, near))
    return torch.maximum(plain, clipped), near != log_ratio


def pair_logistic(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """D3PO (2311.13231, eq. 11): -log σ(β (log clip(ρ_w) - log clip(ρ_l))), w the sample with the higher advantage.

    A tie has loss log 2 and no gradient.
    """
    low, high = clip_range(config, e.n_dims)
    ratio = _ratio(e)
    inside = ratio.clamp(1 - low, 1 + high).log()
    first, second = _pairs(e, advantage_M)
    sign = (advantage_M[first] - advantage_M[second]).sign()
    outside = (ratio < 1 - low) | (ratio > 1 + high)
    return -F.logsigmoid(config.temperature * sign * (inside[first] - inside[second])), outside


def list_mle(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """Dense Reward View (2402.08265, §3): Plackett-Luce over a prompt's samples, best first.

    A sample's score is ``temperature`` times the mean over its trained steps of clip(Δψ/D, ±ε). One term per prompt;
    samples with a NaN advantage are left out.
    """
    low, high = clip_range(config, e.n_dims)
    log_ratio = e.log_ratio_M / e.n_dims
    near = log_ratio.clamp(-low, high)
    table = _table(e)
    groups = e.group_M[table[:, 0]].unique(return_inverse=True)[1]
    n = int(groups.max()) + 1
    steps = near.new_zeros(n).index_add(0, groups, torch.ones_like(groups, dtype=near.dtype))
    shape = (n, table.shape[1])
    score = near.new_zeros(shape).index_add(0, groups, near[table]) / steps[:, None]
    rank = near.new_zeros(shape).index_add(0, groups, advantage_M[table].to(near.dtype))
    left_out = rank.isnan()
    order = rank.nan_to_num(-torch.inf).argsort(dim=1, descending=True, stable=True)
    score = (config.temperature * score).masked_fill(left_out, -torch.inf).gather(1, order)
    rest = score.flip(1).logcumsumexp(1).flip(1)
    return torch.where(score.isinf(), 0.0, rest - score).sum(1), near != log_ratio


def dpo(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """Diffusion-DPO's loss on every pair of a prompt (2311.12908, eq. 14): -log σ(β (l_w - l_l) / D), without ties.

    With forward evidence ``half`` this is the released -½ β convention; Flow-DPO (2501.13918) on flow models.
    """
    log_ratio = e.log_ratio_M / e.n_dims
    first, second = _pairs(e, advantage_M)
    sign = (advantage_M[first] - advantage_M[second]).sign()
    loss = -F.logsigmoid(config.temperature * sign * (log_ratio[first] - log_ratio[second]))
    return loss[sign != 0], torch.zeros_like(advantage_M, dtype=torch.bool)


def dgpo(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """DGPO (2510.08425): weight A_i σ(-β mean_i A_i l_i / D) on each sample's evidence, the σ without gradient."""
    log_ratio, table = e.log_ratio_M / e.n_dims, _table(e)
    advantage = advantage_M.nan_to_num(0.0)
    valid = (~advantage_M.isnan())[table].sum(1).clamp_min(1)
    weight_Q = torch.sigmoid(-config.temperature * (advantage * log_ratio.detach())[table].sum(1) / valid)
    weight_M = torch.zeros_like(log_ratio).index_put((table,), weight_Q[:, None].expand(table.shape))
    return -e.weight_M * weight_M * advantage * log_ratio, torch.zeros_like(advantage_M, dtype=torch.bool)


def nft(e: Evidence, advantage_M: Tensor, config: ObjectiveConfig) -> Terms:
    """DiffusionNFT (2509.16117, eq. 5): a (r ℓ(v⁺) + (1-r) ℓ(v⁻)) / β, r = ½ + A/2a in 0..1, a = ``advantage_limit``.

    v⁺ = β v + (1-β) v_old, v⁻ = (1+β) v_old - β v, ℓ(v) = mean d² / max(mean |d|, 1e-5) with d = t (u - v), the
    denominator without gradient: the error of x̂0, normalised by itself.
    """
    assert e.forward is not None
    f, beta = e.forward, config.temperature
    t = f.t_M.view(-1, *([1] * (f.velocity.ndim - 1)))

    def error(v: Tensor) -> Tensor:
        d = (t * (f.target - v)).flatten(1)
        return d.square().mean(1) / d.detach().abs().mean(1).clamp_min(1e-5)

    share = (0.5 + advantage_M.nan_to_num(0.0) / (2 * config.advantage_limit)).clamp(0, 1)
    up = error(beta * f.velocity + (1 - beta) * f.velocity_old)
    down = error((1 + beta) * f.velocity_old - beta * f.velocity)
    loss = config.advantage_limit * (share * up + (1 - share) * down) / beta
    return e.weight_M * torch.where(advantage_M.isnan(), 0.0, loss), torch.zeros_like(advantage_M, dtype=torch.bool)


OBJECTIVES: dict[str, Callable[[Evidence, Tensor, ObjectiveConfig], Terms]] = {
    "ppo_clip": ppo_clip,
    "reinforce": reinforce,
    "hard_clip": hard_clip,
    "guard": guard,
    "kl_mask": kl_mask,
    "gspo": gspo,
    "pair_square": pair_square,
    "pair_logistic": pair_logistic,
    "list_mle": list_mle,
    "dpo": dpo,
    "dgpo": dgpo,
    "nft": nft,
}
PAIRS_AND_LISTS = ("pair_square", "pair_logistic", "list_mle", "dpo", "dgpo")
SCOPES: dict[str, Scope] = {"gspo": "sample", **dict.fromkeys(PAIRS_AND_LISTS, "group")}
"""What must meet in one micro-batch, where it is more than a decision."""
NEEDS_FORWARD = ("nft",)
"""Objectives on the velocities themselves, hence on forward evidence only."""
NEEDS_MEANS = ("guard", "kl_mask")
"""Objectives that compare the mean of each transition with the one it was drawn from."""
