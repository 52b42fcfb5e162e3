"""Every loss of log-ratios by the name of who wrote it down, as settings; what the tests beside it run through."""

from typing import Any

from beholder.config import ObjectiveConfig, PreferenceConfig
from beholder.objectives.policy_gradient import scope

BASE: dict[str, Any] = {"clip_low": 0.1, "clip_high": 0.15}


def policy_gradient_of(kind: Any, **more: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**{"kind": kind, **BASE, **more})


def preference_of(temperature: float = 2.0, anchor: Any = "reference", **settings: Any) -> ObjectiveConfig:
    """The preference formula with ``settings`` of `PreferenceConfig`, and β = ``temperature``."""
    outside = {name: settings.pop(name) for name in ("clip_low", "clip_high", "trust_region") if name in settings}
    return ObjectiveConfig(
        kind="preference",
        temperature=temperature,
        anchor=anchor,
        preference=PreferenceConfig(**settings),
        **{**BASE, **outside},
    )


POLICY_GRADIENTS = {
    kind: policy_gradient_of(kind) for kind in ("ppo_clip", "reinforce", "hard_clip", "guard", "kl_mask", "gspo")
}
PREFERENCES = {
    "DPO": preference_of(),
    "cDPO": preference_of(smoothing=0.1),
    "robust DPO": preference_of(link="robust", smoothing=0.1),
    "soft labels": preference_of(label="soft"),
    "Bradley-Terry labels": preference_of(label="bradley_terry"),
    "IPO": preference_of(0.5, link="square"),
    "SLiC": preference_of(link="hinge", margin=1.0),
    "RRHF": preference_of(1.0, "none", link="hinge", sft=1.0),
    "EXO": preference_of(link="reverse_kl", smoothing=0.01),
    "APO-down": preference_of(link="kto", down=1.0),
    "SimPO": preference_of(2.5, "none", margin=0.5),
    "ORPO": preference_of(1.0, "none", utility="odds", weight=0.1, sft=1.0),
    "MaPO": preference_of(1000.0, "none", utility="mapo", weight=0.1, sft=2.0),
    "CaPO": preference_of(link="regress"),
    "D3PO": preference_of(utility="clip_ratio"),
    "SPO": preference_of(utility="clip_ratio", pairs="extremes", min_gap=0.3),
    "SDPO": preference_of(utility="clip", link="regress", pessimistic=True, discount=0.9),
    "Diffusion-SDPO": preference_of(safeguard=0.9),
    "KTO": preference_of(contrast="point", link="kto", baseline="positive_mean", undesirable=1.3),
    "BCO": preference_of(contrast="point", baseline="mean"),
    "DIL": preference_of(contrast="point"),
    "APO-zero": preference_of(contrast="point", link="kto"),
    "SPPO": preference_of(0.5, contrast="point", link="square"),
    "DGPO": preference_of(contrast="group", weight=0.5),
    "CRD": preference_of(contrast="centred", link="regress"),
    "Dense Reward View": preference_of(utility="clip", contrast="list", over="sample"),
    "PRO": preference_of(1.0, "none", contrast="list", label="soft", over="sample", sft=0.05),
}
RECIPES: dict[str, ObjectiveConfig] = {**POLICY_GRADIENTS, **PREFERENCES}

COMPARING = [name for name, config in RECIPES.items() if scope(config) == "group"]
"""Recipes that compare the samples of a prompt."""
POINTS = [name for name, config in PREFERENCES.items() if config.preference.contrast == "point"]
PAIRS = [name for name, config in PREFERENCES.items() if config.preference.contrast == "pair"]
UNCLIPPED = {"reinforce"} | {n for n, c in PREFERENCES.items() if c.preference.utility not in ("clip", "clip_ratio")}
STRAIGHT_THROUGH = {"Diffusion-SDPO"}
"""Recipes whose gradient is not that of their value."""
