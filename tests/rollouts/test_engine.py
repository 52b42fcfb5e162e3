"""The rollout engine with a policy whose velocity is a known function: what is drawn, kept and replayed."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_policy import (
    EVERY_STEP,
    KERNELS,
    PREFIX,
    SHAPE,
    SIGMAS,
    STEPS,
    LinearPolicy,
    asked,
    begin,
    drawn,
    ode_but,
    per_sample_step,
    plan_for,
    taken,
)

from beholder.config import GuidanceConfig, KernelConfig, PlanConfig, ProbeConfig
from beholder.rollouts.engine import noise_for, replay, rollout, sample_ode
from beholder.rollouts.kernels import per_sample, stds, sum_dims
from beholder.rollouts.plans import ODE, StepPlan, ode_plan
from beholder.rollouts.trajectory import Condition, Trajectory, first_of_each

every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.kind}-{k.level}-{k.log_prob}")
PLANS = (PREFIX, PlanConfig(kind="random", fraction=0.4), PlanConfig(kind="window", start=1, size=2))
every_plan = pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.kind)


# ----------------------------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@every_plan
def test_a_sample_without_draws_is_what_the_ode_draws(plan: PlanConfig, guidance: float) -> None:
    config = asked(plan=plan, probe=ProbeConfig("greedy"), guidance=GuidanceConfig(guidance))
    rows = plan_for(config)
    got = rollout(LinearPolicy(), begin(config, rows), SIGMAS, rows, config)
    want = sample_ode(LinearPolicy(), begin(config, rows), SIGMAS, config.guidance)
    greedy = rows.probe_N == 0
    assert int(greedy.sum()) == 6
    assert torch.equal(got.final_Nx[greedy], want[greedy])
    assert (got.final_Nx - want)[~greedy].abs().amax((1, 2)).min() > 1e-3
    assert (got.decision_NT[greedy] == -1).all()


def test_the_ode_is_the_sum_of_its_steps() -> None:
    config = asked()
    start, policy = begin(config, plan_for(config)), LinearPolicy()
    x = start.x_Nx
    for here, there in pairwise(SIGMAS.tolist()):
        x = x + (there - here) * policy.branch(x, torch.full((6,), here), start.condition)
    torch.testing.assert_close(sample_ode(policy, start, SIGMAS, GuidanceConfig()), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_plan_without_stochastic_steps_draws_what_the_ode_draws_and_keeps_nothing(guidance: float) -> None:
    config = asked(guidance=GuidanceConfig(guidance))
    plan = ode_plan(config, config.prompts)
    start = begin(config, plan)
    got = rollout(LinearPolicy(), start, SIGMAS, plan, config)
    assert torch.equal(got.final_Nx, sample_ode(LinearPolicy(), start, SIGMAS, config.guidance))
    assert len(got) == 6 and len(got.decisions) == 0
    assert all(len(value) == 0 for value in vars(got.decisions).values())
    assert torch.equal(got.decision_NT, torch.full((6, STEPS), -1))
    each = [torch.tensor([i, i + 1]) for i in (0, 2, 4)]
    parts = [rollout(LinearPolicy(), start.select(i), SIGMAS, plan.select(i), config) for i in each]
    joined = Trajectory.cat(parts)
    assert torch.equal(joined.final_Nx, got.final_Nx) and len(joined.decisions) == 0
    assert joined.network_evaluations == got.network_evaluations


@every_kernel
def test_level_zero_draws_what_the_ode_draws(kernel: KernelConfig) -> None:
    """Among them DDIM of η = 0, whose trajectories are those of the flow ODE under Euler's method."""
    config = asked(kernel=replace(kernel, level=0.0, log_prob="unweighted"), plan=EVERY_STEP)
    every = torch.ones(6, STEPS).bool()
    plan = StepPlan(torch.arange(6), torch.zeros(6, STEPS).long(), every, torch.full((6,), -1))
    start = begin(config, plan)
    got = rollout(LinearPolicy(), start, SIGMAS, plan, config)
    want = sample_ode(LinearPolicy(), start, SIGMAS, GuidanceConfig())
    torch.testing.assert_close(got.final_Nx, want, rtol=1e-6, atol=1e-6)
    assert got.decisions.std_M.abs().max() == 0


@every_plan
def test_guidance_moves_the_samples(plan: PlanConfig) -> None:
    plain, guided = drawn(asked(plan=plan)), drawn(asked(plan=plan, guidance=GuidanceConfig(3.0)))
    assert (plain.final_Nx - guided.final_Nx).abs().max() > 0.1
    assert guided.unconditional is not None and plain.unconditional is None


@every_kernel
@every_plan
def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(kernel: KernelConfig, plan: PlanConfig) -> None:
    config = asked(kernel=kernel, plan=plan)
    rows, together = plan_for(config), drawn(config)
    start = begin(config, rows)
    each = [torch.tensor([i]) for i in range(6)]
    alone = [rollout(LinearPolicy(), start.select(i), SIGMAS, rows.select(i), config) for i in each]
    joined = Trajectory.cat(alone)
    assert torch.equal(joined.final_Nx, together.final_Nx)
    for name in ("state_Mx", "next_Mx", "step_M", "sigma_M", "sigma_next_M", "std_M", "sample_M"):
        assert torch.equal(per_sample_step(joined, name), per_sample_step(together, name)), name
    for name in ("logp_old_M", "change_M"):
        got, want = per_sample_step(joined, name), per_sample_step(together, name)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    assert joined.prompts == together.prompts
    assert torch.equal(joined.seed_N, together.seed_N)
    assert joined.network_evaluations == together.network_evaluations


# ------------------------------------------------------------------------------------------------------ what is kept


@every_plan
def test_only_trained_decisions_are_kept_in_float32(plan: PlanConfig) -> None:
    config = asked(plan=plan)
    trajectory, count = drawn(config), int(plan_for(config).trained_NT.sum())
    assert count == 6 * {"prefix": 4, "random": 2, "window": 2}[plan.kind]
    d = trajectory.decisions
    for stored in (d.state_Mx, d.next_Mx):
        assert stored.shape == (count, *SHAPE)
        assert stored.dtype == torch.float32
    assert all(len(value) == count for value in vars(d).values())
    assert d.mean_old_Mx.numel() == trajectory.clean_NTx.numel() == 0
    assert trajectory.n_dims == 6 and len(trajectory) == 6


@every_plan
def test_stored_states_are_what_the_policy_saw_at_those_steps(plan: PlanConfig) -> None:
    policy, config = LinearPolicy(), asked(plan=plan)
    trajectory = drawn(config, policy)
    visited = [x for x, _ in policy.calls] + [trajectory.final_Nx]
    d = trajectory.decisions
    for sample, step, i in taken(trajectory):
        assert torch.equal(d.state_Mx[i], visited[step][sample])
        assert torch.equal(d.next_Mx[i], visited[step + 1][sample])
        assert (int(d.step_M[i]), int(d.sample_M[i])) == (step, sample)
        assert d.sigma_M[i] == SIGMAS[step].float() and d.sigma_next_M[i] == SIGMAS[step + 1].float()


@every_plan
def test_the_trained_steps_of_each_sample_are_those_of_the_plan(plan: PlanConfig) -> None:
    config = asked(plan=plan)
    assert torch.equal(drawn(config).decision_NT >= 0, plan_for(config).trained_NT)
    assert (len(plan_for(config).trained_NT.unique(dim=0)) > 1) == (plan.kind == "random")


@every_kernel
def test_stored_std_is_that_of_the_kernel(kernel: KernelConfig) -> None:
    d = drawn(asked(kernel=kernel)).decisions
    torch.testing.assert_close(d.std_M.double(), stds(kernel, SIGMAS)[d.step_M], rtol=1e-6, atol=0)


@pytest.mark.parametrize("guidance, branches", [(1.0, 1), (4.0, 2)])
def test_network_evaluations_count_samples_steps_and_branches(guidance: float, branches: int) -> None:
    policy = LinearPolicy()
    trajectory = drawn(asked(guidance=GuidanceConfig(guidance)), policy)
    assert trajectory.network_evaluations == 6 * STEPS * branches
    assert len(policy.calls) == STEPS


def test_the_network_sees_the_noise_level_of_the_step() -> None:
    policy = LinearPolicy()
    drawn(asked(), policy)
    assert [sigma.unique().item() for _, sigma in policy.calls] == SIGMAS[:-1].float().tolist()


@every_kernel
def test_kept_means_are_those_the_samples_were_drawn_from(kernel: KernelConfig) -> None:
    d = drawn(asked(kernel=kernel), keep_means=True).decisions
    assert d.mean_old_Mx.shape == d.state_Mx.shape
    noise = torch.cat(
        [noise_for(1000 + n[None], SHAPE, t + 1) for n, t in zip(d.sample_M, d.step_M.tolist(), strict=True)]
    )
    drawn_again = d.mean_old_Mx + per_sample(d.std_M, noise) * noise
    torch.testing.assert_close(drawn_again, d.next_Mx, rtol=1e-6, atol=1e-6)


def test_kept_clean_latents_are_those_predicted_before_each_step() -> None:
    policy, config = LinearPolicy(), asked(plan=PLANS[2])
    clean_NTx = drawn(config, policy, keep_clean=True).clean_NTx
    assert clean_NTx.shape == (6, STEPS, *SHAPE)
    condition = begin(config, plan_for(config)).condition
    for step, (x, sigma) in enumerate(policy.calls):
        want = x - per_sample(sigma, x) * policy.branch(x, sigma, condition)
        torch.testing.assert_close(clean_NTx[:, step], want, rtol=1e-6, atol=1e-6)


@every_plan
def test_change_is_the_root_mean_square_step_of_the_predicted_clean_latent(plan: PlanConfig) -> None:
    trajectory = drawn(asked(plan=replace(plan, fraction=1.0, stop=STEPS)), keep_clean=True)
    clean = torch.cat([trajectory.clean_NTx, trajectory.final_Nx[:, None]], 1)  # the last σ is 0: x is its own x̂0
    change_NT = (sum_dims(clean.diff(dim=1).flatten(0, 1).square()) / 6).sqrt().view(6, STEPS)
    assert len(taken(trajectory)) >= 12
    for sample, step, i in taken(trajectory):
        assert trajectory.decisions.change_M[i].item() == pytest.approx(change_NT[sample, step].item(), rel=1e-5)


# -------------------------------------------------------------------------------------------------- what is replayed


@every_kernel
@every_plan
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_ratio_is_exactly_one_before_the_first_update(
    kernel: KernelConfig, plan: PlanConfig, guidance: float
) -> None:
    trajectory = drawn(asked(kernel=kernel, plan=plan, guidance=GuidanceConfig(guidance)))
    scored = replay(LinearPolicy(), trajectory, trajectory.decisions)
    ratio = (scored.logp_M - trajectory.decisions.logp_old_M).exp()
    assert torch.equal(ratio, torch.ones(len(scored.logp_M)))


@every_kernel
def test_selected_decisions_are_theirs_in_any_order(kernel: KernelConfig) -> None:
    trajectory = drawn(asked(kernel=kernel, guidance=GuidanceConfig(3.0)))
    index = trajectory.decision_NT[[5, 0, 5, 2], [1, 3, 0, 1]]
    policy, chosen = LinearPolicy(), trajectory.decisions.select(index)
    for name, value in vars(chosen).items():
        assert torch.equal(value, getattr(trajectory.decisions, name)[index]), name
    scored = replay(policy, trajectory, chosen)
    torch.testing.assert_close(scored.logp_M, trajectory.decisions.logp_old_M[index], rtol=1e-6, atol=1e-6)
    assert policy.widths == [4]


@every_kernel
@every_plan
def test_every_step_is_moved_by_its_own_noise(kernel: KernelConfig, plan: PlanConfig) -> None:
    trajectory = drawn(asked(kernel=kernel, plan=plan))
    d = trajectory.decisions
    move = replay(LinearPolicy(), trajectory, d).transition
    assert move is not None
    noise = (d.next_Mx - move.mean) / d.std_M.view(-1, 1, 1)
    steps = zip(d.step_M.tolist(), trajectory.seed_N[d.sample_M], strict=True)
    own = torch.cat([noise_for(seed[None], SHAPE, step + 1) for step, seed in steps])
    torch.testing.assert_close(noise, own, rtol=1e-4, atol=1e-4)


def test_another_policy_has_another_ratio() -> None:
    trajectory = drawn(asked())
    other = Condition({"target": trajectory.condition.tensors["target"] + 0.1})
    scored = replay(LinearPolicy(), replace(trajectory, condition=other), trajectory.decisions)
    assert (scored.logp_M - trajectory.decisions.logp_old_M).abs().min() > 1e-4


def test_the_rollout_builds_no_graph() -> None:
    config = asked()
    plan = plan_for(config)
    start = begin(config, plan)
    target = start.condition.tensors["target"].requires_grad_()
    trajectory = rollout(LinearPolicy(), start, SIGMAS, plan, config, keep_means=True, keep_clean=True)
    d = trajectory.decisions
    kept = (trajectory.final_Nx, trajectory.clean_NTx, d.logp_old_M, d.mean_old_Mx, d.change_M)
    assert not any(value.requires_grad for value in kept)
    scored = replay(LinearPolicy(), trajectory, d)
    assert torch.autograd.grad(scored.logp_M.sum(), target)[0].abs().min() > 0


def test_one_stochastic_step_of_one_sample_leaves_the_others_to_the_ode() -> None:
    plan, config = ode_but(row=2, step=3, rows=6), asked()
    start = begin(config, plan)
    got = rollout(LinearPolicy(), start, SIGMAS, plan, config)
    want = sample_ode(LinearPolicy(), start, SIGMAS, GuidanceConfig())
    others = torch.arange(6) != 2
    assert torch.equal(got.final_Nx[others], want[others])
    assert (got.final_Nx[2] - want[2]).abs().max() > 1e-3
    assert taken(got) == [(2, 3, 0)]
    assert int(got.decisions.sample_M) == 2
    assert (plan.draw_NT != ODE).sum() == 1


@given(ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=20) | st.lists(st.integers(0, 3), min_size=1))
@settings(deadline=None, max_examples=50)
def test_first_of_each_names_the_first_row_of_every_id(ids: list[int]) -> None:
    row_U, member_N = first_of_each(torch.tensor(ids))
    assert sorted(row_U.tolist()) == [i for i, value in enumerate(ids) if value not in ids[:i]]
    assert [ids[row] for row in row_U[member_N].tolist()] == ids
