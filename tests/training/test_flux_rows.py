"""The published rows of FLUX.1 on a tiny genuine FLUX pipeline: their settings as they are, smaller sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from learners import first_batch, learner_of, transitions, weights_of

from beholder.methods import find_method
from beholder.methods.row import vary
from beholder.training.learner import Learner
from beholder.training.loop import iterate
from beholder.training.validator import problems
from tiny import IMAGE_SIZE, MAX_TOKENS

SIZES = {
    "policy.dtype": "float32",
    "policy.lora.rank": 4,
    "policy.lora.alpha": 8,
    "policy.resolution": IMAGE_SIZE,
    "policy.max_sequence_length": MAX_TOKENS,
    "rollout.steps": 6,
    "rollout.prompts": 2,
    "rollout.group": 3,
    "rollout.batch": 6,
    "loop.updates": 2,
    "loop.micro_batch": 4,
    "loop.signal_every": 0,
    "evaluation.rewards": ("redness",),
}


def published(method: str, folder: Path, name: str = "published", **sizes: Any) -> Learner:
    """The method's preset with nothing but sizes, the model and the reward replaced."""
    preset = find_method(method).preset(name)
    assert preset.policy.model == "black-forest-labs/FLUX.1-dev" and preset.rollout.guidance.scale == 1
    own = {"policy.model": str(folder), "rewards": {"redness": 1.0}, **SIZES, **sizes}
    config = vary(preset, method, own)
    assert not list(problems(config))
    return learner_of(config)


@pytest.mark.parametrize(
    "method, sizes",
    [
        ("flow-grpo", {"name": "flux"}),
        ("flow-grpo-fast", {"name": "flux"}),
        ("dance-grpo", {}),
        ("mix-grpo", {"rollout.plan.size": 2}),
        ("mix-grpo-flash", {"rollout.plan.size": 2}),
        ("pref-grpo", {}),
        ("branch-grpo", {"rollout.branch.steps": (0, 2), "rollout.group": 1}),
    ],
)
def test_one_iteration_of_a_published_flux_preset(method: str, sizes: dict[str, Any], tiny_flux_folder: Path) -> None:
    learner = published(method, tiny_flux_folder, **sizes)
    before, stats = weights_of(learner), iterate(learner)
    assert stats["failed_rewards"] == 0 and -1 <= stats["reward"]["redness"] <= 1
    assert stats["ratio_deviation"] <= 1e-6
    assert stats["grad_norm"] > 0 and not torch.equal(weights_of(learner), before)


def test_the_preset_draws_on_the_shifted_levels_with_its_own_kernel(tiny_flux_folder: Path) -> None:
    learner = published("dance-grpo", tiny_flux_folder)
    batch = first_batch(learner)
    d = batch.trajectory.decisions
    sigmas = learner.policy.schedule(6).float()
    torch.testing.assert_close(d.sigma_M, sigmas[d.step_M])
    torch.testing.assert_close(d.std_M, 0.3 * (d.sigma_M - d.sigma_next_M).sqrt(), rtol=1e-5, atol=1e-7)
    again = transitions(learner, batch).log_prob_sum(d.next_Mx)
    assert (again - d.logp_old_M).abs().max() / batch.trajectory.n_dims <= 1e-6
