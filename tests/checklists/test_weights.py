"""The regression itself: optimal, reproducible, and what duplicates, orders and the paper's descent make of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from beholder.checklists.weights import Pairs, bootstrap, descend, loss_of, solve, violation
from beholder.errors import InputError

TRUE_Q = np.array([2.0, 1.0, 0.5, 0.0, 0.0, 0.25])


def drawn_pairs(n: int, seed: int = 0, weight_Q: np.ndarray = TRUE_Q, soft: bool = False) -> Pairs:
    """Pairs of binary answers, preferred by the logistic model with these weights."""
    rng = np.random.default_rng(seed)
    gap_PQ = rng.integers(0, 2, (n, len(weight_Q))) - rng.integers(0, 2, (n, len(weight_Q)))
    p_P = expit(gap_PQ @ weight_Q)
    label_P = p_P if soft else (rng.random(n) < p_P).astype(float)
    return Pairs(gap_PQ.astype(float), label_P, np.ones(n), np.arange(n) // 2)


def test_the_loss_of_one_pair_by_hand() -> None:
    pairs = Pairs(np.array([[1.0, -1.0]]), np.array([1.0]), np.array([3.0]), np.array([0]))
    loss, gradient_Q = loss_of(np.array([2.0, 1.0]), pairs, ridge=0.5)
    assert loss == pytest.approx(np.log1p(np.exp(-1)) + 0.5 / 2 * 5)
    assert gradient_Q == pytest.approx((expit(1.0) - 1) * np.array([1, -1]) + 0.5 * np.array([2, 1]))


def test_the_gradient_is_that_of_the_loss() -> None:
    pairs, w = drawn_pairs(50, soft=True), np.array([0.3, -0.2, 0.1, 0.0, 1.0, 2.0])
    for q in range(6):
        step = np.eye(6)[q] * 1e-6
        slope = (loss_of(w + step, pairs, 0.1)[0] - loss_of(w - step, pairs, 0.1)[0]) / 2e-6
        assert loss_of(w, pairs, 0.1)[1][q] == pytest.approx(slope, abs=1e-8)


def test_a_large_margin_neither_overflows_nor_vanishes() -> None:
    pairs = Pairs(np.array([[1.0]]), np.array([0.0]), np.ones(1), np.zeros(1))
    assert loss_of(np.array([2000.0]), pairs, 0.0)[0] == 2000.0


@pytest.mark.parametrize("masked", [True, False])
def test_the_minimum_is_that_of_another_method(masked: bool) -> None:
    pairs, ridge = drawn_pairs(300, seed=3), 0.01
    found_Q = solve(pairs, ridge, masked)

    def loss(w_Q: np.ndarray) -> float:
        z_P = pairs.gap_PQ @ w_Q
        chance_P = np.where(pairs.p_P == 1, expit(z_P), expit(-z_P))
        return float(-np.log(chance_P).mean() + ridge / 2 * (w_Q**2).sum())

    bounds = [(0, None) if masked else (None, None)] * 6
    other = minimize(loss, np.ones(6), method="SLSQP", bounds=bounds, options={"ftol": 1e-15, "maxiter": 1000})
    assert found_Q == pytest.approx(other.x, abs=2e-4)
    assert loss(found_Q) <= other.fun + 1e-12


def test_the_conditions_of_a_minimum_hold() -> None:
    pairs, ridge = drawn_pairs(400, seed=1, weight_Q=np.array([2.0, 1.0, 0.5, -1.0, 0.0, -0.5])), 1e-3
    w_Q = solve(pairs, ridge)
    _, gradient_Q = loss_of(w_Q, pairs, ridge)
    assert (w_Q >= 0).all() and (w_Q == 0).any() and (w_Q > 0).any()
    assert gradient_Q[w_Q > 0] == pytest.approx(0, abs=1e-6)
    assert (gradient_Q[w_Q == 0] > -1e-6).all()
    assert violation(w_Q, pairs, ridge) < 1e-6 < violation(w_Q + 0.01, pairs, ridge)


def test_one_question_has_its_closed_form() -> None:
    """k of n pairs with gap 1 won: σ(w) = k / n; fewer wins than losses: 0 under the mask."""
    for wins, expected in ((3, np.log(3.0)), (1, 0.0)):
        p_P = np.array([1.0] * wins + [0.0] * (4 - wins))
        assert solve(Pairs(np.ones((4, 1)), p_P, np.ones(4), np.arange(4)), 0.0) == pytest.approx(expected, abs=1e-6)
    free = solve(Pairs(np.ones((4, 1)), np.array([1.0, 0, 0, 0]), np.ones(4), np.arange(4)), 0.0, masked=False)
    assert free == pytest.approx(-np.log(3.0), abs=1e-6)


def test_a_tie_pulls_to_zero_as_a_win_each_way_does() -> None:
    tie = Pairs(np.ones((3, 1)), np.array([1.0, 1.0, 0.5]), np.ones(3), np.arange(3))
    both = Pairs(np.ones((4, 1)), np.array([1.0, 1.0, 1.0, 0.0]), np.array([1, 1, 0.5, 0.5]), np.arange(4))
    assert solve(tie, 0.0) == pytest.approx(solve(both, 0.0), abs=1e-6)
    assert solve(tie, 0.0) == pytest.approx(np.log(5.0), abs=1e-5)


def test_exact_shares_give_back_the_weights() -> None:
    assert solve(drawn_pairs(500, soft=True), 0.0) == pytest.approx(TRUE_Q, abs=1e-4)


def test_weights_are_recovered_from_many_pairs() -> None:
    assert solve(drawn_pairs(20_000), 0.0) == pytest.approx(TRUE_Q, abs=0.12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_neither_order_nor_sides_matter(seed: int) -> None:
    pairs, rng = drawn_pairs(80, seed), np.random.default_rng(seed)
    w_Q = solve(pairs, 1e-2)
    assert solve(pairs.rows(rng.permutation(80)), 1e-2) == pytest.approx(w_Q, abs=2e-5)
    turned_P = rng.random(80) < 0.5
    other = Pairs(
        np.where(turned_P[:, None], -pairs.gap_PQ, pairs.gap_PQ),
        np.where(turned_P, 1 - pairs.p_P, pairs.p_P),
        pairs.weight_P,
        pairs.cluster_P,
    )
    assert solve(other, 1e-2) == pytest.approx(w_Q, abs=2e-5)
    columns = rng.permutation(6)
    renamed = Pairs(pairs.gap_PQ[:, columns], pairs.p_P, pairs.weight_P, pairs.cluster_P)
    assert solve(renamed, 1e-2) == pytest.approx(w_Q[columns], abs=2e-5)


def test_a_pair_twice_is_a_pair_of_weight_two() -> None:
    pairs = drawn_pairs(60, seed=2)
    times_P = np.random.default_rng(0).integers(1, 4, 60)
    repeated = pairs.rows(np.repeat(np.arange(60), times_P))
    weighted = Pairs(pairs.gap_PQ, pairs.p_P, times_P.astype(float), pairs.cluster_P)
    assert solve(repeated, 1e-2) == pytest.approx(solve(weighted, 1e-2), abs=2e-5)


def test_the_papers_descent_comes_near_the_minimum_and_nearer_with_smaller_steps() -> None:
    pairs = drawn_pairs(400, seed=4, weight_Q=np.array([1.5, 0.8, 0.4, -0.6, 0.0, 0.2]))
    exact_Q = solve(pairs, 0.0)
    away = []
    for rate in (0.05, 0.005):
        found = descend(pairs, 0.0, rate=rate, tolerance=1e-6, most=3000)
        assert found.change <= 1e-6 and (found.weight_Q >= 0).all()
        away.append(float(np.abs(found.weight_Q - exact_Q).max()))
    assert away[1] < away[0] and away[1] < 0.03


def test_one_pass_of_the_descent_by_hand() -> None:
    pairs = Pairs(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]), np.ones(2), np.arange(2))
    found = descend(pairs, rate=0.5, tolerance=0.0, most=1)
    assert found.weight_Q.tolist() == [0.25, 0.0]
    assert found.passes == 1 and found.change == 0.25
    assert descend(pairs, rate=0.5, most=1, masked=False).weight_Q.tolist() == [0.25, -0.25]


def test_separable_pairs_need_a_ridge() -> None:
    pairs = Pairs(np.array([[1.0], [1.0]]), np.ones(2), np.ones(2), np.arange(2))
    with pytest.raises(InputError, match="give --ridge"):
        solve(pairs, 0.0)
    assert 0 < solve(pairs, 0.01)[0] < 10


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    inside = total = 0
    for seed in range(12):
        pairs = drawn_pairs(300, seed=100 + seed)
        low_Q, high_Q = np.percentile(bootstrap(pairs, 60, seed, 1e-4), [2.5, 97.5], axis=0)
        positive = TRUE_Q > 0.3
        inside += int(((low_Q <= TRUE_Q) & (high_Q >= TRUE_Q))[positive].sum())
        total += int(positive.sum())
    assert 0.8 <= inside / total <= 1.0


def test_a_bootstrap_draws_whole_prompts() -> None:
    """One prompt with many pairs: every draw is the same set."""
    pairs = drawn_pairs(40)
    pairs = Pairs(pairs.gap_PQ, pairs.p_P, pairs.weight_P, np.zeros(40, int))
    draws_BQ = bootstrap(pairs, 3, 0, 1e-2)
    assert draws_BQ == pytest.approx(np.tile(solve(pairs, 1e-2), (3, 1)), abs=1e-5)


def test_a_bootstrap_is_a_function_of_its_seed() -> None:
    pairs = drawn_pairs(40)
    assert (bootstrap(pairs, 4, 1, 1e-2) == bootstrap(pairs, 4, 1, 1e-2)).all()
    assert (bootstrap(pairs, 4, 1, 1e-2) != bootstrap(pairs, 4, 2, 1e-2)).any()
