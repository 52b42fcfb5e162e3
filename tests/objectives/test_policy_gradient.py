"""The clipped policy gradient: values and gradients by hand, what the clip removes, and the trust region."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from evidence_by_hand import D, double, evidence, outcome, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.config import ObjectiveConfig
from beholder.objectives.policy_gradient import PolicyGradientStats, clip_range, policy_gradient

WIDE = ObjectiveConfig(clip_low=0.2, clip_high=0.2)


def loss_and_gradient(
    log_ratio: list[float], advantage: list[float], config: ObjectiveConfig = WIDE, weight: list[float] | None = None
) -> tuple[float, list[float], PolicyGradientStats]:
    """Loss and its gradient in ψ for log-ratios per dimension, float64."""
    found = outcome(evidence(log_ratio, weight=weight), advantage, config)
    return found.loss, (-found.weight_M).tolist(), found.stats


# ------------------------------------------------------------------------------------------------------------ by hand


def test_value_by_hand() -> None:
    ratios = [0.5, 0.5, 1.5, 1.5, 1.1, 0.9]
    advantage = [2.0, -2.0, 2.0, -2.0, 3.0, -3.0]
    terms = [-1.0, 1.6, -2.4, 3.0, -3.3, 2.7]
    loss, _, stats = loss_and_gradient([math.log(r) for r in ratios], advantage)
    assert loss == pytest.approx(sum(terms) / 6)
    assert stats.ratio_M.tolist() == pytest.approx(ratios)
    assert stats.clipped_M.tolist() == [False, True, True, False, False, False]


def test_gradient_by_hand() -> None:
    ratios, advantage = [0.5, 0.5, 1.5, 1.5, 1.1, 0.9], [2.0, -2.0, 2.0, -2.0, 3.0, -3.0]
    kept = [True, False, False, True, True, True]
    _, gradient, _ = loss_and_gradient([math.log(r) for r in ratios], advantage)
    expected = [-a * r / (D * 6) * k for a, r, k in zip(advantage, ratios, kept, strict=True)]
    assert gradient == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(pairs=st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 3)), min_size=1, max_size=12))
def test_before_the_first_update_it_is_the_plain_policy_gradient(pairs: list[tuple[float, float]]) -> None:
    advantage, weight = [a for a, _ in pairs], [w for _, w in pairs]
    loss, gradient, stats = loss_and_gradient([0.0] * len(pairs), advantage, ObjectiveConfig(), weight)
    m = len(pairs)
    assert loss == pytest.approx(-sum(a * w for a, w in pairs) / m, abs=1e-12)
    assert gradient == pytest.approx([-a * w / (D * m) for a, w in pairs], abs=1e-12)
    assert stats.ratio_M.tolist() == [1.0] * m
    assert not stats.clipped_M.any()


@settings(deadline=None, max_examples=100)
@given(
    log_ratio=st.floats(-0.5, 0.5),
    advantage=st.floats(-5, 5).filter(lambda a: abs(a) > 1e-3),
    low=st.floats(0.01, 0.3),
    high=st.floats(0.01, 0.3),
)
def test_gradient_vanishes_exactly_where_the_update_would_go_further_out(
    log_ratio: float, advantage: float, low: float, high: float
) -> None:
    ratio = math.exp(log_ratio)
    outside = ratio > 1 + high + 1e-9 if advantage > 0 else ratio < 1 - low - 1e-9
    inside = ratio < 1 + high - 1e-9 if advantage > 0 else ratio > 1 - low + 1e-9
    _, gradient, stats = loss_and_gradient([log_ratio], [advantage], ObjectiveConfig(clip_low=low, clip_high=high))
    if outside:
        assert gradient == [0]
        assert stats.clipped_M.tolist() == [True]
    if inside:
        assert gradient == pytest.approx([-advantage * ratio / D])
        assert stats.clipped_M.tolist() == [False]


def test_the_clip_may_be_asymmetric() -> None:
    config = ObjectiveConfig(clip_low=0.1, clip_high=0.3)
    ratios, advantage = [1.2, 1.4, 0.95, 0.8], [1.0, 1.0, -1.0, -1.0]
    loss, gradient, stats = loss_and_gradient([math.log(r) for r in ratios], advantage, config)
    assert loss == pytest.approx((-1.2 - 1.3 + 0.95 + 0.9) / 4)
    assert stats.clipped_M.tolist() == [False, True, False, True]
    assert [g != 0 for g in gradient] == [True, False, True, False]


def test_gradient_equals_finite_differences() -> None:
    e = evidence(double([2.0, 2, -2, -2, 0.3, -0.3, 0.1]) / D, weight=torch.linspace(0.5, 2, 7))
    advantage = double([1.0, -1, 2, -2, 0.5, -0.5, 3])

    def loss(log_ratio_M: torch.Tensor) -> torch.Tensor:
        return policy_gradient(replace(e, log_ratio_M=log_ratio_M), advantage, WIDE)[0]

    assert torch.autograd.gradcheck(loss, e.log_ratio_M)


# ------------------------------------------------------------------------------------------------------- trust region


def test_a_joint_trust_region_is_the_per_dimension_one_over_the_dimensions() -> None:
    joint = ObjectiveConfig(clip_low=0.4, clip_high=0.8, trust_region="joint")
    assert clip_range(joint, D) == (0.4 / D, 0.8 / D)
    assert clip_range(ObjectiveConfig(clip_low=0.4, clip_high=0.8), D) == (0.4, 0.8)
    same = ObjectiveConfig(clip_low=0.4 / D, clip_high=0.8 / D)
    ratios, advantage = [0.2, -0.2, 0.05, -0.02], [1.0, -1.0, 2.0, -2.0]
    assert loss_and_gradient(ratios, advantage, joint)[:2] == loss_and_gradient(ratios, advantage, same)[:2]


def test_a_joint_trust_region_bounds_the_total_log_ratio_in_nats() -> None:
    config = ObjectiveConfig(clip_low=0.5, clip_high=0.5, trust_region="joint")
    for total, clipped in ((0.45, False), (0.6, True)):
        assert loss_and_gradient([total / D], [1.0], config)[2].clipped_M.tolist() == [clipped]


# ----------------------------------------------------------------------------------------------------- failed rewards


def test_failed_rewards_contribute_nothing_to_value_or_gradient() -> None:
    loss, gradient, stats = loss_and_gradient([0.1, 0.5, -0.5], [1.0, math.nan, math.nan])
    assert loss == pytest.approx(-math.exp(0.1) / 3)
    assert gradient == pytest.approx([-math.exp(0.1) / (3 * D), 0, 0])
    assert stats.clipped_M.tolist() == [False, False, False]


def test_a_batch_that_failed_altogether_has_no_gradient() -> None:
    loss, gradient, _ = loss_and_gradient([0.1, 0.0], [math.nan, math.nan])
    assert loss == 0
    assert gradient == [0, 0]


# ------------------------------------------------------------------------------------------------------ micro-batches


@pytest.mark.parametrize("bounds", [(0, 12), (0, 4, 8, 12), (0, 1, 6, 11, 12), tuple(range(13))])
def test_weighted_micro_batches_add_up_to_the_whole(bounds: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    log_ratio, advantage, weight = torch.randn(3, 12, generator=generator).double()
    advantage[5] = math.nan
    e = evidence(0.5 * log_ratio / D, weight=weight)
    whole, _ = policy_gradient(e, advantage, WIDE)
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    losses = [policy_gradient(rows(e, p), advantage[p], WIDE)[0] * (p.stop - p.start) / 12 for p in parts]
    torch.testing.assert_close(torch.stack(losses).sum(), whole, rtol=1e-12, atol=1e-12)
