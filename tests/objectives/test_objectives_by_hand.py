"""Values by hand of the policy gradients beside PPO, and the claims their papers make."""

import math
from typing import Any

import pytest
import torch
from evidence_by_hand import D, evidence, groups_of_paths, outcome
from torch.distributions import Normal

from beholder.config import ObjectiveConfig
from beholder.objectives.evidence import Evidence

NAN = math.nan


def config_of(kind: Any, low: float = 0.2, high: float = 0.2, **more: Any) -> ObjectiveConfig:
    return ObjectiveConfig(kind=kind, clip_low=low, clip_high=high, **more)


def loss_of(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> float:
    return outcome(e, advantage, config).loss


def logs(*ratios: float) -> list[float]:
    return [math.log(r) for r in ratios]


# ----------------------------------------------------------------------------------------------------- single decisions


def test_reinforce() -> None:
    e = evidence([0.5, -1.0, 3.0], weight=[1, 2, 1])
    assert loss_of(e, [2.0, 3.0, NAN], config_of("reinforce")) == pytest.approx((-1 + 6) / 3)


def test_hard_clip_is_flat_outside_the_range_whatever_the_sign() -> None:
    e = evidence(logs(0.5, 0.5, 1.5, 1.5, 1.1, 0.9))
    got = outcome(e, [2.0, -2.0, 2.0, -2.0, 3.0, -3.0], config_of("hard_clip"))
    assert got.loss == pytest.approx((-1.6 + 1.6 - 2.4 + 2.4 - 3.3 + 2.7) / 6)
    assert got.stats.clipped_M.tolist() == [True, True, True, True, False, False]
    assert (got.weight_M != 0).tolist() == [False, False, False, False, True, True]


def test_hard_clip_with_unequal_ranges() -> None:
    e = evidence(logs(0.85, 1.25, 1.4))
    assert loss_of(e, [1.0, 1.0, 1.0], config_of("hard_clip", 0.1, 0.3)) == pytest.approx(-(0.9 + 1.25 + 1.3) / 3)


def test_flow_dppo_masks_by_divergence_what_would_go_further_out() -> None:
    """KL per dimension gap / (2 c² D): 0.25 for the first four, 0.0625 for the others."""
    e = evidence(logs(1.5, 1.5, 0.5, 0.5, 1.5, 0.5), std=[1.0] * 6, gap=[4.0] * 4 + [1.0] * 2)
    got = outcome(e, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0], config_of("kl_mask", high=0.2))
    assert got.stats.clipped_M.tolist() == [True, False, False, True, False, False]
    assert got.loss == pytest.approx((0 + 1.5 - 0.5 + 0 - 1.5 + 0.5) / 6)
    at_limit = outcome(evidence(logs(1.5), gap=[4.0]), [1.0], config_of("kl_mask", high=0.25))
    assert at_limit.stats.clipped_M.tolist() == [True]


def test_gspo_has_one_ratio_per_sample_the_geometric_mean_of_its_decisions() -> None:
    e = evidence(logs(1.2, 1.3, 0.9, 0.8, 1.05), sample=[4, 4, 2, 2, 9])
    got = outcome(e, [1.0, 1.0, -1.0, -1.0, 2.0], config_of("gspo"))
    ratios = [(1.2 * 1.3) ** 0.5, (0.9 * 0.8) ** 0.5, 1.05]
    assert ratios[0] > 1.2 and ratios[1] > 0.8
    assert got.loss == pytest.approx((-1.2 + ratios[1] - 2 * 1.05) / 3)
    assert got.stats.clipped_M.tolist() == [True, True, False, False, False]


def test_gspo_of_one_decision_per_sample_is_ppo() -> None:
    e, advantage_M = groups_of_paths(steps=1)
    one, two = (outcome(e, advantage_M, config_of(kind, 0.05, 0.1)) for kind in ("gspo", "ppo_clip"))
    assert one.loss == pytest.approx(two.loss)
    torch.testing.assert_close(one.weight_M, two.weight_M)


# ----------------------------------------------------------------------------------------------------------- GRPO-Guard


def gaussians(m: int, std_M: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Evidence]:
    """Noise drawn, movement of the mean, and the evidence of M decisions drawn under the old mean."""
    generator = torch.Generator().manual_seed(seed)
    old, noise, move = torch.randn(3, m, D, generator=generator, dtype=torch.float64)
    std, move = std_M[:, None], 0.1 * move
    taken = old + std * noise
    log_ratio = (Normal(old + move, std).log_prob(taken) - Normal(old, std).log_prob(taken)).mean(1)
    return noise, move, evidence(log_ratio, std=std_M, gap=move.square().sum(1))


@pytest.mark.parametrize("std", [0.02, 0.3, 1.7])
def test_guards_ratio_is_the_movement_along_the_noise_whatever_the_step(std: float) -> None:
    """ρ̃ = exp(mean Δμ·ε): neither the bias -Δμ²/2c² nor the scale 1/c of the log-ratio is left."""
    noise, move, e = gaussians(6, torch.full((6,), std).double())
    ratio_M = (noise * move).mean(1).exp()
    config = config_of("guard", 1e9, 1e9)
    for m in range(6):
        alone = [float(m == k) for k in range(6)]
        assert loss_of(e, alone, config) == pytest.approx(-ratio_M[m].item() / 6, rel=1e-9)


def test_guards_log_ratio_has_mean_zero_where_the_plain_one_does_not() -> None:
    std_M = torch.full((4000,), 0.05).double()
    _, _, e = gaussians(4000, std_M)
    plain = e.log_ratio_M.detach() / D
    assert e.gap_M is not None
    guarded = (plain + e.gap_M / (2 * std_M**2 * D)) * std_M
    assert plain.mean().item() == pytest.approx(-0.01 / (2 * 0.05**2), rel=0.1)
    assert abs(guarded.mean().item()) < 4 * guarded.std().item() / 4000**0.5
    assert loss_of(e, [1.0] * 4000, config_of("guard", 1e9, 1e9)) == pytest.approx(-guarded.exp().mean().item())


def test_guard_clips_its_own_ratio() -> None:
    e = evidence([0.0, 0.0, 0.0], std=[0.5, 0.5, 0.5], gap=[4.0, 4.0, 0.0])  # b = 1, so ρ̃ = e^0.5 = 1.65, then 1
    got = outcome(e, [1.0, -1.0, 1.0], config_of("guard"))
    assert got.loss == pytest.approx((-1.2 + math.exp(0.5) - 1) / 3)
    assert got.stats.clipped_M.tolist() == [True, False, False]
