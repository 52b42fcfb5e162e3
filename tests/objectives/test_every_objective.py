"""What holds for every objective of log-ratios: gradients, failed rewards, order, micro-batches, trust region."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from evidence_by_hand import KINDS, D, evidence, groups_of_paths, outcome, rows
from torch import Tensor
from torch.distributions import Normal

from beholder.config import ObjectiveConfig
from beholder.objectives.policy_gradient import NEEDS_MEANS, SCOPES, policy_gradient

every_kind = pytest.mark.parametrize("kind", KINDS)
COMPARING = [kind for kind, scope in SCOPES.items() if scope == "group"]
UNCLIPPED = {"reinforce", "dpo", "dgpo"}
STOPPED = {"dgpo"}
"""Objectives with a factor whose gradient is stopped: it counts a prompt's samples, failed or not."""


def config_of(kind: Any, **more: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**{"kind": kind, "clip_low": 0.1, "clip_high": 0.15, "temperature": 2.0, **more})


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("kind", sorted(set(KINDS) - STOPPED))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gradient_equals_finite_differences(kind: str, seed: int) -> None:
    e, advantage_M = groups_of_paths(prompts=2, samples=3, steps=2, seed=seed)
    advantage_M[e.sample_M == 1] = math.nan
    config = config_of(kind, discount=0.9)

    def loss(log_ratio_M: Tensor) -> Tensor:
        return policy_gradient(replace(e, log_ratio_M=log_ratio_M), advantage_M, config)[0]

    assert torch.autograd.gradcheck(loss, e.log_ratio_M)
    assert outcome(e, advantage_M, config).weight_M.abs().max() > 1e-4


@pytest.mark.parametrize("kind", NEEDS_MEANS)
def test_the_gradient_through_the_mean_of_a_gaussian_equals_finite_differences(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    e, advantage_M = groups_of_paths(prompts=2, samples=3, steps=1)
    old, noise, move = torch.randn(3, 6, D, generator=generator).double()
    std = e.std_M[:, None]
    taken, config = old + std * noise, config_of(kind)

    def loss(mean: Tensor) -> Tensor:
        log_ratio_M = (Normal(mean, std).log_prob(taken) - Normal(old, std).log_prob(taken)).sum(1)
        gap_M = (mean - old).square().sum(1)
        return policy_gradient(replace(e, log_ratio_M=log_ratio_M, gap_M=gap_M), advantage_M, config)[0]

    mean = (old + 0.1 * move).requires_grad_()
    assert torch.autograd.gradcheck(loss, mean)
    assert torch.autograd.grad(loss(mean), mean)[0].abs().max() > 1e-3


@every_kind
def test_single_precision_gives_the_same_numbers(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    assert e.gap_M is not None
    single = replace(
        e,
        log_ratio_M=e.log_ratio_M.float(),
        weight_M=e.weight_M.float(),
        std_M=e.std_M.float(),
        gap_M=e.gap_M.float(),
    )
    config = config_of(kind)
    loss, _ = policy_gradient(single, advantage_M.float(), config)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(outcome(e, advantage_M, config).loss, rel=1e-4)


# ------------------------------------------------------------------------------------------------------ failed rewards


@every_kind
def test_failed_samples_contribute_nothing(kind: str) -> None:
    """One sample of each prompt failed: its ratios do not matter, and the others get what they get without it."""
    config = config_of(kind)
    e, advantage_M = groups_of_paths(prompts=3, samples=4, steps=2)
    failed_M = e.sample_M % 4 == 2
    advantage_M[failed_M] = math.nan
    got = outcome(e, advantage_M, config)
    assert math.isfinite(got.loss)
    assert got.weight_M[failed_M].eq(0).all()
    assert not got.stats.clipped_M[failed_M].any()
    elsewhere = replace(e, log_ratio_M=torch.where(failed_M, 5.0, e.log_ratio_M))
    assert outcome(elsewhere, advantage_M, config).loss == got.loss
    if kind in STOPPED:
        return
    without = outcome(rows(e, ~failed_M), advantage_M[~failed_M], config)
    share = 1.0 if kind in COMPARING else 3 / 4  # of terms: a failed one of the others stays as a zero
    assert got.loss == pytest.approx(share * without.loss, rel=1e-12)
    torch.testing.assert_close(got.weight_M[~failed_M], share * without.weight_M, rtol=1e-9, atol=1e-12)


@every_kind
def test_two_failures_of_one_prompt_and_a_whole_failed_prompt_are_finite(kind: str) -> None:
    e, advantage_M = groups_of_paths(prompts=3, samples=4, steps=2)
    failed_M = (e.sample_M == 1) | (e.sample_M == 3) | (e.group_M == 2)
    advantage_M[failed_M] = math.nan
    got = outcome(e, advantage_M, config_of(kind))
    assert math.isfinite(got.loss) and got.weight_M.isfinite().all()
    assert got.weight_M[failed_M].eq(0).all()
    assert got.weight_M[~failed_M].abs().max() > 0


@every_kind
def test_a_batch_that_failed_altogether_has_no_gradient(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    got = outcome(e, torch.full_like(advantage_M, math.nan), config_of(kind))
    assert got.loss == 0
    assert got.weight_M.eq(0).all()


# --------------------------------------------------------------------------------------------------------- invariances


@every_kind
def test_the_order_of_decisions_and_the_numbers_of_samples_do_not_matter(kind: str) -> None:
    config = config_of(kind, discount=0.9)
    e, advantage_M = groups_of_paths(prompts=3, samples=4, steps=2)
    plain = outcome(e, advantage_M, config)
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(24, generator=generator)
    shuffled = rows(e, order)
    renamed = torch.randperm(12, generator=generator) * 5
    shuffled = replace(
        shuffled, sample_M=renamed[shuffled.sample_M], group_M=torch.tensor([40, 7, 11])[e.group_M[order]]
    )
    got = outcome(shuffled, advantage_M[order], config)
    assert got.loss == pytest.approx(plain.loss, rel=1e-12)
    torch.testing.assert_close(got.weight_M, plain.weight_M[order], rtol=1e-9, atol=1e-12)


@every_kind
def test_swapping_two_samples_with_their_advantages_swaps_their_gradients(kind: str) -> None:
    config, log_ratio, advantage = config_of(kind), torch.tensor([0.05, -0.08]), torch.tensor([1.0, -0.4])
    one, two = (
        outcome(evidence(v), a, config) for v, a in ((log_ratio, advantage), (log_ratio.flip(0), advantage.flip(0)))
    )
    assert one.loss == pytest.approx(two.loss, rel=1e-12)
    torch.testing.assert_close(one.weight_M, two.weight_M.flip(0))


@pytest.mark.parametrize("kind", sorted(set(COMPARING) - STOPPED))
def test_shifting_the_advantages_of_a_prompt_leaves_comparisons_alone(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    plain = outcome(e, advantage_M, config_of(kind))
    moved = outcome(e, advantage_M + torch.tensor([3.0, -7.0, 0.5])[e.group_M], config_of(kind))
    assert moved.loss == pytest.approx(plain.loss, rel=1e-9)
    torch.testing.assert_close(moved.weight_M, plain.weight_M, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["pair_logistic", "list_mle", "dpo"])
def test_only_the_order_of_advantages_matters_to_these(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    assert outcome(e, advantage_M.exp(), config_of(kind)).loss == outcome(e, advantage_M, config_of(kind)).loss


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(COMPARING) | STOPPED))
def test_the_others_do_feel_a_shift(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    assert abs(outcome(e, advantage_M + 1, config_of(kind)).loss - outcome(e, advantage_M, config_of(kind)).loss) > 1e-3


@pytest.mark.parametrize("kind", COMPARING)
def test_prompts_do_not_interact(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    apart = [outcome(rows(e, e.group_M == g), advantage_M[e.group_M == g], config_of(kind)) for g in range(3)]
    got = outcome(e, advantage_M, config_of(kind))
    assert got.loss == pytest.approx(sum(part.loss for part in apart) / 3, rel=1e-12)
    torch.testing.assert_close(got.weight_M, torch.cat([part.weight_M for part in apart]) / 3)


# ------------------------------------------------------------------------------------------------------- micro-batches


@every_kind
@pytest.mark.parametrize("bounds", [[0, 4], [0, 1, 4], [0, 1, 2, 3, 4]])
def test_micro_batches_of_whole_prompts_add_up_to_the_full_batch(kind: str, bounds: list[int]) -> None:
    config = config_of(kind)
    e, advantage_M = groups_of_paths(prompts=4, samples=3, steps=2)
    full = outcome(e, advantage_M, config)
    loss, weight_M = 0.0, torch.zeros_like(full.weight_M)
    for start, stop in pairwise(bounds):
        inside = (e.group_M >= start) & (e.group_M < stop)
        part = outcome(rows(e, inside), advantage_M[inside], config)
        share = inside.double().mean().item()
        loss += share * part.loss
        weight_M[inside] = share * part.weight_M
    assert loss == pytest.approx(full.loss, rel=1e-12)
    torch.testing.assert_close(weight_M, full.weight_M, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", COMPARING)
def test_prompts_with_different_numbers_of_samples_are_refused(kind: Any) -> None:
    e, advantage_M = groups_of_paths()
    fewer = torch.arange(len(advantage_M)) != 5
    with pytest.raises(ValueError, match="same steps of every sample"):
        policy_gradient(rows(e, fewer), advantage_M[fewer], ObjectiveConfig(kind=kind))


# -------------------------------------------------------------------------------------------------------- trust region


@pytest.mark.parametrize("kind", sorted(set(KINDS) - UNCLIPPED))
def test_a_joint_trust_region_is_the_per_dimension_one_over_the_dimensions(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    joint = outcome(e, advantage_M, config_of(kind, clip_low=0.8, clip_high=1.2, trust_region="joint"))
    same = outcome(e, advantage_M, config_of(kind, clip_low=0.8 / D, clip_high=1.2 / D))
    other = outcome(e, advantage_M, config_of(kind, clip_low=0.8, clip_high=1.2))
    assert joint.loss == same.loss and torch.equal(joint.weight_M, same.weight_M)
    assert not torch.equal(joint.weight_M, other.weight_M)


@every_kind
def test_ratios_are_reported_per_dimension(kind: str) -> None:
    e, advantage_M = groups_of_paths()
    got = outcome(e, advantage_M, config_of(kind)).stats.ratio_M
    torch.testing.assert_close(got, (e.log_ratio_M.detach() / D).exp())
