"""The rollout engine with a policy whose velocity is a known function: what is drawn, kept and replayed."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.config import GuidanceConfig, KernelConfig, PlanConfig
from beholder.rollouts.engine import Start, noise_for, replay, rollout, sample_ode
from beholder.rollouts.kernels import stds
from beholder.rollouts.plans import StepPlan, draw_plan
from beholder.rollouts.trajectory import Condition, Trajectory, first_of_each

SHAPE = (2, 3)
SIGMAS = torch.tensor([1.0, 0.9, 0.75, 0.5, 0.25, 0.0]).double()
STEPS = len(SIGMAS) - 1
KERNELS = (
    KernelConfig(kind="flow_sde", level=0.7),
    KernelConfig(kind="dance_sde", level=0.3),
    KernelConfig(kind="cps", level=0.8),
    KernelConfig(kind="cps", level=0.8, log_prob="unweighted"),
)
every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.kind}-{k.log_prob}")
PLANS = (
    PlanConfig(kind="prefix", fraction=0.8),
    PlanConfig(kind="random", fraction=0.4),
    PlanConfig(kind="window", start=1, size=2),
)
every_plan = pytest.mark.parametrize("config", PLANS, ids=lambda p: p.kind)


@dataclass
class LinearPolicy:
    """v = (1 - σ) x / 2 - target, guided; remembers what it was called with."""

    calls: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def velocity(
        self,
        x: Tensor,
        sigma_N: Tensor,
        condition: Condition,
        unconditional: Condition | None,
        guidance: GuidanceConfig,
    ) -> Tensor:
        self.calls.append((x, sigma_N))
        v_c = self.branch(x, sigma_N, condition)
        if unconditional is None:
            return v_c
        v_u = self.branch(x, sigma_N, unconditional)
        return v_u + guidance.scale * (v_c - v_u)

    def branch(self, x: Tensor, sigma_N: Tensor, condition: Condition) -> Tensor:
        return (1 - sigma_N).view(-1, 1, 1) * x / 2 - condition.tensors["target"].view(-1, 1, 1)


def begin(n: int = 6, guided: bool = False, first: int = 0) -> Start:
    seeds = torch.arange(first, first + n)
    target = torch.linspace(-1, 1, 16)[seeds]
    unconditional = Condition({"target": target / 5}) if guided else None
    prompts, noise = [f"prompt {i}" for i in seeds], noise_for(seeds, SHAPE, 0)
    return Start(prompts, seeds // 2, seeds, noise, Condition({"target": target}), unconditional)


def plan_for(kernel: KernelConfig, config: PlanConfig, n: int = 6) -> StepPlan:
    trainable = stds(kernel, SIGMAS) >= kernel.min_std
    return draw_plan(config, trainable, n, 0, torch.Generator().manual_seed(5))


def drawn(
    kernel: KernelConfig = KERNELS[0], config: PlanConfig = PLANS[0], guidance: float = 1.0, n: int = 6
) -> Trajectory:
    setting = GuidanceConfig(scale=guidance)
    return rollout(LinearPolicy(), begin(n, guidance != 1), SIGMAS, plan_for(kernel, config, n), kernel, setting)


def every_decision(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Row and column of every stored decision."""
    n, k = trajectory.step_NK.shape
    return torch.arange(n).repeat_interleave(k), torch.arange(k).repeat(n)


# ----------------------------------------------------------------------------------------------------- what is drawn


def test_a_plan_without_stochastic_steps_draws_what_the_ode_draws() -> None:
    plan = StepPlan(torch.zeros(STEPS, dtype=torch.bool), torch.zeros(6, 0, dtype=torch.int64))
    for guided in (False, True):
        setting = GuidanceConfig(scale=2.0)
        got = rollout(LinearPolicy(), begin(guided=guided), SIGMAS, plan, KERNELS[0], setting)
        want = sample_ode(LinearPolicy(), begin(guided=guided), SIGMAS, setting)
        assert torch.equal(got.final_Nx, want)
        assert got.state_NKx.shape == (6, 0, *SHAPE)


def test_the_ode_is_the_sum_of_its_steps() -> None:
    start, policy = begin(), LinearPolicy()
    x = start.x_Nx
    for here, there in pairwise(SIGMAS.tolist()):
        x = x + (there - here) * policy.branch(x, torch.full((6,), here), start.condition)
    torch.testing.assert_close(sample_ode(policy, start, SIGMAS, GuidanceConfig()), x, rtol=1e-6, atol=1e-6)


@every_kernel
def test_level_zero_draws_what_the_ode_draws(kernel: KernelConfig) -> None:
    plan = StepPlan(torch.ones(STEPS, dtype=torch.bool), torch.zeros(6, 0, dtype=torch.int64))
    got = rollout(LinearPolicy(), begin(), SIGMAS, plan, replace(kernel, level=0.0), GuidanceConfig())
    want = sample_ode(LinearPolicy(), begin(), SIGMAS, GuidanceConfig())
    torch.testing.assert_close(got.final_Nx, want, rtol=1e-6, atol=1e-6)


@every_plan
def test_guidance_moves_the_samples(config: PlanConfig) -> None:
    plain, guided = drawn(config=config), drawn(config=config, guidance=3.0)
    assert (plain.final_Nx - guided.final_Nx).abs().max() > 0.1
    assert guided.unconditional is not None and plain.unconditional is None


@every_kernel
@every_plan
def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(kernel: KernelConfig, config: PlanConfig) -> None:
    plan, together = plan_for(kernel, config), drawn(kernel, config)
    alone = [
        rollout(LinearPolicy(), begin(1, first=i), SIGMAS, plan.for_samples(slice(i, i + 1)), kernel, GuidanceConfig())
        for i in range(6)
    ]
    joined = Trajectory.cat(alone)
    for name in ("final_Nx", "state_NKx", "next_NKx", "step_NK", "sigma_NK", "sigma_next_NK", "std_NK", "seed_N"):
        assert torch.equal(getattr(joined, name), getattr(together, name)), name
    torch.testing.assert_close(joined.logp_old_NK, together.logp_old_NK, rtol=1e-6, atol=1e-6)
    assert joined.prompts == together.prompts
    assert joined.network_evaluations == together.network_evaluations


# ------------------------------------------------------------------------------------------------------ what is kept


@every_plan
def test_only_trained_decisions_are_kept_in_float32(config: PlanConfig) -> None:
    trajectory, k = drawn(config=config), plan_for(KERNELS[0], config).trained_NK.shape[1]
    assert k < STEPS
    for stored in (trajectory.state_NKx, trajectory.next_NKx):
        assert stored.shape == (6, k, *SHAPE)
        assert stored.dtype == torch.float32
    per_decision = ("step_NK", "sigma_NK", "sigma_next_NK", "logp_old_NK", "std_NK")
    assert all(getattr(trajectory, name).shape == (6, k) for name in per_decision)
    assert trajectory.n_dims == 6 and len(trajectory) == 6


@every_plan
def test_stored_states_are_what_the_policy_saw_at_those_steps(config: PlanConfig) -> None:
    policy, kernel = LinearPolicy(), KERNELS[0]
    trajectory = rollout(policy, begin(), SIGMAS, plan_for(kernel, config), kernel, GuidanceConfig())
    visited = [x for x, _ in policy.calls] + [trajectory.final_Nx]
    for row, column in zip(*every_decision(trajectory), strict=True):
        step = int(trajectory.step_NK[row, column])
        assert torch.equal(trajectory.state_NKx[row, column], visited[step][row])
        assert torch.equal(trajectory.next_NKx[row, column], visited[step + 1][row])
        assert trajectory.sigma_NK[row, column] == SIGMAS[step].float()
        assert trajectory.sigma_next_NK[row, column] == SIGMAS[step + 1].float()


def test_the_trained_steps_of_each_sample_are_those_of_the_plan() -> None:
    assert torch.equal(drawn(config=PLANS[1]).step_NK, plan_for(KERNELS[0], PLANS[1]).trained_NK)
    assert len(drawn(config=PLANS[1]).step_NK.unique(dim=0)) > 1


@every_kernel
def test_stored_std_is_that_of_the_kernel(kernel: KernelConfig) -> None:
    trajectory = drawn(kernel)
    torch.testing.assert_close(trajectory.std_NK.double(), stds(kernel, SIGMAS)[trajectory.step_NK], rtol=1e-6, atol=0)


@pytest.mark.parametrize("guidance, branches", [(1.0, 1), (4.0, 2)])
def test_network_evaluations_count_samples_steps_and_branches(guidance: float, branches: int) -> None:
    policy, kernel, setting = LinearPolicy(), KERNELS[0], GuidanceConfig(scale=guidance)
    start = begin(guided=guidance != 1)
    trajectory = rollout(policy, start, SIGMAS, plan_for(kernel, PLANS[0]), kernel, setting)
    assert trajectory.network_evaluations == 6 * STEPS * branches
    assert len(policy.calls) == STEPS


def test_the_network_sees_the_noise_level_of_the_step() -> None:
    policy = LinearPolicy()
    rollout(policy, begin(), SIGMAS, plan_for(KERNELS[0], PLANS[0]), KERNELS[0], GuidanceConfig())
    assert [sigma.unique().item() for _, sigma in policy.calls] == SIGMAS[:-1].float().tolist()


# -------------------------------------------------------------------------------------------------- what is replayed


@every_kernel
@every_plan
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_ratio_is_exactly_one_before_the_first_update(
    kernel: KernelConfig, config: PlanConfig, guidance: float
) -> None:
    trajectory = drawn(kernel, config, guidance)
    scored = replay(LinearPolicy(), trajectory.decisions(*every_decision(trajectory)))
    assert torch.equal((scored.logp_M - trajectory.logp_old_NK.flatten()).exp(), torch.ones(len(scored.logp_M)))


@every_kernel
def test_decisions_of_any_rows_and_columns_are_theirs(kernel: KernelConfig) -> None:
    trajectory = drawn(kernel, guidance=3.0)
    rows, columns = torch.tensor([5, 0, 5, 2]), torch.tensor([1, 3, 0, 1])
    decisions = trajectory.decisions(rows, columns)
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        assert torch.equal(decisions.state_Mx[i], trajectory.state_NKx[row, column])
        assert torch.equal(decisions.next_Mx[i], trajectory.next_NKx[row, column])
    assert torch.equal(decisions.condition.tensors["target"], begin().condition.tensors["target"][rows])
    torch.testing.assert_close(
        replay(LinearPolicy(), decisions).logp_M, trajectory.logp_old_NK[rows, columns], rtol=1e-6, atol=1e-6
    )


@every_kernel
@every_plan
def test_every_step_is_moved_by_its_own_noise(kernel: KernelConfig, config: PlanConfig) -> None:
    trajectory = drawn(kernel, config)
    rows, columns = every_decision(trajectory)
    decisions = trajectory.decisions(rows, columns)
    move = replay(LinearPolicy(), decisions).transition
    noise = (decisions.next_Mx - move.mean) / decisions.std_M.view(-1, 1, 1)
    steps = zip(decisions.step_M.tolist(), trajectory.seed_N[rows], strict=True)
    own = torch.cat([noise_for(seed[None], SHAPE, step + 1) for step, seed in steps])
    torch.testing.assert_close(noise, own, rtol=1e-4, atol=1e-4)


def test_another_policy_has_another_ratio() -> None:
    trajectory = drawn()
    decisions = trajectory.decisions(*every_decision(trajectory))
    other = Condition({"target": decisions.condition.tensors["target"] + 0.1})
    scored = replay(LinearPolicy(), replace(decisions, condition=other))
    assert (scored.logp_M - decisions.logp_old_M).abs().min() > 1e-4


def test_the_rollout_builds_no_graph() -> None:
    target = begin().condition.tensors["target"].requires_grad_()
    start = replace(begin(), condition=Condition({"target": target}))
    trajectory = rollout(LinearPolicy(), start, SIGMAS, plan_for(KERNELS[0], PLANS[0]), KERNELS[0], GuidanceConfig())
    assert not trajectory.final_Nx.requires_grad and not trajectory.logp_old_NK.requires_grad
    scored = replay(LinearPolicy(), trajectory.decisions(*every_decision(trajectory)))
    assert torch.autograd.grad(scored.logp_M.sum(), target)[0].abs().min() > 0


# ----------------------------------------------------------------------------------------------------- a shared trunk


def begin_in_groups(apart: bool) -> Start:
    """Three prompts of two samples each, which start from the same noise; ``apart`` keeps that from the engine."""
    start, groups = begin(), torch.tensor([7, 3, 7, 5, 3, 5])
    condition = Condition({"target": torch.linspace(-1, 1, 16)[groups].requires_grad_()})
    return replace(
        start,
        group_N=groups,
        x_Nx=noise_for(groups, SHAPE, 0),
        condition=condition,
        unconditional=Condition({"target": torch.zeros(6)}),
        origin_N=None if apart else groups,
    )


def drawn_in_groups(kernel: KernelConfig, config: PlanConfig, apart: bool) -> tuple[Trajectory, LinearPolicy]:
    policy = LinearPolicy()
    start, setting = begin_in_groups(apart), GuidanceConfig(scale=2.0)
    return rollout(policy, start, SIGMAS, plan_for(kernel, config), kernel, setting), policy


@every_kernel
@every_plan
def test_a_shared_trunk_changes_no_sample(kernel: KernelConfig, config: PlanConfig) -> None:
    (shared, _), (apart, _) = (drawn_in_groups(kernel, config, apart) for apart in (False, True))
    for name in ("final_Nx", "state_NKx", "next_NKx", "step_NK", "sigma_NK", "std_NK", "seed_N", "group_N"):
        assert torch.equal(getattr(shared, name), getattr(apart, name)), name
    torch.testing.assert_close(shared.logp_old_NK, apart.logp_old_NK, rtol=1e-6, atol=1e-6)
    assert len(shared.final_Nx.unique(dim=0)) == 6


@pytest.mark.parametrize("start, calls", [(0, [3, 6, 6, 6, 6]), (1, [3, 3, 6, 6, 6]), (3, [3, 3, 3, 3, 6])])
def test_the_trunk_costs_one_call_per_origin_up_to_the_first_stochastic_step(start: int, calls: list[int]) -> None:
    config = PlanConfig(kind="window", start=start, size=1)
    shared, policy = drawn_in_groups(KERNELS[0], config, apart=False)
    assert [len(x) for x, _ in policy.calls] == calls
    assert shared.network_evaluations == 2 * sum(calls)
    assert drawn_in_groups(KERNELS[0], config, apart=True)[0].network_evaluations == 2 * 6 * STEPS


@every_plan
def test_replaying_a_shared_state_calls_the_network_once_and_changes_no_gradient(config: PlanConfig) -> None:
    found = []
    for apart in (False, True):
        trajectory, policy = drawn_in_groups(KERNELS[0], config, apart)
        decisions, policy.calls = trajectory.decisions(*every_decision(trajectory)), []
        logp_M = replay(policy, decisions).logp_M
        gradient = torch.autograd.grad(
            (logp_M * torch.arange(len(logp_M))).sum(), trajectory.condition.tensors["target"]
        )
        per_group = torch.zeros(8).index_add(0, trajectory.group_N, gradient[0])
        found.append((logp_M.detach(), per_group, len(policy.calls[0][0])))
    shared, apart = found
    torch.testing.assert_close(shared[:2], apart[:2], rtol=1e-5, atol=1e-5)
    at_trunk = (trajectory.step_NK == trajectory.fans_out).any(1)
    saved = int(at_trunk.sum()) - len(trajectory.group_N[at_trunk].unique())
    assert apart[2] == trajectory.step_NK.numel()
    assert shared[2] == apart[2] - saved
    assert saved > 0


@given(ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=20) | st.lists(st.integers(0, 3), min_size=1))
@settings(deadline=None, max_examples=50)
def test_first_of_each_names_the_first_row_of_every_id(ids: list[int]) -> None:
    row_U, member_N = first_of_each(torch.tensor(ids))
    assert sorted(row_U.tolist()) == [i for i, value in enumerate(ids) if value not in ids[:i]]
    assert [ids[row] for row in row_U[member_N].tolist()] == ids


# -------------------------------------------------------------------------------------------------------------- noise


def test_noise_is_a_function_of_seed_and_stream_alone() -> None:
    seeds = torch.tensor([3, 99, 3, 2**61 + 7])
    noise = noise_for(seeds, SHAPE, 4)
    assert noise.shape == (4, *SHAPE) and noise.dtype == torch.float32
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(noise[[3, 1]], noise_for(seeds[[3, 1]], SHAPE, 4))
    assert not torch.equal(noise, noise_for(seeds, SHAPE, 5))


@pytest.mark.parametrize("bit", [0, 1, 16, 31, 32, 33, 48, 61])
def test_every_bit_of_the_seed_matters(bit: int) -> None:
    first, second = noise_for(torch.tensor([5, 5 ^ 2**bit]), (1000,), 0)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 5 / 1000**0.5


def test_neighbouring_seeds_and_streams_share_no_noise() -> None:
    noise = torch.stack([noise_for(torch.arange(40), (25,), stream) for stream in range(20)])
    assert len(noise.flatten().unique()) > 0.999 * noise.numel()


def test_noise_is_standard_normal_within_and_across_seeds() -> None:
    noise = noise_for(torch.arange(20_000), (2,), 1).double()
    for values in noise.T:
        assert abs(values.mean()) < 5 / 20_000**0.5
        assert abs(values.std() - 1) < 5 / 40_000**0.5
        assert abs((values.abs() < 0.67449).double().mean() - 0.5) < 5 * 0.5 / 20_000**0.5
    assert abs(torch.corrcoef(noise.T)[0, 1]) < 5 / 20_000**0.5
