"""Every row of the method table learns: two small iterations of its `shapes` preset on the bundled generator.

This sweep must stay under a minute on one core, so prompts and groups are as few as the row allows.
"""

import importlib
import io
import math
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from learners import weights_of

from beholder import methods
from beholder.config import RunConfig
from beholder.media import to_pil
from beholder.methods import METHODS, Method
from beholder.methods.row import vary
from beholder.policies import load_policy
from beholder.preferences import Medium, Record, write_preferences
from beholder.preferences.schema import HeatMap
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards
from beholder.training.learner import compares_with_old, make_learner
from beholder.training.loop import iterate
from beholder.training.read import load_comparisons
from beholder.training.validator import problems
from beholder.worlds.shapes.prompts import random_prompts, scene_for
from beholder.worlds.shapes.scenes import render


def shrunk(name: str, pairs: Path, triples: Path) -> RunConfig:
    """The row's `shapes` preset with 3 prompts, groups of 2 at most, and a reward that is never the same for all."""
    config = METHODS[name].preset("shapes")
    r = config.rollout
    changes = {
        "rollout.prompts": 3,
        "rollout.group": min(r.group, 2),
        "rollout.branch.width": min(r.branch.width, 2 if r.branch.kind != "spurs" else 3),
        "rollout.probe.samples": min(r.probe.samples, 2),
        "rewards": {own_reward(reward): weight for reward, weight in config.rewards.items()},
        "loop.signal_every": 0,
        "optimiser.lr": 1e-4,
    }
    if config.data.path:
        changes["data.path"] = str(pairs if config.data.view == "pairs" else triples)
        changes["rollout.group"] = 2
    return vary(config, name, changes)


def own_reward(name: str) -> str:
    """One that needs no file: what the presets learn or verify is not the same for all of three prompts."""
    return "redness" if name == "shapes" or name.startswith("learned@") else name


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pairs and rankings of three rendered scenes each, one of them with heat maps."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    prompts = random_prompts(4, rng)

    def media(k: int) -> tuple[Medium, ...]:
        return tuple(Medium(png(render(scene_for(prompts[i], rng), rng))) for i in range(k))

    def png(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        to_pil(torch.from_numpy(image)).save(file, "png")
        return file.getvalue()

    grey = HeatMap("quality", 0, Medium(png(np.full((3, 32, 32), 0.5, np.float32))))
    pairs = [Record(p.text, media(2), votes=(1.0, 0.0), maps=(grey,)) for p in prompts]
    triples = [Record(p.text, media(3), ranks=(2.0, 1.0, 3.0)) for p in prompts]
    write_preferences(folder / "pairs.parquet", pairs)
    write_preferences(folder / "triples.parquet", triples)
    return folder / "pairs.parquet", folder / "triples.parquet"


@pytest.mark.parametrize("name", METHODS)
def test_two_iterations(name: str, sets: tuple[Path, Path]) -> None:
    config = shrunk(name, *sets)
    assert list(problems(config)) == []
    policy = load_policy(config.policy)
    rewards = load_rewards(list(config.rewards)) if config.rewards else []
    data = load_comparisons(config.data) if config.data.path else None
    learner = make_learner(config, policy, load_prompts(config.prompts), rewards, Accelerator(cpu=True), data)
    before = weights_of(learner)
    for iteration in (1, 2):
        row = iterate(learner)
        assert row["iteration"] == iteration
        assert math.isfinite(row["loss"])
        asked = compares_with_old(config) and config.objective.kind != "pathwise"  # what the old policy said
        assert (row["ratio_deviation"] is not None) == (
            asked or (not config.rollout.forward.times and config.objective.kind != "pathwise")
        )
        if asked and (config.rollout.policy == "current" or iteration == 1):  # the average lags from the second on
            assert row["ratio_deviation"] <= 1e-6 and math.isfinite(row["ratio_max_deviation"])
        assert 0 < row["grad_norm"] < math.inf
        assert row["failed_rewards"] == 0 and all(math.isfinite(v) for v in row["reward"].values())
        after = weights_of(learner)
        assert bool(after.isfinite().all())
        assert not (after == before).all()
        before = after


def test_the_sweep_is_of_all_rows() -> None:
    """A row that nobody put into the table would be missed."""
    names = [f"beholder.methods.{module.name}" for module in pkgutil.iter_modules(methods.__path__)]
    written = [vars(importlib.import_module(name)).values() for name in names]
    assert {value.name for values in written for value in values if isinstance(value, Method)} == set(METHODS)
