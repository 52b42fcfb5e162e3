"""Diffusion-SDPO's safeguard: its factor by hand, and that the winners' error does not rise to first order."""

import math
from dataclasses import replace

import pytest
import torch
from evidence_by_hand import D, double, evidence, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import preference_of
from torch import Tensor

from beholder.config import ObjectiveConfig
from beholder.objectives.evidence import BatchStatistics, Evidence, ForwardTerms
from beholder.objectives.policy_gradient import policy_gradient
from beholder.objectives.preference import losers, output_products, safeguard_factor, safeguarded


def of_velocities(velocity: Tensor, target: Tensor, reference: Tensor | None = None) -> Evidence:
    """Pairs (2i, 2i+1) re-noised once, ψ/D = -½ mean (v - u)²; the reference is the policy unless given."""
    m = len(velocity)
    reference = velocity.detach() if reference is None else reference
    psi_M, anchor_M = (-0.5 * (v - target).square().sum(1) for v in (velocity, reference))
    e = evidence([0.0] * m, group=torch.arange(m) // 2)
    forward = ForwardTerms(velocity, velocity[:, :0], reference, target, torch.full((m,), 0.5).double())
    return replace(e, log_ratio_M=psi_M - anchor_M, logp_M=psi_M, forward=forward)


def measured(e: Evidence, value_M: Tensor, mu: float) -> Evidence:
    factor = safeguard_factor(*output_products(e, value_M), mu)
    return replace(e, batch=BatchStatistics(0.0, 0.0, factor))


# ------------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("squared", "product", "mu", "factor"),
    [
        (4.0, 8.0, 0.9, 0.05),
        (4.0, 8.0, 0.0, 0.5),
        (4.0, 2.0, 0.0, 1.0),  # no more than whole
        (4.0, 8.0, 1.0, 0.0),
        (4.0, -8.0, 0.9, 1.0),  # pushing the loser away does not hurt the winner
        (4.0, 0.0, 0.9, 1.0),
        (0.0, 0.0, 0.9, 1.0),
    ],
)
def test_the_factor_by_hand(squared: float, product: float, mu: float, factor: float) -> None:
    assert safeguard_factor(squared, product, mu) == pytest.approx(factor)


def test_the_products_by_hand_are_of_clear_pairs() -> None:
    """g = 2 (v - u); the second prompt's winner comes second, the third is a tie, the fourth failed."""
    residual = torch.zeros(8, D, dtype=torch.float64)
    residual[0, :2], residual[1, :2] = double([1.0, 2.0]), double([3.0, -1.0])
    residual[2, :2], residual[3, :2] = double([0.5, 0.0]), double([-2.0, 1.0])
    residual[4:] = 9.0
    e = of_velocities(residual, torch.zeros_like(residual))
    value = double([1.0, 0.0, -1.0, 2.0, 5.0, 5.0, math.nan, 1.0])
    squared, product = output_products(e, value)
    assert squared == pytest.approx(4 * (1 + 4) + 4 * (4 + 1))
    assert product == pytest.approx(4 * (3 - 2) + 4 * -1)
    assert losers(e, value)[:4].tolist() == [False, True, True, False]


def test_values_stay_and_the_losers_gradient_is_scaled() -> None:
    value, plain, guarded = [1.0, 0.0, -1.0, 2.0], preference_of(), preference_of(safeguard=0.9)
    e = evidence([0.3, -0.2, 0.1, 0.4], group=[0, 0, 1, 1], batch=BatchStatistics(0.0, 0.0, 0.25))
    one, two = outcome(e, value, plain), outcome(e, value, guarded)
    assert one.loss == pytest.approx(two.loss, rel=1e-15)
    torch.testing.assert_close(two.weight_M, one.weight_M * double([1, 0.25, 0.25, 1]))
    rho = e.log_ratio_M / D
    assert torch.equal(safeguarded(e, rho, double(value)), rho)


# --------------------------------------------------------------------------------------------------------- first order


def winners_error(velocity: Tensor, target: Tensor) -> Tensor:
    return (velocity - target)[0::2].square().sum()


def shared_shifts(seed: int, pairs: int, pull: float) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, targets and a shift that the two samples of a pair share: what moves one output moves the other.

    The losers' residuals are ``pull`` times the winners', and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    base, noise = torch.randn(2, 2 * pairs, D, generator=generator, dtype=torch.float64)
    residual = noise.clone()
    residual[1::2] = pull * noise[0::2] + 0.3 * noise[1::2]
    return base, base - residual, torch.zeros(pairs, D, dtype=torch.float64, requires_grad=True)


def gradients(
    base: Tensor, target: Tensor, shift: Tensor, config: ObjectiveConfig, mu: float | None
) -> tuple[Tensor, Tensor, Evidence]:
    """Of the winners' error and of the loss, in the shift."""
    velocity = base + shift.repeat_interleave(2, 0)
    e, value_M = of_velocities(velocity, target), double([1.0, -1.0] * len(shift))
    if mu is not None:
        e = measured(e, value_M, mu)
    (error,) = torch.autograd.grad(winners_error(velocity, target), shift, retain_graph=True)
    (loss,) = torch.autograd.grad(policy_gradient(e, value_M, config)[0], shift)
    return error, loss, e


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    pairs=st.integers(1, 4),
    pull=st.floats(-3, 6),
    mu=st.sampled_from([0.0, 0.2, 0.6, 0.9]),
)
def test_the_winners_error_does_not_rise_to_first_order(seed: int, pairs: int, pull: float, mu: float) -> None:
    """-⟨∇E_w, ∇L⟩ is the slope of the winners' error along a step; it keeps at least the share μ of imitation's."""
    base, target, shift = shared_shifts(seed, pairs, pull)
    error, loss, _ = gradients(base, target, shift, preference_of(1.0, safeguard=mu), mu)
    imitation = error / (4 * D * pairs)  # the gradient with the losers held
    assert (error * loss).sum() >= mu * (error * imitation).sum() - 1e-9


def test_one_small_step_lowers_the_winners_error_where_plain_dpo_raises_it() -> None:
    base, target, shift = shared_shifts(seed=0, pairs=3, pull=4.0)
    before = winners_error(base, target).item()
    after = {}
    for mu in (None, 0.6):
        config = preference_of(1.0, safeguard=mu)
        _, loss, e = gradients(base, target, shift, config, mu)
        after[mu] = winners_error(base - 1e-3 * loss.repeat_interleave(2, 0), target).item()
        assert mu is None or (e.batch is not None and 0 < e.batch.safeguard < 0.2)
    assert after[0.6] < before < after[None]


def test_a_full_safeguard_is_imitation_of_the_winners() -> None:
    """μ = 1 leaves the losers no gradient."""
    base, target, shift = shared_shifts(seed=1, pairs=2, pull=2.0)
    error, loss, _ = gradients(base, target, shift, preference_of(1.0, safeguard=1.0), 1.0)
    torch.testing.assert_close(loss, error / (4 * D * 2))


def test_losers_that_do_not_pull_along_are_left_alone() -> None:
    base, target, shift = shared_shifts(seed=2, pairs=2, pull=-3.0)
    _, guarded, _ = gradients(base, target, shift, preference_of(1.0, safeguard=0.9), 0.9)
    _, plain, _ = gradients(base, target, shift, preference_of(1.0), None)
    assert torch.equal(guarded, plain)
