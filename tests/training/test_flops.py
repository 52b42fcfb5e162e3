"""Floating-point operations of one training iteration, counted by torch: nothing is computed that the method does not
need. N samples, T steps, K trained decisions per sample, M = N·K; f, b: one forward and one backward at batch 1."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from beholder.config import (
    EMAConfig,
    GuidanceConfig,
    KLConfig,
    LoopConfig,
    LoraConfig,
    PlanConfig,
    PolicyConfig,
    RolloutConfig,
    RunConfig,
)
from beholder.methods.row import vary
from beholder.policies import Policy, load_policy
from beholder.prompts import PromptSet
from beholder.rewards import load_reward
from beholder.training.learner import Learner, make_learner
from beholder.training.loop import iterate
from tiny import CORPUS

T, K, N = 5, 2, 6
M = N * K
EXACT = 1e-9
BRANCHED = [
    ("fan", 1 + 1 + 3 * 3, 1 + 3, 3),  # parts at step 1: two shared nodes, then three paths
    ("spurs", 3 + 3 * 3 + 3 * 2, 2, 6),  # a trunk to step 2; three branches at step 1 and at step 2, to the end
    ("tree", 1 + 3 + 3 + 9 + 9, 3 + 3, 9),  # splits at steps 0 and 2
    ("greedy", 1 + 1 + 2 * 3, 2, 2),  # the sample and its ODE part at step 1
    ("vine", 1 + 1 + 4 * 3 + 3 * 2, 2, 7),  # three more from step 1 and three from step 2
]
"""Kind, nodes of one start (5 steps, the window at 1 and 2), trained states, final samples; width or samples 3."""
Iteration = Callable[..., float]


def flops(action: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        action()
    return float(counter.get_total_flops())


def config(folder: Path, guidance: float = 1.0, detach: bool = True, beta: float = 0.0, **loop: Any) -> RunConfig:
    return RunConfig(
        method="flow-grpo",
        rewards={"redness": 1.0},
        policy=PolicyConfig(model=str(folder), max_sequence_length=16, lora=LoraConfig(rank=4, alpha=8)),
        rollout=RolloutConfig(
            steps=T,
            prompts=3,
            group=2,
            batch=4,
            plan=PlanConfig(kind="window", start=1, size=K),
            guidance=GuidanceConfig(scale=guidance, detach_unconditional=detach),
        ),
        kl=KLConfig(beta=beta),
        ema=EMAConfig(decay=0.9),
        loop=LoopConfig(**{"updates": 2, "micro_batch": 4, "signal_every": 0, **loop}),
    )


def load(run: RunConfig) -> Policy:
    """A policy that knows its prompts' encodings already."""
    policy = load_policy(run.policy)
    policy.encode(["", *CORPUS])
    return policy


def learner_of(run: RunConfig, policy: Policy, texts: tuple[str, ...] = tuple(CORPUS)) -> Learner:
    return make_learner(run, policy, PromptSet(texts), [load_reward("redness")], Accelerator(cpu=True))


def prediction(policy: Policy) -> Tensor:
    """One velocity of one sample."""
    x, condition = torch.ones(1, *policy.family.latent_shape()), policy.encode([""])
    return policy.velocity(x, torch.tensor([0.5]), condition, None, GuidanceConfig())


class Unit:
    """What one sample costs."""

    def __init__(self, policy: Policy) -> None:
        with torch.no_grad():
            self.forward = flops(lambda: prediction(policy))
            self.decode = flops(lambda: policy.decode(torch.ones(1, 4, 16, 16), 0.0, 1))
        self.backward = flops(lambda: prediction(policy).sum().backward()) - self.forward


@pytest.fixture(scope="module")
def policy(tiny_sd3_folder: Path) -> Policy:
    """One policy for all: what it has learnt does not change what it costs."""
    return load(config(tiny_sd3_folder))


@pytest.fixture(scope="module")
def unit(policy: Policy) -> Unit:
    return Unit(policy)


@pytest.fixture(scope="module")
def iteration(tiny_sd3_folder: Path, policy: Policy) -> Iteration:
    """Operations of one iteration under the given settings."""

    @cache
    def count(guidance: float = 1.0, detach: bool = True, beta: float = 0.0, **loop: int) -> float:
        learner = learner_of(config(tiny_sd3_folder, guidance, detach, beta, **loop), policy)
        return flops(lambda: iterate(learner))

    return count


def test_an_iteration_without_guidance(iteration: Iteration, unit: Unit) -> None:
    rollout, update = T * N * unit.forward + N * unit.decode, M * (unit.forward + unit.backward)
    assert iteration() == pytest.approx(rollout + update, rel=EXACT)


def test_guidance_doubles_drawing_and_adds_one_forward_to_a_detached_update(iteration: Iteration, unit: Unit) -> None:
    rollout, update = 2 * T * N * unit.forward + N * unit.decode, M * (2 * unit.forward + unit.backward)
    assert iteration(guidance=4.0) == pytest.approx(rollout + update, rel=EXACT)


def test_guidance_with_gradient_through_both_branches_doubles_the_update(iteration: Iteration, unit: Unit) -> None:
    rollout, update = 2 * T * N * unit.forward + N * unit.decode, 2 * M * (unit.forward + unit.backward)
    assert iteration(guidance=4.0, detach=False) == pytest.approx(rollout + update, rel=EXACT)


@pytest.mark.parametrize("guidance, branches", [(1.0, 1), (4.0, 2)])
def test_the_reference_costs_its_forwards_without_adapters_and_no_backward(
    iteration: Iteration, unit: Unit, policy: Policy, guidance: float, branches: int
) -> None:
    with torch.no_grad(), policy.reference():
        reference = flops(lambda: prediction(policy))
    assert reference < unit.forward
    assert iteration(guidance, beta=0.1) - iteration(guidance) == pytest.approx(M * branches * reference, rel=1e-6)


def test_detaching_the_unconditional_branch_saves_exactly_its_backward_a_quarter_of_an_update(
    iteration: Iteration, unit: Unit
) -> None:
    saved = iteration(4.0, detach=False) - iteration(4.0)
    assert saved == pytest.approx(M * unit.backward, rel=1e-6)
    assert saved / (2 * M * (unit.forward + unit.backward)) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("loop", [{"updates": 1}, {"updates": 3}, {"micro_batch": 64}, {"micro_batch": 1}], ids=str)
def test_updates_and_micro_batches_share_the_same_work(iteration: Iteration, loop: dict[str, int]) -> None:
    assert iteration(**loop) == pytest.approx(iteration(), rel=EXACT)


def test_the_split_half_signal_is_measured_at_no_cost(iteration: Iteration) -> None:
    assert iteration(signal_every=1) == pytest.approx(iteration(), rel=EXACT)


def test_only_trained_steps_cost_an_update(
    iteration: Iteration, unit: Unit, policy: Policy, tiny_sd3_folder: Path
) -> None:
    run = config(tiny_sd3_folder)
    more = replace(run, rollout=replace(run.rollout, plan=PlanConfig(kind="window", start=0, size=4)))
    learner = learner_of(more, policy)
    extra = flops(lambda: iterate(learner)) - iteration()
    assert extra == pytest.approx(2 * N * (unit.forward + unit.backward), rel=1e-6)


def test_a_shared_trunk_costs_one_forward_per_prompt_in_the_rollout_and_in_the_update(
    iteration: Iteration, unit: Unit, policy: Policy, tiny_sd3_folder: Path
) -> None:
    run, saved_per_call = config(tiny_sd3_folder, updates=1, micro_batch=12), N - 3
    shared = learner_of(replace(run, rollout=replace(run.rollout, shared_noise=True, batch=6)), policy)
    in_rollout, in_update = 2 * saved_per_call * unit.forward, saved_per_call * (unit.forward + unit.backward)
    assert iteration() - flops(lambda: iterate(shared)) == pytest.approx(in_rollout + in_update, rel=1e-6)


@pytest.mark.parametrize(("guidance", "branches"), [(1.0, 1), (3.0, 2)])
@pytest.mark.parametrize(("kind", "drawn", "states", "leaves"), BRANCHED, ids=[row[0] for row in BRANCHED])
def test_branches_cost_one_forward_per_node_and_one_backward_per_state(
    kind: str,
    drawn: int,
    states: int,
    leaves: int,
    guidance: float,
    branches: int,
    unit: Unit,
    policy: Policy,
    tiny_sd3_folder: Path,
) -> None:
    """``drawn`` nodes of one start are drawn, and its decisions were taken in ``states`` of them."""
    run = config(tiny_sd3_folder, guidance, updates=1, micro_batch=1000)
    steps = (0, 2) if kind == "tree" else ()
    settings = {"rollout.batch": 1000, "rollout.branch.steps": steps}
    if kind in ("greedy", "vine"):
        settings |= {"rollout.probe.kind": kind, "rollout.probe.samples": 3, "credit.baseline": "probe"}
    else:
        settings |= {"rollout.branch.kind": kind, "rollout.branch.width": 3}
    settings |= {"rollout.plan.outside": "sde"} if kind == "tree" else {}
    learner = learner_of(vary(run, run.method, settings), policy)
    rollout = branches * drawn * unit.forward + leaves * unit.decode
    update = states * (branches * unit.forward + unit.backward)
    assert flops(lambda: iterate(learner)) == pytest.approx(N * (rollout + update), rel=1e-6)


def test_the_kl_in_the_reward_costs_two_forwards_and_none_in_the_update(
    iteration: Iteration, unit: Unit, policy: Policy, tiny_sd3_folder: Path
) -> None:
    with torch.no_grad(), policy.reference():
        reference = flops(lambda: prediction(policy))
    charged = vary(config(tiny_sd3_folder, beta=0.1), "flow-grpo", {"kl.place": "reward"})
    extra = flops(lambda: iterate(learner_of(charged, policy))) - iteration()
    assert extra == pytest.approx(M * (reference + unit.forward), rel=1e-6)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_trust_region_costs_a_forward_of_every_decision_per_measurement(
    epochs: int, unit: Unit, policy: Policy, tiny_sd3_folder: Path
) -> None:
    """Once after every epoch and once to enforce, where the step stays whole."""
    run = vary(config(tiny_sd3_folder), "flow-grpo", {"loop.epochs": epochs, "optimiser.lr": 1e-6})
    bound = vary(run, "flow-grpo", {"loop.max_kl": 100.0})
    rows: list[dict[str, Any]] = []
    free = flops(lambda: iterate(learner_of(run, policy)))
    measured = flops(lambda: rows.append(iterate(learner_of(bound, policy))))
    assert rows[0]["step_share"] == 1
    assert measured - free == pytest.approx((epochs + 1) * M * unit.forward, rel=1e-6)


def test_epochs_repeat_the_update_and_not_the_rollout(
    iteration: Iteration, unit: Unit, policy: Policy, tiny_sd3_folder: Path
) -> None:
    twice = vary(config(tiny_sd3_folder), "flow-grpo", {"loop.epochs": 2})
    extra = flops(lambda: iterate(learner_of(twice, policy))) - iteration()
    assert extra == pytest.approx(M * (unit.forward + unit.backward), rel=1e-6)


def test_texts_are_encoded_in_the_first_iteration_only(iteration: Iteration, tiny_sd3_folder: Path) -> None:
    run = config(tiny_sd3_folder)
    learner = learner_of(run, load_policy(run.policy), tuple(CORPUS[:3]))
    first, second = flops(lambda: iterate(learner)), flops(lambda: iterate(learner))
    assert first > second == pytest.approx(iteration(), rel=EXACT)


def test_the_backward_of_an_adapter_costs_about_one_forward_and_of_full_training_two(
    unit: Unit, policy: Policy, tiny_sd3_folder: Path
) -> None:
    run = config(tiny_sd3_folder)
    full = Unit(load(replace(run, policy=replace(run.policy, training="full"))))
    adapters = unit.forward - full.forward
    # Activations cost a forward again, except before the adapters; the factors' own gradients cost the factors.
    assert 0.75 < unit.backward / (unit.forward + adapters) < 1
    assert full.backward == pytest.approx(2 * full.forward, rel=0.1)
