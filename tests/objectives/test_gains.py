"""What preference training did to the liked and the disliked, counted by hand."""

import math
from typing import Any

import pytest
from evidence_by_hand import double, evidence

from beholder.objectives.preference import gains

NAN = math.nan


def found(log_ratio: list[float], value: list[float], **where: Any) -> list[float]:
    """Liked decisions, the sum of their log-ratios, disliked ones and theirs; comparisons, and how many agree."""
    return gains(evidence(log_ratio, **where), double(value)).tolist()


def test_pairs() -> None:
    """Two prompts: one told apart rightly, and one wrongly although both fell."""
    got = found([0.3, -0.2, -0.5, -0.4], [1.0, -1.0, 2.0, 0.0], group=[0, 0, 7, 7])
    assert got == pytest.approx([2, 0.3 - 0.5, 2, -0.2 - 0.4, 2, 1])


def test_groups_count_their_best_and_their_worst() -> None:
    got = found([0.3, 9.0, -0.2, 0.1], [0.5, 0.4, -1.0, 2.0])
    assert got == pytest.approx([1, 0.1, 1, -0.2, 1, 1])


def test_every_step_is_a_comparison() -> None:
    got = found([0.3, 0.1, -0.2, 0.2], [1.0, 1.0, 0.0, 0.0], step=[0, 1, 0, 1], sample=[0, 0, 1, 1])
    assert got == pytest.approx([2, 0.4, 2, 0.0, 2, 1])


def test_ties_and_failures_count_for_nothing() -> None:
    got = found([0.3, -0.2, 0.5, 0.4, 0.7, 0.6], [1.0, 1.0, NAN, 2.0, NAN, NAN], group=[0, 0, 1, 1, 2, 2])
    assert got == [0, 0, 0, 0, 0, 0]
    with_one = found([0.3, 9.0, -0.2], [1.0, NAN, 0.0])
    assert with_one == pytest.approx([1, 0.3, 1, -0.2, 1, 1])


def test_an_equal_gain_does_not_agree() -> None:
    assert found([0.0, 0.0], [1.0, 0.0])[4:] == [1, 0]


@pytest.mark.parametrize("group", [[0, 1, 2, 3], [0, 0, 0, 1]])
def test_alone_or_in_uneven_groups_the_sign_decides(group: list[int]) -> None:
    got = found([0.3, -0.2, 0.1, 0.5], [2.0, -1.0, NAN, 0.0], group=group)
    assert got == pytest.approx([1, 0.3, 1, -0.2, 0, 0])
