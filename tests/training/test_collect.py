"""What an iteration learns from: probes, the KL taken off rewards, references, rewards along the path."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from learners import TEXTS, first_batch, learner_of, reward_of, tiny_config, transitions, weights_of
from torch import Tensor

from beholder.config import RunConfig
from beholder.methods import METHODS
from beholder.methods.row import vary
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.rewards import Reward, load_rewards
from beholder.rollouts.kernels import sum_dims
from beholder.training.collect import anchored_rewards, collect, kl_of_rollout, scored
from beholder.training.draw import draw
from beholder.training.learner import Batch, Learner, make_learner
from beholder.training.loop import iterate
from beholder.training.read import renoised
from beholder.training.validator import problems

# ------------------------------------------------------------------------------------------------ probes


def test_probes_are_not_among_the_rewards_that_are_told(tiny_sd3_folder: Path) -> None:
    settings = {"rollout__probe__kind": "greedy", "credit__baseline": "probe", "credit__scale": "none"}
    learner = learner_of(tiny_config(tiny_sd3_folder, **settings))
    batch = first_batch(learner)
    of_all, sample_N = scored(learner, batch.trajectory).values_NM, batch.trajectory.probe_N < 0
    assert len(of_all) == 24 and int(sample_N.sum()) == 12
    assert torch.equal(batch.table.values_NM, of_all[sample_N])


def test_vines_measure_the_states_that_a_reset_leaves() -> None:
    changes = {
        **{"rollout.reset.share": 1.0, "rollout.reset.step": 2, "rollout.prompts": 2, "rollout.probe.samples": 1},
        **{"loop.signal_every": 0, "loop.updates": 2},
    }
    config = vary(METHODS["vineppo"].preset("shapes"), "vineppo", changes)
    assert not list(problems(config))
    learner = make_learner(
        config,
        load_policy(config.policy),
        load_prompts(config.prompts),
        load_rewards(list(config.rewards)),
        Accelerator(cpu=True),
    )
    row = iterate(learner)
    assert math.isfinite(row["loss"]) and row["samples"] == 2
    assert set(row["clip_fraction_per_step"]) == {"2", "3"}  # of five, by the numbers of the whole schedule


# ------------------------------------------------------------------------------------------------ the KL


def moved(learner: Learner, by: float = 0.05) -> Learner:
    """The policy away from its reference."""
    generator = torch.Generator().manual_seed(1)
    for parameter in learner.policy.trainable().values():
        parameter.data += by * torch.randn(parameter.shape, generator=generator)
    return learner


def kl_by_hand(learner: Learner, batch: Batch) -> Tensor:
    """Σ (μ-μ_ref)² / (2 c² D) of each decision, ``[M]``, where adapters off are the reference."""
    trajectory, d = batch.trajectory, batch.trajectory.decisions
    mean = transitions(learner, batch).mean
    learner.policy.module.disable_adapters()  # pyright: ignore[reportCallIssue]
    other = transitions(learner, batch).mean
    learner.policy.module.enable_adapters()  # pyright: ignore[reportCallIssue]
    return sum_dims((mean - other).square()) / (2 * d.std_M.square() * trajectory.n_dims)


RAW = {"credit__baseline": "none", "credit__scale": "none", "credit__clip": 1e9, "kl__form": "exact"}


@pytest.mark.parametrize("plan", ["prefix", "random"])
def test_the_kl_of_a_samples_decisions_is_taken_off_its_reward(plan: str, tiny_sd3_folder: Path) -> None:
    kind = {"rollout__plan__kind": plan, "rollout__plan__fraction": 0.5}
    beta, (plain, charged) = (
        3.0,
        (
            moved(learner_of(tiny_config(tiny_sd3_folder, **RAW, **kind, **more)))
            for more in ({}, {"kl__beta": 3.0, "kl__place": "reward", "loop__micro_batch": 5})
        ),
    )
    before, after = first_batch(plain), first_batch(charged)
    kl_M, d = kl_by_hand(charged, after), after.trajectory.decisions
    sum_N = torch.zeros(len(after.trajectory)).index_add(0, d.sample_M, kl_M)
    expected = before.advantage_MR[:, 0] - beta * sum_N[d.sample_M]
    assert sum_N.min() > 1e-4
    torch.testing.assert_close(after.advantage_MR[:, 0], expected, rtol=1e-4, atol=1e-6)
    assert after.stats["kl_of_rollout"] == pytest.approx(kl_M.mean().item(), rel=1e-4)
    assert torch.equal(after.table.values_NM, before.table.values_NM)  # what is reported stays the reward


def test_the_kl_of_shared_decisions_is_paid_by_every_leaf(tiny_sd3_folder: Path) -> None:
    """A tree: each leaf's reward loses the KL of all decisions on its path, those it shares included."""
    tree = {"rollout__branch__kind": "tree", "rollout__branch__steps": (0, 2), "kl__beta": 2.0, "kl__place": "reward"}
    learner = moved(learner_of(tiny_config(tiny_sd3_folder, **RAW, **tree)))
    batch = first_batch(learner)
    kl_M, trajectory = kl_by_hand(learner, batch), batch.trajectory
    path_N = torch.stack([kl_M[row[row >= 0]].sum() for row in trajectory.decision_NT])
    reward_N = batch.table.values_NM[:, 0] - 2.0 * path_N
    for decision, got in enumerate(batch.advantage_MR[:, 0].tolist()):
        leaves = (trajectory.decision_NT == decision).any(1)
        assert got == pytest.approx(reward_N[leaves].mean().item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("place", ["loss", "reward"])
def test_the_average_of_the_weights_as_reference(place: str, tiny_sd3_folder: Path) -> None:
    config = tiny_config(
        tiny_sd3_folder, kl__beta=0.1, kl__place=place, kl__reference="ema", ema__decay=0.9, optimiser__lr=1e-2
    )
    learner = learner_of(config)
    rows = [iterate(learner) for _ in range(3)]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-9) and rows[2]["kl"] > 1e-7
    batch, trained = first_batch(learner), weights_of(learner)
    mine = transitions(learner, batch)
    torch.nn.utils.vector_to_parameters(
        torch.cat([value.flatten() for value in learner.ema.shadow.values()]), learner.policy.trainable().values()
    )
    average = transitions(learner, batch)
    torch.nn.utils.vector_to_parameters(trained, learner.policy.trainable().values())
    expected = sum_dims((mine.mean - average.mean).square()) / (2 * mine.std.square() * batch.trajectory.n_dims)
    torch.testing.assert_close(kl_of_rollout(learner, batch.trajectory), expected, rtol=1e-5, atol=1e-10)
    assert torch.equal(weights_of(learner), trained)


# ------------------------------------------------------------------------------------------------ rewards on the way


@pytest.fixture
def dense(tiny_sd3_folder: Path) -> Learner:
    made = learner_of(
        tiny_config(
            tiny_sd3_folder,
            credit__dense="anchors",
            credit__peers="depth",
            rollout__steps=6,
            rollout__prompts=3,
            rollout__kernel__level=1.2,
        )
    )
    made.progress.iteration = 1
    return made


def test_rewards_between_the_anchors(dense: Learner) -> None:
    """First, anchor and last are measured; the others are their mean, weighted by resemblance."""
    trajectory = draw(dense, 0, [0, 1, 2])
    noise = torch.randn(trajectory.clean_NTx.shape, generator=torch.Generator().manual_seed(0))
    trajectory = replace(trajectory, clean_NTx=trajectory.clean_NTx + 2 * noise)  # some resemble, some oppose
    reward_NT = anchored_rewards(dense, trajectory)[..., 0]
    sigma = dense.policy.schedule(6)[-1].item()
    anchors = []
    for n in range(len(trajectory)):
        clean = trajectory.clean_NTx[n].flatten(1)
        images = dense.policy.decode(trajectory.clean_NTx[n], sigma, 64)
        measured = (images[:, 0] - (images[:, 1] + images[:, 2]) / 2).mean((1, 2)).tolist()
        to = [[torch.cosine_similarity(clean[i], clean[j], dim=0).item() for j in range(6)] for i in range(6)]
        anchor = min(range(1, 5), key=lambda t: to[t][0] + to[t][5])
        anchors.append(anchor)
        for t in range(6):
            if t in (0, anchor, 5):
                expected = measured[t]
            else:
                weights = [max(to[t][a], 1e-6) for a in (0, anchor, 5)]
                expected = sum(w * measured[a] for w, a in zip(weights, (0, anchor, 5), strict=True)) / sum(weights)
            assert reward_NT[n, t].item() == pytest.approx(expected, abs=1e-5)
    assert len(set(anchors)) > 1  # samples have their own


def test_step_rewards_become_returns_compared_at_their_step(dense: Learner) -> None:
    batch = first_batch(dense)
    d, group_N = batch.trajectory.decisions, batch.trajectory.group_N
    trajectory = draw(dense, 0, [0, 1, 2])  # the same, with the predictions that the batch need not keep
    assert torch.equal(trajectory.decisions.logp_old_M, d.logp_old_M) and batch.trajectory.clean_NTx.numel() == 0
    reward_NT = anchored_rewards(dense, trajectory)[..., 0]
    returns = reward_NT.flip(1).cumsum(1).flip(1)
    values = returns[d.sample_M, d.step_M]
    spread = batch.table.values_NM[:, 0].double().std(correction=0) + dense.config.credit.eps
    for m in range(len(d)):
        peers = (group_N[d.sample_M] == group_N[d.sample_M[m]]) & (d.step_M == d.step_M[m])
        expected = ((values[m] - values[peers].mean()) / spread).clamp(-5, 5)
        assert batch.advantage_MR[m, 0].item() == pytest.approx(expected.item(), abs=1e-4)


# ------------------------------------------------------------------------------------------------ batches of drawing


@pytest.mark.parametrize(("branch", "shared"), [("none", True), ("spurs", True), ("spurs", False)])
def test_siblings_do_not_depend_on_the_batches_they_are_drawn_in(
    branch: str, shared: bool, tiny_sd3_folder: Path
) -> None:
    """Samples that share their noise are siblings even where a batch has no room for all of them."""
    settings = {"rollout__shared_noise": shared, "rollout__branch__kind": branch, "credit__peers": "siblings"}
    found = []
    for batch in (64, 2):
        drawn = first_batch(learner_of(tiny_config(tiny_sd3_folder, rollout__batch=batch, **settings)))
        order = (drawn.trajectory.decisions.sample_M * 8 + drawn.trajectory.decisions.step_M).argsort()
        found.append(drawn.advantage_MR[order, 0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


BRANCHES: dict[str, dict[str, Any]] = {
    "tree": {"rollout__branch__kind": "tree", "rollout__branch__steps": (0, 1), "credit__peers": "depth"},
    "tree of one noise": {
        "rollout__branch__kind": "tree",
        "rollout__branch__steps": (0, 1),
        "rollout__shared_noise": True,
    },
    "fan": {"rollout__branch__kind": "fan", "credit__peers": "siblings"},
    "spurs": {"rollout__branch__kind": "spurs", "credit__peers": "siblings"},
    "ladder": {"rollout__branch__kind": "ladder", "credit__peers": "siblings"},
    "vine": {"rollout__probe__kind": "vine", "rollout__probe__samples": 2, "credit__baseline": "probe"},
    "guided tree": {
        "rollout__branch__kind": "tree",
        "rollout__branch__steps": (1, 2),
        "rollout__guidance__scale": 2.0,
    },
}


@pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=[] if name in ("tree", "vine") else pytest.mark.slow) for name in BRANCHES]
)
def test_more_branches_than_a_batch_has_room_for_are_the_same_branches(
    kind: str, tiny_sd3_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One start has 4 leaves or more: `rollout.batch` bounds the network calls, not who is drawn with whom."""
    found: list[Batch] = []
    for batch in (64, 3):
        config = tiny_config(tiny_sd3_folder, rollout__batch=batch, rollout__branch__width=2, **BRANCHES[kind])
        learner, sizes = learner_of(config), list[int]()
        velocity = learner.policy.velocity

        def watched(x: Tensor, *given: Any, sizes: list[int] = sizes, velocity: Any = velocity) -> Tensor:
            sizes.append(len(x))
            return velocity(x, *given)

        monkeypatch.setattr(learner.policy, "velocity", watched)
        found.append(first_batch(learner))
        assert max(sizes) <= batch and (batch != 64 or max(sizes) > 3)
    whole, *others = found
    for other in others:
        for name in ("final_Nx", "seed_N", "start_N", "probe_N", "group_N"):
            torch.testing.assert_close(
                getattr(other.trajectory, name), getattr(whole.trajectory, name), rtol=1e-4, atol=1e-4
            )
        taken = [one.trajectory.decision_NT >= 0 for one in (whole, other)]
        assert torch.equal(*taken)
        for name in ("step_M", "state_Mx", "next_Mx", "logp_old_M", "std_M", "change_M"):
            a, b = (
                getattr(one.trajectory.decisions, name)[one.trajectory.decision_NT[taken[0]]] for one in (whole, other)
            )
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-3)
        a, b = (one.advantage_MR[one.trajectory.decision_NT[taken[0]].cpu()] for one in (whole, other))
        torch.testing.assert_close(b, a, rtol=2e-2, atol=2e-3, equal_nan=True)
        if not learner.config.rollout.shared_noise:  # a state that batches share is computed in each
            assert other.trajectory.network_evaluations == whole.trajectory.network_evaluations


# ------------------------------------------------------------------------------------------- recent rewards of prompts


def test_pairs_keep_the_size_of_their_advantages_against_recent_returns(tiny_sd3_folder: Path) -> None:
    """SDPO: z-scores over the returns that the history of a prompt and step holds; two alone would always be ±1."""
    dense = {"rollout__group": 2, "rollout__shared_noise": True, "credit__dense": "anchors", "credit__peers": "depth"}
    recent = {"credit__baseline": "running", "credit__scale": "running", "credit__history_min": 2, "credit__eps": 1e-6}
    among = first_batch(learner_of(tiny_config(tiny_sd3_folder, **dense, credit__scale="group", credit__eps=0.0)))
    assert (among.advantage_MR.abs() - 1).abs().max() < 1e-6
    learner = learner_of(tiny_config(tiny_sd3_folder, **dense, **recent), texts=TEXTS[:1])
    assert learner.history is not None
    batches = []
    for iteration in (1, 2, 3):
        learner.progress.iteration = iteration
        batches.append(collect(learner))
    steps = batches[0].trajectory.decision_NT.shape[1]
    assert {key: len(kept) for key, kept in learner.history.state().items()} == {
        f"{to_go} {TEXTS[0]}": 3 * 8 for to_go in range(1, steps + 1)
    }
    last = batches[-1]
    d, advantage_M = last.trajectory.decisions, last.advantage_MR[:, 0].double()
    for step in d.step_M.unique().tolist():
        seen = torch.tensor(learner.history.state()[f"{steps - step} {TEXTS[0]}"], dtype=torch.float64)
        rows = last.trajectory.decision_NT[:, step]
        want = (seen[-8:] - seen.mean()) / (seen.std(correction=0) + 1e-6)
        torch.testing.assert_close(advantage_M[rows], want, rtol=1e-4, atol=1e-5)
        assert (advantage_M[rows].abs() - 1).abs().max() > 0.2


@pytest.mark.parametrize("scale", ["batch", "running"])
def test_a_critic_with_a_clip_learns_rewards_of_any_unit(scale: str, tiny_sd3_folder: Path) -> None:
    """The same run in another unit of the reward: standardised, it learns the same; raw, the clip holds values back."""
    critic = {"credit__baseline": "critic", "credit__whiten": True, "credit__eps": 1e-12, "credit__history_min": 2}

    def found(unit: float, how: str) -> tuple[Tensor, Any]:
        reward = reward_of(lambda images, prompts: unit * (images[:, 0].mean((1, 2)).cpu() + 7))
        learner = learner_of(tiny_config(tiny_sd3_folder, **critic, credit__scale=how), [reward])
        row = [iterate(learner) for _ in range(2)][-1]
        return weights_of(learner), row["critic_loss"]

    (small, small_loss), (large, large_loss) = (found(unit, scale) for unit in (1.0, 1000.0))
    torch.testing.assert_close(large, small, rtol=1e-3, atol=1e-5)
    assert large_loss == pytest.approx(small_loss, rel=1e-3) and small_loss < 2
    assert found(1000.0, "none")[1] > 1e6


# ------------------------------------------------------------------------------------------------ judges of pairs


def test_a_judge_of_pairs_compares_within_a_prompt_and_sees_both_orders(tiny_sd3_folder: Path) -> None:
    asked: list[tuple[Tensor, Tensor, list[str]]] = []

    def judge(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        asked.append((first, second, list(prompts)))
        return (first[:, 0].mean((1, 2)) > second[:, 0].mean((1, 2))).float()

    config: RunConfig = tiny_config(tiny_sd3_folder, rewards={"redder": 1.0})
    batch = first_batch(learner_of(config, [Reward("redder", judge, pairwise=True)]))
    assert len(asked) == 4 and all(len(first) == 6 and len(set(prompts)) == 1 for first, _, prompts in asked)
    rates = batch.table.values_NM[:, 0].view(4, 3)
    assert torch.equal(rates.sort(1).values, torch.tensor([[0.0, 0.5, 1.0]] * 4))


# ------------------------------------------------------------------------------------------------- re-noised samples


def test_noise_shared_by_a_prompt_does_not_depend_on_the_batch(tiny_sd3_folder: Path) -> None:
    """Pairs compare samples of one prompt at one noise level, also where `rollout.batch` parts them."""
    shared = {"rollout__forward__times": 2, "rollout__forward__shared": True, "rollout__forward__time": "uniform"}
    found = []
    for batch in (1, 64):
        made = learner_of(tiny_config(tiny_sd3_folder, rollout__batch=batch, **shared))
        made.progress.iteration = 1
        trajectory = draw(made, 0, list(range(made.config.rollout.prompts)))
        trajectory = renoised(made, trajectory, made.config.rollout.forward, old=False)
        d = trajectory.decisions.select(trajectory.decision_NT.flatten())
        noise = d.next_Mx + trajectory.final_Nx[d.sample_M]
        found.append((d.sigma_M, noise, trajectory.group_N))
    (one, noise_one, group_N), (other, noise_other, _) = found
    assert torch.equal(one, other)
    assert torch.allclose(noise_one, noise_other, atol=1e-4)
    by_prompt = one.view(len(group_N), 2)
    for group in group_N.unique():
        assert (by_prompt[group_N == group] == by_prompt[group_N == group][0]).all()
