"""How the preference losses are related: one setting of one formula is another's."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from evidence_by_hand import MEASURED, D, double, evidence, groups_of_paths, outcome, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import PAIRS, PREFERENCES, preference_of

from beholder.config import ObjectiveConfig

UNANCHORED = [
    name
    for name in PAIRS
    if not (PREFERENCES[name].preference.sft or PREFERENCES[name].preference.down) and name != "Diffusion-SDPO"
]
"""Pairs of which nothing but the difference of their utilities counts."""


def same(one: ObjectiveConfig, other: ObjectiveConfig, scale: float = 1.0, **groups: Any) -> None:
    """Values and weights of ``one`` are ``scale`` times those of ``other``."""
    for seed in range(3):
        e, value_M = groups_of_paths(seed=seed, **groups)
        got, want = outcome(e, value_M, one), outcome(e, value_M, other)
        assert got.loss == pytest.approx(scale * want.loss, rel=1e-12)
        torch.testing.assert_close(got.weight_M, scale * want.weight_M, rtol=1e-9, atol=1e-13)
        assert want.weight_M.abs().max() > 1e-6


# -------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("name", UNANCHORED)
@settings(deadline=None, max_examples=20)
@given(rho=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)), gap=st.floats(0.1, 2))
def test_swapping_a_pairs_labels_flips_the_sign_of_its_margin(name: str, rho: tuple[float, float], gap: float) -> None:
    """The other's win on this evidence is this one's win on the other's evidence."""
    config = PREFERENCES[name]
    swapped = outcome(evidence(rho), [-gap / 2, gap / 2], config)
    mirrored = outcome(evidence(rho[::-1]), [gap / 2, -gap / 2], config)
    assert swapped.loss == pytest.approx(mirrored.loss, rel=1e-12)
    torch.testing.assert_close(swapped.weight_M, mirrored.weight_M.flip(0))


@pytest.mark.parametrize("name", [n for n in UNANCHORED if PREFERENCES[n].preference.utility == "identity"])
def test_a_shift_of_both_log_ratios_changes_no_pair(name: str) -> None:
    """What is common to both samples, hence every anchor that does not depend on the sample, cancels."""
    one, two = (outcome(evidence([0.3 + c, -0.2 + c]), [0.5, -0.2], PREFERENCES[name]) for c in (0.0, -0.4))
    assert one.loss == pytest.approx(two.loss, rel=1e-12)
    torch.testing.assert_close(one.weight_M, two.weight_M)


def test_without_a_reference_dpo_is_dpo_to_a_reference_that_says_the_same_of_all() -> None:
    same(preference_of(anchor="none"), preference_of())


@pytest.mark.parametrize("link", ["logistic", "robust", "square", "reverse_kl"])
def test_sure_soft_labels_are_hard_ones(link: str) -> None:
    e = evidence([0.3, -0.2, 0.1])
    hard, soft = (preference_of(link=link, smoothing=0.05, label=label) for label in ("hard", "soft"))
    for value in ([1.0, -1.0, math.nan], [math.nan, -1.0, 1.0]):
        one, two = outcome(e, value, hard), outcome(e, value, soft)
        assert one.loss == two.loss and torch.equal(one.weight_M, two.weight_M)


@pytest.mark.parametrize("link", ["logistic", "square", "reverse_kl"])
@pytest.mark.parametrize("gap", [0.7, -0.7])
def test_split_votes_pull_the_margin_to_zero(link: str, gap: float) -> None:
    config = preference_of(link=link, smoothing=0.05, label="soft")
    got = outcome(evidence([gap, 0.0]), [0.0, 0.0], config)
    assert got.weight_M[0].sign() == -math.copysign(1, gap) and got.weight_M.sum() == 0
    assert outcome(evidence([0.2, 0.2]), [0.0, 0.0], config).weight_M.abs().max() < 1e-15


def test_no_smoothing_is_dpo() -> None:
    same(preference_of(smoothing=0.0), preference_of())
    same(preference_of(link="robust", smoothing=0.0), preference_of())


def test_wide_bradley_terry_gaps_are_hard_labels() -> None:
    e, value_M = groups_of_paths()
    sure = outcome(e, 1e6 * value_M, preference_of(label="bradley_terry"))
    assert sure.loss == pytest.approx(outcome(e, value_M, preference_of()).loss)


# ----------------------------------------------------------------------------------------------------- between shapes


def test_a_list_of_two_is_a_pair() -> None:
    same(preference_of(contrast="list"), preference_of(), samples=2)
    same(preference_of(contrast="list", over="sample"), preference_of(over="sample"), samples=2)


@pytest.mark.parametrize("over", ["decision", "sample"])
def test_ties_of_a_list_stand_in_the_order_of_their_samples(over: str) -> None:
    """However the decisions are ordered."""
    e, _ = groups_of_paths(prompts=1, samples=4, steps=2)
    value_M, config = torch.tensor([1.0, 2.0, 1.0, 2.0])[e.sample_M], preference_of(contrast="list", over=over)
    plain, order = outcome(e, value_M, config), torch.tensor([7, 2, 5, 0, 3, 6, 1, 4])
    shuffled = outcome(rows(e, order), value_M[order], config)
    assert shuffled.loss == pytest.approx(plain.loss, rel=1e-12)
    torch.testing.assert_close(shuffled.weight_M, plain.weight_M[order])


def test_pro_of_two_is_dpo_with_the_gap_as_temperature() -> None:
    """-log [e^{s₁T} / (e^{s₁T} + e^{s₂T})] with T = r₁ - r₂."""
    e, gap = evidence([0.3, -0.2]), 1.7
    pro = outcome(e, [gap, 0.0], preference_of(1.0, contrast="list", label="soft"))
    dpo = outcome(e, [gap, 0.0], preference_of(gap))
    assert pro.loss == pytest.approx(dpo.loss)
    torch.testing.assert_close(pro.weight_M, dpo.weight_M)


def test_a_group_of_a_winner_and_a_loser_is_dpo_of_half_the_temperature() -> None:
    """β (ρ_w - ρ_l)/2: the mean over the group of values ±1."""
    e = evidence([0.3, -0.2, 0.1, 0.4], group=[0, 0, 1, 1])
    value = [1.0, -1.0, -1.0, 1.0]
    group, dpo = outcome(e, value, preference_of(3.0, contrast="group")), outcome(e, value, preference_of(1.5))
    assert group.loss == pytest.approx(dpo.loss)
    torch.testing.assert_close(group.weight_M, dpo.weight_M)


@pytest.mark.parametrize("beta", [0.5, 10.0, 100.0])
def test_dgpo_of_weight_one_over_beta_pushes_by_half_the_values_at_first(beta: float) -> None:
    e, value_M = groups_of_paths(spread=0.0)
    got = outcome(e, value_M, preference_of(beta, contrast="group", weight=1 / beta))
    torch.testing.assert_close(got.weight_M, 0.5 * value_M / (D * len(value_M)))


def test_crd_of_two_is_half_the_regression_of_their_pair() -> None:
    """Each is half the difference from the mean, so two quarter squares over two."""
    same(preference_of(contrast="centred", link="regress"), preference_of(link="regress"), 0.25, samples=2)


def test_crd_is_the_mean_regression_of_all_pairs() -> None:
    """Σ_i (d_i - mean d)² / G = Σ_{i<j} (d_i - d_j)² / G²; a pair is one of G(G-1)/2."""
    same(preference_of(contrast="centred", link="regress"), preference_of(link="regress"), 3 / (2 * 4), samples=4)


def test_points_of_a_winner_and_a_loser_without_baseline_are_their_two_losses() -> None:
    value, config = [1.0, -1.0], preference_of(contrast="point")
    both = outcome(evidence([0.3, -0.2]), value, config)
    won, lost = (outcome(evidence([rho]), [v], config) for rho, v in ((0.3, 1.0), (-0.2, -1.0)))
    assert both.loss == pytest.approx((won.loss + lost.loss) / 2)


def test_a_baseline_is_a_shift_of_the_log_ratios() -> None:
    e, value_M = groups_of_paths()
    for link in ("kto", "logistic"):
        plain = preference_of(contrast="point", link=link)
        measured = replace(plain, preference=replace(plain.preference, baseline="mean"))
        shifted = replace(e, log_ratio_M=e.log_ratio_M - D * MEASURED.log_ratio)
        assert outcome(e, value_M, measured).loss == pytest.approx(outcome(shifted, value_M, plain).loss)


def test_only_the_sign_of_a_points_value_counts() -> None:
    e, value_M = groups_of_paths()
    for name in ("KTO", "BCO", "SPPO"):
        one, two = (outcome(e, v, PREFERENCES[name]) for v in (value_M, 7 * value_M.sign()))
        assert one.loss == two.loss


@pytest.mark.parametrize("contrast", ["pair", "point", "group", "centred", "list"])
def test_over_one_decision_each_samples_are_decisions(contrast: str) -> None:
    link = "regress" if contrast == "centred" else "logistic"
    one, two = (preference_of(contrast=contrast, link=link, over=over) for over in ("sample", "decision"))
    same(one, two, steps=1)


@pytest.mark.parametrize("contrast", ["pair", "point", "group", "centred"])
def test_over_samples_the_mean_evidence_counts(contrast: str) -> None:
    e, value_M = groups_of_paths(steps=2)
    config = preference_of(contrast=contrast, link="regress" if contrast == "centred" else "logistic")
    over = replace(config, preference=replace(config.preference, over="sample"))
    first = e.step_M == 0
    mean = double(e.log_ratio_M.detach().view(-1, 2).mean(1)) / D
    short = evidence(mean, sample=e.sample_M[first], group=e.group_M[first])
    got, want = outcome(e, value_M, over), outcome(short, value_M[first], config)
    assert got.loss == pytest.approx(want.loss, rel=1e-12)
    torch.testing.assert_close(got.weight_M.view(-1, 2).sum(1), want.weight_M)
    assert torch.equal(got.weight_M[0::2], got.weight_M[1::2])


# --------------------------------------------------------------------------------------------------------------- clips


def test_within_their_clips_clipped_losses_are_the_plain_ones() -> None:
    wide = {"clip_low": 0.99, "clip_high": 99.0}
    same(preference_of(utility="clip_ratio", **wide), preference_of())
    same(preference_of(utility="clip", link="regress", pessimistic=True, **wide), preference_of(link="regress"))


def test_the_pessimistic_loss_is_the_larger_of_the_two() -> None:
    e, value_M = groups_of_paths(prompts=1, samples=2, steps=1, spread=0.5)
    for sign in (1, -1):
        configs = preference_of(utility="clip"), preference_of(), preference_of(utility="clip", pessimistic=True)
        clipped, plain, larger = (outcome(e, sign * value_M, config).loss for config in configs)
        assert larger == max(clipped, plain) and clipped != plain


def test_a_discount_is_a_lower_temperature_of_later_steps() -> None:
    late = evidence([0.3, -0.2], step=[2, 2])
    one = outcome(late, [1.0, 0.0], preference_of(2.0, discount=0.5))
    assert one.loss == pytest.approx(outcome(late, [1.0, 0.0], preference_of(0.5)).loss)
