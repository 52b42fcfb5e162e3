"""Peer-relative advantages: tables by hand, an independent numpy loop, and what must not matter."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.config import CreditConfig
from beholder.credit.group import advantages, group_spread, group_stats, spread, trimmed, whitened

NAN = math.nan
GRPO = CreditConfig(baseline="group", scale="group", ddof=0, eps=0.0)


def config(
    scale: Any = "group", ddof: int = 0, eps: float = 0.0, baseline: Any = "group", trim: float = 0.0
) -> CreditConfig:
    return CreditConfig(baseline=baseline, scale=scale, ddof=ddof, eps=eps, trim=trim)


def credit(rewards: list[float], groups: list[int], setting: CreditConfig = GRPO) -> list[float]:
    return advantages(torch.tensor(rewards), torch.tensor(groups), setting).tolist()


def loop(rewards: list[float], groups: list[int], setting: CreditConfig) -> list[float]:
    """The definition, one sample at a time."""
    r, g, answer = np.array(rewards, dtype=np.float64), np.array(groups), []
    for i in range(len(r)):
        everyone = r[~np.isnan(r)]
        if np.isnan(r[i]):
            answer.append(np.nan)
            continue
        low_first = sorted(r[(g == g[i]) & ~np.isnan(r)])
        mine = np.array(low_first[int(setting.trim * len(low_first)) :])
        others = np.delete(r, i)[(np.delete(g, i) == g[i]) & ~np.isnan(np.delete(r, i))]
        baseline = {
            "none": 0.0,
            "group": mine.mean(),
            "leave_one_out": others.mean() if len(others) else r[i],
        }[setting.baseline]
        value = r[i] - baseline
        pool = {"group": mine, "batch": everyone, "none": None}[setting.scale]
        if pool is not None:
            std = pool.std(ddof=setting.ddof) if len(pool) > setting.ddof else 0.0
            value = value / (std + setting.eps)
        answer.append(value)
    return answer


# --------------------------------------------------------------------------------------------------------- by hand


TWO_GROUPS = [1.0, 2.0, 3.0, 0.0, 0.0, 6.0]
"""Means 2 and 2; sums of squares 2 and 24."""


@pytest.mark.parametrize(
    "setting, expected",
    [
        (config("none"), [-1, 0, 1, -2, -2, 4]),
        (config("group"), [-(1.5**0.5), 0, 1.5**0.5, -(0.5**0.5), -(0.5**0.5), 2**0.5]),
        (config("group", ddof=1), [-1, 0, 1, -2 / 12**0.5, -2 / 12**0.5, 4 / 12**0.5]),
        (config("group", ddof=1, eps=1.0), [-0.5, 0, 0.5, *(v / (12**0.5 + 1) for v in (-2, -2, 4))]),
        (config("batch"), [v / (26 / 6) ** 0.5 for v in (-1, 0, 1, -2, -2, 4)]),
        (config("batch", ddof=1), [v / (26 / 5) ** 0.5 for v in (-1, 0, 1, -2, -2, 4)]),
        (config("batch", ddof=1, eps=0.5), [v / ((26 / 5) ** 0.5 + 0.5) for v in (-1, 0, 1, -2, -2, 4)]),
        (config("none", baseline="none"), TWO_GROUPS),
        (config("batch", baseline="none"), [v / (26 / 6) ** 0.5 for v in TWO_GROUPS]),
        (config("group", ddof=1, baseline="none"), [1, 2, 3, 0, 0, 6 / 12**0.5]),
        (config("none", baseline="leave_one_out"), [-1.5, 0, 1.5, -3, -3, 6]),
        (config("group", ddof=1, baseline="leave_one_out"), [-1.5, 0, 1.5, *(v / 12**0.5 for v in (-3, -3, 6))]),
        (config("none", trim=0.34), [-1.5, -0.5, 0.5, -3, -3, 3]),
        (config("group", trim=0.34), [-3, -1, 1, -1, -1, 1]),
        (config("none", trim=0.33), [-1, 0, 1, -2, -2, 4]),
    ],
)
def test_two_groups_by_hand(setting: CreditConfig, expected: list[float]) -> None:
    assert credit(TWO_GROUPS, [0, 0, 0, 1, 1, 1], setting) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ddof, expected", [(0, 1.0), (1, 0.5**0.5)])
@given(low=st.floats(-100, 100, width=32), gap=st.floats(0.125, 100, width=32))
@settings(deadline=None, max_examples=30)
def test_pairs_get_one_or_its_half_root_whatever_their_rewards(
    ddof: int, expected: float, low: float, gap: float
) -> None:
    got = credit([low, low + gap], [0, 0], config("group", ddof=ddof))
    assert got == pytest.approx([-expected, expected], rel=1e-5)


def test_order_and_interleaving_of_groups_do_not_matter() -> None:
    order = [4, 0, 5, 2, 1, 3]
    shuffled = credit([TWO_GROUPS[i] for i in order], [[0, 0, 0, 1, 1, 1][i] for i in order])
    straight = credit(TWO_GROUPS, [0, 0, 0, 1, 1, 1])
    assert shuffled == pytest.approx([straight[i] for i in order])


def test_group_numbers_may_have_gaps() -> None:
    assert credit(TWO_GROUPS, [2, 2, 2, 7, 7, 7]) == credit(TWO_GROUPS, [0, 0, 0, 1, 1, 1])


# -------------------------------------------------------------------------------------------- nothing to learn from


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_equal_rewards_and_groups_of_one_get_exactly_zero(baseline: str, scale: str, ddof: int, eps: float) -> None:
    setting = config(scale, ddof, eps, baseline)
    assert credit([0.1] * 3, [0, 0, 0], setting) == [0, 0, 0]
    assert credit([0.7], [0], setting) == [0]
    assert credit([0.1, 0.1, 0.1, 0.9], [0, 0, 0, 1], setting) == [0, 0, 0, 0]


@settings(deadline=None, max_examples=60)
@given(value=st.floats(-1e6, 1e6), n=st.integers(1, 40), eps=st.sampled_from([0.0, 1e-8]))
def test_any_repeated_reward_gets_exactly_zero(value: float, n: int, eps: float) -> None:
    reward_N, group_N = torch.full((n,), value, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    assert advantages(reward_N, group_N, config("group", eps=eps)).tolist() == [0] * n
    assert credit([value] * n, [0] * n, config("group", eps=eps)) == [0] * n


# ---------------------------------------------------------------------------------------------------- failed rewards


def test_failed_rewards_stay_nan_and_change_nothing_for_the_others() -> None:
    for scale in ("none", "group", "batch"):
        got = credit([1, NAN, 2, 3, 0, 0, NAN, 6], [0, 0, 0, 0, 1, 1, 1, 1], config(scale, ddof=1, eps=1e-4))
        want = credit(TWO_GROUPS, [0, 0, 0, 1, 1, 1], config(scale, ddof=1, eps=1e-4))
        assert math.isnan(got[1]) and math.isnan(got[6])
        assert [got[i] for i in (0, 2, 3, 4, 5, 7)] == pytest.approx(want)


def test_a_group_that_failed_altogether_harms_no_other() -> None:
    got = credit([NAN, NAN, 1, 3], [0, 0, 1, 1])
    assert math.isnan(got[0]) and math.isnan(got[1])
    assert got[2:] == [-1, 1]


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_the_one_reward_left_of_a_group_gets_zero(baseline: str, scale: str, ddof: int) -> None:
    got = credit([NAN, 5.0, NAN], [0, 0, 0], config(scale, ddof, 1e-4, baseline))
    assert got[1] == 0 and math.isnan(got[0])


# --------------------------------------------------------------------------------------------------------- properties


samples = st.lists(st.tuples(st.floats(-50, 50, width=32) | st.just(NAN), st.integers(0, 4)), min_size=1, max_size=30)
settings_of_credit = st.builds(
    CreditConfig,
    baseline=st.sampled_from(["none", "group", "leave_one_out"]),
    scale=st.sampled_from(["none", "group", "batch"]),
    ddof=st.integers(0, 1),
    eps=st.sampled_from([1e-4, 1e-2, 1.0]),
)


def tensors(drawn: list[tuple[float, int]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([r for r, _ in drawn]), torch.tensor([g for _, g in drawn])


def spread_out(reward_N: Tensor, group_N: Tensor) -> bool:
    """No group whose rewards are almost but not quite equal: there rounding alone decides."""
    groups = [reward_N[(group_N == g) & ~reward_N.isnan()].double() for g in group_N.unique()]
    return all(r.max() == r.min() or r.std(correction=0) > 1e-2 for r in groups if len(r))


@settings(deadline=None, max_examples=150)
@given(drawn=samples, setting=settings_of_credit)
def test_equals_the_loop_over_samples(drawn: list[tuple[float, int]], setting: CreditConfig) -> None:
    reward_N, group_N = tensors(drawn)
    want = loop(reward_N.tolist(), group_N.tolist(), setting)
    np.testing.assert_allclose(advantages(reward_N, group_N, setting).numpy(), want, rtol=1e-8, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(drawn=samples, scale=st.sampled_from(["none", "group", "batch"]), share=st.sampled_from([0.1, 0.25, 0.5]))
def test_trimmed_statistics_equal_the_loop_over_samples(
    drawn: list[tuple[float, int]], scale: str, share: float
) -> None:
    reward_N, group_N = tensors(drawn)
    setting = config(scale, eps=1e-2, trim=share)
    want = loop(reward_N.tolist(), group_N.tolist(), setting)
    np.testing.assert_allclose(advantages(reward_N, group_N, setting).numpy(), want, rtol=1e-8, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(rewards=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=12), group=st.integers(2, 5))
def test_leave_one_out_is_dr_grpo_times_g_over_g_minus_one(rewards: list[float], group: int) -> None:
    groups = [i // group for i in range(len(rewards))]
    loo, plain = (credit(rewards, groups, config("none", baseline=b)) for b in ("leave_one_out", "group"))
    sizes = [groups.count(g) for g in groups]
    want = [a * n / (n - 1) if n > 1 else 0.0 for a, n in zip(plain, sizes, strict=True)]
    assert loo == pytest.approx(want, rel=1e-12, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(drawn=samples, setting=settings_of_credit, shift=st.floats(-20, 20), scale=st.sampled_from([0.5, 2.0, 8.0]))
def test_shift_and_scale_of_rewards_do_not_matter(
    drawn: list[tuple[float, int]], setting: CreditConfig, shift: float, scale: float
) -> None:
    reward_N, group_N = tensors(drawn)
    assume(spread_out(reward_N, group_N) and setting.baseline != "none" and setting.scale != "none")
    free = CreditConfig(baseline=setting.baseline, scale=setting.scale, ddof=setting.ddof, eps=0.0)
    want = advantages(reward_N, group_N, free)
    moved = advantages(scale * reward_N.double() + shift, group_N, free)
    torch.testing.assert_close(moved, want, rtol=1e-4, atol=1e-4, equal_nan=True)


@settings(deadline=None, max_examples=60)
@given(drawn=samples, setting=settings_of_credit)
def test_advantages_are_centred_in_their_group(drawn: list[tuple[float, int]], setting: CreditConfig) -> None:
    reward_N, group_N = tensors(drawn)
    got = advantages(reward_N, group_N, setting)
    assert got.dtype == torch.float64
    assert torch.equal(got.isnan(), reward_N.isnan())
    if setting.baseline != "none":
        sums = [got[group_N == g].nansum() for g in group_N.unique()]
        torch.testing.assert_close(torch.stack(sums), torch.zeros(len(sums)).double(), rtol=0, atol=1e-6)


def test_the_batch_whose_deviation_divides_may_be_another() -> None:
    got = advantages(
        torch.tensor([1.0, 3.0]), torch.tensor([0, 0]), config("batch"), batch_N=torch.tensor([0.0, NAN, 4.0])
    )
    assert got.tolist() == [-0.5, 0.5]


def test_a_given_baseline_replaces_the_peers_and_may_be_of_any_sign() -> None:
    given_N = torch.tensor([0.5, 2.0, 5.0])
    got = advantages(torch.tensor([1.0, 3.0, NAN]), torch.tensor([0, 0, 0]), config("none"), given=given_N)
    assert got[:2].tolist() == [0.5, 1.0] and math.isnan(got[2])
    got = advantages(torch.tensor([1.0, 3.0]), torch.tensor([0, 0]), config("group"), given=given_N[:2])
    assert got.tolist() == [0.5, 1.0]  # the deviation is still that of the peers, 1


def test_large_rewards_keep_their_differences() -> None:
    assert credit([1e6, 1e6 + 1], [0, 0], config("none")) == [-0.5, 0.5]


# -------------------------------------------------------------------------------------------------------------- stats


def test_stats_count_groups_without_variance_and_average_the_others() -> None:
    stats = group_stats(torch.tensor([1.0, 3.0, 5.0, 5.0, 2.0, NAN]), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert stats.without_variance == pytest.approx(2 / 3)
    assert stats.std == pytest.approx(1 / 3)


def test_stats_leave_out_groups_that_failed_altogether() -> None:
    stats = group_stats(torch.tensor([1.0, 3.0, NAN, NAN]), torch.tensor([0, 0, 1, 1]))
    assert stats.without_variance == 0
    assert stats.std == 1


def test_the_spread_of_each_group_and_of_everything() -> None:
    rewards, groups = torch.tensor([1.0, 3.0, 5.0, 5.0, NAN]), torch.tensor([0, 0, 1, 1, 1])
    assert group_spread(rewards, groups).tolist() == [1.0, 0.0]
    assert spread(rewards, 0).item() == pytest.approx(2.75**0.5)
    assert spread(rewards, 1).item() == pytest.approx((11 / 3) ** 0.5)
    assert spread(torch.tensor([7.0, NAN]), 1).item() == 0


def test_trimming_takes_the_lowest_of_each_group_and_a_failure_is_not_a_low_reward() -> None:
    rewards, groups = torch.tensor([3.0, 1.0, 2.0, 4.0, 9.0, NAN, 8.0, 7.0]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert trimmed(rewards, groups, 0.5).nan_to_num(-1).tolist() == [3, -1, -1, 4, 9, -1, 8, -1]
    assert trimmed(rewards, groups, 0.3).nan_to_num(-1).tolist() == [3, -1, 2, 4, 9, -1, 8, 7]
    assert trimmed(rewards, groups, 0.0) is rewards
    assert rewards.nan_to_num(-1).tolist() == [3, 1, 2, 4, 9, -1, 8, 7]


# ---------------------------------------------------------------------------------------------------------- whitening


def test_whitening_by_hand_is_over_the_batch_and_leaves_failures_out() -> None:
    got = whitened(torch.tensor([1.0, NAN, 3.0]).double(), torch.tensor([1.0, NAN, 3.0, 5.0, 7.0]).double())
    assert [got[0].item(), got[2].item()] == pytest.approx([-3 / 5**0.5, -1 / 5**0.5])
    assert math.isnan(got[1])


def test_whitening_equal_or_failed_advantages_is_harmless() -> None:
    failed = torch.full((2,), NAN).double()
    for n in range(1, 30):  # in float64 the mean of n times 0.1 is not always 0.1
        equal = torch.full((n,), 0.1, dtype=torch.float64)
        assert whitened(equal, equal).tolist() == [0] * n
    assert whitened(failed, failed).isnan().all()
