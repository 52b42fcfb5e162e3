"""Held-out evaluation: Wilson's interval, the fixed draw, and what a row says when rewards fail."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.config import EvaluationConfig, LoraConfig, PolicyConfig
from beholder.evaluation.heldout import DIVERSITY_PROMPTS, SEED, Evaluation, evaluate, evaluation_set, wilson
from beholder.policies import load_policy
from beholder.prompts import PromptSet
from beholder.rewards import Reward, RewardTable, load_reward
from tiny import CORPUS

KINDS = PromptSet(tuple("abcdef"), ("x", "y", "x", "y", "x", "y"))


# R: Hmisc / scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
@pytest.mark.parametrize(
    "k, n, low, high",
    [
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (5, 10, 0.2365931, 0.7634069),
        (15, 148, 0.0623865, 0.1605070),
        (1, 1, 0.2065493, 1.0),
    ],
)
def test_wilson_interval_equals_published_values(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k / n, n) == pytest.approx((low, high), abs=2e-5)


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 5000), data=st.data())
def test_wilson_interval_solves_its_quadratic(n: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, n)) / n
    for bound in wilson(share, n):
        assert 0 <= bound <= 1
        assert (share - bound) ** 2 == pytest.approx(1.96**2 * bound * (1 - bound) / n, abs=1e-9)
    assert wilson(share, n)[0] <= share + 1e-12 and wilson(share, n)[1] >= share - 1e-12


def test_wilson_interval_is_mirrored_and_narrows() -> None:
    low, high = wilson(0.3, 50)
    assert wilson(0.7, 50) == pytest.approx((1 - high, 1 - low))
    assert high - low > wilson(0.3, 500)[1] - wilson(0.3, 500)[0] > 0


# ------------------------------------------------------------------------------------------------------ the fixed set


def test_the_evaluation_set_is_the_same_every_time() -> None:
    config = EvaluationConfig(images=7)
    first, second = evaluation_set(KINDS, config), evaluation_set(KINDS, config)
    assert first[:2] == second[:2] and torch.equal(first[2], second[2])


def test_diversity_gets_four_seeds_of_each_of_the_first_prompts() -> None:
    indices, seeds, group_N = evaluation_set(KINDS, EvaluationConfig(images=30))
    assert len(indices) == len(seeds) == len(group_N) == 30 + DIVERSITY_PROMPTS * 3
    assert seeds == list(range(SEED, SEED + 102))
    for group in range(24):
        rows = (group_N == group).nonzero().flatten().tolist()
        assert len(rows) == 4 and rows[0] == group
        assert len({indices[row] for row in rows}) == 1
    assert group_N[24:30].tolist() == list(range(24, 30))


def test_an_evaluation_of_one_image_has_its_diversity_too() -> None:
    indices, _, group_N = evaluation_set(KINDS, EvaluationConfig(images=1))
    assert len(set(indices)) == 1 and group_N.tolist() == [0, 0, 0, 0]


# ------------------------------------------------------------------------------------------------------------ the row


def evaluation(values: list[list[float]], kinds: list[str] | None = None) -> Evaluation:
    table = RewardTable(torch.tensor(values), tuple("rs")[: len(values[0])])
    return Evaluation(["p"] * len(values), kinds, torch.zeros(len(values), 3, 8, 8), table, 0.25)


def test_row_has_means_an_interval_and_shares_per_kind() -> None:
    row = evaluation([[1.0, 0.5], [0.0, 0.1], [1.0, 0.3], [1.0, 0.3]], ["a", "a", "b", "b"]).row()
    assert row["rewards"] == pytest.approx({"r": 0.75, "s": 0.3})
    assert row["interval"] == pytest.approx(wilson(0.75, 4))
    assert row["per_kind"] == {"a": 0.5, "b": 1.0}
    assert (row["n_images"], row["failed_rewards"], row["diversity"]) == (4, 0, 0.25)


def test_failed_rewards_are_counted_and_left_out_of_means_and_interval() -> None:
    row = evaluation([[1.0, 0.5], [math.nan, 0.1], [0.0, math.nan], [1.0, 0.3]]).row()
    assert row["rewards"] == pytest.approx({"r": 2 / 3, "s": 0.3})
    assert row["interval"] == pytest.approx(wilson(2 / 3, 3))
    assert row["failed_rewards"] == 2
    assert "per_kind" not in row


def test_a_graded_reward_has_no_interval() -> None:
    assert "interval" not in evaluation([[1.0], [0.5]]).row()


def test_an_evaluation_whose_rewards_all_failed_still_makes_a_row() -> None:
    row = evaluation([[math.nan], [math.nan]], ["a", "b"]).row()
    assert row["failed_rewards"] == 2
    assert "interval" not in row
    json.dumps(row)


# ----------------------------------------------------------------------------------------------------------- all of it


def test_evaluating_twice_gives_the_same_row_and_images(tiny_sd3_folder: Path) -> None:
    model = PolicyConfig(model=str(tiny_sd3_folder), max_sequence_length=16, lora=LoraConfig(rank=2, alpha=2))
    policy, prompts = load_policy(model), PromptSet(tuple(CORPUS))
    rewards = [load_reward("redness"), Reward("length", lambda images, texts: torch.tensor([len(t) for t in texts]))]
    config = EvaluationConfig(images=5, steps=2)
    first, second = (evaluate(policy, prompts, rewards, config, steps=9, guidance=1.0, batch=4) for _ in range(2))
    assert first.row() == second.row() and torch.equal(first.images, second.images)
    assert first.images.shape == (5, 3, 32, 32) and first.kinds is None
    assert first.row()["rewards"]["length"] == pytest.approx(sum(map(len, first.prompts)) / 5)
    assert sorted(set(first.prompts)) == sorted(first.prompts)
    assert 0 < first.diversity < 1
