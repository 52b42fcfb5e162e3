"""The table of rewards: functions of the user's, judges of pairs, failures, and wrong answers."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from beholder.errors import InputError, RunError
from beholder.rewards import Reward, RewardTable, load_reward, load_rewards, score

NAN = math.nan
IMAGES = torch.tensor([0.1, 0.4, 0.9, 0.6]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
PROMPTS = ["one", "one", "three", "three"]
GROUPS = torch.tensor([0, 0, 1, 1])

MODULE = """
def mean(images, prompts):
    return images.mean((1, 2, 3))

def judge(first, second, prompts):
    return (mean(first, prompts) > mean(second, prompts)).float()

judge.pairwise = True
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current folder."""
    name = f"rewards_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def named(value: object, name: str = "own") -> Reward:
    return Reward(name, lambda images, prompts: value)  # type: ignore[arg-type,return-value]


# ------------------------------------------------------------------------------------------------------ judges of pairs


def test_a_judge_from_a_module_becomes_win_rates_within_each_prompt(module: str) -> None:
    rewards = load_rewards([f"{module}:judge", f"{module}:mean"])
    assert [reward.pairwise for reward in rewards] == [True, False]
    table = score(IMAGES, PROMPTS, rewards, GROUPS)
    assert table.values_NM[:, 0].tolist() == [0, 1, 1, 0]
    assert table.values_NM[:, 1].tolist() == pytest.approx([0.1, 0.4, 0.9, 0.6])
    other = score(IMAGES, PROMPTS, rewards, torch.zeros(4, dtype=torch.int64))
    assert other.values_NM[:, 0].tolist() == pytest.approx([0, 1 / 3, 1, 2 / 3])


def test_a_judge_cannot_score_single_images(module: str) -> None:
    with pytest.raises(InputError, match=f"{module}:judge.*cannot score single ones"):
        score(IMAGES, PROMPTS, [load_reward(f"{module}:judge")])


def test_a_judge_given_as_a_function_is_one_too() -> None:
    def judge(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.full((len(first),), NAN)

    judge.pairwise = True  # type: ignore[attr-defined]
    table = score(IMAGES, PROMPTS, load_rewards(["mine"], {"mine": judge}), GROUPS)
    assert table.values_NM.isnan().all() and table.failed_N.all()


def test_a_judge_that_raises_or_answers_too_little_is_named() -> None:
    def broken(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        raise ValueError("no model")

    with pytest.raises(RunError, match="'broken' raised ValueError: no model"):
        score(IMAGES, PROMPTS, [Reward("broken", broken, pairwise=True)], GROUPS)
    short = Reward("short", lambda first, second, prompts: torch.ones(len(first) + 1), pairwise=True)
    with pytest.raises(RunError, match="'short' raised"):
        score(IMAGES, PROMPTS, [short], GROUPS)


# ------------------------------------------------------------------------------------------------------------ loading


def test_built_in_rewards_by_name_and_functions_before_them() -> None:
    assert load_reward("redness").differentiable
    mine = load_rewards(["redness"], {"redness": lambda images, prompts: torch.full((len(images),), 7.0)})
    assert score(IMAGES, PROMPTS, mine).values_NM.tolist() == [[7.0]] * 4


def test_what_cannot_be_loaded_is_an_error_that_says_why(module: str) -> None:
    for name, words in (
        ("rednes", "unknown reward 'rednes'.*redness"),
        ("no_such_module:score", "ModuleNotFoundError"),
        (f"{module}:missing", "AttributeError"),
        (f"{module}:number", "is a int, not a callable"),
    ):
        with pytest.raises(InputError, match=words):
            load_reward(name)
    with pytest.raises(InputError, match="none given"):
        load_rewards([])


# ------------------------------------------------------------------------------------------------- failures and shapes


def test_a_value_that_is_no_number_is_a_failure() -> None:
    table = score(IMAGES, PROMPTS, [named([1.0, NAN, math.inf, -math.inf]), named([1, 2, 3, 4], "whole")])
    assert table.values_NM[:, 0].isnan().tolist() == [False, True, True, True]
    assert table.failed_N.tolist() == [False, True, True, True]
    assert table.values_NM.dtype == torch.float32
    assert table.names == ("own", "whole")


@pytest.mark.parametrize("answer", [[1.0, 2.0], [[1.0]] * 4, 3.0])
def test_the_wrong_number_of_values_is_refused(answer: object) -> None:
    with pytest.raises(InputError, match="returned shape"):
        score(IMAGES, PROMPTS, [named(answer)])


def test_a_reward_that_raises_or_answers_with_words_is_named() -> None:
    with pytest.raises(RunError, match="'own' raised"):
        score(IMAGES, PROMPTS, [named(["good"] * 4)])
    with pytest.raises(InputError, match="4 images but 1 prompts"):
        score(IMAGES, ["one"], [named([1.0])])


def test_a_weighted_sum_fails_where_any_reward_did_and_means_leave_failures_out() -> None:
    table = RewardTable(torch.tensor([[1.0, 10.0], [NAN, 20.0], [3.0, NAN]]), ("a", "b"))
    got = table.weighted({"b": 0.5, "a": -2.0})
    assert got[0] == 3 and got[1:].isnan().all()
    assert table.means() == {"a": 2.0, "b": 15.0}
    assert table.failed_N.tolist() == [False, True, True]
