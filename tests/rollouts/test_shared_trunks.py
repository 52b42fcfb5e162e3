"""Samples of a group that start from the same noise are one sample until their draws differ."""

from dataclasses import replace

import pytest
import torch
from linear_policy import KERNELS, PREFIX, SIGMAS, STEPS, LinearPolicy, asked, begin, per_sample_step, plan_for

from beholder.config import GuidanceConfig, KernelConfig, PlanConfig, ProbeConfig
from beholder.rollouts.engine import replay, rollout
from beholder.rollouts.trajectory import Condition, Trajectory

every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.kind}-{k.level}-{k.log_prob}")
PLANS = (PREFIX, PlanConfig(kind="random", fraction=0.8), PlanConfig(kind="window", start=1, size=2))
every_plan = pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.kind)
MIXED = torch.tensor([4, 0, 5, 2, 1, 3])
"""Samples of one start need not be neighbours."""


def drawn_in_groups(kernel: KernelConfig, plan: PlanConfig, merge: bool) -> tuple[Trajectory, LinearPolicy]:
    """Three prompts of two samples each; without ``merge`` the engine does not know what they share."""
    config, policy = asked(kernel=kernel, plan=plan, shared_noise=True, guidance=GuidanceConfig(2.0)), LinearPolicy()
    rows = plan_for(config)
    start = begin(config, rows, merge).select(MIXED)
    target = start.condition.tensors["target"].requires_grad_()
    start = replace(start, condition=Condition({"target": target}), unconditional=Condition({"target": 0 * target}))
    return rollout(policy, start, SIGMAS, rows.select(MIXED), config), policy


@every_kernel
@every_plan
def test_a_shared_trunk_changes_no_sample(kernel: KernelConfig, plan: PlanConfig) -> None:
    (shared, _), (apart, _) = (drawn_in_groups(kernel, plan, merge) for merge in (True, False))
    for name in ("final_Nx", "seed_N", "group_N", "start_N"):
        assert torch.equal(getattr(shared, name), getattr(apart, name)), name
    for name in ("state_Mx", "next_Mx", "step_M", "sigma_M", "std_M", "sample_M"):
        assert torch.equal(per_sample_step(shared, name), per_sample_step(apart, name)), name
    for name in ("logp_old_M", "change_M"):
        got, want = per_sample_step(shared, name), per_sample_step(apart, name)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    assert len(shared.final_Nx.unique(dim=0)) == 6


@pytest.mark.parametrize("start, calls", [(0, [3, 6, 6, 6, 6]), (1, [3, 3, 6, 6, 6]), (3, [3, 3, 3, 3, 6])])
def test_the_trunk_costs_one_call_per_origin_up_to_the_first_stochastic_step(start: int, calls: list[int]) -> None:
    plan = PlanConfig(kind="window", start=start, size=1)
    shared, policy = drawn_in_groups(KERNELS[0], plan, merge=True)
    assert policy.widths == calls
    assert shared.network_evaluations == 2 * sum(calls)
    assert drawn_in_groups(KERNELS[0], plan, merge=False)[0].network_evaluations == 2 * 6 * STEPS


@every_plan
def test_replaying_a_shared_state_calls_the_network_once_and_changes_no_gradient(plan: PlanConfig) -> None:
    found = []
    for merge in (True, False):
        trajectory, policy = drawn_in_groups(KERNELS[0], plan, merge)
        policy.calls = []
        logp_M = replay(policy, trajectory, trajectory.decisions).logp_M
        number_D = trajectory.decision_NT[trajectory.decision_NT >= 0]  # in the order of samples, not of decisions
        weight_D = torch.arange(len(number_D))
        gradient = torch.autograd.grad((logp_M[number_D] * weight_D).sum(), trajectory.condition.tensors["target"])
        per_group = torch.zeros(3).index_add(0, trajectory.group_N, gradient[0])
        found.append((logp_M.detach()[number_D], per_group, policy.widths))
    shared, apart = found
    torch.testing.assert_close(shared[:2], apart[:2], rtol=1e-5, atol=1e-5)
    step_M = trajectory.decisions.step_M
    fans_out = 1 if plan.kind == "window" else 0
    at_trunk = trajectory.group_N[trajectory.decisions.sample_M[step_M == fans_out]]
    saved = len(at_trunk) - len(at_trunk.unique())
    assert apart[2] == [len(step_M)]
    assert shared[2] == [len(step_M) - saved]
    assert saved > 0


def test_a_group_of_one_noise_has_one_greedy_sample() -> None:
    config = asked(plan=PLANS[2], shared_noise=True, probe=ProbeConfig("greedy"))
    rows, policy = plan_for(config), LinearPolicy()
    got = rollout(policy, begin(config, rows), SIGMAS, rows, config)
    greedy = got.probe_N == 0
    assert policy.widths == [3, 3, 9, 9, 9]
    assert len(got.final_Nx[greedy].unique(dim=0)) == 3
    assert len(got.final_Nx[~greedy].unique(dim=0)) == 6
