"""DSPO and DiffusionNFT, which see velocities: by hand and by finite differences; D = 8 latent dimensions."""

import math
from dataclasses import replace

import pytest
import torch
from evidence_by_hand import D, evidence
from torch import Tensor

from beholder.config import ObjectiveConfig
from beholder.objectives.evidence import Evidence, ForwardTerms
from beholder.objectives.policy_gradient import policy_gradient, scope

NAN = math.nan


# --------------------------------------------------------------------------------------------------------------- DSPO


def dspo(beta: float) -> ObjectiveConfig:
    return ObjectiveConfig(kind="dspo", temperature=beta)


def drawn(m: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Velocities of the policy, with gradient, of the reference and of the targets, ``[m, 2, D / 2]``."""
    generator = torch.Generator().manual_seed(seed)
    target, noise, drift = torch.randn(3, m, 2, D // 2, generator=generator, dtype=torch.float64)
    reference = target + 0.5 * noise
    return (reference + 0.3 * drift).requires_grad_(), reference, target


def seen(velocity: Tensor, reference: Tensor, target: Tensor, group: list[int] | None = None) -> Evidence:
    """ψ/D = -½ mean (v - u)², compared with the reference."""
    psi_M, ref_M = (-0.5 * (v - target).square().flatten(1).sum(1) for v in (velocity, reference))
    e = evidence([0.0] * len(velocity), group=group)
    forward = ForwardTerms(velocity, velocity[:, :0], reference, target, torch.full((len(velocity),), 0.5).double())
    return replace(e, log_ratio_M=psi_M - ref_M, logp_M=psi_M, forward=forward)


def dspo_of(velocity: Tensor, reference: Tensor, target: Tensor, value: list[float], beta: float = 5.0) -> Tensor:
    group = [m // 2 for m in range(len(value))] if len(value) % 2 == 0 else None
    e = seen(velocity, reference, target, group)
    return policy_gradient(e, torch.tensor(value, dtype=torch.float64), dspo(beta))[0]


def test_dspo_by_hand() -> None:
    """mean ((v - u) - β/D σ(-x) (v - v_ref))² of the winners; the second prompt's comes second."""
    velocity, reference, target = drawn(4)
    want = 0.0
    for won, lost in ((0, 1), (3, 2)):
        rho = [
            -0.5 * ((velocity[m] - target[m]).square().mean() - (reference[m] - target[m]).square().mean()).item()
            for m in (won, lost)
        ]
        share = 5.0 / D / (1 + math.exp(5.0 * (rho[0] - rho[1])))
        residual = (velocity - target)[won] - share * (velocity - reference)[won]
        want += residual.square().mean().item() / 2
    assert dspo_of(velocity, reference, target, [1.0, 0.0, -2.0, 0.5]).item() == pytest.approx(want, rel=1e-12)


def test_dspo_of_the_released_temperature_is_fine_tuning_on_winners() -> None:
    """β = 0.001: the correction is next to nothing of the drift, and losers get nothing at all."""
    velocity, reference, target = drawn(6)
    (got,) = torch.autograd.grad(dspo_of(velocity, reference, target, [1.0, 0.0] * 3, beta=0.001), velocity)
    (sft,) = torch.autograd.grad((velocity - target)[0::2].square().flatten(1).mean(1).mean(), velocity)
    cosine = (got * sft).sum() / (got.norm() * sft.norm())
    assert cosine > 0.9999
    assert got[1::2].eq(0).all()
    (strong,) = torch.autograd.grad(dspo_of(velocity, reference, target, [1.0, 0.0] * 3, beta=8.0), velocity)
    assert (strong * sft).sum() / (strong.norm() * sft.norm()) < 0.999


def test_dspos_correction_is_the_gradient_of_the_preference() -> None:
    """σ(-x) ∇x along the winner's score, in a world where scores are known.

    Densities N(m, I): log p = -‖y - m‖²/2, scores m - y. With ψ = log p the winner's score plus ∇ log σ(x) is
    (m* - y) + (β/D) σ(-x) (m - m_ref): what is subtracted from v - u, for scores instead of velocities.
    """
    beta, (y_w, y_l, mean, ref) = 4.0, torch.randn(4, D, generator=torch.Generator().manual_seed(5)).double()
    y = y_w.clone().requires_grad_()

    def rho(at: Tensor) -> Tensor:
        return 0.5 * ((at - ref).square().sum() - (at - mean).square().sum()) / D

    x = beta * (rho(y) - rho(y_l))
    (want,) = torch.autograd.grad(torch.nn.functional.logsigmoid(x), y)
    torch.testing.assert_close(beta / D * torch.sigmoid(-x).detach() * (mean - ref), want)
    velocity, target = torch.stack([mean - y_w, mean - y_l]), torch.zeros(2, D).double()
    e = seen(velocity, torch.stack([ref - y_w, ref - y_l]), target)
    got, _ = policy_gradient(e, torch.tensor([1.0, 0.0]).double(), dspo(beta))
    assert got.item() == pytest.approx((mean - y_w - want).square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("beta", [0.001, 1.0, D, 3 * D])
def test_dspos_pull_at_the_reference_shrinks_with_its_temperature(beta: float) -> None:
    """1 - β/2D of imitation's, x being 0: beyond 2D it would push the winner away."""
    _, reference, target = drawn(2)
    velocity = reference.clone().requires_grad_()
    (got,) = torch.autograd.grad(dspo_of(velocity, reference, target, [1.0, 0.0], beta), velocity)
    torch.testing.assert_close(got[0], (1 - beta / (2 * D)) * 2 * (reference - target)[0] / D)


def test_dspos_gradient_holds_the_preference() -> None:
    """Finite differences with x as it was."""
    velocity, reference, target = drawn(2)
    e = seen(velocity, reference, target)

    def loss(v: Tensor) -> Tensor:
        assert e.forward is not None
        moved = replace(e, forward=replace(e.forward, velocity=v))
        return policy_gradient(moved, torch.tensor([1.0, 0.0]).double(), dspo(2.0))[0]

    assert torch.autograd.gradcheck(loss, velocity.detach().clone().requires_grad_())


def test_dspo_takes_the_best_and_the_worst_of_a_group_and_leaves_failures_out() -> None:
    velocity, reference, target = drawn(5)
    whole = dspo_of(velocity, reference, target, [0.5, 2.0, NAN, -1.0, 0.0])
    pair = dspo_of(velocity[[1, 3]], reference[[1, 3]], target[[1, 3]], [2.0, -1.0])
    assert whole.item() == pytest.approx(pair.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(whole, velocity)
    assert [bool(g.abs().max() > 0) for g in gradient] == [False, True, False, False, False]


@pytest.mark.parametrize("value", [[1.0, 1.0], [NAN, 1.0], [1.0, NAN], [NAN, NAN]])
def test_dspo_learns_nothing_from_a_tie_or_a_failure(value: list[float]) -> None:
    velocity, reference, target = drawn(2)
    loss = dspo_of(velocity, reference, target, value)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, velocity)
    assert gradient.eq(0).all()


def test_dspo_compares_a_prompts_samples() -> None:
    assert scope(dspo(1.0)) == "group"


def test_dspo_moves_towards_what_wins() -> None:
    """A constant velocity, targets around 0, and the nearer of two to the optimum wins."""
    optimum, generator = torch.full((D,), 0.7).double(), torch.Generator().manual_seed(0)
    v = torch.zeros(D, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([v], lr=0.02)
    for _ in range(150):
        target = v.detach() + 0.5 * torch.randn(64, D, generator=generator, dtype=torch.float64)
        value = -(target - optimum).square().sum(1)
        optimiser.zero_grad()
        e = seen(v.expand(64, D), v.detach().expand(64, D), target, [m // 2 for m in range(64)])
        policy_gradient(e, value, dspo(0.1))[0].backward()
        optimiser.step()
    assert (v - optimum).norm() < 0.15 * optimum.norm()


# ---------------------------------------------------------------------------------------------------------------- NFT


def terms(velocity: Tensor) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    old, target = (torch.randn(velocity.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.2, 0.9, len(velocity), dtype=torch.float64)
    e = evidence([0.0] * len(velocity))
    return Evidence(**{**vars(e), "forward": ForwardTerms(velocity, old, None, target, t)})


NFT = ObjectiveConfig(kind="nft", temperature=0.7, advantage_limit=5.0)
ADVANTAGE = torch.tensor([5.0, -5.0, 1.0, 9.0], dtype=torch.float64)


def test_nft_against_the_error_of_the_clean_prediction() -> None:
    """The paper's form: x̂0 from v± at x_t, compared with x0, normalised by its own mean absolute error."""
    v = torch.randn(4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    e = terms(v)
    f = e.forward
    assert f is not None
    x0 = torch.randn(4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x_t = x0 + f.t_M[:, None] * f.target  # (1-t) x0 + t ε with ε = x0 + u

    def normalised(velocity: Tensor) -> Tensor:
        error = x_t - f.t_M[:, None] * velocity - x0
        return error.square().mean(1) / error.abs().mean(1).clamp_min(1e-5)

    r = (ADVANTAGE.clamp(-5, 5) / 5 / 2 + 0.5).clamp(0, 1)
    up, down = 0.7 * v + 0.3 * f.velocity_old, 1.7 * f.velocity_old - 0.7 * v
    want = ((r * normalised(up) + (1 - r) * normalised(down)) / 0.7 * 5).mean()
    assert policy_gradient(e, ADVANTAGE, NFT)[0].item() == pytest.approx(want.item(), rel=1e-12)


def test_nft_pulls_to_good_targets_and_from_bad_ones() -> None:
    """At v = v_old the pull of r = 1 and the push of r = 0 are opposite, and r = ½ stays where it is."""
    old = terms(torch.zeros(3, D, dtype=torch.float64)).forward
    assert old is not None
    v = old.velocity_old.clone().requires_grad_()
    e = terms(v)
    advantage = torch.tensor([5.0, -5.0, 0.0], dtype=torch.float64)
    policy_gradient(e, advantage, NFT)[0].backward()
    toward = (old.target - old.velocity_old) * v.grad
    assert (toward[0] <= 0).all() and (toward[0] < 0).any()  # descending moves v towards the target
    assert (toward[1] >= 0).all() and (toward[1] > 0).any()
    assert v.grad[2].abs().max() < 1e-15


def test_nft_counts_a_failed_sample_for_nothing() -> None:
    v = torch.randn(2, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    policy_gradient(terms(v), torch.tensor([float("nan"), 2.0], dtype=torch.float64), NFT)[0].backward()
    assert (v.grad[0] == 0).all()
    assert (v.grad[1] != 0).any()
