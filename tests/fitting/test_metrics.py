"""Metrics against brute force, and independence of the order of pairs."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from beholder.fitting import metrics

gaps_and_labels = st.lists(
    st.tuples(st.sampled_from([-1.5, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75]), st.sampled_from([-1.0, 0.0, 1.0])),
    min_size=1,
    max_size=12,
)


def both(pairs: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    gap, label = zip(*pairs, strict=True)
    return torch.tensor(gap), torch.tensor(label)


def test_accuracy_leaves_ties_out_and_calls_equal_rewards_wrong() -> None:
    gap, label = torch.tensor([1.0, -1.0, 0.0, 5.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert metrics.accuracy(gap, label) == pytest.approx(1 / 3)
    assert math.isnan(metrics.accuracy(gap[3:], label[3:]))
    assert metrics.labels_of(torch.tensor([0.7, 0.5, 0.2])).tolist() == [1, 0, -1]


@given(gaps_and_labels)
def test_the_calibrated_threshold_is_the_best_one(pairs: list[tuple[float, float]]) -> None:
    gap, label = both(pairs)
    best, threshold = metrics.calibrate_ties(gap, label)
    tried = [-1.0, *gap.abs().tolist()]
    scores = [metrics.accuracy_with_ties(gap, label, t) for t in tried]
    assert best == pytest.approx(max(scores))
    assert metrics.accuracy_with_ties(gap, label, threshold) == pytest.approx(best)


@given(gaps_and_labels, st.randoms())
def test_no_metric_depends_on_the_order_of_pairs_or_of_their_two_sides(pairs, random) -> None:
    gap, label = both(pairs)
    mixed = list(pairs)
    random.shuffle(mixed)
    for other in (both(mixed), (-gap, -label)):
        assert metrics.calibrate_ties(*other) == pytest.approx(metrics.calibrate_ties(gap, label))
        assert metrics.calibration_error(*other) == pytest.approx(metrics.calibration_error(gap, label), nan_ok=True)
        assert metrics.accuracy(*other) == pytest.approx(metrics.accuracy(gap, label), nan_ok=True)


def test_where_a_public_metric_depends_on_the_order_this_one_does_not() -> None:
    """Equal gaps, one a tie: half is right at every threshold; and a perfect prediction without ties is perfect."""
    equal = torch.tensor([0.5, 0.5])
    assert metrics.calibrate_ties(equal, torch.tensor([0.0, 1.0]))[0] == 0.5
    assert metrics.calibrate_ties(equal, torch.tensor([1.0, 0.0]))[0] == 0.5
    assert metrics.calibrate_ties(torch.tensor([0.5, -0.2]), torch.tensor([1.0, -1.0])) == (1.0, -1.0)


def test_calibration_error_by_hand() -> None:
    logit = math.log(0.8 / 0.2)
    gap = torch.full((10,), logit, dtype=torch.float64)
    label = torch.tensor([1.0] * 6 + [-1.0] * 4)
    assert metrics.calibration_error(gap, label) == pytest.approx(0.2)
    assert metrics.calibration_error(-gap, -label) == pytest.approx(0.2)
    true = torch.tensor([1.0] * 8 + [-1.0] * 2)
    assert metrics.calibration_error(gap, true) == pytest.approx(0, abs=1e-9)
    assert metrics.calibration_error(gap, label, temperature=logit / math.log(0.6 / 0.4)) == pytest.approx(0, abs=1e-9)


@given(st.floats(0.05, 20))
def test_the_temperature_is_recovered_from_its_own_probabilities(temperature: float) -> None:
    gap = torch.linspace(-3, 3, 41, dtype=torch.float64) * temperature
    assert metrics.fit_temperature(gap, torch.sigmoid(gap / temperature)) == pytest.approx(temperature, rel=1e-3)


@settings(deadline=None)  # thousands of choices by brute force
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=6))
def test_best_of_n_is_the_mean_over_all_choices(images: list[tuple[int, float]]) -> None:
    reward, gold = (torch.tensor(column, dtype=torch.float64) for column in zip(*images, strict=True))
    found = metrics.best_of_n([reward], [gold])
    for n in range(1, len(images) + 1):
        means = []
        for chosen in combinations(range(len(images)), n):
            best = max(reward[i].item() for i in chosen)
            means.append(np.mean([gold[i].item() for i in chosen if reward[i] == best]))
        assert found[n] == pytest.approx(np.mean(means))
    assert found[1] == pytest.approx(gold.mean().item())


def test_best_of_n_of_the_truth_is_the_ceiling() -> None:
    generator = torch.Generator().manual_seed(0)
    gold = [torch.rand(6, generator=generator) for _ in range(20)]
    noisy = [g + 0.3 * torch.randn(6, generator=generator) for g in gold]
    curve, ceiling = metrics.best_of_n(noisy, gold), metrics.best_of_n(gold, gold)
    assert all(ceiling[n] >= curve[n] for n in curve)
    assert list(ceiling.values()) == sorted(ceiling.values()) and ceiling[6] > curve[6] > curve[1]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_separation_counts_pairs(inside: list[int], outside: list[int]) -> None:
    expected = np.mean([(o > i) + 0.5 * (o == i) for i in inside for o in outside])
    assert metrics.separation(torch.tensor(inside), torch.tensor(outside)) == pytest.approx(expected)


def test_pairs_of_one_prompt_are_one_case_when_they_go_together() -> None:
    right = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    alone = metrics.clustered_error(right, torch.arange(8))
    assert alone == pytest.approx(math.sqrt(0.25 / 8))
    together = metrics.clustered_error(right, torch.tensor([0] * 4 + [7] * 4))
    assert together == pytest.approx(math.sqrt(0.25 / 2))


@settings(deadline=None)  # scipy is imported piece by piece
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12))
def test_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    if first.std() == 0 or second.std() == 0:
        assert math.isnan(metrics.correlation(first, second)) and math.isnan(metrics.rank_correlation(first, second))
        return
    assert metrics.correlation(first, second) == pytest.approx(stats.pearsonr(first, second)[0], abs=1e-9)
    assert metrics.rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second)[0], abs=1e-9)
