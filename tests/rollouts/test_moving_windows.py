"""How long a moving window stays where: MixGRPO's paces, as its released code counts, but without empty windows."""

from itertools import groupby
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.config import PlanConfig, RolloutConfig
from beholder.rollouts.plans import ODE, draw_plan

MIX_GRPO = PlanConfig(kind="moving_window", size=4, stop=23, every=25)
"""The defaults of its FLUX script: 25 steps, a window of 4 that ends before step 23."""


def first_steps(config: PlanConfig, iterations: int, steps: int = 25) -> list[int]:
    """Where the window begins, iteration by iteration; every window is whole and holds all stochastic steps."""
    found, trainable = [], torch.ones(steps, dtype=torch.bool)
    for i in range(iterations):
        drawn = draw_plan(RolloutConfig(plan=config, group=1), trainable, 1, i, torch.Generator())
        trained = drawn.trained_NT[0].nonzero().flatten().tolist()
        assert trained == (drawn.draw_NT[0] != ODE).nonzero().flatten().tolist()
        assert trained == list(range(trained[0], trained[0] + config.size))
        found.append(trained[0])
    return found


def stays(config: PlanConfig, iterations: int) -> list[tuple[int, int]]:
    """``(first step, iterations)`` of each stay."""
    return [(first, len(list(same))) for first, same in groupby(first_steps(config, iterations))]


def paced(pace: Any, every: int, stride: int = 1) -> PlanConfig:
    return PlanConfig(kind="moving_window", size=4, stop=23, every=every, pace=pace, stride=stride)


def test_a_constant_pace_stays_equally_long_everywhere() -> None:
    assert stays(MIX_GRPO, 25 * 22) == [(i % 20, 25) for i in range(22)]


def test_exp_decay_hurries_after_step_13() -> None:
    """ceil(25 exp(-0.1 max(0, cur - 13))), run with the released code: 25 up to 13, then 23, 21, 19, 17, 16, 14."""
    iterations = [25] * 14 + [23, 21, 19, 17, 16, 14]
    want = list(enumerate(iterations))
    assert stays(paced("exp_decay", 25), sum(iterations) + 50) == [*want, (0, 25), (1, 25)]


def test_decay_falls_linearly_from_ten_to_one() -> None:
    """int(10 - 9 cur / 23), the released code's; its cycle of 121 iterations holds 5 with a cut or empty window."""
    iterations = [10, 9, 9, 8, 8, 8, 7, 7, 6, 6, 6, 5, 5, 4, 4, 4, 3, 3, 2, 2]
    assert sum(iterations) == 121 - 5
    assert stays(paced("decay", 10), 116 + 19) == [*enumerate(iterations), (0, 10), (1, 9)]


@pytest.mark.parametrize("pace", ["constant", "decay", "exp_decay"])
def test_a_stride_skips_places_and_zero_freezes_at_the_first(pace: Any) -> None:
    assert {first for first, _ in stays(paced(pace, 3, stride=0), 50)} == {0}
    assert [first for first, _ in stays(paced(pace, 3, stride=7), 22)][:4] == [0, 7, 14, 0]


@settings(deadline=None, max_examples=60)
@given(
    pace=st.sampled_from(["constant", "decay", "exp_decay"]),
    every=st.integers(1, 6),
    size=st.integers(1, 5),
    start=st.integers(0, 5),
    places=st.integers(1, 12),
    stride=st.integers(1, 4),
)
def test_every_pace_visits_the_same_places_in_turn_and_never_stays_longer_later(
    pace: Any, every: int, size: int, start: int, places: int, stride: int
) -> None:
    config = PlanConfig(
        kind="moving_window",
        size=size,
        start=start,
        stop=start + size + places - 1,
        stride=stride,
        every=every,
        pace=pace,
    )
    visits = list(range(start, start + places, stride))
    found = [(first, len(list(same))) for first, same in groupby(first_steps(config, every * (len(visits) + 1), 40))]
    assert [first for first, _ in found][: len(visits)] == visits
    lengths = [length for _, length in found[: len(visits)]]
    if len(visits) > 1:
        assert lengths[0] == every
        assert lengths == sorted(lengths, reverse=True) and lengths[-1] >= 1
        assert found[len(visits)][0] == start
