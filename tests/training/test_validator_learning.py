"""Settings of what is learnt that exclude each other: refused by names, accepted after the change suggested."""

import math
from typing import Any

import pytest
from test_validator_rollout import Case, check

TREE = {"rollout__branch__kind": "tree", "rollout__branch__steps": (0, 3)}
SIBLINGS = {"rollout__branch__kind": "spurs", "credit__peers": "siblings"}
CREDIT: dict[str, Case] = {
    "a group of one": ({"rollout__group": 1}, "rollout.group", "credit.baseline 'group'", {"credit__baseline": "none"}),
    "a group of one, leave one out": (
        {"rollout__group": 1, "credit__baseline": "leave_one_out"},
        "rollout.group",
        "use 2 or more",
        {"rollout__group": 2},
    ),
    "a group of one to scale by": (
        {"rollout__group": 1, "credit__baseline": "none", "credit__scale": "group"},
        "rollout.group",
        "credit.scale 'group'; use 2 or more, or scale batch",
        {"credit__scale": "batch"},
    ),
    "no degrees of freedom": (
        {"credit__scale": "group", "credit__ddof": 8},
        "credit.ddof",
        "a group of 8; use a larger rollout.group",
        {"rollout__group": 9},
    ),
    "branches that nothing parts from": (
        {**SIBLINGS, "rollout__branch__width": 1, "credit__scale": "group"},
        "rollout.branch.width (credit.peers 'siblings')",
        "a group of 1 has no spread for credit.baseline 'group'; use 2 or more",
        {"rollout__branch__width": 2},
    ),
    "a win rate of one": (
        {"rollout__group": 1, "credit__baseline": "none", "credit__scale": "none", "credit__win_rate": True},
        "credit.win_rate",
        "raise rollout.group",
        {"rollout__group": 2},
    ),
    "a spread of one branch": (
        {**SIBLINGS, "rollout__branch__width": 1, "credit__baseline": "none", "credit__scale": "group"},
        "rollout.branch.width (credit.peers 'siblings')",
        "credit.scale 'group'; use 2 or more, or scale batch",
        {"credit__scale": "batch"},
    ),
    "no degrees of freedom among branches": (
        {**SIBLINGS, "rollout__branch__width": 2, "credit__scale": "group", "credit__ddof": 2},
        "credit.ddof",
        "a group of 2; use a larger rollout.branch.width (credit.peers 'siblings'), or ddof 0",
        {"rollout__branch__width": 3},
    ),
    "no degrees of freedom at a depth": (
        {**TREE, "rollout__group": 1, "credit__peers": "depth", "credit__scale": "group", "credit__ddof": 4},
        "credit.ddof",
        "a group of 4; use a larger rollout.group",
        {"credit__ddof": 3},
    ),
    "no degrees of freedom among recent rewards": (
        {"credit__baseline": "running", "credit__scale": "running", "credit__ddof": 1, "credit__history": 1},
        "credit.ddof",
        "leaves nothing of credit.history 1",
        {"credit__history": 2},
    ),
    "a redraw of groups of one": (
        {"rollout__redraw": 1, "rollout__group": 1, "credit__baseline": "none"},
        "rollout.redraw",
        "as a rollout.group of 1 always is; use redraw 0",
        {"rollout__group": 2},
    ),
    "a redraw of groups of one, running": (
        {"rollout__redraw": 1, "rollout__group": 1, "credit__baseline": "running", "credit__scale": "running"},
        "rollout.redraw",
        "rollout.group of 1",
        {"rollout__redraw": 0},
    ),
    "nodes without a tree": (
        {"credit__nodes": "likelihood", "credit__peers": "depth"},
        "credit.nodes",
        "rollout.branch.kind tree, not of branch none and credit.peers depth; use mean",
        {**TREE, "rollout__group": 1},
    ),
    "nodes among samples": (
        {"credit__nodes": "likelihood", **TREE},
        "credit.nodes",
        "credit.peers samples; use mean, or peers depth",
        {"credit__peers": "depth"},
    ),
    "recent returns divided by a group's": (
        {"credit__dense": "anchors", "credit__peers": "depth", "credit__baseline": "running"},
        "credit.baseline",
        "credit.scale 'batch' do not go together with credit.dense anchors; use running for both",
        {"credit__scale": "running"},
    ),
    "siblings without branches": (
        {"credit__peers": "siblings"},
        "credit.peers",
        "rollout.branch.kind is none; use spurs",
        {"rollout__branch__kind": "spurs"},
    ),
    "a threshold without branches": (
        {"credit__threshold": 0.5},
        "credit.threshold",
        "rollout.branch.kind is none; use fan, or 0",
        {"rollout__branch__kind": "fan"},
    ),
    "more kept than there are": (
        {"credit__keep_best": 5, "credit__keep_worst": 4},
        "credit.keep_best",
        "of 8 samples; keep fewer",
        {"credit__keep_worst": 3},
    ),
    "a scale of a critic's advantages": (
        {"credit__baseline": "critic", "credit__scale": "group"},
        "credit.scale",
        "use running, batch or none",
        {"credit__scale": "running"},
    ),
    "a critic of branches": (
        {"credit__baseline": "critic", "credit__scale": "none", "rollout__branch__kind": "fan"},
        "credit.baseline",
        "not branch fan; use baseline group",
        {"credit__baseline": "group"},
    ),
    "a critic of several rewards": (
        {"credit__baseline": "critic", "credit__scale": "none", "credit__combine": "losses"},
        "credit.combine",
        "baseline critic; use rewards",
        {"credit__combine": "rewards"},
    ),
    "probes for several rewards": (
        {"credit__baseline": "probe", "rollout__probe__kind": "greedy", "credit__combine": "advantages"},
        "credit.combine",
        "baseline probe; use rewards",
        {"credit__combine": "rewards"},
    ),
    "recent rewards of nodes": (
        {"credit__baseline": "running", "credit__peers": "depth"},
        "credit.baseline",
        "not depth; use peers samples",
        {"credit__peers": "samples"},
    ),
    "step rewards of samples": (
        {"credit__dense": "anchors"},
        "credit.dense",
        "credit.peers depth",
        {"credit__peers": "depth"},
    ),
    "step rewards of branches": (
        {"credit__dense": "anchors", "credit__peers": "depth", "rollout__branch__kind": "fan"},
        "credit.dense",
        "branch none",
        {"rollout__branch__kind": "none"},
    ),
    "redistribution among nodes": (
        {"credit__redistribute": 0.5, "credit__peers": "depth"},
        "credit.redistribute",
        "not of peers depth",
        {"credit__peers": "samples"},
    ),
    "a discount after a probe": (
        {"credit__discount": 0.9, "credit__baseline": "probe", "rollout__probe__kind": "vine"},
        "credit.discount",
        "baseline probe",
        {"credit__discount": 1.0},
    ),
    "weights of several losses": (
        {"credit__weights": "softmax", "credit__combine": "losses"},
        "credit.weights",
        "use credit.combine rewards",
        {"credit__combine": "rewards"},
    ),
}

FORWARD = {"rollout__forward__times": 2, "kl__form": "velocity"}


def preference(**settings: Any) -> dict[str, Any]:
    return {"objective__kind": "preference"} | {f"objective__preference__{k}": v for k, v in settings.items()}


OBJECTIVES: dict[str, Case] = {
    "one ratio for a shared path": (
        {"objective__kind": "gspo", "rollout__branch__kind": "fan"},
        "objective.kind",
        "gspo needs one sample per decision, not branch fan; use ppo_clip",
        {"objective__kind": "ppo_clip"},
    ),
    "lists at random steps": (
        {**preference(contrast="list"), "rollout__plan__kind": "random"},
        "objective.kind",
        "plan random gives each its own; use prefix",
        {"rollout__plan__kind": "prefix"},
    ),
    "pairs in a group of one": (
        {**preference(), "rollout__group": 1, "credit__baseline": "none"},
        "objective.kind",
        "preference (pair) compares samples of a prompt; use rollout.group 2 or more",
        {"rollout__group": 2},
    ),
    "a step at a time of one ratio": (
        {"objective__kind": "gspo", "loop__order": "steps"},
        "loop.order",
        "'steps' takes gspo's samples apart; use samples",
        {"loop__order": "samples"},
    ),
    "the means of the reference": (
        {"objective__kind": "guard", "objective__anchor": "reference"},
        "objective.anchor",
        "use old",
        {"objective__anchor": "old"},
    ),
    "scores on paths": (
        {"objective__kind": "dspo"},
        "objective.kind",
        "dspo works on re-noised clean samples; set rollout.forward.times",
        FORWARD,
    ),
    "a forward objective on paths": (
        {"objective__kind": "nft"},
        "objective.kind",
        "set rollout.forward.times",
        FORWARD,
    ),
    "transitions of clean samples": (
        {**FORWARD, "objective__kind": "guard"},
        "objective.kind",
        "rollout.forward.times re-noises clean samples; use 0 times",
        {"rollout__forward__times": 0},
    ),
    "a region of clean samples": (
        {**FORWARD, "loop__max_kl": 1.0},
        "loop.max_kl",
        "rollout.forward.times re-noises clean samples; use 0 times",
        {"rollout__forward__times": 0},
    ),
    "a KL of transitions there are not": (
        {**FORWARD, "kl__form": "exact"},
        "kl.form",
        "rollout.forward.times has none; use velocity",
        {"kl__form": "velocity"},
    ),
    "branches of clean samples": (
        {**FORWARD, "rollout__branch__kind": "fan"},
        "rollout.forward.times",
        "use 0 times",
        {"rollout__forward__times": 0},
    ),
    "an average that is not kept, to draw": (
        {"rollout__policy": "ema"},
        "rollout.policy",
        "set ema.decay",
        {"ema__decay": 0.5},
    ),
}

PREFERENCES: dict[str, Case] = {
    "pairs of a shared path": (
        {**preference(), "rollout__branch__kind": "fan"},
        "objective.kind",
        "preference (pair) needs one sample per decision, not branch fan; use ppo_clip",
        {"objective__kind": "ppo_clip"},
    ),
    "a step at a time of whole samples": (
        {**preference(contrast="point", over="sample"), "loop__order": "steps"},
        "loop.order",
        "'steps' takes preference (point)'s samples apart; use samples",
        {"loop__order": "samples"},
    ),
    "a weight per decision of a pair": (
        {**preference(), "objective__weighting": "noise"},
        "objective.weighting",
        "'noise' weighs decisions, preference (pair) compares samples; use uniform",
        {"objective__weighting": "uniform"},
    ),
    "a weight per decision of a score": (
        {**FORWARD, "objective__kind": "dspo", "objective__weighting": "noise"},
        "objective.weighting",
        "dspo compares samples; use uniform",
        {"objective__weighting": "uniform"},
    ),
    "parts of another formula": (
        {"objective__preference__link": "kto"},
        "objective.preference",
        "belongs to objective.kind preference, not ppo_clip; leave it out",
        {"objective__preference__link": "logistic"},
    ),
    "parts of the formula, which is not asked for": (
        {"objective__preference__smoothing": 0.1},
        "objective.preference",
        "belongs to objective.kind preference",
        {"objective__kind": "preference"},
    ),
    "odds of a log-ratio": (
        {**FORWARD, **preference(utility="odds")},
        "objective.anchor",
        "odds is of evidence itself, not of log-ratios; use none",
        {"objective__anchor": "none"},
    ),
    "MaPO's score of a log-ratio": (
        {**FORWARD, **preference(utility="mapo"), "objective__anchor": "reference"},
        "objective.anchor",
        "mapo is of evidence itself, not of log-ratios; use none",
        {"objective__anchor": "none"},
    ),
    "odds of a transition": (
        {**preference(utility="odds"), "objective__anchor": "none"},
        "objective.preference.utility",
        "odds is of denoising errors; set rollout.forward.times, e.g. 2",
        FORWARD,
    ),
    "half of the labels wrong": (
        preference(smoothing=0.5),
        "objective.preference.smoothing",
        "0.5 is not below 0.5; 0 turns it off",
        {"objective__preference__smoothing": 0.49},
    ),
    "fewer than none of the labels wrong": (
        preference(smoothing=-0.1),
        "objective.preference.smoothing",
        "-0.1 must not be negative",
        {"objective__preference__smoothing": 0.0},
    ),
    "a reverse KL to certainty": (
        preference(link="reverse_kl"),
        "objective.preference.smoothing",
        "link reverse_kl needs one above 0, e.g. 0.01",
        {"objective__preference__smoothing": 0.01},
    ),
    "a baseline of pairs": (
        preference(baseline="positive_mean"),
        "objective.preference.baseline",
        "'positive_mean' belongs to contrast point, not pair; use none",
        {"objective__preference__baseline": "none"},
    ),
    "a baseline of pairs, meant for points": (
        preference(baseline="mean"),
        "objective.preference.baseline",
        "belongs to contrast point",
        {"objective__preference__contrast": "point"},
    ),
    "an anchor of points": (
        preference(contrast="point", sft=1.0),
        "objective.preference.sft",
        "of a comparison's best sample; use contrast pair or list",
        {"objective__preference__contrast": "list"},
    ),
    "a fall of points": (
        preference(contrast="point", down=1.0),
        "objective.preference.sft",
        "use contrast pair or list",
        {"objective__preference__contrast": "pair"},
    ),
    "a safeguard of groups": (
        {**FORWARD, **preference(safeguard=0.9)},
        "objective.preference.safeguard",
        "needs pairs of re-noised samples; use rollout.group 2 and forward.times",
        {"rollout__group": 2},
    ),
    "a safeguard of transitions": (
        {**preference(safeguard=0.9), "rollout__group": 2},
        "objective.preference.safeguard",
        "use rollout.group 2 and forward.times",
        FORWARD,
    ),
    "more than all of a safeguard": (
        {**FORWARD, **preference(safeguard=1.5), "rollout__group": 2},
        "objective.preference.safeguard",
        "1.5 is not in [0, 1]",
        {"objective__preference__safeguard": 1.0},
    ),
    "pessimism about no clip": (
        preference(pessimistic=True),
        "objective.preference.pessimistic",
        "there is no clip to compare with; use utility clip",
        {"objective__preference__utility": "clip"},
    ),
}

OTHERS: dict[str, Case] = {
    "an average that is not kept": (
        {"kl__reference": "ema"},
        "kl.reference",
        "set ema.decay, e.g. 0.9",
        {"ema__decay": 0.9},
    ),
    "a KL in no reward": (
        {"kl__place": "reward", "kl__beta": 0.0},
        "kl.place",
        "needs kl.beta above 0",
        {"kl__beta": 0.1},
    ),
    "a KL in several rewards": (
        {"kl__place": "reward", "credit__combine": "losses"},
        "kl.place",
        "credit.combine rewards; use loss otherwise",
        {"kl__place": "loss"},
    ),
    "a target for nothing": (
        {"kl__target": 0.01, "kl__beta": 0.0},
        "kl.target",
        "no kl.beta to adapt; set it above 0",
        {"kl__beta": 0.01},
    ),
    "a gate without judges": (
        {"kl__gate": 0.5},
        "kl.gate",
        "at least two rewards",
        {"rewards": {"shapes": 1.0, "redness": 0.0}},
    ),
    "a gate of no KL": (
        {"kl__gate": 0.5, "kl__beta": 0.0, "rewards": {"shapes": 1.0, "redness": 0.0}},
        "kl.gate",
        "needs kl.beta above 0",
        {"kl__beta": 0.04},
    ),
    "more updates than samples": (
        {"loop__updates": 193},
        "loop.updates",
        "rollout.prompts x rollout.group / processes); use fewer updates",
        {"loop__updates": 192},
    ),
    "more updates than prompts": (
        {"loop__updates": 25, **preference(contrast="list")},
        "loop.updates",
        "use fewer updates",
        {"loop__updates": 24},
    ),
    "half precision learning": (
        {"policy__training": "full", "policy__dtype": "bfloat16"},
        "policy.dtype",
        "policy.training full learns in float32, not bfloat16; use float32 or lora",
        {"policy__training": "lora"},
    ),
    "a rank beside an adapter": (
        {"policy__adapter": "runs/a/policy", "policy__lora__rank": 8},
        "policy.lora",
        "leave policy.lora out",
        {"policy__lora__rank": 32},
    ),
    "no reward": ({"rewards": {}}, "rewards", "--rewards shapes 1.0", {"rewards": {"shapes": 1.0}}),
    "nothing measured": (
        {"evaluation__rewards": ()},
        "evaluation.rewards",
        "--evaluation.rewards shapes_strict",
        {"evaluation__rewards": ("shapes_strict",)},
    ),
    "a weight that is no number": ({"rewards": {"shapes": math.nan}}, "rewards.shapes", "nan", {"rewards": {"a": 1}}),
    "an infinite weight": (
        {"rewards": {"shapes": 1.0, "redness": -math.inf}},
        "rewards.redness",
        "-inf",
        {"rewards": {"shapes": 1.0, "redness": -1.0}},
    ),
}
CASES = {**CREDIT, **OBJECTIVES, **PREFERENCES, **OTHERS}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name_and_accepted_once_mended(name: str) -> None:
    check(CASES[name])
