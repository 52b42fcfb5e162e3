"""Values along paths: small trees by hand, direct formulas, limits, and what telescopes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.credit import paths

NAN = math.nan
TREE = torch.tensor([[0, 1, 3], [0, 1, 4], [0, 2, 5], [0, 2, 6]])
"""Four leaves, one decision shared by all, two by two, and one each."""
GAPS = torch.tensor([[0, -1, 1, 2], [-1, 3, -1, 4], [-1, -1, -1, -1], [5, 6, 7, 8]])
"""Samples with three, two, no and four trained decisions."""


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------ means of trees


def test_each_decision_of_a_tree_is_worth_the_mean_of_its_leaves() -> None:
    reward_N = double([1.0, 3.0, 10.0, 20.0])
    got = paths.mean_over_samples(reward_N[:, None].expand(4, 3), TREE, 7)
    assert got.tolist() == [8.5, 2, 15, 1, 3, 10, 20]


def test_failed_leaves_are_left_out_and_a_decision_without_any_is_nan() -> None:
    reward_N = double([NAN, NAN, 10.0, NAN])
    got = paths.mean_over_samples(reward_N[:, None].expand(4, 3), TREE, 7)
    assert got.nan_to_num(-1).tolist() == [10, -1, 10, -1, -1, 10, -1]


def test_values_may_differ_by_step_and_decisions_may_be_few() -> None:
    value_NT = torch.arange(16).double().view(4, 4)
    got = paths.mean_over_samples(value_NT, GAPS, 9)
    assert got.tolist() == [0, 2, 3, 5, 7, 12, 13, 14, 15]
    assert paths.mean_over_samples(value_NT, GAPS, 10)[9].isnan()


def test_pairs_are_in_time_order_within_a_sample() -> None:
    sample_Q, step_Q, decision_Q = paths.pairs_of(GAPS)
    assert sample_Q.tolist() == [0, 0, 0, 1, 1, 3, 3, 3, 3]
    assert step_Q.tolist() == [0, 2, 3, 1, 3, 0, 1, 2, 3]
    assert decision_Q.tolist() == list(range(9))


# ------------------------------------------------------------------------------------------------- factors and returns


def test_discounting_counts_the_trained_decisions_that_follow() -> None:
    taken = GAPS >= 0
    assert torch.where(taken, paths.places_from_end(GAPS), -1).tolist() == [
        [2, -1, 1, 0],
        [-1, 1, -1, 0],
        [-1, -1, -1, -1],
        [3, 2, 1, 0],
    ]
    got = torch.where(taken, paths.discounted(GAPS, 0.5), 0)
    assert got.tolist() == [[0.25, 0, 0.5, 1], [0, 0.5, 0, 1], [0, 0, 0, 0], [0.125, 0.25, 0.5, 1]]
    assert paths.discounted(GAPS, 1.0).eq(1).all()


def test_redistribution_by_hand() -> None:
    change_M = torch.tensor([1.0, 3.0, 4.0])  # shares 1/8, 3/8, 1/2: still to come 1, 7/8, 1/2
    got = paths.redistributed(torch.tensor([[0, -1, 1, 2]]), change_M, 0.5)
    assert got[0, [0, 2, 3]].tolist() == [1, 0.5 + 0.5 * 7 / 8, 0.5 + 0.5 / 2]


@settings(deadline=None, max_examples=60)
@given(
    change=st.lists(st.just(0.0) | st.floats(0.125, 10, width=32), min_size=9, max_size=9),
    share=st.floats(0, 1),
)
def test_what_is_paid_out_along_each_path_sums_to_one(change: list[float], share: float) -> None:
    factor_NT, taken = paths.redistributed(GAPS, torch.tensor(change), share), GAPS >= 0
    for sample in (0, 1, 3):
        to_go, moved = factor_NT[sample, taken[sample]], torch.tensor(change)[GAPS[sample, taken[sample]]].double()
        paid = to_go - torch.cat([to_go[1:], double([0.0])])
        even = torch.full_like(moved, 1 / len(moved))
        want = share * (moved / moved.sum() if moved.sum() > 0 else even)
        want[-1] += 1 - share
        torch.testing.assert_close(paid, want, rtol=1e-6, atol=1e-9)
        assert paid.sum().item() == pytest.approx(1)


def test_without_a_share_redistribution_does_nothing() -> None:
    assert paths.redistributed(GAPS, torch.rand(9), 0.0).eq(1).all()
    assert paths.redistributed(GAPS, torch.zeros(9), 0.0).eq(1).all()


def test_a_path_that_never_moved_is_paid_evenly_at_its_own_decisions() -> None:
    got = paths.redistributed(GAPS, torch.zeros(9), 1.0)
    assert got[0, [0, 2, 3]].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert got[1, [1, 3]].tolist() == pytest.approx([1, 0.5])


def test_dense_returns_by_hand_and_as_sums() -> None:
    reward_NT = double([[1.0, 2.0, 4.0], [0.0, NAN, 8.0]])
    got = paths.dense_returns(reward_NT, 0.5)
    assert got.nan_to_num(-1).tolist() == [[3, 4, 4], [-1, -1, 8]]
    assert paths.dense_returns(reward_NT[:1], 0.0).tolist() == reward_NT[:1].tolist()
    assert paths.dense_returns(reward_NT[:1], 1.0).tolist() == [[7, 6, 4]]


# -------------------------------------------------------------------------------------------------------- with a critic


def direct(reward: float, values: list[float], discount: float, lam: float) -> list[float]:
    """A_k = Σ_l (γλ)^l (r_{k+l} + γ V_{k+l+1} - V_{k+l}), each sum on its own."""
    n, following = len(values), [*values[1:], 0.0]
    delta = [(reward if k == n - 1 else 0.0) + discount * following[k] - values[k] for k in range(n)]
    return [sum((discount * lam) ** (j - k) * delta[j] for j in range(k, n)) for k in range(n)]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 999), discount=st.floats(0, 1), lam=st.floats(0, 1))
def test_gae_equals_its_direct_sums(seed: int, discount: float, lam: float) -> None:
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=4), rng.normal(size=9)
    advantage_M, return_M = paths.gae(torch.from_numpy(rewards), torch.from_numpy(values), GAPS, discount, lam)
    for row in GAPS.tolist():
        mine = [d for d in row if d >= 0]
        want = direct(float(rewards[GAPS.tolist().index(row)]), [float(values[d]) for d in mine], discount, lam)
        np.testing.assert_allclose(advantage_M[mine], want, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(return_M, advantage_M + torch.from_numpy(values))


def test_the_two_limits_of_lambda() -> None:
    reward_N, value_M = double([2.0, -1.0, 5.0, 3.0]), torch.linspace(-1, 1, 9).double()
    with_end, _ = paths.gae(reward_N, value_M, GAPS, 1.0, 1.0)
    owner_M = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3])
    torch.testing.assert_close(with_end, reward_N[owner_M] - value_M)
    one_step, return_M = paths.gae(reward_N, value_M, GAPS, 0.9, 0.0)
    following_M = double([0.9 * v for v in [*value_M.tolist()[1:], 0.0]])
    following_M[[2, 4, 8]] = reward_N[[0, 1, 3]]
    torch.testing.assert_close(one_step, following_M - value_M)
    torch.testing.assert_close(return_M, following_M)


def test_a_failed_reward_fails_its_own_decisions_only() -> None:
    got, returns = paths.gae(double([NAN, 1.0, 0.0, 1.0]), torch.zeros(9), GAPS, 1.0, 0.95)
    assert got.isnan().tolist() == [True] * 3 + [False] * 6
    assert returns.isnan().tolist() == [True] * 3 + [False] * 6


# --------------------------------------------------------------------------------------------------------- with probes

START_N = torch.tensor([0, 0, 0, 0, 0, 1, 1])
PROBE_N = torch.tensor([-1, 0, 0, 2, 2, -1, 0])
PROBED_NT = torch.tensor([[0, -1, 1], *[[-1, -1, -1]] * 4, [2, -1, 3], [-1, -1, -1]])
"""One sample with two probes of each of its two states, one with a single probe of its first."""


def test_vine_advantages_by_hand() -> None:
    reward_N = double([10.0, 1.0, 3.0, 4.0, 8.0, 7.0, 5.0])  # V(s_0) = 2, V(s_2) = 6, r = 10
    got = paths.probe_advantages(reward_N, START_N, PROBE_N, PROBED_NT)
    assert got[0, [0, 2]].tolist() == [4, 4]
    assert got[5, [0, 2]].tolist() == [2, 2]  # 7 - 5 at both decisions
    rest = torch.ones_like(got, dtype=torch.bool)
    rest[[0, 0, 5, 5], [0, 2, 0, 2]] = False
    assert got[rest].isnan().all()


@settings(deadline=None, max_examples=40)
@given(rewards=st.lists(st.floats(-9, 9), min_size=7, max_size=7))
def test_vine_telescopes_from_the_first_value_to_the_reward_and_greedy_is_r_minus_v(rewards: list[float]) -> None:
    got = paths.probe_advantages(double(rewards), START_N, PROBE_N, PROBED_NT)
    assert got[0].nansum().item() == pytest.approx(rewards[0] - (rewards[1] + rewards[2]) / 2, abs=1e-9)
    assert got[5, [0, 2]].tolist() == pytest.approx([rewards[5] - rewards[6]] * 2, abs=1e-12)


def test_a_failed_probe_is_left_out_of_its_mean_and_a_value_without_any_is_nan() -> None:
    reward_N = double([10.0, NAN, 3.0, 4.0, 8.0, 7.0, 5.0])
    assert paths.probe_advantages(reward_N, START_N, PROBE_N, PROBED_NT)[0, [0, 2]].tolist() == [3, 4]
    reward_N[2] = NAN
    got = paths.probe_advantages(reward_N, START_N, PROBE_N, PROBED_NT)[0, [0, 2]]
    assert got[0].isnan() and got[1] == 4


# ------------------------------------------------------------------------------------------------------------ selection


def test_best_and_worst_of_each_group() -> None:
    advantage_N, group_N = double([3.0, 1.0, 2.0, NAN, 9.0, 8.0]), torch.tensor([0, 0, 0, 0, 1, 1])
    for best, worst, want in (
        (1, 0, [1, 0, 0, 0, 1, 0]),
        (0, 1, [0, 1, 0, 0, 0, 1]),
        (1, 1, [1, 1, 0, 0, 1, 1]),
        (2, 0, [1, 0, 1, 0, 1, 1]),
        (9, 0, [1, 1, 1, 0, 1, 1]),
        (0, 9, [1, 1, 1, 0, 1, 1]),
        (0, 0, [0] * 6),
    ):
        assert paths.best_and_worst(advantage_N, group_N, best, worst).tolist() == [bool(w) for w in want]


def test_clear_winners_need_the_threshold_and_be_the_extreme_of_their_start() -> None:
    start_N = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    advantage_N = double([2.0, 1.0, -3.0, 0.4, -0.5, NAN, 0.5])
    assert paths.clear_winners(advantage_N, start_N, 0.5).tolist() == [True, False, True, False, True, False, True]
    assert paths.clear_winners(advantage_N, start_N, 2.5).tolist() == [False, False, True, *[False] * 4]
