"""The clipped policy gradient: values and gradients by hand, what the clip removes, and that it learns."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.config import CreditConfig, ObjectiveConfig
from beholder.credit.group import advantages
from beholder.objectives.policy_gradient import PolicyGradientStats, clip_range, ppo_clip

D = 8
WIDE = ObjectiveConfig(clip_low=0.2, clip_high=0.2)


def loss_and_gradient(
    log_ratio: list[float], advantage: list[float], config: ObjectiveConfig = WIDE, weight: list[float] | None = None
) -> tuple[float, list[float], PolicyGradientStats]:
    """Loss and its gradient in ψ for log-ratios per dimension, float64."""
    old = torch.linspace(-30, 5, len(log_ratio), dtype=torch.float64)
    psi = (old + D * torch.tensor(log_ratio, dtype=torch.float64)).requires_grad_()
    w = torch.tensor([1.0] * len(log_ratio) if weight is None else weight, dtype=torch.float64)
    loss, stats = ppo_clip(psi, old, D, torch.tensor(advantage, dtype=torch.float64), w, config)
    loss.backward()
    assert psi.grad is not None
    return loss.item(), psi.grad.tolist(), stats


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
    old, advantage = torch.linspace(-3, 3, 7).double(), torch.tensor([1.0, -1, 2, -2, 0.5, -0.5, 3]).double()
    psi = (old + torch.tensor([2.0, 2, -2, -2, 0.3, -0.3, 0.1]).double()).requires_grad_()
    weight = torch.linspace(0.5, 2, 7).double()
    assert torch.autograd.gradcheck(lambda value: ppo_clip(value, old, D, advantage, weight, WIDE)[0], psi)


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
    old, advantage, weight = torch.randn(3, 12, generator=generator).double()
    advantage[5] = math.nan
    psi = old + 0.5 * torch.randn(12, generator=generator).double()
    whole, _ = ppo_clip(psi, old, D, advantage, weight, WIDE)
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    losses = [ppo_clip(psi[p], old[p], D, advantage[p], weight[p], WIDE)[0] * (p.stop - p.start) / 12 for p in parts]
    torch.testing.assert_close(torch.stack(losses).sum(), whole, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------------- it learns


OPTIMUM = torch.tensor([1.0, -0.5])
STD = 0.3


def log_density(x: Tensor, mean: Tensor) -> Tensor:
    return (-((x - mean) ** 2) / (2 * STD**2)).sum(1)


def learn(sign: float, config: ObjectiveConfig) -> Tensor:
    """The mean of a Gaussian policy after 60 rollouts of 8 groups of 8 and two updates each."""
    generator, mean = torch.Generator().manual_seed(0), torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([mean], lr=0.05)
    group_N, weight = torch.arange(8).repeat_interleave(8), torch.ones(64)
    for _ in range(60):
        x = mean.detach() + STD * torch.randn(64, 2, generator=generator)
        reward = -sign * ((x - OPTIMUM) ** 2).sum(1)
        old, advantage_N = log_density(x, mean.detach()), advantages(reward, group_N, CreditConfig())
        for _ in range(2):
            optimiser.zero_grad()
            ppo_clip(log_density(x, mean), old, 2, advantage_N, weight, config)[0].backward()
            optimiser.step()
    return mean.detach()


def test_learns_the_optimum_of_a_quadratic_reward() -> None:
    assert (learn(1.0, WIDE) - OPTIMUM).norm() < 0.15


def test_moves_away_from_the_optimum_of_the_opposite_reward() -> None:
    assert (learn(-1.0, WIDE) - OPTIMUM).norm() > OPTIMUM.norm() + 0.5


def test_a_tighter_clip_learns_more_slowly() -> None:
    tight = learn(1.0, ObjectiveConfig(clip_low=1e-4, clip_high=1e-4))
    assert (tight - OPTIMUM).norm() > (learn(1.0, WIDE) - OPTIMUM).norm()
