"""The loop as a run: when it stops, what it adapts, and that judges of pairs are enough to learn from."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from learners import learner_of, tiny_config
from torch import Tensor

from beholder.config import EMAConfig, EvaluationConfig, KLConfig, ProbeConfig
from beholder.errors import InputError
from beholder.objectives.regularisers import adapted
from beholder.training.align import Run, align, resume
from beholder.training.loop import iterate
from small_runs import small_run


def trained(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == "train"]


def test_a_budget_of_network_evaluations_ends_the_run(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """8 samples × 4 steps an iteration: 65 evaluations are begun twice and exceeded by the third."""
    config = small_run(tiny_sd3_folder, tmp_path / "run", iterations=50)
    config = replace(config, loop=replace(config.loop, budget=65), evaluation=replace(config.evaluation, every=0))
    rows = trained(align(config))
    assert [row["network_evaluations"] for row in rows] == [32, 64, 96]
    resume(tmp_path / "run")
    assert trained(tmp_path / "run") == rows
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["iterations"], summary["network_evaluations"]) == (3, 96)


def test_counters_count_every_sample_and_call(tiny_sd3_folder: Path) -> None:
    """4 prompts × 3 starts; spurs: 3 branches at each of 3 steps and one trunk, guidance twice of everything."""
    spurs = {"rollout__branch__kind": "spurs", "rollout__branch__width": 3, "credit__peers": "siblings"}
    learner = learner_of(tiny_config(tiny_sd3_folder, rollout__guidance__scale=2.0, **spurs))
    rows = [iterate(learner) for _ in range(2)]
    trunk, after = 3, 3 * 3 + 3 * 2 + 3 * 1  # steps 0-2 of the trunk; the ODE of the branches to the end
    assert [row["samples"] for row in rows] == [12 * 9, 2 * 12 * 9]
    assert rows[0]["network_evaluations"] == 2 * 12 * (trunk + after)


def test_beta_follows_the_kl(tiny_sd3_folder: Path) -> None:
    """A tiny target is exceeded once the policy has moved, a huge one never reached."""
    for target, rises in ((1e-9, True), (1e3, False)):
        config = tiny_config(tiny_sd3_folder, kl__beta=0.1, kl__target=target, kl__horizon=2.0, optimiser__lr=1e-2)
        learner = learner_of(config)
        rows = [iterate(learner) for _ in range(3)]
        expected = [0.1]
        for row in rows:
            expected.append(adapted(expected[-1], row["kl"], config.kl))
        assert [row["kl_beta"] for row in rows] == expected[:-1] and learner.beta == expected[-1]
        assert expected[1] == pytest.approx(0.09)  # the policy is its reference, so the KL is below any target
        assert (expected[3] > expected[2]) == rises


def test_without_a_target_beta_is_not_reported(tiny_sd3_folder: Path) -> None:
    assert "kl_beta" not in iterate(learner_of(tiny_config(tiny_sd3_folder, kl__beta=0.1)))


def redder(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
    """Prefers the redder of two images, and knows nothing else."""
    difference = (first - second).mean((2, 3)) @ first.new_tensor([1.0, -0.5, -0.5])
    return (difference > 0).float()


redder.pairwise = True  # pyright: ignore[reportFunctionMemberAccess]


def test_a_judge_of_pairs_leaves_no_group_to_redraw(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """Win rates differ within every group; a judge of weight 0 does not decide which groups are dull."""
    config = small_run(tiny_sd3_folder, tmp_path / "run")
    config = replace(config, rewards={"redder": 1.0}, rollout=replace(config.rollout, redraw=2))
    says = "^rollout.redraw: 2 .* rewards 'redder' is a judge of pairs, .* use redraw 0, or a reward of single images$"
    with pytest.raises(InputError, match=says):
        align(config, scorers={"redder": redder})
    assert not (tmp_path / "run").exists()
    beside = replace(config, rewards={"redness": 1.0, "redder": 0.0}, output=str(tmp_path / "beside"))
    once = replace(config, rollout=replace(config.rollout, redraw=0), output=str(tmp_path / "once"))
    for accepted in (beside, once):
        Run(accepted, lambda row: None, None, {"redder": redder})


@pytest.mark.parametrize("probe", ["greedy", "vine"])
def test_a_judge_of_pairs_does_not_compare_with_probes(probe: str, tiny_sd3_folder: Path, tmp_path: Path) -> None:
    config = small_run(tiny_sd3_folder, tmp_path / "run")
    rollout = replace(config.rollout, probe=ProbeConfig(probe, samples=1))  # pyright: ignore[reportArgumentType]
    credit = replace(config.credit, baseline="probe", scale="none")
    config = replace(config, rewards={"redder": 1.0}, rollout=rollout, credit=credit)
    with pytest.raises(InputError, match=rf"^rollout\.probe: {probe} draws .* rewards 'redder' is a judge of pairs"):
        align(config, scorers={"redder": redder})
    assert not (tmp_path / "run").exists()


def test_a_judge_of_pairs_is_enough_to_learn_from(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """The judge's win rates are ½ on average for ever; what it prefers rises all the same."""
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo orange squares\na white cross\n")
    config = small_run(tiny_sd3_folder, tmp_path / "run", iterations=20)
    plan = replace(config.rollout.plan, size=1, stop=2)
    config = replace(
        config,
        rewards={"redder": 1.0},
        prompts=str(tmp_path / "prompts.txt"),
        policy=replace(config.policy, training="full"),
        rollout=replace(config.rollout, prompts=3, group=8, batch=24, shared_noise=True, plan=plan),
        ema=EMAConfig(),
        kl=KLConfig(),
        loop=replace(config.loop, micro_batch=24, checkpoint_every=100),
        evaluation=EvaluationConfig(every=0, images=12, rewards=("redness",), grid=6),
    )
    rows = [json.loads(line) for line in (align(config, scorers={"redder": redder}) / "metrics.jsonl").open()]
    train, (before, after) = [[row for row in rows if row["event"] == e] for e in ("train", "evaluation")]
    assert fmean(row["reward"]["redder"] for row in train) == pytest.approx(0.5, abs=1e-6)
    assert after["rewards"]["redness"] - before["rewards"]["redness"] > 0.02
