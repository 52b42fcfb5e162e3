"""Pairs of K candidates under every rule: values by hand, and what must hold for any values."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import pair

from beholder.errors import InputError
from beholder.preferences.schema import Record
from beholder.preferences.selection import (
    Choice,
    Selection,
    all_pairs,
    best_worst,
    choose,
    dominance,
    frontier,
    majority,
    threshold,
    vote_pairs,
    win_rates,
)

NAN = math.nan


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# ------------------------------------------------------------------------------------------------ one value each


def test_all_pairs_by_hand() -> None:
    assert all_pairs((1.0, 3.0, 1.0)) == [(1, 0, 1.0), (0, 2, 0.5), (1, 2, 1.0)]
    soft = all_pairs((1.0, 3.0, 1.0), temperature=0.5)
    assert soft == [(1, 0, pytest.approx(sigma(4))), (0, 2, 0.5), (1, 2, pytest.approx(sigma(4)))]


def test_threshold_keeps_what_is_further_apart() -> None:
    assert threshold((0.0, 0.5, 1.2), 0.5) == [(2, 0, 1.0), (2, 1, 1.0)]
    assert threshold((0.0, 0.5), 0.5) == []
    assert threshold((1.0, 1.0), 0.0) == []


def test_best_and_worst_are_one_pair() -> None:
    assert best_worst((0.2, 0.9, 0.1, 0.9)) == [(1, 2, 1.0)]
    assert best_worst((0.2, 0.9), temperature=0.7) == [(1, 0, pytest.approx(sigma(1)))]
    assert best_worst((4.0, 4.0, 4.0)) == [(0, 1, 0.5)]
    assert best_worst((4.0,)) == []


def test_what_was_not_judged_takes_no_part() -> None:
    assert all_pairs((NAN, 1.0, NAN, 2.0)) == [(3, 1, 1.0)]
    assert best_worst((NAN, 1.0, 5.0, NAN)) == [(2, 1, 1.0)]
    assert best_worst((NAN, 1.0)) == all_pairs((NAN, 1.0)) == threshold((NAN, 1.0), 0) == []
    assert dominance([(1.0, NAN), (0.0, 0.0), (2.0, 2.0)]) == [(2, 1, 1.0)]
    assert frontier([(1.0, NAN), (0.0, 0.0), (2.0, 2.0)]) == [(2, 1, 1.0)]
    assert majority([(1.0, NAN), (0.0, 5.0)]) == [(0, 1, 1.0)]
    assert majority([(NAN, 1.0), (2.0, NAN)]) == []


def test_votes_are_soft_labels() -> None:
    assert vote_pairs((7, 3)) == [(0, 1, 0.7)]
    assert vote_pairs((3, 7)) == [(1, 0, 0.7)]
    assert vote_pairs((1, 1)) == vote_pairs((0, 0), ties=1) == [(0, 1, 0.5)]
    assert vote_pairs((5, 1), ties=2) == [(0, 1, 0.75)]
    assert vote_pairs((0, 0)) == []


def test_a_choice_among_many_is_one_against_the_rest() -> None:
    assert vote_pairs((0, 0, 1, 0)) == [(2, 0, 1.0), (2, 1, 1.0), (2, 3, 1.0)]


values = st.lists(st.sampled_from([0.0, 1.0, 2.5, -3.0, NAN]), min_size=1, max_size=6)


@given(values, st.floats(0, 3), st.floats(0, 3))
def test_every_rule_puts_the_better_one_first(value_K: list[float], temperature: float, margin: float) -> None:
    chosen = all_pairs(value_K, temperature)
    judged = [v for v in value_K if not math.isnan(v)]
    assert len(chosen) == len(judged) * (len(judged) - 1) // 2
    for c in chosen + best_worst(value_K, temperature):
        gap = value_K[c.winner] - value_K[c.loser]
        assert gap >= 0 and 0.5 <= c.p <= 1
        assert (c.p == 0.5) == (gap == 0 or (temperature > 0 and gap / temperature < 1e-15))
    assert set(threshold(value_K, margin, temperature)) == {
        c for c in chosen if value_K[c.winner] - value_K[c.loser] > margin
    }
    assert set(best_worst(value_K, temperature)) <= set(chosen) or len(set(judged)) == 1


@given(st.lists(st.integers(0, 5), min_size=2, max_size=4), st.integers(0, 4))
def test_shifting_values_or_sharing_votes_leaves_labels_alone(votes: list[int], ties: int) -> None:
    assert all_pairs(votes) == all_pairs([v + 3 for v in votes])
    one, three = vote_pairs(votes, ties), vote_pairs([3 * v for v in votes], 3 * ties)
    assert [c[:2] for c in one] == [c[:2] for c in three]
    assert [c.p for c in one] == pytest.approx([c.p for c in three])
    for c in one:
        assert c.p >= 0.5


# ------------------------------------------------------------------------------------------------ several rewards


def test_dominance_by_hand() -> None:
    rewards = [(1.0, 1.0), (2.0, 1.0), (0.0, 3.0), (2.0, 1.0)]
    assert dominance(rewards) == [(1, 0, 1.0), (3, 0, 1.0)]


def test_slack_forgives_small_losses_and_ignores_small_gains() -> None:
    rewards = [(1.0, 0.0), (0.9, 2.0), (1.0, 0.05)]
    assert dominance(rewards) == [(2, 0, 1.0)]
    assert dominance(rewards, (0.1,)) == [(1, 0, 1.0), (1, 2, 1.0)]
    assert dominance(rewards, (0.0, 0.1)) == []
    assert dominance(rewards, (0.2, 0.0)) == [(1, 0, 1.0), (2, 0, 1.0), (1, 2, 1.0)]
    with pytest.raises(InputError, match="slack: 3 values for 2 rewards"):
        dominance(rewards, (0.1, 0.2, 0.3))


matrices = st.integers(1, 3).flatmap(
    lambda m: st.lists(st.tuples(*[st.integers(0, 4).map(float)] * m), min_size=1, max_size=5)
)


@given(matrices, st.sampled_from([0.0, 1.0, 2.0]))
def test_dominance_is_what_its_definition_says(rewards: list[tuple[float, ...]], slack: float) -> None:
    expected = {
        (i, j)
        for i, j in permutations(range(len(rewards)), 2)
        if all(a >= b - slack for a, b in zip(rewards[i], rewards[j], strict=True))
        and any(a > b + slack for a, b in zip(rewards[i], rewards[j], strict=True))
    }
    found = dominance(rewards, (slack,))
    assert {c[:2] for c in found} == expected and len(found) == len(expected)
    assert all(c.p == 1 for c in found) and not {(b, a) for a, b in expected} & expected


def test_independent_rewards_leave_a_share_of_two_to_one_minus_m() -> None:
    """Of all orders of four values in three rewards, a quarter of the pairs is comparable."""
    orders = list(permutations(range(3)))
    pairs = sum(len(dominance(list(zip(range(3), a, b, strict=True)))) for a in orders for b in orders)
    assert pairs / (3 * len(orders) ** 2) == 0.25


def test_the_majority_of_rewards_decides() -> None:
    assert majority([(1.0, 1.0, 0.0), (0.0, 0.0, 9.0)]) == [(0, 1, pytest.approx(2 / 3))]
    assert majority([(0.0, 1.0), (1.0, 0.0)]) == [(0, 1, 0.5)]
    assert majority([(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)]) == [(1, 0, pytest.approx(2 / 3))]


def test_win_rates_by_hand() -> None:
    rates = win_rates([(0.0, 1.0), (2.0, 1.0), (-1.0, NAN)])
    assert rates[0] == pytest.approx([(sigma(-2) + sigma(1)) / 2, 0.5])
    assert rates[1] == pytest.approx([(sigma(2) + sigma(3)) / 2, 0.5])
    assert rates[2][0] == pytest.approx((sigma(-1) + sigma(-3)) / 2) and math.isnan(rates[2][1])
    assert sum(row[0] for row in rates) == pytest.approx(1.5)


def test_the_upper_front_meets_the_lower_one() -> None:
    rewards = [(3.0, 1.0), (1.0, 3.0), (1.0, 1.0), (0.0, 0.0), (0.0, 9.0)]
    # 0, 1 and 4 are beaten by nobody; 2 is beaten and beats 3, so it is on neither front.
    assert frontier(rewards) == [(0, 3, 1.0), (1, 3, 1.0), (4, 3, 1.0)]
    assert frontier([(1.0, 0.0), (0.0, 1.0)]) == []  # both on both fronts
    assert frontier([(1.0, 1.0), (1.0, 1.0)]) == []


@given(matrices)
def test_fronts_are_those_of_the_win_rates(rewards: list[tuple[float, ...]]) -> None:
    """CaPO takes the fronts of calibrated rewards; calibration is monotone."""
    calibrated = [tuple(round(v, 9) for v in row) for row in win_rates(rewards)] if len(rewards) > 1 else rewards
    assert frontier(calibrated) == frontier(rewards)
    upper = {k for k in range(len(rewards)) if k not in {c.loser for c in dominance(rewards)}}
    lower = {k for k in range(len(rewards)) if k not in {c.winner for c in dominance(rewards)}}
    expected = {(i, j) for i in upper - lower for j in lower - upper}
    assert {c[:2] for c in frontier(rewards)} == expected


# ------------------------------------------------------------------------------------------------ records


def test_votes_decide_then_ranks_then_the_only_rating() -> None:
    record = pair(0, votes=(7.0, 3.0), ranks=(2.0, 1.0), ratings={"x": (0.0, 0.0)})
    assert choose(record) == [(0, 1, 0.7)]
    assert choose(replace(record, votes=None)) == [(1, 0, 1.0)]
    assert choose(replace(record, votes=None, ranks=None)) == [(0, 1, 0.5)]
    assert choose(replace(record, votes=None, ranks=None, ratings={})) == []
    assert choose(record, Selection(by=("ranks",))) == [(1, 0, 1.0)]
    assert choose(record, Selection(by=("x",), ties="drop")) == []
    assert choose(record, Selection(rule="best_worst")) == [(0, 1, 1.0)]


def test_rules_of_a_record() -> None:
    ratings = {"a": (0.0, 1.0), "b": (0.0, 0.0), "c": (0.2, 0.0)}
    record = pair(0, ratings=ratings)
    assert choose(record, Selection("dominance", by=("a", "b"))) == [(1, 0, 1.0)]
    assert choose(record, Selection("dominance")) == []
    assert choose(record, Selection("dominance", slack=(0.3,))) == [(1, 0, 1.0)]
    assert choose(record, Selection("dominance", slack=(0.0, 0.0, 0.5))) == [(1, 0, 1.0)]
    assert choose(record, Selection("majority")) == [(0, 1, 0.5)]
    assert choose(record, Selection("majority", ties="drop")) == []
    assert choose(record, Selection("frontier", by=("a", "b"))) == [(1, 0, 1.0)]
    assert choose(record, Selection("threshold", by=("c",), margin=0.1)) == [(0, 1, 1.0)]
    assert choose(record, Selection("threshold", by=("c",), margin=0.2)) == []
    assert choose(record, Selection("dominance", by=("votes", "a"))) == []
    assert choose(pair(0, ranks=(1.0, 1.0))) == [(0, 1, 0.5)]


def test_a_like_is_no_pair() -> None:
    assert choose(Record("x", pair(0).media[:1], ratings={"like": (1.0,)})) == []


MISTAKES = {
    "several ratings": (Selection(), "2 ratings; name one of a, b"),
    "unknown": (Selection(by=("c",)), "no rating 'c'"),
    "two": (Selection(by=("a", "b")), "name one, or choose dominance"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_rule_that_does_not_fit_is_said(name: str) -> None:
    selection, said = MISTAKES[name]
    with pytest.raises(InputError, match=said):
        choose(pair(0, ratings={"a": (0.0, 1.0), "b": (1.0, 0.0)}), selection)


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="'best_worst'"):
        Selection("best_wrst")  # pyright: ignore[reportArgumentType]
    for wrong in ({"margin": -1.0}, {"temperature": -0.1}, {"slack": (0.0, -1.0)}):
        with pytest.raises(InputError, match="must be 0 or more"):
            Selection(**wrong)
    assert Choice(0, 1, 0.5) == (0, 1, 0.5)
