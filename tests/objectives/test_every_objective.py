"""What holds for every objective of log-ratios: gradients, failed rewards, order, micro-batches, trust region."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from evidence_by_hand import MEASURED, D, at, changed, evidence, groups_of_paths, outcome, rows
from recipes import (
    COMPARING,
    PAIRS,
    POINTS,
    POLICY_GRADIENTS,
    PREFERENCES,
    RECIPES,
    STRAIGHT_THROUGH,
    UNCLIPPED,
    preference_of,
)
from torch import Tensor
from torch.distributions import Normal

from beholder.config import ObjectiveConfig
from beholder.objectives.policy_gradient import (
    NEEDS_FORWARD,
    NEEDS_MEANS,
    OBJECTIVES,
    needs_batch_statistics,
    policy_gradient,
    scope,
)
from beholder.objectives.preference import CONTRASTS, LINKS, UTILITIES

every_recipe = pytest.mark.parametrize("name", RECIPES)
GROUPS = {"DGPO"}
"""Comparisons that are of values themselves, not of their differences."""
ORDINAL = [
    name
    for name in [*PAIRS, "Dense Reward View"]
    if PREFERENCES[name].preference.label == "hard"
    and PREFERENCES[name].preference.link != "regress"
    and not PREFERENCES[name].preference.min_gap
]
"""Recipes to which only the order of the values matters."""


# --------------------------------------------------------------------------------------------------------- the recipes


def test_the_recipes_use_every_objective_of_log_ratios_and_every_part_of_the_preference_formula() -> None:
    of_velocities = {*NEEDS_FORWARD, "pathwise"}
    assert {config.kind for config in RECIPES.values()} == set(OBJECTIVES) - of_velocities
    used = [config.preference for config in PREFERENCES.values()]
    assert {p.utility for p in used} == set(UTILITIES)
    assert {p.link for p in used} == set(LINKS)
    assert {p.contrast for p in used} == {*CONTRASTS, "point", "list"}
    assert {p.label for p in used} == {"hard", "soft", "bradley_terry"}
    assert {p.pairs for p in used} == {"all", "extremes"}
    assert {p.baseline for p in used} == {"none", "positive_mean", "mean"}


@every_recipe
def test_what_meets_in_a_micro_batch(name: str) -> None:
    comparing = name not in POLICY_GRADIENTS and name not in POINTS
    assert scope(RECIPES[name]) == ("sample" if name == "gspo" else "group" if comparing else "decision")


def test_points_of_whole_samples_need_their_decisions_together() -> None:
    assert scope(preference_of(contrast="point", over="sample")) == "sample"


def test_who_asks_for_what_is_measured_over_the_update() -> None:
    assert [n for n, c in RECIPES.items() if needs_batch_statistics(c)] == ["Diffusion-SDPO", "KTO", "BCO"]
    assert not needs_batch_statistics(ObjectiveConfig(kind="dspo"))
    e, value_M = groups_of_paths()
    for name in ("Diffusion-SDPO", "KTO", "BCO"):
        with pytest.raises(ValueError, match="needs what was measured over the update"):
            outcome(replace(e, batch=None), value_M, RECIPES[name])


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", sorted(set(RECIPES) - STRAIGHT_THROUGH))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gradient_equals_finite_differences(name: str, seed: int) -> None:
    e, value_M = groups_of_paths(prompts=2, samples=3, steps=2, seed=seed)
    value_M[e.sample_M == 1] = math.nan
    config = RECIPES[name]

    def loss(log_ratio_M: Tensor) -> Tensor:
        return policy_gradient(at(e, log_ratio_M, config), value_M, config)[0]

    psi_M = e.log_ratio_M.detach().clone().requires_grad_()  # perturbed in place
    assert torch.autograd.gradcheck(loss, psi_M)
    assert outcome(e, value_M, config).weight_M.abs().max() > 1e-4


@pytest.mark.parametrize("kind", NEEDS_MEANS)
def test_the_gradient_through_the_mean_of_a_gaussian_equals_finite_differences(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    e, value_M = groups_of_paths(prompts=2, samples=3, steps=1)
    old, noise, move = torch.randn(3, 6, D, generator=generator).double()
    std = e.std_M[:, None]
    taken, config = old + std * noise, RECIPES[kind]

    def loss(mean: Tensor) -> Tensor:
        log_ratio_M = (Normal(mean, std).log_prob(taken) - Normal(old, std).log_prob(taken)).sum(1)
        gap_M = (mean - old).square().sum(1)
        return policy_gradient(replace(e, log_ratio_M=log_ratio_M, gap_M=gap_M), value_M, config)[0]

    mean = (old + 0.1 * move).requires_grad_()
    assert torch.autograd.gradcheck(loss, mean)
    assert torch.autograd.grad(loss(mean), mean)[0].abs().max() > 1e-3


@every_recipe
def test_single_precision_gives_the_same_numbers(name: str) -> None:
    e, value_M = groups_of_paths()
    config = RECIPES[name]
    single = changed(e, lambda value: value.float() if value.is_floating_point() else value)
    loss, _ = policy_gradient(at(single, single.log_ratio_M, config), value_M.float(), config)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(outcome(e, value_M, config).loss, rel=1e-4)


# ------------------------------------------------------------------------------------------------------ failed rewards


@every_recipe
def test_failed_samples_contribute_nothing(name: str) -> None:
    """One sample of each prompt failed: its ratios do not matter, and the others get what they get without it."""
    config = RECIPES[name]
    e, value_M = groups_of_paths(prompts=3, samples=4, steps=2)
    failed_M = e.sample_M % 4 == 2
    value_M[failed_M] = math.nan
    got = outcome(e, value_M, config)
    assert math.isfinite(got.loss)
    assert got.weight_M[failed_M].eq(0).all()
    assert not got.stats.clipped_M[failed_M].any()
    elsewhere = at(e, torch.where(failed_M, 5.0, e.log_ratio_M), replace(config, anchor="old"))
    assert outcome(elsewhere, value_M, config).loss == got.loss
    without = outcome(rows(e, ~failed_M), value_M[~failed_M], config)
    p, share = config.preference, 3 / 4  # of the terms: what is left out stays as a zero
    if name not in POLICY_GRADIENTS and p.contrast == "pair":
        share = 1.0 if p.pairs == "extremes" else 1 / 2  # 3 of 6 pairs
        if p.sft or p.down:  # the anchors are of whole comparisons, none of which is left out
            comparing = replace(config, preference=replace(p, sft=0.0, down=0.0))
            both = [outcome(x, v, comparing).loss for x, v in ((e, value_M), (rows(e, ~failed_M), value_M[~failed_M]))]
            assert got.loss - both[0] == pytest.approx(without.loss - both[1], rel=1e-9)
            return
    elif name not in POLICY_GRADIENTS and p.contrast in ("list", "group"):
        share = 1.0
    assert got.loss == pytest.approx(share * without.loss, rel=1e-12)
    torch.testing.assert_close(got.weight_M[~failed_M], share * without.weight_M, rtol=1e-9, atol=1e-12)


@every_recipe
def test_two_failures_of_one_prompt_and_a_whole_failed_prompt_are_finite(name: str) -> None:
    e, value_M = groups_of_paths(prompts=3, samples=4, steps=2)
    failed_M = (e.sample_M == 1) | (e.sample_M == 3) | (e.group_M == 2)
    value_M[failed_M] = math.nan
    got = outcome(e, value_M, RECIPES[name])
    assert math.isfinite(got.loss) and got.weight_M.isfinite().all()
    assert got.weight_M[failed_M].eq(0).all()
    assert got.weight_M[~failed_M].abs().max() > 0


@every_recipe
def test_a_batch_that_failed_altogether_has_no_gradient(name: str) -> None:
    e, value_M = groups_of_paths()
    got = outcome(e, torch.full_like(value_M, math.nan), RECIPES[name])
    assert got.loss == 0
    assert got.weight_M.eq(0).all()


# --------------------------------------------------------------------------------------------------------- invariances


@every_recipe
def test_the_order_of_decisions_and_the_numbers_of_samples_do_not_matter(name: str) -> None:
    config = RECIPES[name]
    e, value_M = groups_of_paths(prompts=3, samples=4, steps=2)
    plain = outcome(e, value_M, config)
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(24, generator=generator)
    shuffled = rows(e, order)
    renamed = torch.randperm(12, generator=generator) * 5
    shuffled = replace(
        shuffled, sample_M=renamed[shuffled.sample_M], group_M=torch.tensor([40, 7, 11])[e.group_M[order]]
    )
    got = outcome(shuffled, value_M[order], config)
    assert got.loss == pytest.approx(plain.loss, rel=1e-12)
    torch.testing.assert_close(got.weight_M, plain.weight_M[order], rtol=1e-9, atol=1e-12)


@every_recipe
def test_swapping_two_samples_with_their_advantages_swaps_their_gradients(name: str) -> None:
    config, log_ratio, advantage = RECIPES[name], torch.tensor([0.05, -0.08]), torch.tensor([1.0, -0.4])
    one, two = (
        outcome(evidence(v, batch=MEASURED), a, config)
        for v, a in ((log_ratio, advantage), (log_ratio.flip(0), advantage.flip(0)))
    )
    assert one.loss == pytest.approx(two.loss, rel=1e-12)
    torch.testing.assert_close(one.weight_M, two.weight_M.flip(0))


@pytest.mark.parametrize("name", sorted(set(COMPARING) - GROUPS))
def test_shifting_the_values_of_a_prompt_leaves_comparisons_alone(name: str) -> None:
    e, value_M = groups_of_paths()
    plain = outcome(e, value_M, RECIPES[name])
    moved = outcome(e, value_M + torch.tensor([3.0, -7.0, 0.5])[e.group_M], RECIPES[name])
    assert moved.loss == pytest.approx(plain.loss, rel=1e-9)
    torch.testing.assert_close(moved.weight_M, plain.weight_M, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ORDINAL)
def test_only_the_order_of_values_matters_to_these(name: str) -> None:
    e, value_M = groups_of_paths()
    assert outcome(e, value_M.exp(), RECIPES[name]).loss == outcome(e, value_M, RECIPES[name]).loss


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(COMPARING) | GROUPS))
def test_the_others_do_feel_a_shift(name: str) -> None:
    e, value_M = groups_of_paths()
    assert abs(outcome(e, value_M + 1, RECIPES[name]).loss - outcome(e, value_M, RECIPES[name]).loss) > 1e-3


@pytest.mark.parametrize("name", COMPARING)
def test_prompts_do_not_interact(name: str) -> None:
    e, value_M = groups_of_paths()
    apart = [outcome(rows(e, e.group_M == g), value_M[e.group_M == g], RECIPES[name]) for g in range(3)]
    got = outcome(e, value_M, RECIPES[name])
    assert got.loss == pytest.approx(sum(part.loss for part in apart) / 3, rel=1e-12)
    torch.testing.assert_close(got.weight_M, torch.cat([part.weight_M for part in apart]) / 3)


# ------------------------------------------------------------------------------------------------------- micro-batches


@every_recipe
@pytest.mark.parametrize("bounds", [[0, 4], [0, 1, 4], [0, 1, 2, 3, 4]])
def test_micro_batches_of_whole_prompts_add_up_to_the_full_batch(name: str, bounds: list[int]) -> None:
    config = RECIPES[name]
    e, value_M = groups_of_paths(prompts=4, samples=3, steps=2)
    full = outcome(e, value_M, config)
    loss, weight_M = 0.0, torch.zeros_like(full.weight_M)
    for start, stop in pairwise(bounds):
        inside = (e.group_M >= start) & (e.group_M < stop)
        part = outcome(rows(e, inside), value_M[inside], config)
        share = inside.double().mean().item()
        loss += share * part.loss
        weight_M[inside] = share * part.weight_M
    assert loss == pytest.approx(full.loss, rel=1e-12)
    torch.testing.assert_close(weight_M, full.weight_M, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("missing", ["sample", "decision"])
def test_prompts_with_different_numbers_of_samples_are_refused(name: str, missing: str) -> None:
    config = RECIPES[name]
    e, value_M = groups_of_paths()
    left = e.sample_M != 5 if missing == "sample" else torch.arange(len(value_M)) != 5
    if missing == "decision" and config.preference.over == "sample":
        assert math.isfinite(outcome(rows(e, left), value_M[left], config).loss)
        return
    with pytest.raises(ValueError, match="same steps of every sample"):
        outcome(rows(e, left), value_M[left], config)


# -------------------------------------------------------------------------------------------------------- trust region


@pytest.mark.parametrize("name", sorted(set(RECIPES) - UNCLIPPED))
def test_a_joint_trust_region_is_the_per_dimension_one_over_the_dimensions(name: str) -> None:
    e, value_M = groups_of_paths()
    config = RECIPES[name]
    joint = outcome(e, value_M, replace(config, clip_low=0.8, clip_high=1.2, trust_region="joint"))
    same = outcome(e, value_M, replace(config, clip_low=0.8 / D, clip_high=1.2 / D))
    other = outcome(e, value_M, replace(config, clip_low=0.8, clip_high=1.2))
    assert joint.loss == same.loss and torch.equal(joint.weight_M, same.weight_M)
    assert not torch.equal(joint.weight_M, other.weight_M)


@pytest.mark.parametrize("name", sorted(UNCLIPPED))
def test_the_others_have_no_trust_region(name: str) -> None:
    e, value_M = groups_of_paths()
    narrow, wide = (outcome(e, value_M, replace(RECIPES[name], clip_low=c, clip_high=c)) for c in (1e-6, 10.0))
    assert torch.equal(narrow.weight_M, wide.weight_M)
    assert not narrow.stats.clipped_M.any()


@every_recipe
def test_ratios_are_reported_per_dimension(name: str) -> None:
    """Of ψ to its anchor, or of ψ itself where nothing is compared with."""
    e, value_M = groups_of_paths()
    config = RECIPES[name]
    got = outcome(e, value_M, config).stats.ratio_M
    seen = e.logp_M if config.anchor == "none" else e.log_ratio_M.detach()
    torch.testing.assert_close(got, (seen / D).exp())
