"""The six KL forms: closed values, how they relate, and that each has a gradient; the controller and the gate."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from beholder.config import KernelConfig, KLConfig
from beholder.objectives.regularisers import adapted, gate, transition_kl
from beholder.rollouts.engine import Replay
from beholder.rollouts.kernels import Transition, transition

NAN = math.nan
CLOSED: tuple[Any, ...] = ("exact", "no_dt", "mean", "velocity")
FORMS = (*CLOSED, "k2", "k3")
KERNELS = (("flow_sde", 0.7), ("dance_sde", 0.3), ("cps", 0.8), ("ddim", 0.9))
HERE, THERE = torch.tensor([1.0, 0.8, 0.5]).double(), torch.tensor([0.9, 0.5, 0.45]).double()
every_form = pytest.mark.parametrize("form", FORMS)
every_kernel = pytest.mark.parametrize("kind, level", KERNELS)


def velocities() -> tuple[Tensor, Tensor, Tensor]:
    """A state, the policy's velocity and the reference's, ``[3, 2, 2]``."""
    x, v, gap = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    return x, v, v + 0.1 * gap


def moved(x: Tensor, v: Tensor, kind: Any = "flow_sde", level: float = 0.7) -> Transition:
    return transition(KernelConfig(kind=kind, level=level), x, v, HERE, THERE)


def scored(x: Tensor, v: Tensor, kind: Any = "flow_sde", level: float = 0.7, taken: Tensor | None = None) -> Replay:
    """The decision ``taken``, by default one and a half deviations from where the reference would go."""
    move = moved(x, v, kind, level)
    if taken is None:
        x_ref, _, v_ref = velocities()
        reference = moved(x_ref, v_ref, kind, level)
        taken = reference.mean + 1.5 * reference.std.view(-1, 1, 1)
    return Replay(move, v, move.log_prob_sum(taken))


def divergence(form: Any, v: Tensor, kind: str = "flow_sde", level: float = 0.7) -> Tensor:
    x, _, v_ref = velocities()
    return transition_kl(KLConfig(form=form), scored(x, v, kind, level), scored(x, v_ref, kind, level))


@every_kernel
def test_exact_is_the_kl_of_the_two_gaussians_per_dimension(kind: Any, level: float) -> None:
    x, v, v_ref = velocities()
    moves = [moved(x, value, kind, level) for value in (v, v_ref)]
    gaussians = [Normal(t.mean, t.std.view(-1, 1, 1)) for t in moves]
    want = kl_divergence(*gaussians).mean((1, 2))
    torch.testing.assert_close(divergence("exact", v, kind, level), want, rtol=1e-12, atol=0)


@every_kernel
def test_no_dt_is_the_exact_one_times_dt(kind: Any, level: float) -> None:
    _, v, _ = velocities()
    want = divergence("exact", v, kind, level) * (HERE - THERE)
    torch.testing.assert_close(divergence("no_dt", v, kind, level), want, rtol=1e-12, atol=0)


@every_kernel
def test_exact_is_the_mean_one_over_twice_the_variance(kind: Any, level: float) -> None:
    x, v, _ = velocities()
    variance = moved(x, v, kind, level).std ** 2
    want = divergence("mean", v, kind, level) / (2 * variance)
    torch.testing.assert_close(divergence("exact", v, kind, level), want, rtol=1e-12, atol=0)


def test_mean_and_velocity_are_mean_squares() -> None:
    x, v, v_ref = velocities()
    gap = moved(x, v).mean - moved(x, v_ref).mean
    torch.testing.assert_close(divergence("mean", v), (gap**2).mean((1, 2)))
    torch.testing.assert_close(divergence("velocity", v), ((v - v_ref) ** 2).mean((1, 2)))


@every_kernel
def test_k2_and_k3_are_schulmans_estimates_of_the_mean_log_ratio(kind: Any, level: float) -> None:
    x, v, v_ref = velocities()
    taken = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    policy, reference = (scored(x, value, kind, level, taken) for value in (v, v_ref))
    psi, psi_ref = (
        Normal(move.mean, move.std.view(-1, 1, 1)).log_prob(taken).mean((1, 2))
        for move in (moved(x, v, kind, level), moved(x, v_ref, kind, level))
    )
    d = psi_ref - psi
    assert d.abs().min() > 1e-3
    torch.testing.assert_close(transition_kl(KLConfig(form="k2"), policy, reference), d**2 / 2)
    torch.testing.assert_close(transition_kl(KLConfig(form="k3"), policy, reference), d.exp() - d - 1)


def test_the_weights_of_k2_and_k3_are_those_of_the_table() -> None:
    """w = -∂L/∂ψ: -(ψ - ψ_ref) for k2 and e^{ψ_ref - ψ} - 1 for k3, per dimension."""
    x, v, v_ref = velocities()
    reference, at = scored(x, v_ref), scored(x, v)
    weights: dict[Any, Callable[[Tensor], Tensor]] = {"k2": lambda d: d, "k3": lambda d: d.exp() - 1}
    for form, weight in weights.items():
        psi_M = at.logp_M.clone().requires_grad_()
        transition_kl(KLConfig(form=form), Replay(at.transition, at.velocity, psi_M), reference).sum().backward()
        assert psi_M.grad is not None
        torch.testing.assert_close(-psi_M.grad, weight((reference.logp_M - at.logp_M) / 4) / 4)


def test_k3_of_one_dimension_is_an_unbiased_estimate_of_the_exact_kl_and_k2_is_close() -> None:
    n, kernel = 40000, KernelConfig(kind="dance_sde", level=0.3)
    x, here, there = torch.zeros(n, 1).double(), torch.full((n,), 0.8).double(), torch.full((n,), 0.5).double()
    moves = [transition(kernel, x, torch.full((n, 1), v).double(), here, there) for v in (1.0, 1.1)]
    taken = moves[0].sample(torch.randn(n, 1, generator=torch.Generator().manual_seed(0)).double())
    policy, reference = (Replay(m, x, m.log_prob_sum(taken)) for m in moves)
    exact = transition_kl(KLConfig(form="exact"), policy, reference)[0].item()
    k2, k3 = (transition_kl(KLConfig(form=form), policy, reference) for form in ("k2", "k3"))
    assert exact > 0.01
    assert abs(k3.mean().item() - exact) < 4 * k3.std().item() / n**0.5
    assert k2.mean().item() == pytest.approx(exact, rel=0.1)


@every_kernel
@every_form
def test_it_has_the_gradient_of_its_finite_differences_and_it_is_not_zero(form: Any, kind: Any, level: float) -> None:
    _, v, _ = velocities()
    v.requires_grad_()
    assert torch.autograd.gradcheck(lambda value: divergence(form, value, kind, level), v)
    assert torch.autograd.grad(divergence(form, v, kind, level).sum(), v)[0].abs().min() > 1e-8


@every_form
def test_it_is_zero_at_the_reference_and_positive_elsewhere(form: Any) -> None:
    _, v, v_ref = velocities()
    assert divergence(form, v_ref).abs().max() == 0
    assert divergence(form, v).min() > 0
    assert divergence(form, v).shape == (3,)


@every_form
def test_it_pulls_towards_the_reference(form: Any) -> None:
    x, v, v_ref = velocities()
    taken = moved(x, v_ref).mean

    def total(value: Tensor) -> Tensor:
        config = KLConfig(form=form)
        return transition_kl(config, scored(x, value, taken=taken), scored(x, v_ref, taken=taken)).sum()

    v.requires_grad_()
    gradient = torch.autograd.grad(total(v), v)[0]
    assert (gradient * (v_ref - v)).sum() < 0
    assert total(v.detach() + 1e-3 * (v_ref - v.detach())) < total(v)


@every_form
def test_it_does_not_depend_on_the_number_of_dimensions(form: Any) -> None:
    x, v, v_ref = velocities()
    taken = moved(x, v_ref).mean + 0.3
    narrow, wide = (
        [scored(x.repeat(1, 1, n), y.repeat(1, 1, n), taken=taken.repeat(1, 1, n)) for y in (v, v_ref)] for n in (1, 5)
    )
    torch.testing.assert_close(transition_kl(KLConfig(form=form), *wide), transition_kl(KLConfig(form=form), *narrow))


@pytest.mark.parametrize("form", CLOSED)
def test_closed_forms_do_not_depend_on_the_decision_and_estimates_do(form: Any) -> None:
    x, v, v_ref = velocities()
    forms: dict[Any, bool] = {form: True, "k2": False, "k3": False}
    for name, same in forms.items():
        values = [
            transition_kl(KLConfig(form=name), scored(x, v, taken=taken), scored(x, v_ref, taken=taken))
            for taken in (x, x + 0.5)
        ]
        assert torch.equal(*values) == same


# ---------------------------------------------------------------------------------------------------------- controller


def test_the_controller_by_hand() -> None:
    config = KLConfig(target=0.1, horizon=10.0)
    assert adapted(2.0, 0.11, config) == pytest.approx(2 * 1.01)
    assert adapted(2.0, 0.09, config) == pytest.approx(2 * 0.99)
    assert adapted(2.0, 0.1, config) == 2.0


def test_the_controller_changes_by_a_fifth_over_the_horizon_at_most() -> None:
    config = KLConfig(target=0.1, horizon=4.0)
    assert adapted(1.0, 1e9, config) == pytest.approx(1.05)
    assert adapted(1.0, 0.0, config) == pytest.approx(0.95)


def test_without_a_target_or_a_measurement_nothing_changes() -> None:
    assert adapted(0.3, 5.0, KLConfig()) == 0.3
    for measured in (NAN, math.inf):
        assert adapted(0.3, measured, KLConfig(target=0.1)) == 0.3


def test_the_controller_finds_the_beta_whose_kl_is_the_target() -> None:
    beta, config = 1.0, KLConfig(target=0.05, horizon=2.0)
    for _ in range(200):
        beta = adapted(beta, 1 / beta, config)  # a policy whose KL falls as β rises
    assert 1 / beta == pytest.approx(0.05, rel=1e-3)


# ---------------------------------------------------------------------------------------------------------------- gate


def test_the_gate_holds_the_samples_that_only_the_trained_reward_likes() -> None:
    rewards = torch.tensor([[5.0, 0.1, 0.2], [4.0, 0.9, 0.8], [3.0, 0.8, 0.9], [2.0, 0.2, 0.1], [1.0, 0.7, 0.7]])
    # ranks 4 3 2 1 0 against the means 0.5, 3.5, 3.5, 0.5, 2: disagreements 3.5, -0.5, -1.5, 0.5, -2
    assert gate(rewards, 0.2).tolist() == [1, 0, 0, 0, 0]
    assert gate(rewards, 0.4).tolist() == [1, 0, 0, 1, 0]
    assert gate(rewards, 0.41).tolist() == [1, 1, 0, 1, 0]
    assert gate(rewards, 0.0).tolist() == [0] * 5


def test_the_gate_does_not_depend_on_the_units_of_rewards() -> None:
    rewards = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    units = torch.stack([rewards[:, 0].exp(), 100 * rewards[:, 1] - 7, rewards[:, 2] ** 3], 1)
    assert torch.equal(gate(rewards, 0.3), gate(units, 0.3))
    assert gate(rewards, 0.3).sum() == 6


def test_failed_rewards_rank_lowest() -> None:
    rewards = torch.tensor([[1.0, NAN], [NAN, 1.0], [0.5, 0.5]])
    assert gate(rewards, 0.3).tolist() == [1, 0, 0]  # liked first, failed by the other


def test_the_gate_is_open_for_everybody_without_a_share_or_a_second_opinion() -> None:
    assert gate(torch.randn(4, 3), 1.0).tolist() == [1] * 4
    assert gate(torch.randn(4, 1), 0.2).tolist() == [1] * 4
