"""The trust region of a rollout: what is measured, when passes stop, and that the step is scaled back into it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learners import first_batch, learner_of, tiny_config, transitions, weights_of

from beholder.training.learner import Learner
from beholder.training.loop import iterate
from beholder.training.trust_region import HALVINGS, TrustRegion
from beholder.training.update import accumulate
from beholder.training.update_stats import UpdateStats

FREE = {"objective__clip_low": 1.0, "objective__clip_high": 1e6, "loop__epochs": 2}


def made(folder: Path, max_kl: float, lr: float, **changes: object) -> Learner:
    return learner_of(tiny_config(folder, loop__max_kl=max_kl, optimiser__lr=lr, **FREE, **changes))


def kl_of_a_decision(learner: Learner, old: torch.Tensor, new: torch.Tensor) -> float:
    """Mean KL(old ‖ new) in nats of the first iteration's decisions, by hand from both policies' means."""
    torch.nn.utils.vector_to_parameters(old, learner.policy.trainable().values())
    batch = first_batch(learner)
    before = transitions(learner, batch)
    torch.nn.utils.vector_to_parameters(new, learner.policy.trainable().values())
    gap_M = (transitions(learner, batch).mean - before.mean).square().flatten(1).sum(1)
    return (gap_M / (2 * before.std.square())).mean().item()


@pytest.mark.parametrize("micro_batch", [64, 5])
def test_a_large_step_is_scaled_back_into_the_region(micro_batch: int, tiny_sd3_folder: Path) -> None:
    learner = made(tiny_sd3_folder, 0.5, lr=3e-2, loop__micro_batch=micro_batch)
    before = weights_of(learner)
    row = iterate(learner)
    after = weights_of(learner)
    assert 0 < row["step_share"] < 1 and row["step_share"] in [0.5**k for k in range(1, HALVINGS + 1)]
    assert 0 < row["kl_of_update"] <= 0.5
    assert kl_of_a_decision(learner, before, after) == pytest.approx(row["kl_of_update"], rel=1e-3)
    free = made(tiny_sd3_folder, 1e9, lr=3e-2, loop__micro_batch=micro_batch)
    free.config = replace(free.config, loop=replace(free.config.loop, epochs=1))  # as many passes as were made
    start = weights_of(free)
    whole = iterate(free)
    assert whole["step_share"] == 1 and whole["kl_of_update"] > 0.5
    torch.testing.assert_close(after - before, row["step_share"] * (weights_of(free) - start), rtol=1e-3, atol=1e-6)


def test_a_step_inside_the_region_stays_whole(tiny_sd3_folder: Path) -> None:
    bound, free = (made(tiny_sd3_folder, limit, lr=1e-4) for limit in (1.0, 1e9))
    rows = [iterate(bound), iterate(free)]
    assert rows[0]["step_share"] == 1 and 0 < rows[0]["kl_of_update"] < 1
    assert rows[0] == rows[1] and torch.equal(weights_of(bound), weights_of(free))


def test_passes_stop_once_the_region_is_left(tiny_sd3_folder: Path) -> None:
    passes = {limit: iterate(made(tiny_sd3_folder, limit, lr=3e-2))["optimiser_steps"] for limit in (0.5, 1e9)}
    assert passes == {0.5: 1, 1e9: 2}


def test_the_average_takes_part_wherever_an_iteration_ends(tiny_sd3_folder: Path) -> None:
    """Three steps an iteration, an average of every second one: it moves at 3, 6 and 9, not at 6 alone."""
    settings = {**FREE, "loop__epochs": 3, "loop__max_kl": 1e9, "ema__decay": 0.9, "ema__every": 2}
    learner, moved = learner_of(tiny_config(tiny_sd3_folder, **settings)), []
    for _ in range(3):
        iterate(learner)
        moved.append((learner.progress.optimiser_steps, learner.ema.updates))
    assert moved == [(3, 1), (6, 2), (9, 3)]


def test_a_step_that_loses_goes_back_to_the_start(tiny_sd3_folder: Path) -> None:
    """Up the gradient of the loss: no share of the step gains, so the policy ends where it began, bit for bit."""
    learner = made(tiny_sd3_folder, 1e9, lr=1e-3)
    batch, before = first_batch(learner), weights_of(learner)
    region = TrustRegion(learner, batch)
    rows = torch.arange(len(batch.trajectory.decisions))
    accumulate(learner, batch, rows, UpdateStats(4, torch.device("cpu")), None)
    for sign, share in ((-1, 1.0), (1, 0.0)):
        with torch.no_grad():
            for parameter in learner.policy.trainable().values():
                assert parameter.grad is not None
                parameter += sign * 0.1 * parameter.grad
        gain = region.measure()[1]
        assert gain * sign < 0
        assert region.enforce()["step_share"] == share
        assert torch.equal(weights_of(learner), before) == (share == 0)
        torch.nn.utils.vector_to_parameters(before.clone(), learner.policy.trainable().values())


def test_a_region_too_small_for_any_step_goes_back_to_the_start(tiny_sd3_folder: Path) -> None:
    learner = made(tiny_sd3_folder, 1e-12, lr=3e-2)
    before = weights_of(learner)
    assert iterate(learner)["step_share"] == 0
    assert torch.equal(weights_of(learner), before)


@pytest.mark.parametrize("combine", ["rewards", "losses"])
def test_the_surrogate_is_the_gain_of_the_weighted_rewards(combine: str, tiny_sd3_folder: Path) -> None:
    """Mean over decisions of Σ_r w_r A_r (ρ - 1), 0 where nothing has moved."""
    rewards = {"redness": 2.0, "brightness": -0.5}
    learner = made(tiny_sd3_folder, 1.0, lr=1e-3, credit__combine=combine, rewards=rewards)
    batch = first_batch(learner)
    region = TrustRegion(learner, batch)
    assert region.measure() == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-7))
    for parameter in learner.policy.trainable().values():
        parameter.data += 0.02
    kl, gain = region.measure()
    d = batch.trajectory.decisions
    ratio_M = ((transitions(learner, batch).log_prob_sum(d.next_Mx) - d.logp_old_M) / batch.trajectory.n_dims).exp()
    total_M = batch.advantage_MR @ torch.tensor([2.0, -0.5] if combine == "losses" else [1.0])
    assert kl > 0 and gain == pytest.approx((total_M * (ratio_M - 1)).mean().item(), rel=1e-3)
