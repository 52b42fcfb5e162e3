"""Evidence from re-noised clean samples: what is drawn, what it is worth, and that replaying it changes nothing."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from linear_policy import SHAPE, SIGMAS, STEPS, LinearPolicy, asked, begin

from beholder.config import ForwardConfig
from beholder.rollouts.engine import replay, rollout, sample_ode
from beholder.rollouts.forward import draw_times, with_forward_decisions
from beholder.rollouts.kernels import denoising_evidence
from beholder.rollouts.plans import ode_plan
from beholder.rollouts.trajectory import Trajectory

P, G = 2, 3
N = P * G
CONFIG = asked(prompts=P, group=G)


def drawn(policy: LinearPolicy, **forward: Any) -> Trajectory:
    plan = ode_plan(CONFIG, P)
    trajectory = rollout(policy, begin(CONFIG, plan), SIGMAS, plan, CONFIG)
    config = ForwardConfig(times=2, **forward)
    key_N = trajectory.group_N if config.shared else trajectory.seed_N
    return with_forward_decisions(policy, trajectory, config, SIGMAS, 4, key_N)


def test_samples_are_the_odes_and_every_decision_is_one_of_theirs() -> None:
    policy = LinearPolicy()
    trajectory = drawn(policy, time="uniform")
    d = trajectory.decisions
    start = begin(CONFIG, ode_plan(CONFIG, P))
    assert torch.equal(trajectory.final_Nx, sample_ode(policy, start, SIGMAS, trajectory.guidance))
    assert trajectory.decision_NT.tolist() == [[n, N + n] for n in range(N)]
    assert d.sample_M.tolist() == [*range(N), *range(N)]
    assert trajectory.network_evaluations == N * STEPS + N * 2
    noise = d.next_Mx + trajectory.final_Nx[d.sample_M]  # u = ε - x0
    t = d.sigma_M.view(-1, 1, 1)
    assert torch.allclose(d.state_Mx, (1 - t) * trajectory.final_Nx[d.sample_M] + t * noise, atol=1e-6)
    assert 0.6 < noise.std() < 1.4
    assert len({tuple(row.flatten().tolist()) for row in noise}) == 2 * N


def test_replay_before_an_update_has_ratio_one() -> None:
    policy = LinearPolicy()
    for weight in ("half", "flow_dpo", "uniform", "t", "t2", "huber", "ghuber"):
        trajectory = drawn(policy, weight=weight)
        again = replay(policy, trajectory, trajectory.decisions)
        assert again.transition is None
        assert torch.equal(again.logp_M, trajectory.decisions.logp_old_M)
        assert torch.equal(again.velocity, trajectory.decisions.mean_old_Mx)


def test_shared_noise_and_times_belong_to_the_prompt() -> None:
    trajectory = drawn(LinearPolicy(), time="logit_normal", shared=True)
    d = trajectory.decisions
    noise = (d.next_Mx + trajectory.final_Nx[d.sample_M]).view(2, P, G, *SHAPE)
    t = d.sigma_M.view(2, P, G)
    assert torch.allclose(noise, noise[:, :, :1].expand_as(noise), atol=1e-5)
    assert (t == t[:, :, :1]).all()
    assert len(t[:, :, 0].unique()) == 2 * P


def test_times_of_the_schedule_do_not_repeat_and_leave_out_the_lowest() -> None:
    config = ForwardConfig(times=4, time="schedule", fraction=0.8)
    times = draw_times(config, SIGMAS, torch.arange(50))
    assert all(sorted(row) == sorted(SIGMAS[:4].float().tolist()) for row in times.tolist())
    assert len({tuple(row) for row in times.tolist()}) > 10
    assert torch.equal(times, draw_times(config, SIGMAS, torch.arange(50)))


@pytest.mark.parametrize(("time", "mean", "variance"), [("uniform", 0.5, 1 / 12), ("logit_normal", 0.5, 0.0433)])
def test_times_of_a_distribution(time: Any, mean: float, variance: float) -> None:
    times = draw_times(ForwardConfig(times=4, time=time), SIGMAS, torch.arange(4000))
    assert times.mean().item() == pytest.approx(mean, abs=0.01)
    assert times.var().item() == pytest.approx(variance, rel=0.05)
    assert ((times > 0) & (times < 1)).all()


def test_evidence_by_hand() -> None:
    error, t = torch.tensor([0.04]).double(), torch.tensor([0.25]).double()
    want = {
        "half": -0.02,
        "flow_dpo": -0.5 * 0.5625 * 0.04,
        "uniform": -0.04,
        "t": -0.01,
        "t2": -0.0025,
        "huber": -(0.2 - 1e-5) * 0.25,
        "ghuber": -((0.04 + 1e-10) ** 0.25 - 1e-10**0.25) * 0.25 / 0.25,
    }
    for weight, value in want.items():
        assert denoising_evidence(weight, error, t).item() == pytest.approx(value, rel=1e-6)


def test_evidence_falls_with_the_error() -> None:
    errors = torch.linspace(0, 2, 20).double()
    for weight in ("half", "flow_dpo", "uniform", "t", "t2", "huber", "ghuber"):
        values = denoising_evidence(weight, errors, torch.full_like(errors, 0.4)).tolist()
        assert all(a > b for a, b in pairwise(values))
        assert values[0] == pytest.approx(0, abs=1e-5)


# -------------------------------------------------------------------------------------------------- inversion


def test_inversion_finds_the_noise_that_leads_to_the_sample() -> None:
    """Forwards from the found noise, the policy's own ODE comes by the state at t and arrives at the sample."""
    policy = LinearPolicy()
    fine = torch.linspace(1, 0, 4001).double()
    plan = ode_plan(CONFIG, P)
    trajectory = rollout(policy, begin(CONFIG, plan), SIGMAS, plan, CONFIG)
    config = ForwardConfig(times=1, inversion=400, eta=0.0, time="uniform")
    made = with_forward_decisions(policy, trajectory, config, SIGMAS, 64, trajectory.seed_N, old=False)
    d = made.decisions
    for n in range(N):
        x, t = d.state_Mx[n : n + 1], float(d.sigma_M[n])
        levels = torch.cat([torch.tensor([t], dtype=torch.float64), fine[fine < t]])
        condition = trajectory.condition.select(torch.tensor([n]))
        for here, there in pairwise(levels.tolist()):
            x = x + (there - here) * policy.velocity(x, torch.tensor([here]), condition, None, trajectory.guidance)
        assert torch.allclose(x[0], trajectory.final_Nx[n], atol=2e-2)


def test_fresh_noise_enters_the_inversion_by_its_share() -> None:
    policy, plan = LinearPolicy(), ode_plan(CONFIG, P)
    trajectory = rollout(policy, begin(CONFIG, plan), SIGMAS, plan, CONFIG)

    def found(eta: float, key: torch.Tensor) -> torch.Tensor:
        config = ForwardConfig(times=1, inversion=5, eta=eta)
        return with_forward_decisions(policy, trajectory, config, SIGMAS, 64, key, old=False).decisions.state_Mx

    other = trajectory.seed_N + 99
    assert torch.equal(found(0.0, trajectory.seed_N), found(0.0, trajectory.seed_N))
    near, far = ((found(eta, trajectory.seed_N) - found(0.0, trajectory.seed_N)).norm() for eta in (0.1, 0.5))
    assert 0 < near < far
    assert not torch.equal(found(0.5, trajectory.seed_N), found(0.5, other))
