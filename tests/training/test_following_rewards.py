"""Rows that follow the reward's gradient, on the tiny SD3 pipeline: the same gradient however it is taken."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import TEXTS, first_batch, gradient_of, learner_of, tiny_config, weights_of
from torch import Tensor

from beholder.config import RunConfig
from beholder.errors import InputError
from beholder.prompts import PromptSet
from beholder.rewards import Reward
from beholder.training.align import Run
from beholder.training.learner import Learner
from beholder.training.loop import iterate
from beholder.training.pathwise import reward_gradient
from beholder.training.update import accumulate
from beholder.training.update_stats import UpdateStats

GRADIENT = {
    "objective__kind": "pathwise",
    "credit__baseline": "none",
    "credit__scale": "none",
    "rollout__group": 1,
    "kl__form": "velocity",
}


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def config_of(folder: Path, **more: Any) -> RunConfig:
    return tiny_config(folder, **GRADIENT, **more)


def made(folder: Path, score: Any = redness, **more: Any) -> Learner:
    learner = learner_of(config_of(folder, **more), [Reward("redness", score, differentiable=True)])
    learner.prompts = PromptSet(TEXTS, image=lambda index, seed: torch.full((3, 32, 32), 0.25 + 0.1 * (index % 3)))
    return learner


def gradient(learner: Learner, micro_batch: int = 64) -> Tensor:
    learner.config = replace(learner.config, loop=replace(learner.config.loop, micro_batch=micro_batch))
    learner.optimiser.zero_grad()
    batch = first_batch(learner)
    rows = torch.arange(len(batch.trajectory.decisions))
    accumulate(learner, batch, rows, UpdateStats(8, torch.device("cpu")), None)
    return gradient_of(learner)


def close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((one - other).norm() <= tolerance * one.norm()) and bool(one.norm() > 0)


def test_the_last_step_replayed_is_the_last_step_live(tiny_sd3_folder: Path) -> None:
    given = gradient(made(tiny_sd3_folder))
    live = gradient(made(tiny_sd3_folder, rollout__pathwise__inputs="live"))
    assert close(given, live)
    whole = gradient(made(tiny_sd3_folder, rollout__pathwise__inputs="live", rollout__pathwise__steps=4))
    assert not close(given, whole, 0.05)


@pytest.mark.parametrize("inputs", ["given", "live"])
def test_the_gradient_does_not_depend_on_the_micro_batch_or_the_batch(inputs: str, tiny_sd3_folder: Path) -> None:
    settings = {"rollout__pathwise__inputs": inputs, "rollout__pathwise__steps": 2}
    whole = gradient(made(tiny_sd3_folder, **settings))
    assert close(whole, gradient(made(tiny_sd3_folder, **settings), micro_batch=1))
    assert close(whole, gradient(made(tiny_sd3_folder, rollout__batch=3, **settings)))


def test_guidance_has_its_gradient(tiny_sd3_folder: Path) -> None:
    guided = {"rollout__guidance__scale": 3.0, "rollout__guidance__detach_unconditional": False}
    given = gradient(made(tiny_sd3_folder, **guided))
    assert close(given, gradient(made(tiny_sd3_folder, rollout__pathwise__inputs="live", **guided)))


def test_the_rewards_gradient_is_its_finite_difference(tiny_sd3_folder: Path) -> None:
    learner = made(tiny_sd3_folder)
    clean = 0.3 * torch.randn(2, *learner.policy.family.latent_shape(), generator=torch.Generator().manual_seed(0))
    _, got = reward_gradient(learner, clean, list(TEXTS[:2]))
    way = got / got.flatten(1).norm(dim=1).view(-1, 1, 1, 1)  # along itself, where nothing cancels
    ends = [redness(learner.policy.decode(clean + e * way, 0.0, 2), []) for e in (2e-3, -2e-3)]
    want = (ends[0] - ends[1]) / 4e-3
    torch.testing.assert_close((got * way).flatten(1).sum(1), want, rtol=1e-2, atol=1e-6)


def test_renoised_copies_are_further_last_steps(tiny_sd3_folder: Path) -> None:
    learner = made(tiny_sd3_folder, rollout__pathwise__renoised=2)
    batch = first_batch(learner)
    d, n = batch.trajectory.decisions, 4
    assert len(d) == 3 * n and set(d.step_M.tolist()) == {3}
    assert batch.trajectory.network_evaluations == n * 4 + 2 * n
    assert len({tuple(x.flatten().tolist()) for x in d.state_Mx}) == 3 * n
    clean, sigma = batch.trajectory.final_Nx, d.sigma_M[0]
    noise = (d.state_Mx[n:] - (1 - sigma) * torch.cat([clean, clean])) / sigma
    assert 0.8 < noise.std() < 1.2
    assert close(gradient(learner), gradient(made(tiny_sd3_folder, rollout__pathwise__renoised=2), micro_batch=2))


def test_what_failed_or_is_above_the_ceiling_teaches_nothing(tiny_sd3_folder: Path) -> None:
    def broken(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.where(torch.tensor(["red" in p for p in prompts]), torch.nan, redness(images, prompts))

    learner = made(tiny_sd3_folder, broken)
    batch = first_batch(learner)
    failed = torch.tensor(["red" in p for p in batch.trajectory.prompts])
    assert failed.any() and batch.stats["failed_rewards"] == int(failed.sum())
    assert torch.equal(batch.advantage_MR[:, 0].isnan(), failed[batch.trajectory.decisions.sample_M])
    assert batch.trajectory.decisions.next_Mx.isfinite().all()
    assert bool(gradient(learner).isfinite().all())
    low = made(tiny_sd3_folder, rollout__pathwise__ceiling=-9.0)
    assert first_batch(low).trajectory.decisions.next_Mx.eq(0).all()


def test_real_images_pull_with_their_weight(tiny_sd3_folder: Path) -> None:
    """With no reward to follow, what is left is the gradient of the denoising error of real images."""

    def nothing(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return 0 * images.sum((1, 2, 3))

    one, two = (
        gradient(made(tiny_sd3_folder, nothing, rollout__real__images=1, rollout__real__value=v)) for v in (1, 2)
    )
    assert close(2 * one, two)
    both = gradient(made(tiny_sd3_folder, rollout__real__images=1, rollout__real__value=1.0))
    alone = gradient(made(tiny_sd3_folder))
    # 8 decisions where there were 4: the mean halves the reward's part, and the pull's part is halved alike
    assert close(both, alone / 2 + one, 1e-3)


def test_the_stop_is_drawn_within_its_share_and_the_same_for_all(tiny_sd3_folder: Path) -> None:
    learner = made(tiny_sd3_folder, rollout__steps=8, rollout__pathwise__first=0.5)
    seen = set()
    for iteration in range(1, 25):
        learner.progress.iteration = iteration
        from beholder.training.pathwise import _steps

        seen.add(_steps(learner, 8)[-1])
    assert seen == {4, 5, 6, 7}


@pytest.mark.parametrize("inputs", ["given", "live"])
def test_following_the_gradient_raises_the_reward(inputs: str, tiny_sd3_folder: Path) -> None:
    settings = {"rollout__pathwise__inputs": inputs, "rollout__pathwise__steps": 2, "optimiser__lr": 3e-3}
    learner = made(tiny_sd3_folder, policy__training="full", **settings)
    before, rows = weights_of(learner), [iterate(learner) for _ in range(6)]
    assert rows[-1]["reward"]["redness"] > rows[0]["reward"]["redness"] + 1e-3
    assert rows[0]["ratio_mean"] is None and rows[0]["clip_fraction"] is None
    assert not torch.equal(before, weights_of(learner))


def test_a_reward_without_gradient_is_refused_before_anything_is_drawn(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    config = replace(config_of(tiny_sd3_folder), rewards={"shapes_graded": 1.0}, output=str(tmp_path / "run"))
    with pytest.raises(InputError, match="'shapes_graded' has no gradient to follow"):
        Run(config, lambda row: None, None, {})
    assert not (tmp_path / "run").exists()
