"""Every row of the method table learns: two small iterations of its `shapes` preset on the bundled generator.

This sweep must stay under a minute on one core, so prompts and groups are as few as the row allows.
"""

import importlib
import math
import pkgutil

import pytest
from accelerate import Accelerator
from learners import weights_of

from beholder import methods
from beholder.config import RunConfig
from beholder.methods import METHODS, Method
from beholder.methods.row import vary
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards
from beholder.training.learner import make_learner
from beholder.training.loop import iterate
from beholder.training.validator import problems


def shrunk(name: str) -> RunConfig:
    """The row's `shapes` preset with 3 prompts, groups of 2 at most, and a reward that is never the same for all."""
    config = METHODS[name].preset("shapes")
    r = config.rollout
    changes = {
        "rollout.prompts": 3,
        "rollout.group": min(r.group, 2),
        "rollout.branch.width": min(r.branch.width, 2 if r.branch.kind != "spurs" else 3),
        "rollout.probe.samples": min(r.probe.samples, 2),
        "rewards": {{"shapes": "redness"}.get(name, name): weight for name, weight in config.rewards.items()},
        "loop.signal_every": 0,
        "optimiser.lr": 1e-4,
    }
    return vary(config, name, changes)


@pytest.mark.parametrize("name", METHODS)
def test_two_iterations(name: str) -> None:
    config = shrunk(name)
    assert list(problems(config)) == []
    policy = load_policy(config.policy)
    learner = make_learner(
        config, policy, load_prompts(config.prompts), load_rewards(list(config.rewards)), Accelerator(cpu=True)
    )
    before = weights_of(learner)
    for iteration in (1, 2):
        row = iterate(learner)
        assert row["iteration"] == iteration
        if config.rollout.policy == "current" or iteration == 1:  # the average lags from the second iteration on
            assert row["ratio_deviation"] <= 1e-6
        assert math.isfinite(row["loss"]) and math.isfinite(row["ratio_max_deviation"])
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
