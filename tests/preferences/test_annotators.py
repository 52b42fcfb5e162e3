"""Simulated people: their noise is Bradley–Terry's, their ties Rao and Kupper's, and a seed makes them again."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beholder.errors import InputError
from beholder.preferences.annotators import Crowd, Taste, count_votes, ranks_of, utility

NAN = math.nan


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def crowd(**given) -> Crowd:
    return Crowd({"all": Taste({"r": 1.0})}, **{"size": 1, **given})


def test_without_noise_annotators_rank_by_utility() -> None:
    value = np.array([[0.1, 1.0], [0.3, 0.0], [0.2, NAN], [0.3, 0.5]])
    people = Crowd({"r": Taste({"r": 1.0}), "both": Taste({"r": 1.0, "s": 2.0})}, size=2, temperature=0.0)
    assert people.ranks(value, ("r", "s"), 0, [0]) == [4, 1, 3, 1]
    ranks = people.ranks(value, ("r", "s"), 1, [0])
    assert ranks[:2] == [1, 3] and math.isnan(ranks[2]) and ranks[3] == 2


@pytest.mark.parametrize(("gap", "temperature", "tie"), [(0.5, 0.5, 0.0), (0.3, 0.2, 0.1), (0.0, 0.1, 0.05)])
def test_pairs_follow_bradley_terry_with_ties(gap: float, temperature: float, tie: float) -> None:
    """P(i beats j) = σ((Δ - tie) / T), P(j beats i) = σ((-Δ - tie) / T), the rest are ties."""
    people, n = crowd(temperature=temperature, tie=tie), 4000
    value = np.array([[gap], [0.0]])
    seen = [tuple(people.ranks(value, ("r",), 0, [i])) for i in range(n)]
    shares = [seen.count(ranks) / n for ranks in ((1, 2), (2, 1), (1, 1))]
    wins, losses = sigma((gap - tie) / temperature), sigma((-gap - tie) / temperature)
    for share, p in zip(shares, (wins, losses, 1 - wins - losses), strict=True):
        assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / n) + 1e-12


def test_rankings_follow_plackett_luce() -> None:
    """P(order) = Π exp(u_i / T) / Σ of those left."""
    people, n = crowd(temperature=0.5), 4000
    u = np.array([0.4, 0.0, -0.3])
    worth = np.exp(u / 0.5)
    expected = worth[0] / worth.sum() * worth[2] / worth[1:].sum()
    seen = [tuple(people.ranks(u[:, None], ("r",), 0, [i])) for i in range(n)]
    assert abs(seen.count((1, 3, 2)) / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_judgements_are_a_function_of_the_key_and_the_annotator() -> None:
    people, value = crowd(size=4, temperature=1.0), np.zeros((5, 1))
    once = people.ranks(value, ("r",), 2, [7, 3])
    assert once == people.ranks(value, ("r",), 2, [7, 3])
    others = [people.ranks(value, ("r",), a, key) for a, key in ((1, [7, 3]), (2, [7, 4]), (2, [8, 3]))]
    assert once not in others
    assert people.draw(4, [1]) == people.draw(4, [1]) and sorted(people.draw(4, [1])) == [0, 1, 2, 3]
    drawn = [people.draw(2, [i]) for i in range(400)]
    assert all(len(set(two)) == 2 for two in drawn)
    assert [sum(a in two for two in drawn) for a in range(4)] == pytest.approx([200] * 4, abs=50)


def test_annotators_are_shared_out_and_named_by_group() -> None:
    people = Crowd({"exact": Taste({"r": 1.0}, share=3), "neat": Taste({"s": 1.0})}, size=8)
    assert [name for name, _ in people.members] == [*(f"exact-{i}" for i in range(6)), "neat-0", "neat-1"]
    value = np.array([[1.0, 0.0], [0.0, 1.0]])
    quiet = Crowd(people.tastes, size=8, temperature=0.0)
    assert [quiet.ranks(value, ("r", "s"), a, [0])[0] for a in range(8)] == [1] * 6 + [2] * 2


@given(st.integers(1, 5), st.integers(0, 20), st.data())
def test_every_group_has_someone(groups: int, more: int, data: st.DataObject) -> None:
    shares = data.draw(st.lists(st.floats(0.01, 10), min_size=groups, max_size=groups))
    people = Crowd({str(i): Taste({"r": 1.0}, s) for i, s in enumerate(shares)}, size=groups + more)
    counts = [sum(taste == str(i) for _, taste in people.members) for i in range(groups)]
    assert sum(counts) == groups + more == len({name for name, _ in people.members})
    for count, share in zip(counts, shares, strict=True):
        assert count >= 1 and abs(count - 1 - more * share / sum(shares)) < 1


def test_ties_are_within_reach_of_the_best_left() -> None:
    assert ranks_of(np.array([1.0, 0.95, 0.9, 0.2]), tie=0.06) == [1, 1, 3, 4]
    assert ranks_of(np.array([0.2, 1.0, 1.0]), tie=0.0) == [3, 1, 1]
    assert ranks_of(np.array([NAN, 0.5]), tie=0.0)[1] == 1
    assert all(math.isnan(r) for r in ranks_of(np.array([NAN, NAN]), tie=0.0))


def test_rewards_that_do_not_matter_may_fail() -> None:
    value = np.array([[1.0, NAN], [NAN, 0.0]])
    assert utility(value, ("r", "s"), {"r": 2.0})[0] == 2
    assert np.isnan(utility(value, ("r", "s"), {"r": 2.0, "s": 1.0})).all()


def test_votes_are_counted() -> None:
    assert count_votes([[1, 2], [2, 1], [1, 2], [1, 1]]) == ((2.0, 1.0), 1.0)
    assert count_votes([[1, 1, 3], [2, 3, 1]]) == ((0.0, 0.0, 1.0), 1.0)
    assert count_votes([[1, NAN], [NAN, NAN]]) == ((0.0, 0.0), 0.0)  # one candidate is no comparison


MISTAKES = {
    "nobody": ({"tastes": {}}, "no group given"),
    "temperature": ({"temperature": -1.0}, "temperature -1.0 must be 0 or more"),
    "tie": ({"tie": NAN}, "tie nan must be 0 or more"),
    "few": ({"tastes": {"a": Taste({"r": 1.0}), "b": Taste({"r": 1.0})}}, "1 cannot be of 2 groups"),
    "share": ({"tastes": {"a": Taste({"r": 1.0}, 0.0)}}, "must be greater than 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_impossible_crowds_are_refused(name: str) -> None:
    settings, said = MISTAKES[name]
    with pytest.raises(InputError, match=said):
        Crowd(**{"tastes": {"a": Taste({"r": 1.0})}, "size": 1, **settings})


def test_what_is_not_measured_is_said() -> None:
    with pytest.raises(InputError, match=r"no reward 'sharpnes' is measured; did you mean 'sharpness'"):
        utility(np.zeros((2, 1)), ("sharpness",), {"sharpnes": 1.0})
    with pytest.raises(InputError, match="3 judgements by 2 annotators"):
        crowd(size=2).draw(3, [0])
