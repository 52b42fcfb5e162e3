"""The four KL conventions: closed forms, how they relate, and that each has a gradient."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from beholder.config import KernelConfig, KLConfig
from beholder.objectives.regularisers import transition_kl
from beholder.rollouts.kernels import Transition, transition

FORMS = ("exact", "no_dt", "mean", "velocity")
KERNELS = (("flow_sde", 0.7), ("dance_sde", 0.3), ("cps", 0.8))
HERE, THERE = torch.tensor([1.0, 0.8, 0.5]).double(), torch.tensor([0.9, 0.5, 0.45]).double()
every_form = pytest.mark.parametrize("form", FORMS)
every_kernel = pytest.mark.parametrize("kind, level", KERNELS)


def velocities() -> tuple[Tensor, Tensor, Tensor]:
    """A state, the policy's velocity and the reference's, ``[3, 2, 2]``."""
    x, v, gap = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    return x, v, v + 0.1 * gap


def moved(x: Tensor, v: Tensor, kind: str = "flow_sde", level: float = 0.7) -> Transition:
    return transition(KernelConfig(kind=kind, level=level), x, v, HERE, THERE)


def divergence(form: str, v: Tensor, kind: str = "flow_sde", level: float = 0.7) -> Tensor:
    x, _, v_ref = velocities()
    return transition_kl(KLConfig(form=form), moved(x, v, kind, level), v, moved(x, v_ref, kind, level), v_ref)


@every_kernel
def test_exact_is_the_kl_of_the_two_gaussians_per_dimension(kind: str, level: float) -> None:
    x, v, v_ref = velocities()
    gaussians = [Normal(t.mean, t.std.view(-1, 1, 1)) for t in (moved(x, v, kind, level), moved(x, v_ref, kind, level))]
    want = kl_divergence(*gaussians).mean((1, 2))
    torch.testing.assert_close(divergence("exact", v, kind, level), want, rtol=1e-12, atol=0)


@every_kernel
def test_no_dt_is_the_exact_one_times_dt(kind: str, level: float) -> None:
    _, v, _ = velocities()
    want = divergence("exact", v, kind, level) * (HERE - THERE)
    torch.testing.assert_close(divergence("no_dt", v, kind, level), want, rtol=1e-12, atol=0)


@every_kernel
def test_exact_is_the_mean_one_over_twice_the_variance(kind: str, level: float) -> None:
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
@every_form
def test_it_has_the_gradient_of_its_finite_differences_and_it_is_not_zero(form: str, kind: str, level: float) -> None:
    _, v, _ = velocities()
    v.requires_grad_()
    assert torch.autograd.gradcheck(lambda value: divergence(form, value, kind, level), v)
    assert torch.autograd.grad(divergence(form, v, kind, level).sum(), v)[0].abs().min() > 1e-8


@every_form
def test_it_is_zero_at_the_reference_and_positive_elsewhere(form: str) -> None:
    _, v, v_ref = velocities()
    assert divergence(form, v_ref).abs().max() == 0
    assert divergence(form, v).min() > 0
    assert divergence(form, v).shape == (3,)


@every_form
def test_it_pulls_towards_the_reference(form: str) -> None:
    _, v, v_ref = velocities()
    v.requires_grad_()
    before = divergence(form, v).sum()
    gradient = torch.autograd.grad(before, v)[0]
    assert (gradient * (v_ref - v)).sum() < 0
    assert divergence(form, v.detach() + 1e-3 * (v_ref - v.detach())).sum() < before


@every_form
def test_it_does_not_depend_on_the_number_of_dimensions(form: str) -> None:
    x, v, v_ref = (value.repeat(1, 1, 5) for value in velocities())
    wide = transition_kl(KLConfig(form=form), moved(x, v), v, moved(x, v_ref), v_ref)
    torch.testing.assert_close(wide, divergence(form, velocities()[1]))
