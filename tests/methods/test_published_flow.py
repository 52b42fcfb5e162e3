"""Published presets of flow models hold the numbers of their released configurations; nothing quietly drifts."""

from typing import Any

import pytest
from settings_by_name import setting

from beholder.methods import METHODS

SD35 = {
    "policy.model": "stabilityai/stable-diffusion-3.5-medium",
    "policy.training": "lora",
    "policy.lora.rank": 32,
    "policy.lora.alpha": 64,
    "policy.dtype": "float16",
    "policy.resolution": 512,
    "rollout.steps": 10,
    "rollout.prompts": 48,
    "rollout.group": 24,
    "rollout.batch": 9,
    "optimiser.weight_decay": 1e-4,
    "optimiser.beta1": 0.9,
    "optimiser.beta2": 0.999,
    "optimiser.eps": 1e-8,
    "optimiser.max_grad_norm": 1.0,
    "ema.decay": 0.9,
    "ema.every": 8,
    "evaluation.steps": 40,
}
"""Flow-GRPO on SD3.5 medium, 32 GPUs."""
FLOW = {
    **SD35,
    "rollout.guidance.scale": 4.5,
    "rollout.kernel.kind": "flow_sde",
    "rollout.kernel.level": 0.7,
    "rollout.kernel.log_prob": "gaussian",
    "rollout.plan.kind": "prefix",
    "rollout.plan.fraction": 0.99,
    "credit.baseline": "group",
    "credit.scale": "batch",
    "credit.ddof": 0,
    "credit.eps": 1e-4,
    "credit.clip": 5.0,
    "objective.kind": "ppo_clip",
    "objective.clip_low": 1e-4,
    "objective.clip_high": 1e-4,
    "objective.trust_region": "per_dimension",
    "objective.weighting": "uniform",
    "kl.beta": 0.04,
    "kl.form": "no_dt",
    "optimiser.lr": 3e-4,
    "loop.updates": 2,
}
CPS = {
    "rollout.kernel.kind": "cps",
    "rollout.kernel.level": 0.8,
    "rollout.kernel.log_prob": "unweighted",
    "objective.clip_low": 1e-5,
    "objective.clip_high": 1e-5,
    "kl.beta": 0.0,
}
DANCE = {
    "policy.model": "black-forest-labs/FLUX.1-dev",
    "policy.dtype": "bfloat16",
    "policy.resolution": 720,
    "policy.lora.rank": 128,
    "policy.lora.alpha": 256,
    "rollout.steps": 12,
    "rollout.group": 12,
    "rollout.batch": 1,
    "rollout.shared_noise": True,
    "rollout.kernel.kind": "dance_sde",
    "rollout.kernel.level": 0.3,
    "rollout.plan.kind": "random",
    "rollout.plan.fraction": 0.6,
    "credit.baseline": "group",
    "credit.scale": "group",
    "credit.ddof": 1,
    "credit.eps": 1e-8,
    "credit.clip": 5.0,
    "objective.clip_low": 1e-4,
    "objective.clip_high": 1e-4,
    "objective.trust_region": "per_dimension",
    "kl.beta": 0.0,
    "optimiser.lr": 3e-4,
    "optimiser.weight_decay": 1e-4,
    "optimiser.max_grad_norm": 1.0,
    "ema.decay": 0.0,
    "loop.iterations": 300,
}
MIX = {
    **{name: DANCE[name] for name in ("policy.model", "policy.resolution", "rollout.group", "rollout.shared_noise")},
    **{name: DANCE[name] for name in ("credit.scale", "credit.ddof", "credit.eps", "kl.beta", "loop.iterations")},
    "rollout.steps": 25,
    "rollout.kernel.kind": "flow_sde",
    "rollout.kernel.level": 0.7,
    "rollout.plan.kind": "moving_window",
    "rollout.plan.size": 4,
    "rollout.plan.start": 0,
    "rollout.plan.stop": 23,
    "rollout.plan.every": 25,
    "rollout.plan.stride": 1,
    "rollout.plan.outside": "ode",
    "rollout.tail": 1.0,
    "rollout.tail_solver": "euler",
    "credit.combine": "advantages",
    "objective.clip_low": 1e-4,
    "objective.clip_high": 1e-4,
    "optimiser.lr": 1e-5,
    "optimiser.max_grad_norm": 1.0,
    "loop.updates": 4,
}
FLASH = {**MIX, "rollout.plan.every": 20, "rollout.tail": 0.4, "rollout.tail_solver": "dpm++"}
BRANCH = {
    "policy.resolution": 720,
    "rollout.steps": 20,
    "rollout.group": 1,
    "rollout.kernel.kind": "dance_sde",
    "rollout.kernel.level": 0.3,
    "rollout.plan.kind": "prefix",
    "rollout.plan.fraction": 0.6,
    "rollout.branch.kind": "tree",
    "rollout.branch.width": 2,
    "rollout.branch.steps": (0, 3, 6, 9),
    "credit.peers": "depth",
    "credit.scale": "group",
    "credit.ddof": 1,
    "credit.eps": 1e-8,
    "objective.clip_low": 1e-3,
    "objective.clip_high": 1e-3,
    "optimiser.lr": 1e-5,
    "loop.iterations": 300,
}

PUBLISHED: dict[tuple[str, str], dict[str, Any]] = {
    ("flow-grpo", "published"): FLOW,
    ("flow-grpo-fast", "published"): {
        **{**FLOW, **CPS},
        "rollout.guidance.scale": 1.0,
        "rollout.plan.kind": "random_window",
        "rollout.plan.size": 3,
        "rollout.plan.start": 0,
        "rollout.plan.stop": 5,
        "rollout.plan.fraction": 0.99,
    },
    ("flow-cps", "published"): {**FLOW, **CPS},
    ("dance-grpo", "published"): DANCE,
    ("dance-grpo", "video"): {
        "rollout.steps": 16,
        "rollout.kernel.level": 0.25,
        "rollout.group": 24,
        "rollout.shared_noise": True,
        "credit.combine": "losses",
        "credit.keep_best": 4,
        "credit.keep_worst": 4,
    },
    ("mix-grpo", "published"): MIX,
    ("mix-grpo", "decay"): {**MIX, "rollout.plan.pace": "decay", "rollout.plan.every": 10},
    ("mix-grpo", "exp_decay"): {**MIX, "rollout.plan.pace": "exp_decay"},
    ("mix-grpo", "random"): {**MIX, "rollout.plan.kind": "random_window"},
    ("mix-grpo-flash", "published"): FLASH,
    ("mix-grpo-flash-star", "published"): {**FLASH, "rollout.plan.stride": 0, "rollout.tail": 0.2},
    ("tempflow-grpo", "published"): {
        **{**FLOW, "rollout.group": 4, "credit.scale": "group", "objective.weighting": "noise"},
        "rollout.branch.kind": "spurs",
        "rollout.branch.width": 6,
        "credit.peers": "siblings",
    },
    ("branch-grpo", "published"): BRANCH,
    ("branch-grpo", "width_pruned"): {**BRANCH, "credit.keep_best": 4, "credit.keep_worst": 4},
    ("branch-grpo", "depth_pruned"): {
        **BRANCH,
        "rollout.plan.kind": "moving_window",
        "rollout.plan.outside": "sde",
        "rollout.plan.every": 30,
    },
    ("grpo-guard", "published"): {
        **{**FLOW, "objective.clip_low": 2e-6, "objective.clip_high": 2e-6},
        **{"credit.scale": "group", "kl.beta": 0.0, "optimiser.lr": 1e-4},
        "objective.kind": "guard",
        "objective.weighting": "inverse_dt",
    },
    ("flow-dppo", "published"): {"objective.kind": "kl_mask", "objective.clip_high": 1e-5, "kl.beta": 0.0},
    ("pref-grpo", "published"): {
        **{name: DANCE[name] for name in ("rollout.shared_noise", "rollout.plan.kind", "rollout.plan.fraction")},
        **{name: DANCE[name] for name in ("credit.scale", "credit.ddof", "credit.eps", "objective.clip_low")},
        "rollout.steps": 25,
        "rollout.group": 8,
        "rollout.kernel.kind": "flow_sde",
        "rollout.kernel.level": 0.7,
        "credit.combine": "advantages",
        "credit.whiten": True,
        "objective.kind": "guard",
        "kl.beta": 0.0,
        "optimiser.lr": 1e-5,
    },
    ("gardo", "published"): {
        **{**FLOW, "objective.clip_low": 1e-5, "objective.clip_high": 1e-5, "rollout.plan.fraction": 0.89},
        "credit.scale": "none",
        "kl.beta": 0.04,
        "kl.refresh": 15,
    },
    ("diffusion-nft", "published"): {
        **SD35,
        **{"ema.decay": 0.5, "ema.rise": 0.001, "ema.every": 1},
        "rollout.guidance.scale": 1.0,
        "rollout.forward.fraction": 0.99,
        "rollout.policy": "ema",
        "credit.clip": 5.0,
        "objective.temperature": 1.0,
        "kl.beta": 1e-4,
        "kl.form": "velocity",
        "optimiser.lr": 3e-4,
        "loop.updates": 1,
    },
    ("awm", "published"): {
        **{**SD35, "rollout.steps": 14, "rollout.prompts": 24, "ema.decay": 0.99, "ema.every": 1},
        "rollout.guidance.scale": 1.0,
        "rollout.forward.times": 6,
        "rollout.forward.fraction": 0.9,
        "rollout.forward.weight": "ghuber",
        "credit.clip": 1.0,
        "credit.scale": "batch",
        "kl.beta": 0.001,
        "kl.form": "velocity",
        "optimiser.lr": 3e-4,
        "loop.updates": 1,
    },
    ("online-flow-dpo", "published"): {
        "rollout.steps": 40,
        "rollout.group": 24,
        "rollout.guidance.scale": 4.5,
        "credit.keep_best": 1,
        "credit.keep_worst": 1,
        "objective.kind": "preference",
        "objective.preference.utility": "identity",
        "objective.preference.contrast": "pair",
        "objective.preference.link": "logistic",
        "objective.preference.weight": 1.0,
        "objective.anchor": "reference",
        "objective.temperature": 100.0,
        "kl.beta": 0.0,
    },
    ("dgpo", "published"): {
        "rollout.steps": 10,
        "rollout.group": 16,
        "rollout.guidance.scale": 1.0,
        "rollout.forward.times": 4,
        "rollout.forward.shared": True,
        "objective.kind": "preference",
        "objective.preference.contrast": "group",
        "objective.preference.link": "logistic",
        "objective.preference.weight": 1 / 100,  # of one over β: the weights are A σ(-x)
        "objective.anchor": "reference",
        "objective.temperature": 100.0,
        "kl.beta": 0.02,
        "kl.form": "velocity",
        "loop.updates": 1,
    },
}

FURTHER = [
    ("dance-grpo", "rollout.steps", 12),  # the FLUX LoRA script; 16 are of the script that trains all weights at 1e-5
]
"""Row, setting, and what the released code has."""


@pytest.mark.parametrize(("row", "preset"), PUBLISHED)
def test_a_preset_holds_the_published_numbers(row: str, preset: str) -> None:
    config = METHODS[row].presets[preset]
    found = {name: setting(config, name) for name in PUBLISHED[row, preset]}
    assert found == PUBLISHED[row, preset]


@pytest.mark.parametrize(("row", "name", "official"), FURTHER)
def test_a_setting_is_the_released_codes(row: str, name: str, official: object) -> None:
    assert setting(METHODS[row].presets["published"], name) == official
