"""Rewards of noisy steps where rows reward steps: the states themselves are judged, with their noise levels."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from learners import TEXTS, first_batch, learner_of, reward_of, tiny_config
from torch import Tensor

from beholder.errors import InputError
from beholder.methods import METHODS
from beholder.methods.row import vary
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.rewards import Reward, load_reward
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from beholder.training.align import align
from beholder.training.collect import anchored_rewards, step_rewards
from beholder.training.draw import draw
from beholder.training.learner import make_learner
from beholder.training.loop import iterate

LADDER = {
    "rollout__branch__kind": "ladder",
    "rollout__branch__width": 3,
    "rollout__group": 1,
    "rollout__prompts": 2,
    "credit__baseline": "none",
    "credit__scale": "none",
    "credit__clip": 1e6,
    "objective__kind": "preference",
    "objective__anchor": "reference",
    "objective__preference__pairs": "extremes",
}
DENSE = {
    "credit__dense": "anchors",
    "credit__peers": "depth",
    "rollout__steps": 5,
    "rollout__prompts": 2,
    "rollout__kernel__level": 1.2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `small` model whose answers depend on picture, prompt and level."""
    torch.manual_seed(0)
    model = RewardModel(new_backbone("small", TEXTS), Heads(noisy="shapes"))
    assert model.levels is not None
    with torch.no_grad():
        for parameter in (*model.levels.changes.parameters(), model.head.weight):
            parameter.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("reward")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def aware(folder: Path) -> Reward:
    return load_reward(f"learned@{folder}")


def judge(folder: Path, images: Tensor, sigma_N: Tensor, prompts: Sequence[str]) -> Tensor:
    """The model's own answer, past every reward."""
    model = RewardModel.from_pretrained(folder)
    with torch.no_grad(), model.at(sigma_N):
        return model.rewards(model.backbone.prepare(images), list(prompts))


def test_candidates_of_a_step_are_judged_where_they_are(tiny_sd3_folder: Path, folder: Path, aware: Reward) -> None:
    learner = learner_of(tiny_config(tiny_sd3_folder, rewards={aware.name: 2.0}, **LADDER), [aware])
    batch = first_batch(learner)
    d = batch.trajectory.decisions
    assert len(d) == 2 * 3 * int(d.step_M.max() + 1) and len(d.sigma_next_M.unique()) > 1
    for m in range(len(d)):
        image = learner.policy.decode(d.next_Mx[m : m + 1], d.sigma_next_M[m].item(), 1)
        prompt = batch.trajectory.prompts[int(d.sample_M[m])]
        expected = 2 * judge(folder, image, d.sigma_next_M[m : m + 1], [prompt])
        assert batch.advantage_MR[m, 0].item() == pytest.approx(expected.item(), abs=1e-3)
    sigma = learner.policy.schedule(4)[-1].item()  # what is logged is of the images
    images = learner.policy.decode(batch.trajectory.final_Nx, sigma, 64)
    expected = judge(folder, images, torch.zeros(len(images)), batch.trajectory.prompts)
    torch.testing.assert_close(batch.table.values_NM[:, 0], expected, atol=1e-3, rtol=1e-3)


def test_a_reward_of_images_judges_them_as_before(tiny_sd3_folder: Path, aware: Reward) -> None:
    """Also beside one of noisy states."""
    both = {"redness": 3.0, aware.name: 1.0}
    redness = load_reward("redness")
    alone = first_batch(learner_of(tiny_config(tiny_sd3_folder, rewards={aware.name: 1.0}, **LADDER), [aware]))
    plain = first_batch(learner_of(tiny_config(tiny_sd3_folder, rewards={"redness": 3.0}, **LADDER), [redness]))
    mixed = first_batch(learner_of(tiny_config(tiny_sd3_folder, rewards=both, **LADDER), [redness, aware]))
    d = plain.trajectory.decisions
    torch.testing.assert_close(plain.advantage_MR[:, 0], 3 * plain.table.values_NM[d.sample_M, 0])
    torch.testing.assert_close(mixed.advantage_MR, plain.advantage_MR + alone.advantage_MR, atol=1e-4, rtol=1e-4)


def test_siblings_are_compared_with_each_other_alone(tiny_sd3_folder: Path, aware: Reward) -> None:
    settings = {**LADDER, "credit__baseline": "group", "credit__peers": "siblings"}
    plain = first_batch(learner_of(tiny_config(tiny_sd3_folder, rewards={aware.name: 1.0}, **LADDER), [aware]))
    centred = first_batch(learner_of(tiny_config(tiny_sd3_folder, rewards={aware.name: 1.0}, **settings), [aware]))
    state_M, value_M = plain.trajectory.decisions.state_id_M, plain.advantage_MR[:, 0]
    for state in state_M.unique().tolist():
        mine = state_M == state
        assert int(mine.sum()) == 3
        expected = value_M[mine] - value_M[mine].mean()
        torch.testing.assert_close(centred.advantage_MR[mine, 0], expected, atol=1e-4, rtol=1e-4)


def test_a_state_that_fails_teaches_nothing(tiny_sd3_folder: Path) -> None:
    def noisy(images: Tensor, prompts: Sequence[str], sigma_N: Tensor) -> Tensor:
        values = images.mean((1, 2, 3)).cpu() + sigma_N.cpu()
        values[0] = torch.nan
        return values

    reward = replace(reward_of(lambda images, prompts: images.mean((1, 2, 3)).cpu()), noisy=noisy)
    batch = first_batch(learner_of(tiny_config(tiny_sd3_folder, **LADDER), [reward]))
    assert batch.advantage_MR[:, 0].isnan().nonzero().flatten().tolist() == [0]


def test_dense_rewards_are_of_the_states_that_steps_lead_to(tiny_sd3_folder: Path, folder: Path, aware: Reward) -> None:
    learner = learner_of(tiny_config(tiny_sd3_folder, rewards={aware.name: 1.0}, **DENSE), [aware])
    learner.progress.iteration = 1
    trajectory = draw(learner, 0, [0, 1])
    assert trajectory.state_NTx is not None
    assert torch.equal(trajectory.state_NTx[:, -1], trajectory.final_Nx)
    d = trajectory.decisions
    assert torch.equal(trajectory.state_NTx[d.sample_M, d.step_M], d.next_Mx)
    reward_NT, sigmas = step_rewards(learner, trajectory)[..., 0], learner.policy.schedule(5).float()
    for t in range(5):
        images = learner.policy.decode(trajectory.state_NTx[:, t], sigmas[t + 1].item(), 64)
        expected = judge(folder, images, sigmas[t + 1].expand(len(images)), trajectory.prompts)
        torch.testing.assert_close(reward_NT[:, t].float(), expected, atol=1e-3, rtol=1e-3)


def test_dense_rewards_of_both_kinds_add_up(tiny_sd3_folder: Path, aware: Reward) -> None:
    redness = load_reward("redness")
    both = {"redness": 3.0, aware.name: 1.0}
    learner = learner_of(tiny_config(tiny_sd3_folder, rewards=both, **DENSE), [redness, aware])
    learner.progress.iteration = 1
    trajectory = draw(learner, 0, [0, 1])
    total = step_rewards(learner, trajectory)
    learner.rewards[:] = [redness]
    assert torch.equal(step_rewards(learner, trajectory), anchored_rewards(learner, trajectory))
    plain = step_rewards(learner, trajectory)
    assert draw(learner, 0, [0, 1]).state_NTx is None  # kept for nobody
    learner.rewards[:] = [aware]
    torch.testing.assert_close(total, plain + step_rewards(learner, trajectory), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kl.place": "reward", "kl.beta": 0.1}, r"kl\.place: 'reward' would not reach the steps"),
        ({"credit.baseline": "running"}, r"credit\.baseline: 'running' remembers samples"),
        ({"credit.peers": "samples", "credit.baseline": "group"}, r"credit\.peers: 'samples' share no step"),
        ({"credit.novelty": "pixels"}, r"credit\.novelty: shapes the credit of samples"),
    ],
)
def test_settings_that_only_samples_can_follow_are_refused_before_the_run(
    settings: dict[str, object], said: str, folder: Path, tmp_path: Path
) -> None:
    changes = {"rewards": {f"learned@{folder}": 1.0}, "output": str(tmp_path / "run"), **settings}
    with pytest.raises(InputError, match=said):
        align(vary(METHODS["spo"].preset("shapes"), "spo", changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("row", ["spo", "lpo"])
def test_a_row_that_compares_steps_asks_for_every_state(row: str, aware: Reward) -> None:
    asked: list[Tensor] = []

    def noisy(images: Tensor, prompts: Sequence[str], sigma_N: Tensor) -> Tensor:
        assert aware.noisy is not None
        asked.append(sigma_N)
        return aware.noisy(images, prompts, sigma_N)

    changes = {"rollout.prompts": 2, "rewards": {aware.name: 1.0}, "loop.signal_every": 0}
    config = vary(METHODS[row].preset("shapes"), row, changes)
    policy = load_policy(config.policy)
    learner = make_learner(
        config, policy, load_prompts(config.prompts), [replace(aware, noisy=noisy)], Accelerator(cpu=True)
    )
    metrics = iterate(learner)
    steps, width = int(0.8 * config.rollout.steps), config.rollout.branch.width
    sigma_S = torch.cat(asked)
    assert len(sigma_S) == 2 * steps * width
    expected = policy.schedule(config.rollout.steps)[1 : steps + 1].float()
    torch.testing.assert_close(sigma_S.unique(), expected.sort().values)
    assert math.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0 and metrics["failed_rewards"] == 0
