"""The whole loop learns: a dense reward goes where its weight points, on what is trained and on what is held out."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from beholder.config import EMAConfig, EvaluationConfig
from beholder.training.align import align
from small_runs import small_run

PROMPTS = ("a red circle", "two orange squares", "a white cross", "a blue triangle above a green square")


@pytest.mark.parametrize("weight", [1.0, -1.0], ids=["rises", "falls"])
def test_flow_grpo_fast_moves_a_dense_reward(weight: float, tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """Twenty iterations over the same four prompts; with the sign of the advantage turned, both directions fail.

    Groups share their starting noise, so that what differs within a group is what the trained decisions did.
    """
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    config = small_run(tiny_sd3_folder, tmp_path / "run", iterations=20)
    plan = replace(config.rollout.plan, size=1, stop=2)
    config = replace(
        config,
        rewards={"redness": weight},
        prompts=str(tmp_path / "prompts.txt"),
        policy=replace(config.policy, training="full"),
        rollout=replace(config.rollout, prompts=4, group=8, batch=32, shared_noise=True, plan=plan),
        ema=EMAConfig(),
        loop=replace(config.loop, micro_batch=32, checkpoint_every=100),
        evaluation=EvaluationConfig(every=0, images=12, rewards=("redness",), grid=6),
    )
    rows = [json.loads(line) for line in (align(config) / "metrics.jsonl").open()]
    train, (before, after) = [[r for r in rows if r["event"] == e] for e in ("train", "evaluation")]
    trained, spread = [r["reward"]["redness"] for r in train], train[0]["reward_std"]
    assert weight * (fmean(trained[-3:]) - fmean(trained[:3])) > 10 * spread
    assert weight * (after["rewards"]["redness"] - before["rewards"]["redness"]) > 10 * spread
    assert fmean(r["gradient_cosine"] for r in train) > 0.1
    assert max(r["ratio_deviation"] for r in train) < 1e-5
