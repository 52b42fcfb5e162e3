"""Judges of pairs and win rates: what cancels, what is masked, and what does not matter."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.rewards.pairwise import judged, win_rates

NAN = math.nan
BRIGHTNESS = torch.tensor([0.2, 0.8, 0.5, 0.5])
PROMPTS = ["a", "b", "c", "d"]
ONE = torch.zeros(4, dtype=torch.int64)


def images(brightness: Tensor = BRIGHTNESS) -> Tensor:
    return brightness.view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def brightness_of(image: Tensor) -> Tensor:
    return image.mean((1, 2, 3))


def brighter(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
    return ((brightness_of(first) - brightness_of(second)).round(decimals=3).sign() + 1) / 2


def leaning(bias: float) -> Callable[[Tensor, Tensor, Sequence[str]], Tensor]:
    """A judge by sigmoid, with a preference for whatever comes first."""
    return lambda first, second, prompts: (3 * (brightness_of(first) - brightness_of(second))).sigmoid() + bias


# -------------------------------------------------------------------------------------------------------------- judges


def test_win_rates_by_hand_with_ties_half() -> None:
    assert judged(brighter, images(), PROMPTS, ONE).tolist() == pytest.approx([0, 1, 0.5, 0.5])


def test_a_preference_for_the_first_place_cancels() -> None:
    fair, biased = (judged(leaning(bias), images(), PROMPTS, ONE) for bias in (0.0, 0.3))
    torch.testing.assert_close(biased, fair)
    assert fair.argmax() == 1 and fair[0] < fair[2] == fair[3]


def test_a_judge_that_always_names_the_first_says_nothing() -> None:
    got = judged(lambda first, second, prompts: torch.ones(len(first)), images(), PROMPTS, ONE)
    assert got.tolist() == [0.5] * 4


def test_each_pair_of_a_group_is_asked_in_both_orders_with_its_prompt_and_no_other() -> None:
    asked: list[tuple[float, float, str]] = []

    def judge(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        asked.extend(zip(brightness_of(first).tolist(), brightness_of(second).tolist(), prompts, strict=True))
        return torch.full((len(first),), 0.5)

    values = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    judged(judge, images(values), ["x", "y", "x", "y", "x"], torch.tensor([3, 1, 3, 1, 3]))
    pairs = [(0.25, 0.75, "y"), (0.0, 0.5, "x"), (0.0, 1.0, "x"), (0.5, 1.0, "x")]
    assert sorted(asked) == sorted([*pairs, *((b, a, p) for a, b, p in pairs)])


def test_a_failed_comparison_is_left_out_and_not_a_tie() -> None:
    def judge(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        nobody_can_say = (brightness_of(first) > 0.3) & (brightness_of(second) > 0.3)
        return torch.where(nobody_can_say, NAN, brighter(first, second, prompts))

    got = judged(judge, images(torch.tensor([0.1, 0.5, 0.9])), ["p"] * 3, torch.zeros(3, dtype=torch.int64))
    assert got.tolist() == [0, 1, 1]  # with ties the two would have 0.75


def test_one_order_alone_counts_where_the_other_failed() -> None:
    def judge(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.where(brightness_of(first) > brightness_of(second), 0.9, NAN)

    got = judged(judge, images(torch.tensor([0.1, 0.9])), ["p"] * 2, torch.zeros(2, dtype=torch.int64))
    assert got.tolist() == pytest.approx([0.1, 0.9])


def test_a_judge_that_always_fails_gives_no_values() -> None:
    got = judged(lambda first, second, prompts: torch.full((len(first),), NAN), images(), PROMPTS, ONE)
    assert got.isnan().all()


def test_an_image_without_company_has_no_value_and_asks_nobody() -> None:
    def judge(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        assert len(first) == 2
        return torch.ones(2)

    got = judged(judge, images(), PROMPTS, torch.tensor([0, 1, 1, 2]))
    assert got.isnan().tolist() == [True, False, False, True]
    assert got[1:3].tolist() == [0.5, 0.5]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 7))
def test_win_rates_of_any_judge_that_answers_average_one_half(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    got = judged(
        lambda first, second, prompts: torch.rand(len(first), generator=generator),
        torch.zeros(2 * n, 3, 1, 1),
        ["p"] * 2 * n,
        torch.arange(2).repeat_interleave(n),
    )
    torch.testing.assert_close(got.view(2, n).mean(1), torch.full((2,), 0.5))
    assert got.min() >= 0 and got.max() <= 1


# ------------------------------------------------------------------------------------------------- of scalar rewards

VALUES = st.lists(st.integers(-5, 5).map(float) | st.just(NAN), min_size=2, max_size=9)


def test_rates_of_scalar_rewards_by_hand() -> None:
    values, groups = torch.tensor([1.0, 3.0, 2.0, 2.0, 9.0, 7.0, NAN, 4.0]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    got = win_rates(values, groups)
    assert got[:6].tolist() == pytest.approx([0, 1, 0.5, 0.5, 1, 0])
    assert got[6:].isnan().all()  # a failure, and one without company


@settings(deadline=None, max_examples=60)
@given(values=VALUES)
def test_rates_equal_counting_and_average_one_half(values: list[float]) -> None:
    groups = torch.zeros(len(values), dtype=torch.int64)
    got = win_rates(torch.tensor(values), groups)
    valid = [v for v in values if v == v]
    for value, rate in zip(values, got.tolist(), strict=True):
        if value != value or len(valid) < 2:
            assert math.isnan(rate)
        else:
            others = len(valid) - 1
            want = (sum(v < value for v in valid) + 0.5 * (sum(v == value for v in valid) - 1)) / others
            assert rate == pytest.approx(want)
    if len(valid) > 1:
        assert got.nanmean().item() == pytest.approx(0.5)


@settings(deadline=None, max_examples=40)
@given(values=VALUES)
def test_rates_are_those_of_any_increasing_function_of_the_rewards(values: list[float]) -> None:
    groups = torch.arange(len(values)) % 2
    got, want = (win_rates(torch.from_numpy(v), groups) for v in (np.exp(np.array(values)), np.array(values)))
    assert torch.equal(got.isnan(), want.isnan())
    torch.testing.assert_close(got, want, equal_nan=True)


def test_a_judge_that_compares_a_scalar_gives_the_rates_of_that_scalar() -> None:
    groups = torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(judged(brighter, images(), PROMPTS, groups), win_rates(BRIGHTNESS, groups))
