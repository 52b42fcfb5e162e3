"""Groups of equal rewards are drawn again, trained nowhere and counted nowhere."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from learners import TEXTS, constant_for, first_batch, learner_of, reward_of, tiny_config
from torch import Tensor

from beholder.training.learner import Batch, Learner
from beholder.training.loop import iterate
from beholder.training.update import shares


def texts_drawn(learner: Learner, number: int = 0) -> list[str]:
    key = [learner.config.seed, 1, *([number] if number else [])]
    return [TEXTS[i] for i in learner.prompts.draw(learner.config.rollout.prompts, key)]


def redrawn(folder: Path, dull: Sequence[str], times: int = 1, **changes: object) -> tuple[Learner, Batch]:
    learner = learner_of(tiny_config(folder, rollout__redraw=times, **changes), [reward_of(constant_for(dull))])
    return learner, first_batch(learner)


def group_of(batch: Batch) -> Tensor:
    """Of each decision."""
    return batch.trajectory.group_N[batch.trajectory.decisions.sample_M]


@pytest.mark.parametrize("branch", ["none", "fan"])
def test_groups_of_equal_rewards_are_replaced_and_not_trained(branch: str, tiny_sd3_folder: Path) -> None:
    plain = learner_of(tiny_config(tiny_sd3_folder))
    first, again = texts_drawn(plain), texts_drawn(plain, 1)
    dull = [text for text in first if text != again[0]][:1]  # the one prompt drawn in its place is not dull
    learner, batch = redrawn(tiny_sd3_folder, dull, rollout__branch__kind=branch)
    samples = 3 * (2 if branch == "fan" else 1)
    assert batch.trajectory.prompts == [t for t in (*first, again[0]) for _ in range(samples)]
    assert batch.trajectory.group_N.unique().tolist() == [0, 1, 2, 3, 4]
    left_out = batch.advantage_MR[:, 0].isnan()
    assert torch.equal(left_out, group_of(batch) == first.index(dull[0]))
    trained = torch.cat(shares(learner, batch, 0))
    assert set(group_of(batch)[trained].tolist()) == {0, 1, 2, 3, 4} - {first.index(dull[0])}
    assert batch.stats["groups_without_variance"] == pytest.approx(1 / 4)
    assert len(batch.trajectory.seed_N.unique()) == len(batch.trajectory)
    assert len(batch.trajectory.start_N.unique()) == 15


def test_groups_that_were_replaced_are_in_no_statistic(tiny_sd3_folder: Path) -> None:
    """Deviations from the prompt's mean over those of the whole batch: of the groups that stay."""
    first = texts_drawn(learner_of(tiny_config(tiny_sd3_folder)))
    settings = {"credit__scale": "batch", "credit__eps": 0.0, "credit__clip": 1e6, "credit__ddof": 0}
    _, batch = redrawn(tiny_sd3_folder, first[:1], **settings)
    d, group_N, value_N = batch.trajectory.decisions, batch.trajectory.group_N, batch.table.values_NM[:, 0].double()
    stay_N = torch.tensor([text != first[0] for text in batch.trajectory.prompts])
    mean_N = torch.stack([value_N[group_N == group].mean() for group in group_N])
    want_N = torch.where(stay_N, (value_N - mean_N) / value_N[stay_N].std(correction=0), torch.nan)
    torch.testing.assert_close(
        batch.advantage_MR[:, 0].double(), want_N[d.sample_M], rtol=1e-4, atol=1e-4, equal_nan=True
    )


def test_groups_that_were_replaced_are_not_trained_by_their_step_rewards(tiny_sd3_folder: Path) -> None:
    first = texts_drawn(learner_of(tiny_config(tiny_sd3_folder)))
    _, batch = redrawn(tiny_sd3_folder, first[:1], credit__dense="anchors", credit__peers="depth")
    dull_M = torch.tensor([batch.trajectory.prompts[n] == first[0] for n in batch.trajectory.decisions.sample_M])
    assert torch.equal(batch.advantage_MR[:, 0].isnan(), dull_M) and bool(dull_M.any())


def test_a_redrawn_group_has_the_noise_of_no_other(tiny_sd3_folder: Path) -> None:
    _, batch = redrawn(tiny_sd3_folder, TEXTS, times=2)
    states = batch.trajectory.decisions.state_Mx[batch.trajectory.decisions.step_M == 0]
    assert len(states) == len(states.flatten(1).unique(dim=0)) == 3 * 4 * 3


def test_redrawing_ends_after_as_many_times_as_allowed(tiny_sd3_folder: Path) -> None:
    """Nothing but dull prompts: every time all four are drawn again, and nothing is trained."""
    for times in (1, 2):
        learner, batch = redrawn(tiny_sd3_folder, TEXTS, times=times)
        assert len(batch.trajectory.group_N.unique()) == 4 * (1 + times)
        assert bool(batch.advantage_MR.isnan().all())
        learner.progress.iteration = 0
        row = iterate(learner)
        assert row["grad_norm"] == 0 and row["samples"] == 12 * (1 + times)


def test_nothing_is_drawn_again_where_all_rewards_differ(tiny_sd3_folder: Path) -> None:
    (_, with_redraw), (_, without) = (redrawn(tiny_sd3_folder, (), times=times) for times in (2, 0))
    assert len(with_redraw.trajectory) == len(without.trajectory)
    assert torch.equal(with_redraw.advantage_MR, without.advantage_MR)
