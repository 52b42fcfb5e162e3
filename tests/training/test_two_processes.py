"""Two real processes learn what one does: the same samples, the same advantages, the same weights."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from beholder.config import KLConfig, PlanConfig, RunConfig
from beholder.config_file import to_yaml
from beholder.methods.row import vary
from beholder.preferences import Medium, Record, write_preferences
from beholder.training.align import Run
from small_runs import small_options, small_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKER = """
import json, sys
from pathlib import Path
import torch
from beholder.cli import run
from beholder.config_file import read_config
from beholder.training.align import Run

folder = Path(sys.argv[1])
for name in json.loads(sys.argv[3]):
    one = Run(read_config(folder / f"{name}.yaml"), lambda row: None, None, {})
    assert one.accelerator.num_processes == 2
    one.go()
    weights = {n: p.detach().clone() for n, p in one.learner.policy.trainable().items()}
    if one.learner.critic is not None:
        weights |= {f"critic {n}": p.detach().clone() for n, p in one.learner.critic.network.named_parameters()}
    torch.save(weights, folder / f"{name}_rank{one.accelerator.process_index}.pt")
codes = [run(line) for line in json.loads(sys.argv[2])]
assert codes == [0] * len(codes), codes
"""


def configurations(folder: Path, output: Path) -> dict[str, RunConfig]:
    """One update over all samples, so that only the order of sums differs between one process and two."""
    base = small_run(folder, output, iterations=2)
    base = replace(base, loop=replace(base.loop, updates=1, micro_batch=3))
    base = vary(base, base.method, {"optimiser.eps": 1e-3})  # Adam's own would blow rounding up to whole steps
    guided = replace(base.rollout, guidance=replace(base.rollout.guidance, scale=2.0))
    plain = replace(base, rollout=replace(base.rollout, prompts=4, plan=PlanConfig(kind="prefix")))
    tree = {"rollout.branch.kind": "tree", "rollout.branch.steps": (0, 2), "credit.peers": "depth"}
    fan = {"rollout.branch.kind": "fan", "credit.scale": "group", "credit.threshold": 0.8}
    critic = {"credit.baseline": "critic", "credit.scale": "none"}
    critic |= {"credit.critic.reset_every": 1, "credit.critic.width": 16}
    running = {"credit.baseline": "running", "credit.scale": "running", "credit.history_min": 2}
    taken_off = {"kl.place": "reward", "kl.beta": 0.1, "kl.form": "exact", "kl.target": 1e-4}
    judged = {
        "data.path": str(pairs_of_noise(output)),
        "rollout.group": 2,
        "rollout.forward.times": 2,
        "rollout.forward.shared": True,
        "credit.baseline": "none",
        "credit.scale": "none",
        "objective.kind": "preference",
        "objective.anchor": "reference",
        "objective.temperature": 20.0,
        "kl.beta": 0.0,
    }
    kto = {
        "objective.preference.contrast": "point",
        "objective.preference.link": "kto",
        "objective.preference.baseline": "mean",
    }
    gradient = {"objective.kind": "pathwise", "kl.beta": 0.0, "kl.form": "velocity"}
    found = {
        "safeguard": vary(plain, base.method, {**judged, "objective.preference.safeguard": 0.5}),
        "kto": vary(plain, base.method, {**judged, **kto}),
        "given": vary(plain, base.method, {**gradient, "rollout.pathwise.renoised": 1}),
        "live": vary(plain, base.method, {**gradient, "rollout.pathwise.inputs": "live", "rollout.pathwise.steps": 2}),
        "lora": replace(base, rollout=guided, kl=KLConfig(beta=0.1)),
        "full": replace(base, policy=replace(base.policy, training="full"), kl=KLConfig(beta=0.1, form="exact")),
        "tree": vary(plain, base.method, tree),
        "kept": vary(plain, base.method, fan),
        "critic": vary(plain, base.method, {**critic, **taken_off}),
        "history": vary(plain, base.method, running),
        "region": vary(plain, base.method, {"loop.max_kl": 0.05, "optimiser.lr": 3e-2}),
        "redraw": vary(plain, base.method, {"rollout.redraw": 1, "rewards": {"dull:score": 1.0}}),
    }
    return {name: replace(config, output=str(output / name)) for name, config in found.items()}


def pairs_of_noise(folder: Path) -> Path:
    """A preference set of twelve pairs, the same whoever writes it."""
    rng = np.random.default_rng(0)

    def medium() -> Medium:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(file, "png")
        return Medium(file.getvalue())

    records = [Record(f"number {i}", (medium(), medium()), votes=(1.0, 0.0)) for i in range(12)]
    write_preferences(folder / "pairs.parquet", records)
    return folder / "pairs.parquet"


ALIKE = ("safeguard", "kto", "given", "live", "lora", "full", "tree", "kept", "critic", "history", "region")
"""Those whose samples do not depend on how many processes draw them."""

DULL = """
import torch

def score(images, prompts):
    dull = torch.tensor(["circle" in prompt for prompt in prompts])
    return torch.where(dull, 0.5, images[:, 0].mean((1, 2)).cpu())
"""
"""A reward that is the same for all samples of a circle: in the first iteration, those of the second process alone."""


@dataclass(frozen=True)
class Outcome:
    rows: list[dict[str, Any]]
    weights: list[dict[str, Tensor]]
    """Of every process."""


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def pair(tiny_sd3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two processes' folder and what they said."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "worker.py").write_text(WORKER)
    (folder / "dull.py").write_text(DULL)
    configs = configurations(tiny_sd3_folder, folder)
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(to_yaml(config))
    align = ["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, folder / "cli", "--loop.minutes", "60")]
    lines = [align, ["align", "--resume", str(folder / "cli")]]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    process = subprocess.Popen(
        [*launch, str(folder / "worker.py"), str(folder), json.dumps(lines), json.dumps(list(configs))],
        cwd=folder,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:  # a deadlock: the launcher's children would outlive it
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, said[-6000:]
    return folder, said


@pytest.fixture(scope="module")
def outcomes(
    tiny_sd3_folder: Path, pair: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Outcome, Outcome]]:
    """By configuration: one process and two."""
    folder, found = tmp_path_factory.mktemp("alone"), {}
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(pair[0])  # where the reward of "redraw" lies
    for name, config in configurations(tiny_sd3_folder, folder).items():
        alone = Run(config, lambda row: None, None, {})
        alone.go()
        weights = {n: p.detach().clone() for n, p in alone.learner.policy.trainable().items()}
        if alone.learner.critic is not None:
            named = alone.learner.critic.network.named_parameters()
            weights |= {f"critic {n}": p.detach().clone() for n, p in named}
        both = [torch.load(pair[0] / f"{name}_rank{rank}.pt", weights_only=True) for rank in range(2)]
        found[name] = (Outcome(rows(folder / name), [weights]), Outcome(rows(pair[0] / name), both))
    monkeypatch.undo()
    return found


both_kinds = pytest.mark.parametrize("name", ALIKE)


@both_kinds
def test_rewards_and_counts_are_those_of_one_process(name: str, outcomes: dict[str, tuple[Outcome, Outcome]]) -> None:
    alone, both = outcomes[name]
    assert [(r["event"], r["iteration"]) for r in both.rows] == [(r["event"], r["iteration"]) for r in alone.rows]
    for one, two in zip(alone.rows, both.rows, strict=True):
        assert two["network_evaluations"] == one["network_evaluations"]
        if one["event"] == "evaluation":
            assert two["rewards"]["redness"] == pytest.approx(one["rewards"]["redness"], abs=1e-5)
            continue
        assert two["reward"]["redness"] == pytest.approx(one["reward"]["redness"], abs=1e-5)
        assert two["reward_std"] == pytest.approx(one["reward_std"], abs=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert (two["samples"], two["optimiser_steps"]) == (one["samples"], one["optimiser_steps"])
        assert (two["ratio_deviation"] is None) == (one["ratio_deviation"] is None)
        assert (two["ratio_deviation"] or 0) < 1e-5
        more = (
            "loss",
            "liked_gain",
            "disliked_gain",
            "implicit_accuracy",
            "kl",
            "kl_beta",
            "kl_of_rollout",
            "critic_loss",
            "kl_of_update",
        )
        for key in {*more} & one.keys():
            assert two[key] == (one[key] if one[key] is None else pytest.approx(one[key], rel=1e-3, abs=1e-5)), key
        for key in {"step_share", "critic_neurons_reset", "groups_without_variance", "failed_rewards"} & one.keys():
            assert two[key] == one[key], key


@pytest.mark.parametrize("name", [*ALIKE, "redraw"])
def test_both_processes_hold_the_same_weights(name: str, outcomes: dict[str, tuple[Outcome, Outcome]]) -> None:
    first, second = outcomes[name][1].weights
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) for n in first)


@both_kinds
def test_the_weights_are_those_of_one_process(name: str, outcomes: dict[str, tuple[Outcome, Outcome]]) -> None:
    alone, both = outcomes[name]
    worst = max((alone.weights[0][n] - w).abs().max().item() for n, w in both.weights[0].items())
    print(f"{worst:.1e}")
    assert worst < 2e-6  # trained weights have moved by 5e-5 to 2e-3


def test_redrawn_groups_are_as_many_but_others(outcomes: dict[str, tuple[Outcome, Outcome]]) -> None:
    """Each process replaces its own dull groups by its own share of the next drawing, so the prompts differ.

    What was drawn first is the same; so is the number of samples, since every dull group is replaced once.
    """
    alone, both = outcomes["redraw"]
    first, second = ([row for row in o.rows if row["event"] == "train"] for o in (alone, both))
    assert first[0]["groups_without_variance"] == 0.5
    assert second[0]["groups_without_variance"] == first[0]["groups_without_variance"]
    assert second[0]["reward_std"] == pytest.approx(first[0]["reward_std"], abs=1e-6)
    assert second[0]["samples"] == first[0]["samples"] == 16 + 8
    assert second[0]["reward"] != pytest.approx(first[0]["reward"], abs=1e-6)
    assert second[0]["network_evaluations"] == first[0]["network_evaluations"]


def test_the_command_line_speaks_once_and_resumes(pair: tuple[Path, str], capsys: pytest.CaptureFixture) -> None:
    folder, said = pair
    assert said.count("prompts x") == 1, said
    assert said.count("report.html") == 2  # the run's, then the resumed one's
    assert [(r["event"], r["iteration"]) for r in rows(folder / "cli")] == [
        *(("evaluation", 0), ("train", 1), ("train", 2), ("evaluation", 2))
    ]
    assert (folder / "cli" / "summary.json").is_file() and (folder / "cli" / "policy").is_dir()
