"""w = -∂L/∂ψ of every objective against its closed form, written out one decision, pair and list at a time.

The closed forms are those of the weight table in the notes on the literature: what an objective does to a
log-density is that number and nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from evidence_by_hand import KINDS, D, evidence, groups_of_paths, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.config import ObjectiveConfig
from beholder.objectives.policy_gradient import SCOPES, Evidence

Weights = Callable[[Evidence, list[float], ObjectiveConfig], list[float]]


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


def pairs_of(e: Evidence) -> list[tuple[int, int]]:
    keys = list(zip(e.group_M.tolist(), e.step_M.tolist(), strict=True))
    return [(i, j) for i in range(len(keys)) for j in range(i) if keys[i] == keys[j]]


def pair_square(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
    """REBEL: ∓2η (ηΔ - δA), where the clipped square is the larger one with the clipped Δ and no weight outside."""
    found, pairs = [0.0] * len(advantage), pairs_of(e)
    plain = [v / D for v in e.log_ratio_M.tolist()]
    near = [min(max(v, -config.clip_low), config.clip_high) for v in plain]
    for i, j in pairs:
        eta = config.discount ** e.step_M[i].item() / config.temperature
        errors = [eta * (v[i] - v[j]) - (advantage[i] - advantage[j]) for v in (plain, near)]
        clipped = abs(errors[1]) > abs(errors[0])
        for m, sign in ((i, 1), (j, -1)):
            if not clipped or plain[m] == near[m]:
                found[m] -= sign * 2 * eta * errors[clipped] / (D * len(pairs))
    return found


def pair_logistic(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
    """DPO: ±β σ(-βΔ) for the winner and the loser, none outside the clip."""
    found, pairs, rho = [0.0] * len(advantage), pairs_of(e), ratios(e)
    near = [math.log(min(max(r, 1 - config.clip_low), 1 + config.clip_high)) for r in rho]
    for i, j in pairs:
        won, lost = (i, j) if advantage[i] > advantage[j] else (j, i)
        push = config.temperature / (1 + math.exp(config.temperature * (near[won] - near[lost])))
        for m, sign in ((won, 1), (lost, -1)):
            if 1 - config.clip_low < rho[m] < 1 + config.clip_high:
                found[m] += sign * push / (D * len(pairs))
    return found


def dpo(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
    """±β σ(-βΔ) for the winner and the loser, without a clip."""
    return pair_logistic(e, advantage, replace(config, clip_low=0.99, clip_high=1e9))


def dgpo(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
    """A σ(-β mean A l) with the mean over the prompt's samples at that step."""
    found, keys = [], list(zip(e.group_M.tolist(), e.step_M.tolist(), strict=True))
    for key, a in zip(keys, advantage, strict=True):
        mine = [i for i, other in enumerate(keys) if other == key]
        mean = sum(advantage[i] * e.log_ratio_M[i].item() / D for i in mine) / len(mine)
        found.append(a / (1 + math.exp(config.temperature * mean)) / (D * len(keys)))
    return found


def list_mle(e: Evidence, advantage: list[float], config: ObjectiveConfig) -> list[float]:
    """Plackett-Luce: Σ over stages of β (1[chosen] - share), shared out over the S decisions of a sample."""
    found, samples, groups = [0.0] * len(advantage), e.sample_M.tolist(), e.group_M.tolist()
    for g in set(groups):
        members = sorted({s for s, group in zip(samples, groups, strict=True) if group == g})
        mine = {s: [m for m in range(len(samples)) if samples[m] == s] for s in members}
        psi = {s: [e.log_ratio_M[m].item() / D for m in mine[s]] for s in members}
        near = {s: [min(max(v, -config.clip_low), config.clip_high) for v in psi[s]] for s in members}
        score = {s: config.temperature * sum(near[s]) / len(near[s]) for s in members}
        left = sorted(members, key=lambda s: -advantage[mine[s][0]])
        while left:
            total = sum(math.exp(score[s]) for s in left)
            for s in left:
                push = (s == left[0]) - math.exp(score[s]) / total
                for m, v, n in zip(mine[s], psi[s], near[s], strict=True):
                    if v == n:
                        found[m] += config.temperature * push / (D * len(mine[s]) * len(set(groups)))
            left = left[1:]
    return found


TABLE: dict[str, Weights] = {
    "reinforce": decisions(reinforce),
    "ppo_clip": decisions(ppo_clip),
    "hard_clip": decisions(hard_clip),
    "kl_mask": decisions(kl_mask),
    "guard": guard,
    "gspo": gspo,
    "pair_square": pair_square,
    "pair_logistic": pair_logistic,
    "list_mle": list_mle,
    "dpo": dpo,
    "dgpo": dgpo,
}


def test_the_table_has_a_row_for_every_objective() -> None:
    assert set(TABLE) == set(KINDS)


@pytest.mark.parametrize("kind", TABLE)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    low=st.floats(0.02, 0.4),
    high=st.floats(0.02, 0.4),
    temperature=st.floats(0.2, 5),
    discount=st.floats(0.5, 1),
    uneven=st.booleans(),
)
def test_the_gradient_is_the_weight_of_the_table(
    kind: Any, seed: int, low: float, high: float, temperature: float, discount: float, uneven: bool
) -> None:
    config = ObjectiveConfig(kind=kind, clip_low=low, clip_high=high, temperature=temperature, discount=discount)
    e, advantage_M = groups_of_paths(prompts=2, samples=3, steps=2, seed=seed)
    if uneven and SCOPES.get(kind) != "group":  # these do not take a weight per decision
        weight = 0.5 + torch.rand(len(advantage_M), generator=torch.Generator().manual_seed(seed)).double()
        e = replace(e, weight_M=weight)
    want = TABLE[kind](e, advantage_M.tolist(), config)
    got = outcome(e, advantage_M, config).weight_M
    # the pairs' factor discount^step is rounded to float32
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["reinforce", "ppo_clip", "hard_clip", "kl_mask", "guard", "gspo"])
def test_a_decision_counts_as_clipped_exactly_where_its_weight_is_zero(kind: Any) -> None:
    config, found = ObjectiveConfig(kind=kind, clip_low=0.1, clip_high=0.2), []
    for seed in range(10):
        e, advantage_M = groups_of_paths(seed=seed)
        got = outcome(e, advantage_M, config)
        assert torch.equal(got.stats.clipped_M, got.weight_M == 0)
        found.append(got.stats.clipped_M.double().mean().item())
    assert (max(found) > 0) == (kind != "reinforce")


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_update_the_weights_are_those_of_the_plain_policy_gradient(kind: Any) -> None:
    """With ρ = 1 every objective pushes samples up in the order of their advantages, whatever the clip."""
    e, advantage_M = groups_of_paths(prompts=2, samples=4, steps=2, spread=0.0)
    e = evidence(torch.zeros(16), std=e.std_M, step=e.step_M, sample=e.sample_M, group=e.group_M)
    got = outcome(e, advantage_M, ObjectiveConfig(kind=kind))
    assert got.stats.ratio_M.tolist() == [1.0] * 16
    assert not got.stats.clipped_M.any()
    rate: Tensor = got.weight_M * D * 16 / (e.std_M if kind == "guard" else 1.0)
    if SCOPES.get(kind) != "group" or kind == "dgpo":  # its factor σ(0) is a half
        torch.testing.assert_close(rate, advantage_M * (0.5 if kind == "dgpo" else 1.0))
        return
    per_sample = rate.view(2, 4, 2)
    assert (per_sample[..., 0] == per_sample[..., 1]).all()
    order = advantage_M.view(2, 4, 2)[..., 0].argsort(1)
    assert (per_sample[..., 0].gather(1, order).diff(dim=1) > 0).all()
    torch.testing.assert_close(per_sample.sum(1), torch.zeros(2, 2).double(), atol=1e-12, rtol=0)
    if kind == "pair_square":  # 2 (A - mean of the prompt), times G/2 pairs of each sample over Q of them
        centred = advantage_M.view(2, 4, 2) - advantage_M.view(2, 4, 2).mean(1, keepdim=True)
        pairs = 2 * 2 * 6
        torch.testing.assert_close(per_sample, 2 * 4 * centred * 16 / pairs)
