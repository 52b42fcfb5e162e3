"""Rows with a memory of their own: interrupted and resumed, they repeat the numbers of the run that was not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from same_runs import assert_same_run, state, stop_after

from beholder.config import RunConfig
from beholder.methods.row import vary
from beholder.training.align import align, resume
from small_runs import small_run

CRITIC = {"credit.critic.width": 16, "credit.critic.lr": 1e-2}
STEEP = {"kl.horizon": 2.0, "optimiser.lr": 1e-2}
GRADIENT = {"objective.kind": "pathwise", "loop.updates": 1}
VARIANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "ddpo-is": ("ddpo-is", {"credit.history": 6, "credit.history_min": 2}, "history"),
    "ppo": ("ppo", {**CRITIC, "loop.epochs": 2}, "critic"),
    "tdpo-r": ("tdpo-r", {**CRITIC, "credit.critic.reset_every": 2, "loop.order": "steps"}, "critic"),
    "adaptive beta": ("flow-grpo", {"kl.beta": 0.1, "kl.target": 1e-4, **STEEP}, "beta"),
    "adaptive beta of rewards": ("rloo", {"kl.target": 1e-4, **STEEP}, "beta"),
    "average as reference": ("flow-grpo", {"kl.beta": 0.5, "kl.reference": "ema"}, "ema"),
    "average that draws": ("diffusion-nft", {"rollout.forward.times": 2, "rollout.policy": "ema"}, "ema"),
    "trust region": ("trpo", {"loop.max_kl": 0.05, "loop.epochs": 2, "optimiser.lr": 1e-2}, "parameters"),
    "redraw": ("dapo", {"rollout.redraw": 1}, "parameters"),
    "refreshed reference": ("iterative-dpo", {"rollout.forward.times": 2, "kl.refresh": 1}, "refreshed"),
    "reward gradient": ("draft-lv", {**GRADIENT, "rollout.pathwise.renoised": 1}, "parameters"),
    "live gradient": (
        "alignprop",
        {**GRADIENT, "rollout.pathwise.steps": 3, "rollout.pathwise.inputs": "live", "rollout.pathwise.random": True},
        "parameters",
    ),
    "tree": ("branch-grpo", {"rollout.branch.kind": "tree", "rollout.branch.steps": (0, 1)}, "parameters"),
}
"""The row, what is changed of its small run, and the part of a checkpoint that carries its memory."""


def run_of(name: str, folder: Path, output: Path) -> RunConfig:
    row, changes, _ = VARIANTS[name]
    config = vary(small_run(folder, output, row, iterations=4), row, changes)
    return replace(config, loop=replace(config.loop, checkpoint_every=2))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_run_repeats_the_numbers(name: str, tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """Stopped after the third iteration, so that the third is done again from the checkpoint after the second."""
    align(run_of(name, tiny_sd3_folder, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        align(run_of(name, tiny_sd3_folder, tmp_path / "parts"), stop_after(3))
    memory = VARIANTS[name][2]
    assert bool(state(tmp_path / "parts")[memory])
    resume(tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_each_memory_changes_what_follows(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """Or the test above could not tell whether it was kept."""
    states = {}
    for name in ("ddpo-is", "ppo", "adaptive beta", "average as reference"):
        with pytest.raises(KeyboardInterrupt):
            align(run_of(name, tiny_sd3_folder, tmp_path / name), stop_after(3))
        states[name] = state(tmp_path / name)
    assert all(len(rewards) == 4 or len(rewards) == 6 for rewards in states["ddpo-is"]["history"].values())
    assert states["ppo"]["critic"]["optimiser"]["state"][0]["step"] == 10
    assert states["adaptive beta"]["beta"] != 0.1
    shadow, weights = (states["average as reference"][part] for part in ("ema", "parameters"))
    assert any((shadow["shadow"][name] != weights[name]).any() for name in weights)
