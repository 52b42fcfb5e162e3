"""DPM-Solver++ of second order on the straight path against its textbook form, diffusers, and an ODE solved by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from linear_policy import SHAPE, LinearPolicy, asked, begin, drawn, per_sample_step, plan_for
from numpy.typing import NDArray
from torch import Tensor

from beholder.config import BranchConfig, GuidanceConfig, PlanConfig, ProbeConfig, RolloutConfig
from beholder.rollouts.engine import rollout, sample_ode
from beholder.rollouts.plans import ode_plan
from beholder.rollouts.solvers import Solver
from beholder.rollouts.trajectory import Condition, Trajectory

Array = NDArray[np.float64]
Velocity = Callable[[Tensor, Tensor], Tensor]


def textbook(x: Array, velocity: Callable[[Array, float], Array], sigmas: list[float]) -> Array:
    """DPM-Solver++(2M), midpoint form, data prediction, α = 1 - σ; first and last step of first order (float64)."""

    def lam(sigma: float) -> float:
        return math.log((1 - sigma) / sigma) if 0 < sigma < 1 else (math.inf if sigma == 0 else -math.inf)

    data: list[tuple[Array, float]] = []
    for here, there in pairwise(sigmas):
        data.append((x - here * velocity(x, here), here))
        d = data[-1][0]
        if len(data) > 1 and there > 0 and data[-2][1] < 1:
            h, h_0 = lam(there) - lam(here), lam(here) - lam(data[-2][1])
            d = d + 0.5 * h / h_0 * (data[-1][0] - data[-2][0])
        h = lam(there) - lam(here)
        x = there / here * x - (1 - there) * (math.exp(-h) - 1 if here < 1 else -1) * d
    return x


def solve(kind: Literal["euler", "dpm++"], x: Tensor, velocity: Velocity, sigmas: Tensor) -> Tensor:
    solver, rows = Solver(kind, torch.zeros(len(x), len(sigmas) - 1).bool()), torch.arange(len(x))
    for step, (here, there) in enumerate(pairwise(sigmas)):
        now, then = here.to(x.dtype).expand(len(x)), there.to(x.dtype).expand(len(x))
        v = velocity(x, now)
        x = solver.step(x, v, x - now.view(-1, *[1] * (x.ndim - 1)) * v, now, then, rows, step)
    return x


def target_velocity(target_N: Tensor) -> Velocity:
    policy, condition = LinearPolicy(), Condition({"target": target_N})
    return lambda x, sigma: policy.branch(x, sigma, condition)


# ---------------------------------------------------------------------------------------------------- other people's


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [2, 3, 8, 14, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_it_is_the_flow_mode_of_diffusers(steps: int, shift: float) -> None:
    scheduler: Any = DPMSolverMultistepScheduler(
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        flow_shift=shift,
    )
    scheduler.set_timesteps(steps)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    velocity, want = target_velocity(torch.linspace(-1, 1, 4)), x
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        want = scheduler.step(velocity(want, sigma.expand(4)), timestep, want).prev_sample
    assert len(scheduler.sigmas) == steps + 1 and scheduler.sigmas[-1] == 0
    got = solve("dpm++", x, velocity, scheduler.sigmas)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    if steps > 2:
        assert (got - solve("euler", x, velocity, scheduler.sigmas)).abs().max() > 1e-3


@pytest.mark.parametrize("first", [1.0, 0.9])
@pytest.mark.parametrize("last", [0.0, 0.05])
def test_it_is_the_textbook_form(first: float, last: float) -> None:
    """From pure noise the second step has nothing to extrapolate from: its predecessor is infinitely far away."""
    sigmas = torch.linspace(first, last, 9).double()
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    velocity = target_velocity(torch.linspace(-1, 1, 3).double())
    want = textbook(
        x.numpy(),
        lambda x, sigma: velocity(torch.from_numpy(x), torch.full((3,), sigma).double()).numpy(),
        sigmas.tolist(),
    )
    np.testing.assert_allclose(solve("dpm++", x, velocity, sigmas).numpy(), want, rtol=1e-12, atol=1e-12)
    got = solve("dpm++", x.float(), lambda x, s: velocity(x.double(), s.double()).float(), sigmas)
    np.testing.assert_allclose(got.double().numpy(), want, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ convergence


MEAN, SPREAD = 0.8, 0.4


def gaussian_velocity(x: Tensor, sigma_N: Tensor) -> Tensor:
    """E[ε - x0 | x] of data N(MEAN, SPREAD²)."""
    sigma = sigma_N[:, None]
    variance, gap = (1 - sigma) ** 2 * SPREAD**2 + sigma**2, x - (1 - sigma) * MEAN
    return sigma / variance * gap - MEAN - (1 - sigma) * SPREAD**2 / variance * gap


def exact_path(z: Tensor, sigma: float) -> Tensor:
    return (1 - sigma) * MEAN + math.sqrt((1 - sigma) ** 2 * SPREAD**2 + sigma**2) * z


@pytest.mark.parametrize("kind, order", [("euler", 1), ("dpm++", 2)])
def test_the_order_of_convergence_to_an_ode_solved_by_hand(kind: Literal["euler", "dpm++"], order: int) -> None:
    z = torch.linspace(-2, 2, 9).double()[:, None]
    errors = []
    for steps in (32, 64, 128):
        sigmas = torch.linspace(0.95, 0.05, steps + 1).double()
        got = solve(kind, exact_path(z, 0.95), gaussian_velocity, sigmas)
        errors.append((got - exact_path(z, 0.05)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.15)


def test_ten_steps_of_second_order_beat_twenty_of_first() -> None:
    z = torch.linspace(-2, 2, 9).double()[:, None]

    def error(kind: Literal["euler", "dpm++"], steps: int) -> float:
        got = solve(kind, z, gaussian_velocity, torch.linspace(1, 0, steps + 1).double())
        return (got - exact_path(z, 0)).abs().max().item()

    assert error("dpm++", 10) < error("euler", 20)


# ------------------------------------------------------------------------------------------------------ in a rollout

TEN = torch.linspace(1, 0, 11).double()
WINDOW = PlanConfig(kind="window", start=1, size=2)
TAILS = {
    "alone": asked(steps=10, plan=WINDOW),
    "guided": asked(steps=10, plan=WINDOW, guidance=GuidanceConfig(2.5)),
    "fan": asked(steps=10, plan=WINDOW, branch=BranchConfig("fan", width=3)),
    "spurs": asked(steps=10, plan=PlanConfig(kind="window", start=2, size=1), branch=BranchConfig("spurs", width=3)),
    "shared": asked(steps=10, plan=WINDOW, shared_noise=True),
}


def with_tail(config: RolloutConfig, solver: Literal["euler", "dpm++"]) -> RolloutConfig:
    return replace(config, tail_solver=solver)


@pytest.mark.parametrize("config", TAILS.values(), ids=TAILS.keys())
def test_the_tail_of_every_sample_is_solved_from_its_last_stochastic_state(config: RolloutConfig) -> None:
    got = drawn(with_tail(config, "dpm++"), sigmas=TEN)
    policy, start = LinearPolicy(), begin(config, plan_for(config, TEN))
    first = 3

    def velocity(x: Array, sigma: float) -> Array:
        value = torch.from_numpy(x).float()
        sigma_N = torch.full((len(x),), sigma)
        return policy.velocity(value, sigma_N, start.condition, start.unconditional, config.guidance).double().numpy()

    state = got.decisions.next_Mx[got.decision_NT[:, first - 1]].double().numpy()
    want = textbook(state, velocity, TEN[first:].tolist())
    np.testing.assert_allclose(got.final_Nx.double().numpy(), want, rtol=1e-5, atol=1e-5)
    assert (got.final_Nx - drawn(config, sigmas=TEN).final_Nx).abs().max() > 1e-3


@pytest.mark.parametrize("config", TAILS.values(), ids=TAILS.keys())
def test_decisions_and_calls_are_those_of_euler(config: RolloutConfig) -> None:
    second, first = (drawn(with_tail(config, kind), sigmas=TEN) for kind in ("dpm++", "euler"))
    assert second.network_evaluations == first.network_evaluations
    for name in ("state_Mx", "next_Mx", "logp_old_M"):
        assert torch.equal(per_sample_step(second, name), per_sample_step(first, name)), name


def test_no_step_before_the_tail_and_not_its_first_is_of_second_order() -> None:
    """Steps 1 and 2 are stochastic for others, so a greedy probe follows Euler up to the state before step 4."""
    config = asked(steps=10, plan=WINDOW, probe=ProbeConfig("greedy"))
    second, first = (drawn(with_tail(config, kind), sigmas=TEN, keep_clean=True) for kind in ("dpm++", "euler"))
    assert torch.equal(second.clean_NTx[:, :5], first.clean_NTx[:, :5])
    changed = (second.clean_NTx - first.clean_NTx)[second.probe_N == 0].flatten(2).abs().amax(2)
    assert changed[:, 5:].min() > 0


def test_without_a_stochastic_step_in_the_way_the_whole_path_is_of_second_order() -> None:
    """A window at the first step alone leaves nine steps; their end is nearer to the ODE's true one than Euler's."""
    config = asked(steps=10, plan=PlanConfig(kind="window", start=0, size=1))

    def end(kind: Literal["euler", "dpm++"], steps: int) -> Trajectory:
        sigmas = torch.cat([TEN[:1], torch.linspace(0.9, 0, steps).double()])
        return drawn(with_tail(config, kind), sigmas=sigmas)

    true, rough, better = end("euler", 2000).final_Nx, end("euler", 10).final_Nx, end("dpm++", 10).final_Nx
    assert (better - true).abs().max() < 0.3 * (rough - true).abs().max()


def test_deterministic_sampling_is_not_touched_by_the_tail() -> None:
    config = asked(steps=10, plan=WINDOW, tail_solver="dpm++")
    start = begin(config, plan_for(config, TEN))
    velocity = target_velocity(start.condition.tensors["target"])
    want = solve("euler", start.x_Nx, velocity, TEN)
    torch.testing.assert_close(sample_ode(LinearPolicy(), start, TEN, GuidanceConfig()), want)


def test_a_path_without_stochastic_steps_is_of_second_order_throughout() -> None:
    config = asked(steps=10, tail_solver="dpm++")
    plan = ode_plan(config, config.prompts)
    start = begin(config, plan)
    want = solve("dpm++", start.x_Nx, target_velocity(start.condition.tensors["target"]), TEN)
    got = rollout(LinearPolicy(), start, TEN, plan, config).final_Nx
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
