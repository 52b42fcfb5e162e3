"""Evidence against a reference that is computed otherwise than the policy: the logit becomes rounding noise."""

from pathlib import Path

import pytest
import torch
from learners import first_batch, learner_of, tiny_config
from torch import Tensor

from beholder.methods import find_method
from beholder.rollouts.engine import replay
from beholder.training.learner import Learner
from beholder.training.update import replayed

BETA = find_method("diffusion-dpo").preset("published").objective.temperature


def learner(folder: Path, dtype: str) -> Learner:
    forward = {"rollout__forward__times": 2, "rollout__forward__shared": True, "rollout__forward__time": "uniform"}
    preference = {"objective__kind": "preference", "objective__anchor": "reference", "objective__temperature": BETA}
    plain = {"kl__beta": 0.0, "kl__form": "velocity", "policy__dtype": dtype}
    return learner_of(tiny_config(folder, **forward, **preference, **plain))


def logit(policy: Tensor, reference: Tensor, n_dims: int) -> Tensor:
    return BETA * (policy - reference) / n_dims


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_before_the_first_update_the_logit_is_zero_in_every_precision(tiny_sd3_folder: Path, dtype: str) -> None:
    one = learner(tiny_sd3_folder, dtype)
    batch = first_batch(one)
    scored, reference = replayed(one, batch.trajectory, batch.trajectory.decisions)
    assert reference is not None
    assert logit(scored.logp_M, reference.logp_M, batch.trajectory.n_dims).abs().max() == 0


@torch.no_grad()
def test_a_half_precision_reference_makes_noise_of_the_logit(tiny_sd3_folder: Path) -> None:
    """The policy's own weights, once in float32 and once in float16: the logit should be 0 and is not."""
    one = learner(tiny_sd3_folder, "float32")
    batch = first_batch(one)
    trajectory, decisions = batch.trajectory, batch.trajectory.decisions
    exact = replay(one.policy, trajectory, decisions).logp_M
    noise = {}
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            noise[dtype] = (
                logit(exact, replay(one.policy, trajectory, decisions).logp_M, trajectory.n_dims).std().item()
            )
    print(noise)
    assert noise[torch.float16] > 0.05
