"""The loop's own arithmetic: halves of an update, statistics over micro-batches, the loss scale."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from beholder.config import KernelConfig, PolicyConfig, RolloutConfig, RunConfig
from beholder.objectives.policy_gradient import PolicyGradientStats
from beholder.policies import load_policy
from beholder.prompts import PromptSet
from beholder.rewards import load_reward
from beholder.rollouts.trajectory import Condition, Trajectory
from beholder.training.loop import Batch, Learner, UpdateStats, accumulate, collect, make_learner, split_by_prompt

PROMPTS = PromptSet(("a red circle", "two cats", "a cross", "three dogs"))


def learner(folder: Path, dtype: str = "float32") -> Learner:
    config = RunConfig(
        method="flow-grpo",
        rewards={"redness": 1.0},
        policy=PolicyConfig(model=str(folder), max_sequence_length=16, dtype=dtype),  # pyright: ignore[reportArgumentType]
        rollout=RolloutConfig(steps=4, prompts=4, group=2, batch=8, kernel=KernelConfig(kind="cps", level=0.8)),
    )
    made = make_learner(config, load_policy(config.policy), PROMPTS, [load_reward("redness")], Accelerator(cpu=True))
    made.progress.iteration = 1
    return made


def trajectory_of(texts: list[str]) -> Trajectory:
    n, nothing = len(texts), torch.zeros(len(texts), 1)
    whole = torch.arange(n)
    return Trajectory(
        prompts=texts,
        group_N=whole,
        seed_N=whole,
        origin_N=whole,
        step_NK=nothing.long(),
        sigma_NK=nothing,
        sigma_next_NK=nothing,
        state_NKx=nothing,
        next_NKx=nothing,
        logp_old_NK=nothing,
        std_NK=nothing,
        final_Nx=nothing,
        condition=Condition({"c": nothing}),
        unconditional=None,
        kernel=KernelConfig(),
        guidance=RolloutConfig().guidance,
        fans_out=0,
        network_evaluations=0,
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


def found(ratio: list[float], clipped: list[bool]) -> PolicyGradientStats:
    return PolicyGradientStats(torch.tensor(ratio), torch.tensor(clipped))


def test_statistics_do_not_depend_on_the_micro_batches() -> None:
    ratios, clipped, steps = [1.0, 1.2, 0.9, 1.0], [False, True, False, True], torch.tensor([0, 1, 1, 2])
    whole, parts = UpdateStats(4, torch.device("cpu")), UpdateStats(4, torch.device("cpu"))
    whole.first = parts.first = False
    whole.add(steps, found(ratios, clipped), torch.tensor(2.5), torch.tensor([1.0, 2, 3, 4]))
    parts.add(steps[:1], found(ratios[:1], clipped[:1]), torch.tensor(1.0), torch.tensor([1.0]))
    parts.add(steps[1:], found(ratios[1:], clipped[1:]), torch.tensor(3.0), torch.tensor([2.0, 3, 4]))
    summary = whole.summary(Accelerator(cpu=True), with_kl=True)
    again = parts.summary(Accelerator(cpu=True), with_kl=True)
    assert again.pop("clip_fraction_per_step") == summary["clip_fraction_per_step"]
    assert again == pytest.approx({name: value for name, value in summary.items() if name in again})
    assert summary["loss"] == 2.5
    assert summary["kl"] == 2.5
    assert summary["clip_fraction"] == 0.5
    assert summary["clip_fraction_per_step"] == {"0": 0.0, "1": 0.5, "2": 1.0}
    assert summary["ratio_max_deviation"] == pytest.approx(0.2)


def test_the_first_update_is_not_counted_as_unclipped() -> None:
    stats = UpdateStats(2, torch.device("cpu"))
    stats.add(torch.tensor([0, 1]), found([1.0, 1.0], [False, False]), torch.tensor(0.0), None)
    summary = stats.summary(Accelerator(cpu=True), with_kl=False)
    assert summary["clip_fraction"] is None
    assert summary["kl"] is None
    assert summary["ratio_deviation"] == 0.0


def gradient(made: Learner, batch: Batch, micro_batch: int) -> torch.Tensor:
    made.config = replace(made.config, loop=replace(made.config.loop, micro_batch=micro_batch))
    made.optimiser.zero_grad()
    rows = torch.arange(len(batch.trajectory))
    accumulate(made, batch, rows, UpdateStats(4, torch.device("cpu")), None)
    return torch.cat([p.grad.flatten() for p in made.policy.trainable().values() if p.grad is not None])


def test_the_gradient_does_not_depend_on_the_micro_batch(tiny_sd3_folder: Path) -> None:
    made = learner(tiny_sd3_folder)
    batch = collect(made)
    whole, parts = gradient(made, batch, 1000), gradient(made, batch, 5)
    assert whole.norm() > 0
    assert (whole - parts).norm() < 1e-4 * whole.norm()


def test_float16_gradients_do_not_underflow(tiny_sd3_folder: Path) -> None:
    half, full = learner(tiny_sd3_folder, "float16"), learner(tiny_sd3_folder)
    batch = collect(half)
    tiny = Batch(batch.trajectory, batch.advantage_N * 1e-4, batch.table, {})
    scaled = gradient(half, tiny, 1000)
    expected = gradient(full, Batch(collect(full).trajectory, tiny.advantage_N, tiny.table, {}), 1000)
    assert scaled.isfinite().all()
    assert scaled.norm() > 100 * expected.norm()  # still multiplied by the loss scale, which `step` takes off
