"""Settings of rollouts that exclude each other: refused by names, accepted after the change suggested."""

import re
from typing import Any

import pytest
from test_validator import VALID, changed

from beholder.config import RunConfig
from beholder.errors import InputError
from beholder.training.validator import problems, validate

Case = tuple[dict[str, Any], str, str, dict[str, Any]]
"""The change that is refused, the setting named first, what else the message says, and the change that mends it."""


def check(case: Case) -> None:
    """Refused in one line by the setting's name, and accepted once mended."""
    change, setting, says, mending = case
    wrong: RunConfig = changed(VALID, **change)
    assert list(problems(VALID)) == []
    found = list(problems(wrong))
    assert len(found) == 1, found
    assert re.match(rf"{re.escape(setting)}[: ]", found[0]) and says in found[0] and "\n" not in found[0], found
    with pytest.raises(InputError):
        validate(wrong)
    assert list(problems(changed(wrong, **mending))) == []


KERNELS: dict[str, Case] = {
    "a deterministic kernel": (
        {"rollout__kernel__kind": "euler"},
        "rollout.kernel.kind",
        "no density for objective.kind 'ppo_clip'; use flow_sde, dance_sde, cps or ddim",
        {"rollout__kernel__kind": "ddim"},
    ),
    "a deterministic kernel for another objective": (
        {"rollout__kernel__kind": "euler", "objective__kind": "gspo"},
        "rollout.kernel.kind",
        "objective.kind 'gspo'",
        {"rollout__kernel__kind": "flow_sde"},
    ),
    "a kernel of level 0": (
        {"rollout__kernel__level": 0.0},
        "rollout.kernel.level",
        "no density for objective.kind 'ppo_clip'; use 0.7",
        {"rollout__kernel__level": 0.7},
    ),
    "DDIM of level 0": (
        {"rollout__kernel__kind": "ddim", "rollout__kernel__level": 0.0, "objective__kind": "reinforce"},
        "rollout.kernel.level",
        "no density for objective.kind 'reinforce'; use 1",
        {"rollout__kernel__level": 1.0},
    ),
    "a bias that is not Gaussian": (
        {
            "rollout__kernel__kind": "cps",
            "rollout__kernel__level": 0.8,
            "rollout__kernel__log_prob": "unweighted",
            "objective__kind": "guard",
        },
        "objective.kind",
        "use log_prob gaussian, or objective.kind ppo_clip",
        {"objective__kind": "ppo_clip"},
    ),
    "more than all of CPS": (
        {"rollout__kernel__kind": "cps", "rollout__kernel__level": 1.2},
        "rollout.kernel.level",
        "cps takes a share in (0, 1], got 1.2; use 0.8",
        {"rollout__kernel__level": 0.8},
    ),
    "more than all of DDIM": (
        {"rollout__kernel__kind": "ddim", "rollout__kernel__level": 1.2},
        "rollout.kernel.level",
        "ddim takes a share in (0, 1], got 1.2; use 1",
        {"rollout__kernel__level": 1.0},
    ),
    "CPS's score elsewhere": (
        {"rollout__kernel__log_prob": "unweighted"},
        "rollout.kernel.log_prob",
        "'unweighted' belongs to kernel cps, not flow_sde; use gaussian",
        {"rollout__kernel__log_prob": "gaussian"},
    ),
}

PLANS: dict[str, Case] = {
    "a window too long": (
        {"rollout__plan__kind": "random_window", "rollout__plan__size": 10},
        "rollout.plan.size",
        "rollout.steps 10; use a smaller size",
        {"rollout__plan__size": 9},
    ),
    "a window past its stop": (
        {"rollout__plan__kind": "window", "rollout__plan__start": 4, "rollout__plan__stop": 5},
        "rollout.plan.size",
        "wider start..stop",
        {"rollout__plan__stop": 6},
    ),
    "less than one step": (
        {"rollout__plan__fraction": 0.05},
        "rollout.plan.fraction",
        "rollout.steps 10 is no step; use a larger",
        {"rollout__plan__fraction": 0.1},
    ),
    "less than one random step": (
        {"rollout__plan__kind": "random", "rollout__plan__fraction": 0.09},
        "rollout.plan.fraction",
        "use a larger",
        {"rollout__plan__fraction": 0.1},
    ),
    "more last steps than steps": (
        {"rollout__plan__kind": "suffix", "rollout__plan__size": 11},
        "rollout.plan.size",
        "rollout.steps 10; use at most 10",
        {"rollout__plan__size": 10},
    ),
    "a pace of what does not move": (
        {"rollout__plan__pace": "decay"},
        "rollout.plan.pace",
        "belongs to plan moving_window, not prefix; use constant",
        {"rollout__plan__pace": "constant"},
    ),
    "a shorter tail of stochastic steps": (
        {"rollout__tail": 0.5},
        "rollout.tail",
        "plan prefix has no ODE steps",
        {"rollout__plan__kind": "window"},
    ),
    "a solver for stochastic steps": (
        {"rollout__tail_solver": "dpm++", "rollout__plan__kind": "window", "rollout__plan__outside": "sde"},
        "rollout.tail_solver",
        "plan window has no ODE steps",
        {"rollout__plan__outside": "ode"},
    ),
}

TREE = {"rollout__branch__kind": "tree", "rollout__branch__steps": (0, 3)}
BRANCHES: dict[str, Case] = {
    "a tree without splits": (
        {"rollout__branch__kind": "tree"},
        "rollout.branch.steps",
        "use e.g. 0 3 6 9",
        {"rollout__branch__steps": (0, 3, 6, 9)},
    ),
    "splits out of order": (
        {**TREE, "rollout__branch__steps": (3, 0)},
        "rollout.branch.steps",
        "increasing",
        {"rollout__branch__steps": (0, 3)},
    ),
    "two splits at once": (
        {**TREE, "rollout__branch__steps": (3, 3)},
        "rollout.branch.steps",
        "increasing",
        {"rollout__branch__steps": (3,)},
    ),
    "a split after the end": (
        {**TREE, "rollout__branch__steps": (0, 10)},
        "rollout.branch.steps",
        "0..9 (rollout.steps 10)",
        {"rollout__branch__steps": (0, 9)},
    ),
    "splits of an ODE": (
        {**TREE, "rollout__plan__kind": "moving_window"},
        "rollout.branch.kind",
        "plan moving_window has ODE ones; use outside sde",
        {"rollout__plan__outside": "sde"},
    ),
    "splits without a tree": (
        {"rollout__branch__steps": (0, 3)},
        "rollout.branch.steps",
        "belongs to branch tree, not none; leave it out",
        {"rollout__branch__steps": ()},
    ),
    "a fan at random steps": (
        {"rollout__branch__kind": "fan", "rollout__plan__kind": "random"},
        "rollout.branch.kind",
        "use plan prefix or all",
        {"rollout__plan__kind": "all"},
    ),
    "spurs at random steps": (
        {"rollout__branch__kind": "spurs", "rollout__plan__kind": "random"},
        "rollout.branch.kind",
        "use plan prefix or all",
        {"rollout__plan__kind": "prefix"},
    ),
    "probes of branches": (
        {"rollout__probe__kind": "vine", "credit__baseline": "probe", "rollout__branch__kind": "fan"},
        "rollout.probe.kind",
        "not branch fan; use none",
        {"rollout__probe__kind": "none", "credit__baseline": "group"},
    ),
    "probes that nobody reads": (
        {"rollout__probe__kind": "greedy"},
        "credit.baseline",
        "rollout.probe.kind 'greedy'",
        {"credit__baseline": "probe"},
    ),
    "a probe baseline without probes": (
        {"credit__baseline": "probe"},
        "credit.baseline",
        "rollout.probe.kind 'none' do not go together; use baseline probe with probe greedy or vine",
        {"rollout__probe__kind": "vine"},
    ),
    "redrawing what always differs": (
        {"rollout__redraw": 1, "credit__win_rate": True},
        "rollout.redraw",
        "credit.win_rate) always differ within a group; use redraw 0",
        {"rollout__redraw": 0},
    ),
    "a reset within a window": (
        {"rollout__reset__share": 0.5, "rollout__plan__kind": "window"},
        "rollout.reset",
        "use plan prefix or all",
        {"rollout__plan__kind": "all"},
    ),
    "a reset behind the trained steps": (
        {"rollout__reset__share": 0.5, "rollout__reset__step": 4, "rollout__plan__fraction": 0.4},
        "rollout.reset.step",
        "train more than 4 of 10 steps",
        {"rollout__reset__step": 3},
    ),
    "a reset to the end": (
        {"rollout__reset__share": 0.5, "rollout__reset__step": 10},
        "rollout.reset",
        "more than 10 rollout.steps",
        {"rollout__reset__step": 8},
    ),
}

CASES = {**KERNELS, **PLANS, **BRANCHES}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name_and_accepted_once_mended(name: str) -> None:
    check(CASES[name])
