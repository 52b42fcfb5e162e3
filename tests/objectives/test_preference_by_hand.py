"""Values of the preference losses by hand, and the claims their papers make. Evidence is per dimension."""

import math
from typing import Any

import pytest
import torch
from evidence_by_hand import D, double, evidence, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import preference_of

from beholder.config import ObjectiveConfig
from beholder.objectives.evidence import BatchStatistics, Evidence
from beholder.objectives.policy_gradient import policy_gradient
from beholder.objectives.preference import UTILITIES
from beholder.rollouts.kernels import denoising_evidence

NAN = math.nan


def loss_of(e: Evidence, value: list[float], config: ObjectiveConfig) -> float:
    return outcome(e, value, config).loss


def logs(*ratios: float) -> list[float]:
    return [math.log(r) for r in ratios]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def nls(x: float) -> float:
    """-log σ(x)."""
    return math.log1p(math.exp(-x))


# ----------------------------------------------------------------------------------------------------------------- DPO


def test_dpo_is_the_logistic_loss_of_every_untied_pair() -> None:
    values = [1.0, -1.0, 1.0]  # two pairs: (0, 1) and (2, 1); 0 and 2 tie
    found = outcome(evidence([0.3, -0.2, 0.1]), values, preference_of(2.0))
    assert found.loss == pytest.approx((nls(2 * 0.5) + nls(2 * 0.3)) / 3)  # the tie is a term of 0
    up = [2 / (1 + math.exp(2 * gap)) / (3 * D) for gap in (0.5, 0.3)]
    assert found.weight_M.tolist() == pytest.approx([up[0], -up[0] - up[1], up[1]])


def test_dpo_without_an_untied_pair_teaches_nothing() -> None:
    found = outcome(evidence([0.3, -0.2]), [1.0, 1.0], preference_of())
    assert found.loss == 0
    assert found.weight_M.tolist() == [0, 0]


def test_failed_samples_and_the_middle_of_a_group_are_left_out() -> None:
    config = preference_of(3.0)
    found = outcome(evidence([0.3, 9.0, -0.2, 7.0]), [2.0, NAN, -2.0, NAN], config)
    alone = outcome(evidence([0.3, -0.2]), [2.0, -2.0], config)
    assert found.loss == pytest.approx(alone.loss / 6)  # one of six pairs
    assert found.weight_M[[0, 2]].tolist() == pytest.approx([w / 6 for w in alone.weight_M.tolist()])
    assert found.weight_M[[1, 3]].tolist() == [0, 0]


def test_one_sample_alone_is_no_pair_and_no_order() -> None:
    e = evidence([0.1, 0.2], group=[0, 1])
    shapes: list[dict[str, Any]] = [
        {},
        {"link": "regress"},
        {"contrast": "list"},
        {"contrast": "list", "label": "soft"},
    ]
    for shape in shapes:
        config = preference_of(sft=1.0, **shape)
        got = outcome(e, [1.0, 2.0], config)
        assert got.loss == 0 and got.weight_M.abs().max() < 1e-15
        assert policy_gradient(e, double([1.0, 2.0]), config)[0].requires_grad


@pytest.mark.parametrize(("factor", "beta", "canonical"), [(-0.5, 5000, 5000), (-1.0, 2500, 5000)])
def test_the_released_betas_in_our_units(factor: float, beta: float, canonical: float) -> None:
    """Diffusion-DPO halves the difference of the mean errors, diffusers' script for SD 1.5 does not."""
    error_w, error_l, ref_w, ref_l = 0.1203, 0.1511, 0.1205, 0.1510
    released = nls(factor * beta * ((error_w - ref_w) - (error_l - ref_l)))
    errors, refs = double([error_w, error_l]), double([ref_w, ref_l])
    t = torch.full((2,), 0.4).double()
    rho = denoising_evidence("half", errors, t) - denoising_evidence("half", refs, t)
    assert loss_of(evidence(rho), [1.0, -1.0], preference_of(canonical)) == pytest.approx(released, rel=1e-9)


# -------------------------------------------------------------------------------------------------------------- labels


def test_smoothed_labels() -> None:
    e, x = evidence([0.3, -0.2]), 2 * 0.5
    assert loss_of(e, [1.0, 0.0], preference_of(smoothing=0.1)) == pytest.approx(0.9 * nls(x) + 0.1 * nls(-x))
    robust = preference_of(link="robust", smoothing=0.1)
    assert loss_of(e, [1.0, 0.0], robust) == pytest.approx((0.9 * nls(x) - 0.1 * nls(-x)) / 0.8)


@settings(deadline=None, max_examples=50)
@given(h=st.floats(-2, 2), wrong=st.floats(0, 0.45))
def test_the_robust_loss_is_unbiased_under_flipped_labels(h: float, wrong: float) -> None:
    e, robust = evidence([h, 0.0]), preference_of(link="robust", smoothing=wrong)
    expected = (1 - wrong) * loss_of(e, [1.0, 0.0], robust) + wrong * loss_of(e, [0.0, 1.0], robust)
    assert expected == pytest.approx(loss_of(e, [1.0, 0.0], preference_of()), rel=1e-9)


def test_smoothing_stops_at_its_share_and_not_at_infinity() -> None:
    x = math.log(0.9 / 0.1)
    got = outcome(evidence([x / 2, 0.0]), [1.0, -1.0], preference_of(smoothing=0.1))
    assert got.weight_M.abs().max() < 1e-15


def test_soft_labels_are_the_cross_entropy_with_the_share_of_votes() -> None:
    """Values ±(2p - 1); a tie of the votes counts."""
    e, x, soft = evidence([0.3, -0.2]), 2 * 0.5, preference_of(label="soft")
    for p in (1.0, 0.8, 0.5):
        value = 2 * p - 1
        assert loss_of(e, [value, -value], soft) == pytest.approx(p * nls(x) + (1 - p) * nls(-x))
        assert loss_of(e, [-value, value], soft) == pytest.approx(p * nls(-x) + (1 - p) * nls(x))


def test_bradley_terry_labels_are_the_sigmoid_of_the_values_difference() -> None:
    e, x, p = evidence([0.3, -0.2]), 2 * 0.5, sigmoid(0.7)
    config = preference_of(label="bradley_terry")
    assert loss_of(e, [0.4, -0.3], config) == pytest.approx(p * nls(x) + (1 - p) * nls(-x))
    tie = outcome(e, [0.4, 0.4], config)
    assert tie.loss == pytest.approx((nls(x) + nls(-x)) / 2)
    assert tie.weight_M.tolist() == pytest.approx([-2 * (sigmoid(x) - 0.5) / D, 2 * (sigmoid(x) - 0.5) / D])


def test_soft_labels_in_the_reverse_kl() -> None:
    """The target of p votes is p (1 - α) + (1 - p) α."""
    e, config = evidence([0.3, -0.2]), preference_of(link="reverse_kl", smoothing=0.1, label="soft")
    share, target = sigmoid(2 * 0.5), 0.8 * 0.9 + 0.2 * 0.1
    want = share * math.log(share / target) + (1 - share) * math.log((1 - share) / (1 - target))
    assert loss_of(e, [0.6, -0.6], config) == pytest.approx(want)


# --------------------------------------------------------------------------------------------------------------- links


def test_ipo_regresses_the_log_ratios_themselves() -> None:
    """(h - 1/2τ)², h the difference of the log-ratios: no sigmoid, and β is τ."""
    assert loss_of(evidence([0.3, -0.2]), [1.0, 0.0], preference_of(0.4, link="square")) == pytest.approx(
        (0.5 - 1.25) ** 2
    )
    at_target = outcome(evidence([1.0, -0.25]), [1.0, 0.0], preference_of(0.4, link="square"))
    assert at_target.loss == pytest.approx(0, abs=1e-24)
    assert at_target.weight_M.abs().max() < 1e-12


def test_ipo_of_a_tie_of_votes_wants_no_difference() -> None:
    config = preference_of(0.4, link="square", label="soft")
    assert loss_of(evidence([0.3, -0.2]), [0.0, 0.0], config) == pytest.approx(0.25)
    assert loss_of(evidence([0.3, -0.2]), [0.5, -0.5], config) == pytest.approx((0.5 - 0.25 / 0.4) ** 2)


def test_slic_stops_at_its_margin() -> None:
    config = preference_of(link="hinge", margin=1.0)
    assert loss_of(evidence([0.3, 0.0]), [1.0, 0.0], config) == pytest.approx(1 - 0.6)
    assert outcome(evidence([0.6, 0.0]), [1.0, 0.0], config).weight_M.abs().max() == 0


def test_rrhf_sums_what_is_in_the_wrong_order_and_imitates_the_best() -> None:
    """Scores -1, -0.5, -0.9 of values 3, 2, 1: two pairs of three are violated, by 0.5 and 0.1."""
    config = preference_of(1.0, "none", link="hinge", sft=1.0)
    got = outcome(evidence([-1.0, -0.5, -0.9], anchor=0.0), [3.0, 2.0, 1.0], config)
    assert got.loss == pytest.approx((0.5 + 0.1) / 3 + 1.0)
    assert got.weight_M.tolist() == pytest.approx([(2 / 3 + 1) / D, -1 / 3 / D, -1 / 3 / D])


def test_exo_is_the_divergence_of_two_coins() -> None:
    config = preference_of(link="reverse_kl", smoothing=0.01)
    share = sigmoid(2 * 0.5)
    want = share * math.log(share / 0.99) + (1 - share) * math.log((1 - share) / 0.01)
    assert loss_of(evidence([0.3, -0.2]), [1.0, 0.0], config) == pytest.approx(want)
    settled = outcome(evidence([math.log(99) / 2, 0.0]), [1.0, 0.0], config)
    assert settled.loss == pytest.approx(0, abs=1e-12) and settled.weight_M.abs().max() < 1e-12


def test_simpo_wants_its_margin_and_has_no_reference() -> None:
    config = preference_of(2.5, "none", margin=0.5)
    for anchor in (-1.0, -7.0):
        got = loss_of(evidence([0.3, -0.2], anchor=anchor), [1.0, 0.0], config)
        assert got == pytest.approx(nls(2.5 * 0.5 - 0.5))


def test_capo_regresses_the_scores_on_the_calibrated_gap() -> None:
    """(β h - ΔR)²; a tie is a pair whose scores should be equal."""
    e, config = evidence([0.3, -0.2]), preference_of(2.0, link="regress")
    assert loss_of(e, [0.9, 0.2], config) == pytest.approx((1.0 - 0.7) ** 2)
    assert loss_of(e, [0.2, 0.9], config) == pytest.approx((1.0 + 0.7) ** 2)
    assert loss_of(e, [0.5, 0.5], config) == pytest.approx(1.0)


# -------------------------------------------------------------------------------------------------------------- points

MOVED = BatchStatistics(log_ratio=0.05, log_ratio_all=0.02, safeguard=1.0)


def test_kto_compares_every_sample_with_the_batch() -> None:
    """λ (1 - σ(y β (ρ - z))); values of 0 and failures are nobody's."""
    e = evidence([0.3, -0.2, 0.1, 5.0, 6.0], batch=MOVED)
    config = preference_of(contrast="point", link="kto", baseline="positive_mean", desirable=1.2, undesirable=0.7)
    got = outcome(e, [4.0, -0.1, -3.0, 0.0, NAN], config)
    terms = [1.2 * sigmoid(-2 * 0.28), 0.7 * sigmoid(2 * -0.22), 0.7 * sigmoid(2 * 0.08)]
    assert got.loss == pytest.approx(sum(terms) / 5)
    assert got.weight_M[3:].tolist() == [0, 0]


def test_ktos_baseline_is_never_negative_and_bcos_may_be() -> None:
    below = BatchStatistics(log_ratio=-0.05, log_ratio_all=-0.02, safeguard=1.0)
    for value, y in (([1.0], 1), ([-1.0], -1)):
        kto = preference_of(contrast="point", link="kto", baseline="positive_mean")
        assert loss_of(evidence([0.3], batch=below), value, kto) == pytest.approx(sigmoid(-y * 2 * 0.3))
        bco = preference_of(contrast="point", baseline="mean")
        assert loss_of(evidence([0.3], batch=below), value, bco) == pytest.approx(nls(y * 2 * 0.35))
        assert loss_of(evidence([0.3], batch=MOVED), value, bco) == pytest.approx(nls(y * 2 * 0.25))


def test_diffusion_ktos_released_beta_in_our_units() -> None:
    """1 - σ(y β (g - z)) with g the fall of the mean error, not halved: β 1000 is our 2000."""
    gain = double([0.0021, -0.0013])  # mse_ref - mse
    z = max(0.0, gain.mean().item())
    released = [1 - sigmoid(y * 1000 * (g - z)) for y, g in zip((1, -1), gain.tolist(), strict=True)]
    rho = 0.5 * gain
    measured = BatchStatistics(log_ratio=0.0, log_ratio_all=rho.mean().item(), safeguard=1.0)
    config = preference_of(2000.0, contrast="point", link="kto", baseline="positive_mean")
    got = loss_of(evidence(rho, batch=measured), [1.0, -1.0], config)
    assert got == pytest.approx(sum(released) / 2)


def test_bco_without_its_baseline_is_imitation_by_density_ratios() -> None:
    """DIL, TRL's bco_pair: -log σ(u_w) - log σ(-u_l), here the mean of the two."""
    got = loss_of(evidence([0.3, -0.2]), [1.0, -1.0], preference_of(contrast="point"))
    assert got == pytest.approx((nls(0.6) + nls(0.4)) / 2)


def test_apo_zero_raises_the_winner_and_apo_down_lowers_both() -> None:
    """2408.06266, eqs. 7 and 8; points are averaged, so APO-zero is half the sum of its pair."""
    e = evidence([0.3, -0.2])
    zero = preference_of(contrast="point", link="kto")
    assert loss_of(e, [1.0, -1.0], zero) == pytest.approx((1 - sigmoid(0.6) + sigmoid(-0.4)) / 2)
    down = preference_of(link="kto", down=1.0)
    assert loss_of(e, [1.0, -1.0], down) == pytest.approx(sigmoid(0.6) + 1 - sigmoid(2 * 0.5))
    start = evidence([0.0, 0.0])
    assert (outcome(start, [1.0, -1.0], zero).weight_M.sign() == double([1, -1])).all()
    assert outcome(start, [1.0, -1.0], down).weight_M.tolist() == pytest.approx([0, -2 / 4 / D], abs=1e-15)
    apart = outcome(evidence([0.5, -0.5]), [1.0, -1.0], down)  # once told apart, both fall
    assert (apart.weight_M < 0).all() and apart.weight_M[0] > apart.weight_M[1]


def test_sppo_regresses_every_sample_on_half_over_beta() -> None:
    """(a - 1/2β)² + (b + 1/2β)² of the winner and the loser."""
    got = loss_of(evidence([0.3, -0.2]), [1.0, -1.0], preference_of(0.5, contrast="point", link="square"))
    assert got == pytest.approx(((0.3 - 1) ** 2 + (-0.2 + 1) ** 2) / 2)


# --------------------------------------------------------------------------------------------- evidence without anchor


def orpo(weight: float = 0.1) -> ObjectiveConfig:
    return preference_of(1.0, "none", utility="odds", weight=weight, sft=1.0)


def of_errors(*errors: float) -> Evidence:
    """ψ = -ℓ/2 per dimension of denoising errors ℓ."""
    return evidence([-error / 2 for error in errors], anchor=0.0)


def test_orpo_by_hand() -> None:
    """ℓ_w/2 - λ log σ(logit p_w - logit p_l) with p = e^{-ℓ/2}."""
    p_w, p_l = math.exp(-0.15), math.exp(-0.2)
    odds = math.log(p_w / (1 - p_w)) - math.log(p_l / (1 - p_l))
    assert loss_of(of_errors(0.3, 0.4), [1.0, 0.0], orpo()) == pytest.approx(0.15 + 0.1 * nls(odds))


def test_orpo_pushes_the_winner_up_where_diffusers_script_pushes_the_loser() -> None:
    """The script's log-odds are the winner's error minus the loser's, so its ratio term falls as the winner worsens."""
    got = outcome(of_errors(0.3, 0.3), [1.0, 0.0], preference_of(1.0, "none", utility="odds"))
    assert got.weight_M[0] > 0 > got.weight_M[1]
    for worse in ((0.31, 0.3), (0.3, 0.29)):
        ours = [
            loss_of(of_errors(*e), [1.0, 0.0], preference_of(1.0, "none", utility="odds")) for e in ((0.3, 0.3), worse)
        ]
        script = [nls(error_w - error_l) for error_w, error_l in ((0.3, 0.3), worse)]
        assert ours[1] > ours[0] and script[1] < script[0]


def test_mapo_by_hand() -> None:
    """ℓ_w - β log σ(T (s_w - s_l)), s = kℓ/(e^{kℓ} - 1), k ½."""
    config = preference_of(1000.0, "none", utility="mapo", weight=0.1, sft=2.0)
    scores = [0.5 * error / (math.exp(0.5 * error) - 1) for error in (0.3012, 0.3)]
    want = 0.3012 + 0.1 * nls(1000 * (scores[0] - scores[1]))
    assert loss_of(of_errors(0.3012, 0.3), [1.0, 0.0], config) == pytest.approx(want, rel=1e-9)
    assert outcome(of_errors(0.3, 0.3), [1.0, 0.0], config).weight_M[0] > 0


@pytest.mark.parametrize("error", [1e-5, 1e-4, 1e-3, 1e-2])
def test_mapo_is_accurate_in_single_precision_at_small_errors(error: float) -> None:
    """e^{kℓ} - 1 as written is off by more than 1e-5 there, which T = 1000 multiplies."""

    def score(dtype: torch.dtype) -> torch.Tensor:
        return UTILITIES["mapo"](torch.tensor([-error / 2], dtype=dtype), 0.0, 0.0)[0].double()

    x = torch.tensor([0.5 * error])
    naive = (x / (x.exp() - 1)).double()
    assert (score(torch.float32) - score(torch.float64)).abs().item() < 2e-7
    assert error > 1e-3 or (naive - score(torch.float64)).abs().item() > 1e-5


# ------------------------------------------------------------------------------------------------- clips and discounts


def test_sdpo_by_hand() -> None:
    e = evidence([0.1, -0.1])  # Δ = 0.2; with the clip 0.05 it is 0.1
    more = {"utility": "clip", "link": "regress", "pessimistic": True, "clip_low": 0.05, "clip_high": 0.05}
    assert loss_of(e, [1.0, 0.0], preference_of(2.0, **more)) == pytest.approx((0.2 - 1) ** 2)  # 0.4 - 1 is smaller
    assert loss_of(e, [-1.0, 0.0], preference_of(2.0, **more)) == pytest.approx((0.4 + 1) ** 2)
    assert loss_of(evidence([0.0, 0.0]), [1.5, -0.5], preference_of(2.0, **more)) == pytest.approx(4)


def test_sdpo_clips_the_log_ratio_and_discounts_what_is_left() -> None:
    e = evidence([0.1, -0.1, 0.1, -0.1], step=[0, 0, 3, 3], sample=[0, 1, 0, 1])
    wide = preference_of(1.0, utility="clip", link="regress", pessimistic=True, discount=0.5, clip_low=1.0, clip_high=1)
    assert loss_of(e, [1.0, 0.0, 1.0, 0.0], wide) == pytest.approx(((0.2 - 1) ** 2 + (0.2 / 8 - 1) ** 2) / 2)
    late = evidence([0.1, -0.1], step=[3, 3])
    narrow = preference_of(
        1.0, utility="clip", link="regress", pessimistic=True, discount=0.5, clip_low=0.05, clip_high=0.05
    )
    got = outcome(late, [1.0, 0.0], narrow)
    assert got.loss == pytest.approx((0.1 / 8 - 1) ** 2)  # clipped at 0.05, although 0.1/8 is inside
    assert got.stats.clipped_M.tolist() == [True, True] and got.weight_M.tolist() == [0, 0]


def test_every_pair_of_a_prompt_at_a_step_counts_and_no_other() -> None:
    e = evidence([0.0] * 5 + [9.0] * 5, step=[0] * 5 + [1] * 5, sample=[*range(5)] * 2)
    values = [0.0, 1.0, 3.0, NAN, 4.0] * 2
    squares = [1, 9, 16, 4, 9, 1]
    assert loss_of(e, values, preference_of(link="regress")) == pytest.approx(sum(squares) / 10)


def test_d3po_by_hand() -> None:
    e, gap = evidence(logs(1.1, 0.95)), math.log(1.1 / 0.95)
    wide = {"utility": "clip_ratio", "clip_low": 0.2, "clip_high": 0.2}
    assert loss_of(e, [1.0, 0.0], preference_of(0.7, **wide)) == pytest.approx(nls(0.7 * gap))
    assert loss_of(e, [0.0, 1.0], preference_of(0.7, **wide)) == pytest.approx(nls(-0.7 * gap))
    narrow = {"utility": "clip_ratio", "clip_low": 0.02, "clip_high": 0.05}
    assert loss_of(e, [1.0, 0.0], preference_of(0.7, **narrow)) == pytest.approx(math.log(1 + (0.98 / 1.05) ** 0.7))


def test_d3pos_clip_bounds_its_loss() -> None:
    """β 0.1 and ε 0.1 leave [-log σ(0.1 log(1.1/0.9)), -log σ(-…)]: the loss that users saw stuck at 0.693."""
    config = preference_of(0.1, utility="clip_ratio", clip_low=0.1, clip_high=0.1)
    for move, bound in ((9.0, (1.1 / 0.9) ** -0.1), (-9.0, (1.1 / 0.9) ** 0.1)):
        got = loss_of(evidence([move, -move]), [1.0, 0.0], config)
        assert got == pytest.approx(math.log(1 + bound))
        assert 0.683 <= got <= 0.704


def test_spo_pairs_the_best_with_the_worst_where_they_are_far_apart() -> None:
    e = evidence(
        [0.05, -0.02, 0.01, 0.03, 0.2, 0.1],
        step=[0, 0, 1, 1, 0, 0],
        sample=[0, 1, 0, 1, 2, 3],
        group=[0, 0, 0, 0, 1, 1],
    )
    config = preference_of(2.0, pairs="extremes", min_gap=0.3)
    near = [0.5, 0.4, 0.5, 0.1, 1.0, 0.0]  # only the second comparison and the other prompt's are 0.3 apart
    assert loss_of(e, near, config) == pytest.approx((nls(2 * -0.02) + nls(2 * 0.1)) / 3)
    group = evidence([0.3, 9.0, -0.2, 0.1, 5.0])
    got = outcome(group, [0.2, 0.0, 1.0, -1.0, NAN], config)
    assert got.loss == pytest.approx(nls(2 * -0.3))
    assert [m for m, w in enumerate(got.weight_M.tolist()) if w] == [2, 3]


def test_extremes_of_a_tie_or_of_one_sample_are_no_pair() -> None:
    for value in ([1.0, 1.0, 1.0], [NAN, 1.0, NAN], [NAN, NAN, NAN]):
        got = outcome(evidence([0.3, -0.2, 0.1]), value, preference_of(pairs="extremes"))
        assert got.loss == 0 and got.weight_M.eq(0).all()


def test_a_smallest_gap_counts_by_all_pairs() -> None:
    """Values 2, 1, 0.8: only the first is far enough from the others."""
    config = preference_of(2.0, min_gap=0.5)
    got = loss_of(evidence([0.3, -0.2, 0.1]), [2.0, 1.0, 0.8], config)
    assert got == pytest.approx((nls(2 * 0.5) + nls(2 * 0.2)) / 3)


@pytest.mark.parametrize(("beta", "bound"), [(0.1, 0.02), (10.0, 2.0), (500.0, 100.0)])
def test_the_largest_logit_of_step_losses(beta: float, bound: float) -> None:
    """β log(1.1/0.9) = 0.2007 β: 0.02 for D3PO, 2 for SPO, 100 for LPO."""
    config = preference_of(beta, utility="clip_ratio", clip_low=0.1, clip_high=0.1)
    got = loss_of(evidence([-9.0, 9.0]), [1.0, 0.0], config)
    assert got == pytest.approx(nls(-1.0033 * bound), rel=1e-3)


# ---------------------------------------------------------------------------------------------------- groups and lists


def test_dgpo_is_one_logistic_loss_of_a_group() -> None:
    gaps, a = [0.3, -0.2, 0.5, 0.1], [1.0, -1.0, 0.5, -0.5]
    e, config = evidence(gaps, group=[0, 0, 1, 1]), preference_of(4.0, contrast="group", weight=0.25)
    found = outcome(e, a, config)
    means = [(0.3 + 0.2) / 2, (0.25 - 0.05) / 2]
    assert found.loss == pytest.approx(0.25 * sum(nls(4 * m) for m in means) / 2)
    share = [sigmoid(-4 * m) for m in means]
    want = [share[g] * a[i] / (4 * D) for i, g in enumerate((0, 0, 1, 1))]  # 1/β takes the factor β back
    assert found.weight_M.tolist() == pytest.approx(want)
    swapped = outcome(e, [-x for x in a], config)
    assert (found.weight_M.sign() == -swapped.weight_M.sign()).all()


def test_crd_centres_scores_and_values() -> None:
    """mean (β ρ̃ - Ã)² over whoever did not fail."""
    got = loss_of(evidence([0.3, 9.0, -0.1]), [1.0, NAN, -3.0], preference_of(contrast="centred", link="regress"))
    assert got == pytest.approx(((0.4 - 2) ** 2 + (-0.4 + 2) ** 2) / 3)


def plackett_luce(scores: list[float]) -> float:
    """Of scores from best to worst."""
    return sum(math.log(sum(map(math.exp, scores[k:]))) - scores[k] for k in range(len(scores)))


def ranked(temperature: float, low: float = 0.2, high: float = 0.2, over: str = "sample") -> ObjectiveConfig:
    return preference_of(temperature, utility="clip", contrast="list", over=over, clip_low=low, clip_high=high)


def test_lists_by_hand() -> None:
    e = evidence([0.1, -0.1, 0.15])
    assert loss_of(e, [2.0, 3.0, 1.0], ranked(10.0)) == pytest.approx(plackett_luce([-1.0, 1.0, 1.5]))
    assert loss_of(e, [2.0, 3.0, 1.0], ranked(10.0, 0.05, 0.12)) == pytest.approx(plackett_luce([-0.5, 1.0, 1.2]))


def test_lists_of_samples_average_clipped_scores_over_steps_and_terms_over_prompts() -> None:
    e = evidence(
        [0.1, 0.5, -0.1, 0.0, 0.0, 0.0, 0.0, 0.0],
        step=[0, 1, 0, 1, 0, 1, 0, 1],
        sample=[0, 0, 1, 1, 2, 2, 3, 3],
        group=[0, 0, 0, 0, 5, 5, 5, 5],
    )
    values = [1.0, 1.0, 0.0, 0.0, 2.0, 2.0, 1.0, 1.0]
    whole = (plackett_luce([4 * (0.1 + 0.2) / 2, 4 * -0.05]) + math.log(2)) / 2
    assert loss_of(e, values, ranked(4.0)) == pytest.approx(whole)
    apart = (plackett_luce([0.4, -0.4]) + plackett_luce([0.8, 0.0]) + 2 * math.log(2)) / 4
    assert loss_of(e, values, ranked(4.0, over="decision")) == pytest.approx(apart)


def test_a_list_of_equal_scores_costs_the_log_of_its_orders() -> None:
    assert loss_of(evidence([0.0] * 5), [1.0, 2.0, 3.0, 4.0, 5.0], ranked(1.0)) == pytest.approx(math.log(120))
    assert loss_of(evidence([0.0] * 5), [1.0, NAN, 3.0, 4.0, 5.0], ranked(1.0)) == pytest.approx(math.log(24))


def test_pro_by_hand() -> None:
    """Σ_k LSE(s_k T_k, s_i (r_k - r_i)) - s_k T_k of s -0.4, -0.6, -0.5 with r 3, 2, 0; NLL of the best."""
    scores, r = [-0.4, -0.6, -0.5], [3.0, 2.0, 0.0]
    first = math.log(math.exp(3 * scores[0]) + math.exp(scores[1]) + math.exp(3 * scores[2])) - 3 * scores[0]
    second = math.log(math.exp(2 * scores[1]) + math.exp(2 * scores[2])) - 2 * scores[1]
    e = evidence([-0.5, -0.4, 5.0, -0.6], anchor=0.0)
    config = preference_of(1.0, "none", contrast="list", label="soft", sft=0.05)
    assert loss_of(e, [r[2], r[0], NAN, r[1]], config) == pytest.approx(first + second + 0.05 * 0.4)


# ------------------------------------------------------------------------------------------------------------- anchors


def test_anchors_are_on_the_best_of_each_comparison_that_has_one() -> None:
    """Three prompts: a clear one, a tie, and one with a failure; ψ is ρ - 1."""
    e = evidence([0.3, -0.2, 0.1, 0.4, 0.6, 0.5], group=[0, 0, 1, 1, 2, 2])
    values = [1.0, 0.0, 2.0, 2.0, NAN, 1.0]
    got = outcome(e, values, preference_of(weight=0.0, sft=3.0))
    assert got.loss == pytest.approx(3 * 0.7 / 3)  # two comparisons have no best sample
    assert got.weight_M.tolist() == pytest.approx([3 / (3 * D), 0, 0, 0, 0, 0])
    falls = outcome(e, values, preference_of(weight=0.0, down=3.0))
    assert falls.loss == pytest.approx(3 * sigmoid(0.6) / 3)


def test_the_weight_is_of_the_comparison_alone() -> None:
    e = evidence([0.3, -0.2])
    got = loss_of(e, [1.0, 0.0], preference_of(weight=0.2, sft=0.5, down=0.1))
    assert got == pytest.approx(0.2 * nls(1.0) + 0.5 * 0.7 + 0.1 * sigmoid(0.6))
    assert loss_of(e, [1.0, -1.0], preference_of(contrast="point", weight=0.2)) == pytest.approx(
        0.2 * (nls(0.6) + nls(0.4)) / 2
    )
    assert loss_of(e, [1.0, 0.0], preference_of(contrast="list", weight=0.2)) == pytest.approx(0.2 * nls(1.0))


def test_an_anchor_of_samples_is_their_mean_evidence() -> None:
    e = evidence([0.1, 0.3, -0.2, -0.4], step=[0, 1, 0, 1], sample=[0, 0, 1, 1])
    got = loss_of(e, [1.0, 1.0, 0.0, 0.0], preference_of(over="sample", sft=1.0))
    assert got == pytest.approx(nls(2 * 0.5) + 0.8)
