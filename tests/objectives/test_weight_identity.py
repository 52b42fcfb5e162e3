"""w = -∂L/∂ψ of every objective against its closed form, written out one decision, pair and list at a time.

The closed forms are those of the weight table in the notes on the literature: what an objective does to a
log-density is that number and nothing else. Those of the preference formula are in a file of their own.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from evidence_by_hand import D, at, evidence, groups_of_paths, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import COMPARING, POINTS, POLICY_GRADIENTS, RECIPES
from torch import Tensor
from weights_by_hand import PREFERENCE_TABLE, Weights

from beholder.config import ObjectiveConfig
from beholder.objectives.evidence import Evidence
from beholder.objectives.policy_gradient import policy_gradient


def ratios(e: Evidence) -> list[float]:
    return [math.exp(v / D) for v in e.log_ratio_M.tolist()]


def decisions(factor: Callable[[float, float, float, ObjectiveConfig], float]) -> Weights:
    """A row of the table for single decisions: A · ``factor(ρ, A, KL per dimension)``, by D and the mean over M."""

    def weights(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
        assert e.gap_M is not None
        moved = [g / (2 * c * c * D) for g, c in zip(e.gap_M.tolist(), e.std_M.tolist(), strict=True)]
        rows = zip(ratios(e), advantage, moved, e.weight_M.tolist(), strict=True)
        return [w * a * factor(rho, a, kl, config) / (D * len(advantage)) for rho, a, kl, w in rows]

    return weights


def reinforce(rho: float, a: float, kl: float, c: ObjectiveConfig) -> float:
    return 1.0


def ppo_clip(rho: float, a: float, kl: float, c: ObjectiveConfig) -> float:
    return 0.0 if (rho > 1 + c.clip_high and a > 0) or (rho < 1 - c.clip_low and a < 0) else rho


def hard_clip(rho: float, a: float, kl: float, c: ObjectiveConfig) -> float:
    return rho if 1 - c.clip_low <= rho <= 1 + c.clip_high else 0.0


def kl_mask(rho: float, a: float, kl: float, c: ObjectiveConfig) -> float:
    return 0.0 if kl >= c.clip_high and (rho - 1) * a > 0 else rho


def guard(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
    """PPO's row with ρ̃ = exp((ψ/D + b) c), whose derivative brings c along."""
    assert e.gap_M is not None
    found = []
    for psi, gap, c, a, w in zip(
        *(v.tolist() for v in (e.log_ratio_M, e.gap_M, e.std_M)), advantage, e.weight_M.tolist(), strict=True
    ):
        rho = math.exp((psi / D + gap / (2 * c**2 * D)) * c)
        found.append(w * a * c * ppo_clip(rho, a, 0.0, config) / (D * len(advantage)))
    return found


def gspo(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
    """PPO's row with one ratio per sample, shared by its K decisions."""
    found, samples = [0.0] * len(advantage), e.sample_M.tolist()
    for n in set(samples):
        mine = [m for m in range(len(samples)) if samples[m] == n]
        rho = math.exp(sum(e.log_ratio_M[m].item() / D for m in mine) / len(mine))
        a = sum(advantage[m] for m in mine) / len(mine)
        weight = sum(e.weight_M[m].item() for m in mine) / len(mine)
        for m in mine:
            found[m] = weight * a * ppo_clip(rho, a, 0.0, config) / (D * len(mine) * len(set(samples)))
    return found


TABLE: dict[str, Weights] = {
    "reinforce": decisions(reinforce),
    "ppo_clip": decisions(ppo_clip),
    "hard_clip": decisions(hard_clip),
    "kl_mask": decisions(kl_mask),
    "guard": guard,
    "gspo": gspo,
    **PREFERENCE_TABLE,
}


def test_the_table_has_a_row_for_every_objective() -> None:
    assert set(TABLE) == set(RECIPES)


@pytest.mark.parametrize("name", TABLE)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    low=st.floats(0.02, 0.4),
    high=st.floats(0.02, 0.4),
    stretch=st.floats(0.2, 3),
    discount=st.floats(0.5, 1),
    uneven=st.booleans(),
)
def test_the_gradient_is_the_weight_of_the_table(
    name: str, seed: int, low: float, high: float, stretch: float, discount: float, uneven: bool
) -> None:
    config = RECIPES[name]
    if name == "SDPO":
        config = replace(config, preference=replace(config.preference, discount=discount))
    config = replace(config, clip_low=low, clip_high=high, temperature=stretch * config.temperature)
    e, value_M = groups_of_paths(prompts=2, samples=3, steps=2, seed=seed)
    if uneven and name in POLICY_GRADIENTS:  # preferences do not take a weight per decision
        weight = 0.5 + torch.rand(len(value_M), generator=torch.Generator().manual_seed(seed)).double()
        e = replace(e, weight_M=weight)
    want = torch.tensor(TABLE[name](e, value_M.tolist(), config), dtype=torch.float64)
    got = outcome(e, value_M, config).weight_M
    # the factor discount^step is rounded to float32
    torch.testing.assert_close(
        got, want, rtol=1e-5 if name == "SDPO" else 1e-8, atol=1e-9 * max(1.0, want.abs().max().item())
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_model_gets_the_gradient_of_the_weighted_evidence(name: str) -> None:
    """∇L = -Σ w ∇ψ with w a number: the objective is a weight per decision and nothing else."""
    config = RECIPES[name]
    e, value_M = groups_of_paths(prompts=2, samples=3, steps=2)
    features = torch.randn(len(value_M), 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta = (0.1 * torch.ones(5, dtype=torch.float64)).requires_grad_()
    psi_M = e.log_ratio_M.detach() + (features @ theta).sin() - (features @ theta).sin().detach()
    weight_M = outcome(e, value_M, config).weight_M
    (want,) = torch.autograd.grad(-(weight_M * psi_M).sum(), theta, retain_graph=True)
    (got,) = torch.autograd.grad(policy_gradient(at(e, psi_M, config), value_M, config)[0], theta)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert got.norm() > 1e-3


@pytest.mark.parametrize("kind", POLICY_GRADIENTS)
def test_a_decision_counts_as_clipped_exactly_where_its_weight_is_zero(kind: str) -> None:
    config, found = replace(RECIPES[kind], clip_low=0.1, clip_high=0.2), []
    for seed in range(10):
        e, value_M = groups_of_paths(seed=seed)
        got = outcome(e, value_M, config)
        assert torch.equal(got.stats.clipped_M, got.weight_M == 0)
        found.append(got.stats.clipped_M.double().mean().item())
    assert (max(found) > 0) == (kind != "reinforce")


def test_a_clip_of_comparisons_is_reported_where_the_weight_is_zero() -> None:
    for name in ("D3PO", "Dense Reward View"):
        e, value_M = groups_of_paths()
        got = outcome(e, value_M, RECIPES[name])
        assert torch.equal(got.stats.clipped_M, got.weight_M == 0) and got.stats.clipped_M.any()


# ------------------------------------------------------------------------------------------- before the first update

FLAT = {"RRHF", "APO-down"}
"""At ρ = 0 nothing is violated, and what is gained over the losers is taken off the winner."""


def before_the_first_update(name: str) -> tuple[Tensor, Tensor]:
    """Weights per dimension and decision, and the values: ``[prompt, sample, step]``."""
    e, value_M = groups_of_paths(prompts=2, samples=4, steps=2, spread=0.0)
    e = evidence(torch.zeros(16), std=e.std_M, step=e.step_M, sample=e.sample_M, group=e.group_M, batch=e.batch)
    got = outcome(e, value_M, RECIPES[name])
    assert not got.stats.clipped_M.any()
    if RECIPES[name].anchor != "none":
        assert got.stats.ratio_M.tolist() == [1.0] * 16
    rate: Tensor = got.weight_M * D * 16 / (e.std_M if name == "guard" else 1.0)
    return rate.view(2, 4, 2), value_M.view(2, 4, 2)


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_before_the_first_update_the_weights_are_those_of_the_plain_policy_gradient(name: str) -> None:
    rate, value = before_the_first_update(name)
    torch.testing.assert_close(rate, value)


@pytest.mark.parametrize("name", sorted(set(COMPARING) - FLAT))
def test_before_the_first_update_comparisons_push_in_the_order_of_the_values(name: str) -> None:
    rate, value = before_the_first_update(name)
    steps = rate.gather(1, value.argsort(1)).diff(dim=1)
    best_and_worst = name == "SPO" and steps[..., 0].sign().tolist() == [[1, 0, 1]] * 2
    assert (steps > 0).all() or best_and_worst
    assert torch.equal(rate[..., 0], rate[..., 1]) or name == "SDPO"  # which discounts
    if not RECIPES[name].preference.sft and name not in {"DGPO", "Diffusion-SDPO"}:
        torch.testing.assert_close(rate.sum(1), torch.zeros(2, 2).double(), atol=1e-12, rtol=0)


def test_before_the_first_update_regressions_push_by_the_distance_from_the_mean() -> None:
    """SDPO and CaPO: 2β (A - mean) of G/2 pairs per sample over G(G-1)/2; CRD: 2β (A - mean). DGPO: ½ β w A."""
    for name, factor in (("CaPO", 4 * 8 / 3), ("CRD", 4.0)):
        rate, value = before_the_first_update(name)
        torch.testing.assert_close(rate, factor * (value - value.mean(1, keepdim=True)))
    rate, value = before_the_first_update("SDPO")
    discounted = torch.tensor([1.0, 0.9]) * (value - value.mean(1, keepdim=True))
    torch.testing.assert_close(rate, 4 * 8 / 3 * discounted, rtol=1e-6, atol=1e-9)
    rate, value = before_the_first_update("DGPO")
    torch.testing.assert_close(rate, 0.5 * value)


@pytest.mark.parametrize("name", POINTS)
def test_before_the_first_update_points_are_pushed_by_their_sign(name: str) -> None:
    rate, value = before_the_first_update(name)
    assert torch.equal(rate.sign(), value.sign())
