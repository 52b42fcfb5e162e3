"""Settings of what is learnt that exclude each other: refused by names, accepted after the change suggested."""

import math

import pytest
from test_validator_rollout import Case, check

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
        {"credit__baseline": "critic", "credit__scale": "batch"},
        "credit.scale",
        "use none, and whiten",
        {"credit__scale": "none"},
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
OBJECTIVES: dict[str, Case] = {
    "one ratio for a shared path": (
        {"objective__kind": "gspo", "rollout__branch__kind": "fan"},
        "objective.kind",
        "gspo needs one sample per decision, not branch fan; use ppo_clip",
        {"objective__kind": "ppo_clip"},
    ),
    "lists at random steps": (
        {"objective__kind": "list_mle", "rollout__plan__kind": "random"},
        "objective.kind",
        "plan random gives each its own; use prefix",
        {"rollout__plan__kind": "prefix"},
    ),
    "pairs in a group of one": (
        {"objective__kind": "pair_square", "rollout__group": 1, "credit__baseline": "none"},
        "objective.kind",
        "use rollout.group 2 or more",
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
        {"loop__updates": 25, "objective__kind": "list_mle"},
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
CASES = {**CREDIT, **OBJECTIVES, **OTHERS}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name_and_accepted_once_mended(name: str) -> None:
    check(CASES[name])
