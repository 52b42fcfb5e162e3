"""The running average: its values by hand, when it moves, and that what is trained comes back."""

import pytest
import torch
from torch import nn

from beholder.config import EMAConfig
from beholder.training.ema import EMA


def one(value: float) -> dict[str, nn.Parameter]:
    return {"w": nn.Parameter(torch.tensor([value, -value]))}


def put(parameters: dict[str, nn.Parameter], value: float) -> None:
    parameters["w"].data = torch.tensor([value, -value])


def averages(config: EMAConfig, values: list[float]) -> list[float]:
    """The average after each optimiser step, from 0."""
    parameters, seen = one(0.0), []
    ema = EMA(config, parameters)
    for step, value in enumerate(values, start=1):
        put(parameters, value)
        ema.update(parameters, step)
        seen.append(ema.shadow["w"][0].item())
    return seen


def test_first_updates_by_hand() -> None:
    first = 0.9 * 1.0
    second = 2 / 11 * first + 9 / 11 * 2.0
    third = 3 / 12 * second + 9 / 12 * 4.0
    assert averages(EMAConfig(decay=0.9), [1.0, 2.0, 4.0]) == pytest.approx([first, second, third])


def test_warm_up_ends_at_the_decay() -> None:
    averaged, expected = averages(EMAConfig(decay=0.5), [float(i) for i in range(40)]), 0.0
    for k in range(40):
        decay = min(0.5, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * k
        assert averaged[k] == pytest.approx(expected, rel=1e-5)
    # A constant decay d lags a ramp by d / (1 - d).
    assert averaged[-1] == pytest.approx(39 - 1, abs=1e-3)


def test_moves_at_every_nth_optimiser_step_only() -> None:
    averaged = averages(EMAConfig(decay=0.9, every=3), [5.0] * 7)
    first, second = 0.9 * 5, 2 / 11 * 0.9 * 5 + 9 / 11 * 5
    assert averaged == pytest.approx([0, 0, first, first, first, second, second])


def test_steps_told_together_move_it_wherever_they_end() -> None:
    """A trust region tells of an iteration's steps at once, and may stop early: 8, 8, 2, 8, 8 with every 8."""
    parameters, moved = one(0.0), []
    ema, step = EMA(EMAConfig(decay=0.9, every=8), parameters), 0
    for taken in (8, 8, 2, 8, 8, 2, 2, 2):
        step += taken
        ema.update(parameters, step, taken)
        moved.append(ema.updates)
    assert moved == [1, 2, 2, 3, 4, 4, 4, 5]  # steps 8, 16, 18, 26, 34, 36, 38, 40


def test_applied_lends_the_average_and_gives_the_trained_weights_back() -> None:
    parameters = one(0.0)
    ema = EMA(EMAConfig(decay=0.9), parameters)
    put(parameters, 1.0)
    ema.update(parameters, 1)
    before = parameters["w"]
    with ema.applied(parameters):
        assert parameters["w"].tolist() == pytest.approx([0.9, -0.9])
        assert parameters["w"] is before
    assert parameters["w"].tolist() == [1, -1]
    assert ema.shadow["w"].tolist() == pytest.approx([0.9, -0.9])


def test_the_trained_weights_come_back_after_an_error() -> None:
    parameters = one(0.0)
    ema = EMA(EMAConfig(decay=0.9), parameters)
    put(parameters, 1.0)
    with pytest.raises(KeyError), ema.applied(parameters):
        assert parameters["w"].tolist() == [0, 0]
        raise KeyError
    assert parameters["w"].tolist() == [1, -1]


def test_the_average_is_a_copy_without_graph() -> None:
    parameters = one(3.0)
    ema = EMA(EMAConfig(decay=0.9), parameters)
    put(parameters, 4.0)
    assert ema.shadow["w"].tolist() == [3, -3]
    ema.update(parameters, 1)
    assert not ema.shadow["w"].requires_grad
    assert parameters["w"].requires_grad and parameters["w"].tolist() == [4, -4]


def test_decay_zero_turns_it_off() -> None:
    parameters = one(1.0)
    ema = EMA(EMAConfig(decay=0.0), parameters)
    put(parameters, 2.0)
    ema.update(parameters, 1)
    assert ema.shadow == {}
    with ema.applied(parameters):
        assert parameters["w"].tolist() == [2, -2]
