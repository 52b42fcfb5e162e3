"""An update's own arithmetic: halves, shares and micro-batches, what stays together, several rewards, loss scale."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import failing_on, first_batch, gradient_of, learner_of, reward_of, tiny_config, weights_of
from torch import Tensor, nn

from beholder.config import KernelConfig, RolloutConfig
from beholder.rewards import RewardTable
from beholder.rollouts.engine import replay
from beholder.rollouts.trajectory import Condition, Decisions, Trajectory
from beholder.training.learner import Batch, Learner
from beholder.training.loop import iterate
from beholder.training.update import (
    UpdateStats,
    accumulate,
    batch_statistics,
    micro_batches,
    shares,
    split_by_prompt,
    units,
)


def trajectory_of(texts: list[str]) -> Trajectory:
    n, nothing = len(texts), torch.zeros(len(texts), 1)
    whole = torch.arange(n)
    decisions = Decisions(
        **{name: nothing[:, 0] for name in ("sigma_M", "sigma_next_M", "logp_old_M", "std_M", "change_M")},
        **{name: nothing for name in ("state_Mx", "next_Mx", "mean_old_Mx")},
        **{name: whole for name in ("step_M", "state_id_M", "sample_M")},
    )
    return Trajectory(
        prompts=texts,
        group_N=whole,
        start_N=whole,
        probe_N=torch.full((n,), -1),
        seed_N=whole,
        decisions=decisions,
        decision_NT=whole[:, None],
        final_Nx=nothing,
        clean_NTx=nothing,
        condition=Condition({"c": nothing}),
        unconditional=None,
        kernel=KernelConfig(),
        guidance=RolloutConfig().guidance,
        network_evaluations=0,
        evidence="transition",
        forward=RolloutConfig().forward,
    )


def test_halves_share_no_text_and_are_about_equal() -> None:
    texts = [f"prompt {i % 9}" for i in range(54)]
    second = split_by_prompt(trajectory_of(texts), torch.arange(54), [0, 1, 2])
    first_texts = {t for t, s in zip(texts, second.tolist(), strict=True) if not s}
    second_texts = {t for t, s in zip(texts, second.tolist(), strict=True) if s}
    assert not first_texts & second_texts
    assert {len(first_texts), len(second_texts)} == {4, 5}


def test_kinds_that_alternate_fall_into_both_halves() -> None:
    texts = [f"{'even' if i % 2 == 0 else 'odd'} {i}" for i in range(40)]
    second = split_by_prompt(trajectory_of(texts), torch.arange(40), [0, 1, 2])
    assert 2 < sum(second[::2].tolist()) < 18


def test_one_prompt_has_no_second_half() -> None:
    assert not split_by_prompt(trajectory_of(["same"] * 4), torch.arange(4), [0]).any()


# ------------------------------------------------------------------------------------------------ micro-batches


def test_without_units_micro_batches_are_of_the_given_size_and_end_at_the_half() -> None:
    assert micro_batches(torch.zeros(10), 4, 0, together=False) == [0, 4, 8]
    assert micro_batches(torch.zeros(10), 4, 6, together=False) == [0, 4, 6]
    assert micro_batches(torch.zeros(10), 64, 10, together=False) == [0]


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 100])
@pytest.mark.parametrize("half", [0, 5, 9])
def test_a_unit_is_never_split(size: int, half: int) -> None:
    """Units of 3, 2, 4 and 1 decisions; a unit larger than a micro-batch is one of its own."""
    unit_M = torch.tensor([7, 7, 7, 2, 2, 5, 5, 5, 5, 1])
    bounds = micro_batches(unit_M, size, half, together=True)
    edges = {0, 3, 5, 9}
    assert bounds == sorted(set(bounds)) and bounds[0] == 0 and set(bounds) <= edges
    assert half == 0 or half in bounds
    parts = list(zip(bounds, [*bounds[1:], 10], strict=True))
    assert all(stop - start <= size or len(unit_M[start:stop].unique()) == 1 for start, stop in parts)
    for start, stop in parts[:-1]:  # as many units as fit
        following = min(edge for edge in {*edges, 10} if edge > stop)
        assert following - start > size or stop == half


def preference(**settings: Any) -> dict[str, Any]:
    return {"objective__kind": "preference"} | {f"objective__preference__{k}": v for k, v in settings.items()}


COMPARING: dict[str, dict[str, Any]] = {
    "DPO": preference(),
    "SDPO": preference(utility="clip", link="regress", pessimistic=True),
    "D3PO": preference(utility="clip_ratio"),
    "Dense Reward View": preference(utility="clip", contrast="list", over="sample"),
}
REFERENCE = {"objective__anchor": "reference"}
FORWARD = {"rollout__forward__times": 2, "rollout__forward__shared": True, **REFERENCE}
KTO = {**preference(contrast="point", link="kto", baseline="positive_mean"), **FORWARD}
BCO = {**preference(contrast="point", baseline="mean"), **FORWARD}
DIFFUSION_SDPO = {**preference(safeguard=0.6), **FORWARD, "rollout__group": 2}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ppo_clip": {},
    "guard": {"objective__kind": "guard", "objective__weighting": "inverse_dt"},
    "reference in the loss": {"kl__beta": 0.5, "kl__form": "exact"},
    "gspo": {"objective__kind": "gspo"},
    "SDPO": {**COMPARING["SDPO"], "rollout__shared_noise": True},
    "D3PO": {**COMPARING["D3PO"], **REFERENCE},
    "Dense Reward View": {**COMPARING["Dense Reward View"], **REFERENCE},
    "DGPO": {**preference(contrast="group"), **FORWARD},
    "ORPO": {**preference(utility="odds", weight=0.1, sft=1.0), **FORWARD, "objective__anchor": "none"},
    "KTO": KTO,
    "BCO": BCO,
    "Diffusion-SDPO": DIFFUSION_SDPO,
    "DSPO": {"objective__kind": "dspo", **FORWARD},
    "points of samples": {**preference(contrast="point", over="sample"), **REFERENCE},
    "tree": {"rollout__branch__kind": "tree", "rollout__branch__steps": (0, 1), "credit__peers": "depth"},
    "spurs": {"rollout__branch__kind": "spurs", "credit__peers": "siblings"},
    "losses": {"credit__combine": "losses"},
    "noise": {"objective__weighting": "noise"},
}


def gradient(made: Learner, batch: Batch, micro_batch: int) -> Tensor:
    made.config = replace(made.config, loop=replace(made.config.loop, micro_batch=micro_batch))
    made.optimiser.zero_grad()
    rows = torch.arange(len(batch.trajectory.decisions))
    accumulate(made, batch, rows, UpdateStats(4, torch.device("cpu")), None)
    return gradient_of(made)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_does_not_depend_on_the_micro_batch(name: str, tiny_sd3_folder: Path) -> None:
    made = learner_of(tiny_config(tiny_sd3_folder, **OBJECTIVES[name]))
    batch = first_batch(made)
    whole, parts = gradient(made, batch, 1000), gradient(made, batch, 5)
    assert whole.norm() > 0
    assert (whole - parts).norm() < 1e-4 * whole.norm()


@pytest.mark.parametrize("name", ["gspo", *COMPARING])
def test_what_an_objective_compares_meets_in_one_micro_batch(name: str, tiny_sd3_folder: Path) -> None:
    """Each call of the network sees whole samples (gspo) or whole prompts, however small the micro-batch."""
    settings = COMPARING.get(name, {"objective__kind": name})
    made = learner_of(tiny_config(tiny_sd3_folder, loop__micro_batch=1, **settings))
    batch = first_batch(made)
    calls: list[int] = []
    velocity = made.policy.family.velocity

    def counted(network: nn.Module, x: Tensor, sigma_N: Tensor, condition: Condition) -> Tensor:
        calls.append(len(x))
        return velocity(network, x, sigma_N, condition)

    made.policy.family.velocity = counted
    accumulate(made, batch, torch.arange(len(batch.trajectory.decisions)), UpdateStats(4, torch.device("cpu")), None)
    steps = len(batch.trajectory.decisions.step_M.unique())
    assert calls == ([steps] * 12 if name == "gspo" else [3 * steps] * 4)


# ------------------------------------------------------------------------------------------------ the whole update


def moved(made: Learner, scale: float = 0.05) -> Learner:
    """With trained weights that are no longer the reference's."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.policy.trainable().values():
            weight += scale * torch.randn(weight.shape, generator=generator)
    return made


def parts_of(batch: Batch, size: int) -> list[Tensor]:
    """All decisions in micro-batches of so many prompts."""
    group_M = batch.trajectory.group_N[batch.trajectory.decisions.sample_M]
    order = group_M.argsort(stable=True)
    return list(order.split(size * int((group_M == 0).sum())))


@torch.no_grad()
def gains_by_hand(made: Learner, batch: Batch) -> Tensor:
    """½ of how much the mean squared error of the velocity fell against the reference, every decision."""
    d = batch.trajectory.decisions
    errors = []
    for who in (nullcontext(), made.reference()):
        with who:
            v = replay(made.policy, batch.trajectory, d).velocity
            errors.append((v - d.next_Mx).square().flatten(1).mean(1).double())
    return 0.5 * (errors[1] - errors[0])


def test_ktos_baseline_is_the_mean_gain_over_the_whole_update(tiny_sd3_folder: Path) -> None:
    """By hand, of the decisions that are liked or disliked; failures and zeros do not count. No micro-batch matters."""
    made = learner_of(tiny_config(tiny_sd3_folder, **KTO))
    batch = first_batch(made)
    sample_M = batch.trajectory.decisions.sample_M
    batch.advantage_MR[sample_M == 4] = torch.nan
    batch.advantage_MR[sample_M == 7] = 0.0
    value_M, gain_M = batch.advantage_MR[:, 0], gains_by_hand(moved(made), batch)
    liked, disliked = gain_M[value_M > 0], gain_M[value_M < 0]
    assert len(liked) + len(disliked) == 20 and len(liked) != len(disliked)
    mean_of_all, mean_of_means = torch.cat([liked, disliked]).mean(), (liked.mean() + disliked.mean()) / 2
    assert abs(mean_of_all - mean_of_means) > 1e-3 * abs(mean_of_all)
    for size in (1, 3, 4):
        found = batch_statistics(made, batch, parts_of(batch, size))
        assert found.log_ratio_all == pytest.approx(mean_of_all.item(), rel=1e-4)
        assert found.log_ratio == pytest.approx(mean_of_means.item(), rel=1e-4)
        assert found.safeguard == 1.0


def test_the_safeguard_is_of_the_whole_update(tiny_sd3_folder: Path) -> None:
    """λ = (1 - μ) ‖g_w‖²/⟨g_l, g_w⟩ of the sums over all pairs, which no pair or micro-batch has alone."""
    made = learner_of(tiny_config(tiny_sd3_folder, **DIFFUSION_SDPO))
    batch = first_batch(made)
    d, value_M = batch.trajectory.decisions, batch.advantage_MR[:, 0]
    moved(made)
    with torch.no_grad():
        g = 2 * (replay(made.policy, batch.trajectory, d).velocity - d.next_Mx).flatten(1).double()
    products, alone = torch.zeros(2).double(), []
    for group in range(4):
        for step in range(2):
            pair = ((batch.trajectory.group_N[d.sample_M] == group) & (d.step_M == step)).nonzero().flatten()
            won, lost = pair[value_M[pair].argsort(descending=True)]
            both = torch.stack([g[won] @ g[won], g[lost] @ g[won]])
            products += both
            alone.append((0.4 * both[0] / both[1]).clamp(0, 1).item())
    want = (0.4 * products[0] / products[1]).clamp(0, 1).item()
    assert 0 < want < 1 and max(alone) - min(alone) > 1e-3
    for size in (1, 3, 4):
        assert batch_statistics(made, batch, parts_of(batch, size)).safeguard == pytest.approx(want, rel=1e-4)


def test_an_empty_share_has_statistics(tiny_sd3_folder: Path) -> None:
    made = learner_of(tiny_config(tiny_sd3_folder, **KTO))
    found = batch_statistics(made, first_batch(made), [])
    assert (found.log_ratio, found.log_ratio_all, found.safeguard) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("settings", [KTO, BCO, DIFFUSION_SDPO], ids=["KTO", "BCO", "Diffusion-SDPO"])
def test_away_from_the_reference_the_gradient_does_not_depend_on_the_micro_batch(
    settings: dict[str, Any], tiny_sd3_folder: Path
) -> None:
    """What is measured over the update is the same in each of its micro-batches."""
    made = learner_of(tiny_config(tiny_sd3_folder, objective__temperature=50.0, **settings))
    batch = first_batch(made)
    moved(made)
    whole, parts = gradient(made, batch, 1000), gradient(made, batch, 5)
    assert whole.norm() > 0
    assert (whole - parts).norm() < 1e-4 * whole.norm()


# ------------------------------------------------------------------------------------------------ shares


@pytest.mark.parametrize("name", ["ppo_clip", "Dense Reward View"])
def test_shares_are_disjoint_complete_and_never_split_a_unit(name: str, tiny_sd3_folder: Path) -> None:
    made = learner_of(tiny_config(tiny_sd3_folder, **COMPARING.get(name, {}), loop__updates=3, rollout__group=2))
    batch = first_batch(made)
    unit_M = units(made, batch.trajectory)
    parts = shares(made, batch, 0)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(batch.trajectory.decisions)))
    seen = [set(unit_M[part].tolist()) for part in parts]
    assert len(seen) == 3 and sum(map(len, seen)) == len(set.union(*seen)) == (8 if name == "ppo_clip" else 4)


def test_epochs_share_anew_and_iterations_too(tiny_sd3_folder: Path) -> None:
    made = learner_of(tiny_config(tiny_sd3_folder, loop__updates=3))
    batch = first_batch(made)
    first, second = (set(shares(made, batch, epoch)[0].tolist()) for epoch in (0, 1))
    again = set(shares(made, batch, 0)[0].tolist())
    made.progress.iteration = 2
    later = set(shares(made, batch, 0)[0].tolist())
    assert first == again and first not in (second, later)


def test_order_steps_makes_an_optimiser_step_of_every_trained_step(tiny_sd3_folder: Path) -> None:
    """2 shares × 3 trained steps × 2 epochs; each share of one step, all steps of a share before the next share."""
    made = learner_of(tiny_config(tiny_sd3_folder, loop__order="steps", loop__updates=2, loop__epochs=2))
    batch = first_batch(made)
    parts, step_M = shares(made, batch, 0), batch.trajectory.decisions.step_M
    assert torch.cat(parts).sort().values.tolist() == list(range(len(step_M)))
    steps = [set(step_M[part].tolist()) for part in parts]
    assert all(len(s) == 1 for s in steps)
    assert set.union(*steps[:3]) == set.union(*steps[3:]) == {0, 1, 2}
    starts = [set(batch.trajectory.decisions.sample_M[part].tolist()) for part in parts]
    assert starts[0] == starts[1] == starts[2] and not starts[0] & starts[3]
    made.progress.iteration = 0
    assert iterate(made)["optimiser_steps"] == 2 * 3 * 2


def test_the_order_of_steps_does_not_depend_on_how_many_samples_a_process_has(tiny_sd3_folder: Path) -> None:
    """Processes with other numbers of prompts must make every optimiser step at the same denoising step."""
    orders = []
    for prompts in (2, 3):
        made = learner_of(tiny_config(tiny_sd3_folder, loop__order="steps", loop__updates=2, rollout__prompts=prompts))
        batch = first_batch(made)
        step_M = batch.trajectory.decisions.step_M
        orders.append([[int(step_M[part][0]) for part in shares(made, batch, epoch)] for epoch in range(4)])
    assert orders[0] == orders[1] and len({tuple(order) for order in orders[0]}) > 1


def test_epochs_repeat_the_updates(tiny_sd3_folder: Path) -> None:
    """Epochs after the first are off-policy; the first update is on-policy in both."""
    once, twice = (
        iterate(learner_of(tiny_config(tiny_sd3_folder, loop__updates=2, loop__epochs=epochs, optimiser__lr=1e-3)))
        for epochs in (1, 2)
    )
    assert (once["optimiser_steps"], twice["optimiser_steps"]) == (2, 4)
    assert once["ratio_deviation"] == twice["ratio_deviation"] < 1e-6
    assert twice["ratio_max_deviation"] > once["ratio_max_deviation"] > 1e-5
    assert once["reward"] == twice["reward"]


@pytest.mark.parametrize("name", ["ppo_clip", "gspo", *COMPARING])
def test_a_sample_whose_reward_failed_is_left_out(name: str, tiny_sd3_folder: Path) -> None:
    """Also where its prompt's samples are compared with each other: the others still are."""
    settings = COMPARING.get(name, {"objective__kind": name})
    made = learner_of(tiny_config(tiny_sd3_folder, loop__updates=2, **settings), [reward_of(failing_on(1))])
    before, row = weights_of(made), iterate(made)
    assert row["failed_rewards"] == 1 and row["grad_norm"] > 0 and row["loss"] == row["loss"]
    assert not torch.equal(before, weights_of(made)) and bool(weights_of(made).isfinite().all())


def test_a_share_that_is_left_out_wholly_is_a_step_without_gradient(tiny_sd3_folder: Path) -> None:
    made = learner_of(tiny_config(tiny_sd3_folder, loop__updates=2))
    batch = first_batch(made)
    nothing = replace(batch, advantage_MR=torch.full_like(batch.advantage_MR, torch.nan))
    parts = shares(made, nothing, 0)
    assert [len(part) for part in parts] == [0, 0]
    accumulate(made, nothing, parts[0], UpdateStats(4, torch.device("cpu")), None)
    assert gradient_of(made).norm() == 0


# ------------------------------------------------------------------------------------------------ several rewards


def test_the_losses_of_two_rewards_add_up_as_weighted(tiny_sd3_folder: Path) -> None:
    """∇(w_1 L_1 + w_2 L_2) on one rollout; the weights may be negative and the rewards of other scales."""
    config = tiny_config(tiny_sd3_folder, credit__combine="losses", rewards={"redness": 2.0, "brightness": -0.5})
    made = learner_of(config)
    both = first_batch(made)
    together = gradient(made, both, 7)
    expected = torch.zeros_like(together)
    for column, (name, weight) in enumerate(config.rewards.items()):
        made.config = replace(config, rewards={name: 1.0})
        table = RewardTable(both.table.values_NM[:, column : column + 1], (name,))
        one = replace(both, advantage_MR=both.advantage_MR[:, column : column + 1], table=table)
        expected += weight * gradient(made, one, 7)
    assert (together - expected).norm() < 1e-5 * expected.norm()
    assert both.advantage_MR.shape[1] == 2 and not torch.allclose(both.advantage_MR[:, 0], both.advantage_MR[:, 1])


def test_one_reward_keeps_its_weight_as_a_loss(tiny_sd3_folder: Path) -> None:
    """With one reward, ``losses`` and ``rewards`` are the same objective, sign included."""
    changes = {"rewards": {"redness": -2.0}, "credit__scale": "none", "credit__clip": 1e6}
    pair = []
    for combine in ("rewards", "losses"):
        made = learner_of(tiny_config(tiny_sd3_folder, credit__combine=combine, **changes))
        pair.append(gradient(made, first_batch(made), 64))
    assert (pair[0] - pair[1]).norm() < 1e-5 * pair[0].norm()


def test_float16_gradients_do_not_underflow(tiny_sd3_folder: Path) -> None:
    kernel = {"rollout__kernel__kind": "cps", "rollout__kernel__level": 0.8}
    half, full = (learner_of(tiny_config(tiny_sd3_folder, policy__dtype=d, **kernel)) for d in ("float16", "float32"))
    batch = first_batch(half)
    tiny = replace(batch, advantage_MR=batch.advantage_MR * 1e-4)
    scaled = gradient(half, tiny, 1000)
    expected = gradient(full, replace(first_batch(full), advantage_MR=tiny.advantage_MR), 1000)
    assert scaled.isfinite().all()
    assert scaled.norm() > 100 * expected.norm()  # still multiplied by the loss scale, which `step` takes off
