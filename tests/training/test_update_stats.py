"""What an update says of itself does not depend on how it was cut, and is null where there is nothing to say."""

import pytest
import torch
from accelerate import Accelerator

from beholder.objectives.policy_gradient import PolicyGradientStats
from beholder.training.update import (
    UpdateStats,
)


def found(ratio: list[float], clipped: list[bool]) -> PolicyGradientStats:
    return PolicyGradientStats(torch.tensor(ratio), torch.tensor(clipped))


def test_statistics_do_not_depend_on_the_micro_batches() -> None:
    ratios, clipped, steps = [1.0, 1.2, 0.9, 1.0], [False, True, False, True], torch.tensor([0, 1, 1, 2])
    whole, parts = UpdateStats(4, torch.device("cpu")), UpdateStats(4, torch.device("cpu"))
    whole.first = parts.first = False
    whole.add(steps, found(ratios, clipped), torch.tensor(2.5), torch.tensor([1.0, 2, 3, 4]))
    parts.add(steps[:1], found(ratios[:1], clipped[:1]), torch.tensor(1.0), torch.tensor([1.0]))
    parts.add(steps[1:], found(ratios[1:], clipped[1:]), torch.tensor(3.0), torch.tensor([2.0, 3, 4]))
    whole.add_gains(torch.tensor([3.0, 0.6, 2.0, -0.5, 4.0, 3.0]).double())
    parts.add_gains(torch.tensor([2.0, 0.5, 1.0, -0.4, 3.0, 3.0]).double())
    parts.add_gains(torch.tensor([1.0, 0.1, 1.0, -0.1, 1.0, 0.0]).double())
    summary = whole.summary(Accelerator(cpu=True), with_kl=True, with_gains=True)
    again = parts.summary(Accelerator(cpu=True), with_kl=True, with_gains=True)
    assert again.pop("clip_fraction_per_step") == summary["clip_fraction_per_step"]
    assert again == pytest.approx({name: value for name, value in summary.items() if name in again})
    assert summary["loss"] == 2.5
    assert summary["kl"] == 2.5
    assert summary["clip_fraction"] == 0.5
    assert summary["clip_fraction_per_step"] == {"0": 0.0, "1": 0.5, "2": 1.0}
    assert summary["ratio_max_deviation"] == pytest.approx(0.2)
    gains = [summary[name] for name in ("liked_gain", "disliked_gain", "implicit_accuracy")]
    assert gains == pytest.approx([0.2, -0.25, 0.75])


def test_gains_of_nobody_are_null() -> None:
    stats = UpdateStats(2, torch.device("cpu"))
    stats.add_gains(torch.zeros(6).double())
    summary = stats.summary(Accelerator(cpu=True), with_kl=False, with_gains=True)
    assert summary["liked_gain"] is summary["disliked_gain"] is summary["implicit_accuracy"] is None
    without = stats.summary(Accelerator(cpu=True), with_kl=False, with_gains=False)
    assert not {"liked_gain", "disliked_gain", "implicit_accuracy"} & set(without)


def test_ratios_to_an_old_policy_that_was_not_asked_are_null() -> None:
    stats = UpdateStats(2, torch.device("cpu"))
    stats.add(torch.tensor([0, 1]), found([torch.nan] * 2, [False, False]), torch.tensor(0.0), None)
    summary = stats.summary(Accelerator(cpu=True), with_kl=False, with_gains=False)
    assert summary["ratio_deviation"] is summary["ratio_max_deviation"] is summary["ratio_mean"] is None


def test_the_first_update_is_not_counted_as_unclipped() -> None:
    stats = UpdateStats(2, torch.device("cpu"))
    stats.add(torch.tensor([0, 1]), found([1.0, 1.0], [False, False]), torch.tensor(0.0), None)
    summary = stats.summary(Accelerator(cpu=True), with_kl=False, with_gains=False)
    assert summary["clip_fraction"] is None
    assert summary["kl"] is None
    assert summary["ratio_deviation"] == 0.0
