"""Published presets of diffusion models hold the numbers of their released configurations."""

from typing import Any

import pytest
from settings_by_name import setting

from beholder.methods import METHODS

DDPO = {
    "policy.training": "lora",
    "policy.lora.rank": 4,
    "policy.lora.alpha": 4,
    "rollout.steps": 50,
    "rollout.prompts": 256,
    "rollout.group": 1,
    "rollout.batch": 8,
    "rollout.kernel.kind": "ddim",
    "rollout.kernel.level": 1.0,
    "rollout.plan.kind": "all",
    "rollout.guidance.scale": 5.0,
    "rollout.guidance.detach_unconditional": False,
    "credit.baseline": "running",
    "credit.scale": "running",
    "credit.history": 32,
    "credit.history_min": 16,
    "credit.eps": 1e-6,
    "credit.clip": 5.0,
    "objective.clip_low": 1e-4,
    "objective.clip_high": 1e-4,
    "kl.beta": 0.0,
    "optimiser.lr": 3e-4,
    "optimiser.beta1": 0.9,
    "optimiser.beta2": 0.999,
    "optimiser.eps": 1e-8,
    "optimiser.weight_decay": 1e-4,
    "optimiser.max_grad_norm": 1.0,
    "loop.iterations": 100,
}
SD15 = {name: DDPO[name] for name in ("rollout.kernel.kind", "rollout.kernel.level", "policy.lora.rank")}
TDPO = {
    **SD15,
    "rollout.steps": 50,
    "rollout.prompts": 256,
    "rollout.guidance.scale": 5.0,
    "credit.baseline": "critic",
    "credit.scale": "none",
    "credit.whiten": True,
    "credit.clip": 1000.0,
    "credit.discount": 1.0,
    "credit.critic.lr": 1e-4,
    "credit.critic.lam": 1.0,
    "credit.critic.clip": 0.2,
    "credit.critic.reset_every": 0,
    "objective.clip_low": 1e-4,
    "objective.clip_high": 1e-4,
    "optimiser.lr": 1e-4,
    "loop.order": "steps",
    "loop.updates": 2,
}

PUBLISHED: dict[tuple[str, str], dict[str, Any]] = {
    ("b2-diffurl", "published"): {
        **SD15,
        "policy.dtype": "float16",
        "rollout.steps": 20,
        "rollout.prompts": 32,
        "rollout.group": 8,
        "rollout.guidance.scale": 5.0,
        "rollout.plan.kind": "suffix",
        "rollout.plan.size": 14,
        "rollout.plan.every": 100,
        "rollout.branch.kind": "fan",
        "rollout.branch.width": 5,
        "credit.history": 360,
        "credit.eps": 1e-8,
        "credit.clip": 5.0,
        "credit.threshold": 0.5,
        "objective.clip_low": 0.1,
        "objective.clip_high": 0.1,
        "objective.trust_region": "per_dimension",
        "optimiser.lr": 1e-4,
        "loop.epochs": 2,
        "loop.iterations": 100,
    },
    ("ddpo-is", "published"): {**DDPO, "objective.kind": "ppo_clip", "loop.updates": 2},
    ("ddpo-sf", "published"): {**DDPO, "objective.kind": "reinforce", "loop.updates": 1},
    ("dpok", "published"): {
        **SD15,
        "rollout.steps": 50,
        "rollout.prompts": 10,
        "rollout.group": 1,
        "rollout.guidance.scale": 7.5,
        "credit.baseline": "critic",
        "credit.scale": "none",
        "credit.whiten": False,
        "credit.critic.lr": 1e-4,
        "credit.critic.width": 256,
        "credit.critic.lam": 1.0,
        "objective.kind": "hard_clip",
        "objective.clip_low": 1e-4,
        "objective.clip_high": 1e-4,
        "kl.beta": 0.01 / 10,
        "optimiser.lr": 1e-5,
        "optimiser.weight_decay": 0.0,
        "optimiser.max_grad_norm": 0.1,
        "loop.iterations": 2000,
        "loop.updates": 5,
    },
    ("tdpo", "published"): TDPO,
    ("tdpo-r", "published"): {**TDPO, "credit.critic.reset_every": 10},
    ("sdpo", "published"): {
        **SD15,
        "policy.model": "stabilityai/sd-turbo",
        "rollout.group": 2,
        "rollout.shared_noise": True,
        "rollout.guidance.scale": 1.0,
        "credit.dense": "anchors",
        "credit.discount": 0.99,
        "credit.clip": 5.0,
        "objective.kind": "preference",
        "objective.preference.utility": "clip",
        "objective.preference.contrast": "pair",
        "objective.preference.link": "regress",
        "objective.preference.pessimistic": True,
        "objective.preference.discount": 0.99,
        "objective.temperature": 1.0,
        "objective.clip_low": 1e-4,
        "objective.clip_high": 1e-4,
        "optimiser.lr": 1e-4,
        "loop.order": "steps",
    },
    ("dense-reward", "published"): {
        "policy.dtype": "bfloat16",
        "policy.lora.rank": 32,
        "rollout.steps": 50,
        "rollout.prompts": 32,
        "rollout.group": 5,
        "rollout.guidance.scale": 7.5,
        "rollout.plan.kind": "geometric",
        "rollout.plan.size": 1,
        "rollout.plan.decay": 0.9,
        "objective.kind": "preference",
        "objective.preference.utility": "clip",
        "objective.preference.contrast": "list",
        "objective.preference.label": "hard",
        "objective.preference.over": "sample",
        "objective.anchor": "reference",
        "objective.temperature": 12.5,
        "objective.clip_low": 5e-4,
        "objective.clip_high": 5e-4,
        "optimiser.lr": 2e-5,
        "optimiser.max_grad_norm": 0.05,
    },
    ("d3po", "published"): {
        **SD15,
        "rollout.steps": 20,
        "rollout.prompts": 10,
        "rollout.group": 2,
        "rollout.shared_noise": True,
        "rollout.guidance.scale": 5.0,
        "objective.kind": "preference",
        "objective.preference.utility": "clip_ratio",
        "objective.preference.contrast": "pair",
        "objective.preference.link": "logistic",
        "objective.anchor": "reference",
        "objective.temperature": 0.1,
        "objective.clip_low": 0.1,
        "objective.clip_high": 0.1,
        "optimiser.lr": 3e-5,
        "loop.iterations": 400,
    },
}

FURTHER = [
    ("b2-diffurl", "policy.model", "CompVis/stable-diffusion-v1-4"),
    ("dpok", "credit.critic.steps", 1),  # five minibatches, one optimiser step
    ("sdpo", "credit.scale", "group"),  # z-scores per prompt and step
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
