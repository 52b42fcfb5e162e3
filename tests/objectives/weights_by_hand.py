"""w = -∂L/∂ψ of every preference recipe in closed form, one decision, pair, group and list at a time.

Plain floats and loops, from the weight table of the literature where it has a row, else differentiated by hand. ``h``
is the difference of two samples' utilities, before β.
"""

import math
from collections.abc import Callable, Iterator

from evidence_by_hand import MEASURED, D
from torch import Tensor

from beholder.config import ObjectiveConfig
from beholder.objectives.evidence import Evidence

Weights = Callable[[Evidence, list[float], ObjectiveConfig], list[float]]
Utility = Callable[[float, ObjectiveConfig], tuple[float, float]]
"""(value, slope) at ρ per dimension."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def per_dimension(e: Evidence, config: ObjectiveConfig) -> list[float]:
    seen: Tensor = e.logp_M if config.anchor == "none" else e.log_ratio_M
    return [psi / D for psi in seen.tolist()]


def comparisons(e: Evidence) -> list[list[int]]:
    """The decisions of each (prompt, step)."""
    found: dict[tuple[int, int], list[int]] = {}
    for m, key in enumerate(zip(e.group_M.tolist(), e.step_M.tolist(), strict=True)):
        found.setdefault(key, []).append(m)
    return list(found.values())


# ----------------------------------------------------------------------------------------------------------- utilities


def identity(rho: float, c: ObjectiveConfig) -> tuple[float, float]:
    return rho, 1.0


def clipped(rho: float, c: ObjectiveConfig) -> tuple[float, float]:
    near = min(max(rho, -c.clip_low), c.clip_high)
    return near, float(near == rho)


def clipped_ratio(rho: float, c: ObjectiveConfig) -> tuple[float, float]:
    ratio = math.exp(rho)
    near = min(max(ratio, 1 - c.clip_low), 1 + c.clip_high)
    return math.log(near), float(near == ratio)


def log_odds(rho: float, c: ObjectiveConfig) -> tuple[float, float]:
    p = math.exp(rho)
    return math.log(p / (1 - p)), 1 / (1 - p)


def mapo_score(rho: float, c: ObjectiveConfig) -> tuple[float, float]:
    """s = x/(eˣ-1) of x = kℓ = -ρ, k = ½ and ℓ = -2ρ."""
    x, grown = -rho, math.exp(-rho)
    return x / (grown - 1), -(grown - 1 - x * grown) / (grown - 1) ** 2


# --------------------------------------------------------------------------------------------------------------- pairs


Pairs = Callable[[Evidence, list[float]], Iterator[tuple[int, int]]]
"""(winner, loser)."""


def pairs_of(e: Evidence, value: list[float]) -> Iterator[tuple[int, int]]:
    """Every two samples of a prompt at one step."""
    for members in comparisons(e):
        for i in members:
            yield from ((i, j) for j in members if value[i] > value[j])


def far_extremes(e: Evidence, value: list[float]) -> Iterator[tuple[int, int]]:
    """The best and the worst of them, where they are 0.3 apart."""
    for members in comparisons(e):
        ranked = sorted(members, key=lambda m: value[m])
        if value[ranked[-1]] - value[ranked[0]] >= 0.3:
            yield ranked[-1], ranked[0]


def pairs(
    push: Callable[[float, float, ObjectiveConfig], float], utility: Utility = identity, who: Pairs = pairs_of
) -> Weights:
    """``push(h, difference of the values)`` = -∂L/∂h, up for the winner and down for the loser."""

    def weights(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
        found, every = [0.0] * len(value), list(who(e, value))
        terms = len(comparisons(e)) if who is far_extremes else len(every)  # one of each, 0 where it is left out
        u = [utility(rho, config) for rho in per_dimension(e, config)]
        for won, lost in every:
            force = config.preference.weight * push(u[won][0] - u[lost][0], value[won] - value[lost], config)
            found[won] += force * u[won][1] / (D * terms)
            found[lost] -= force * u[lost][1] / (D * terms)
        return found

    return weights


def on_the_best(inner: Weights, pull: Callable[[float, ObjectiveConfig], float]) -> Weights:
    """With an anchor on the best sample of each comparison: ``pull(ρ)`` = -∂anchor/∂ρ."""

    def weights(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
        found, every, rho = inner(e, value, config), comparisons(e), per_dimension(e, config)
        for members in every:
            best = max(members, key=lambda m: value[m])
            found[best] += pull(rho[best], config) / (D * len(every))
        return found

    return weights


def sft(rho: float, c: ObjectiveConfig) -> float:
    return c.preference.sft


def down(rho: float, c: ObjectiveConfig) -> float:
    s = sigmoid(c.temperature * rho)
    return -c.temperature * s * (1 - s)


def dpo(h: float, gap: float, c: ObjectiveConfig) -> float:
    return c.temperature * sigmoid(-c.temperature * h)


def cdpo(h: float, gap: float, c: ObjectiveConfig) -> float:
    return c.temperature * (1 - c.preference.smoothing - sigmoid(c.temperature * h))


def robust(h: float, gap: float, c: ObjectiveConfig) -> float:
    wrong, right = c.preference.smoothing, sigmoid(c.temperature * h)
    return c.temperature * ((1 - wrong) * (1 - right) + wrong * right) / (1 - 2 * wrong)


def soft(h: float, gap: float, c: ObjectiveConfig) -> float:
    """β(z - σ(βΔ)) with z = ½ + gap/4 of the values ±(2z - 1)."""
    return c.temperature * (min(1.0, 0.5 + gap / 4) - sigmoid(c.temperature * h))


def bradley_terry(h: float, gap: float, c: ObjectiveConfig) -> float:
    return c.temperature * (sigmoid(gap) - sigmoid(c.temperature * h))


def ipo(h: float, gap: float, c: ObjectiveConfig) -> float:
    return -2 * (h - 1 / (2 * c.temperature))


def hinge(h: float, gap: float, c: ObjectiveConfig) -> float:
    return c.temperature * (c.temperature * h < c.preference.margin)


def exo(h: float, gap: float, c: ObjectiveConfig) -> float:
    """-∂/∂x KL(Bern(σ(x)) ‖ Bern(q)) = -σ(1-σ)(x - logit q), q = 1 - α."""
    x, q = c.temperature * h, 1 - c.preference.smoothing
    return -c.temperature * sigmoid(x) * sigmoid(-x) * (x - math.log(q / (1 - q)))


def kto_pair(h: float, gap: float, c: ObjectiveConfig) -> float:
    return c.temperature * sigmoid(c.temperature * h) * sigmoid(-c.temperature * h)


def simpo(h: float, gap: float, c: ObjectiveConfig) -> float:
    return c.temperature * sigmoid(c.preference.margin - c.temperature * h)


def regress(h: float, gap: float, c: ObjectiveConfig) -> float:
    return -2 * c.temperature * (c.temperature * h - gap)


def sdpo(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
    """REBEL: ∓2η (ηΔ - δr), where the clipped square is the larger one with the clipped Δ and no weight outside."""
    found, every, plain = [0.0] * len(value), list(pairs_of(e, value)), per_dimension(e, config)
    near = [clipped(rho, config)[0] for rho in plain]
    for i, j in every:
        eta = config.temperature * config.preference.discount ** e.step_M[i].item()
        errors = [eta * (v[i] - v[j]) - (value[i] - value[j]) for v in (plain, near)]
        harder = abs(errors[1]) > abs(errors[0])
        for m, sign in ((i, 1), (j, -1)):
            if not harder or plain[m] == near[m]:
                found[m] -= sign * 2 * eta * errors[harder] / (D * len(every))
    return found


def safeguarded(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
    """DPO, the worst sample of each comparison times λ."""
    found = pairs(dpo)(e, value, config)
    for members in comparisons(e):
        found[min(members, key=lambda m: value[m])] *= MEASURED.safeguard
    return found


# -------------------------------------------------------------------------------------------------------------- points


def points(push: Callable[[float, float, ObjectiveConfig], float], z: float = 0.0) -> Weights:
    """``push(ρ - z, y)`` = -∂L/∂ρ of every decision, y the sign of its value."""

    def weights(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
        p, found = config.preference, []
        for rho, a in zip(per_dimension(e, config), value, strict=True):
            y, share = math.copysign(1.0, a), p.desirable if a > 0 else p.undesirable
            found.append(share * push(rho - z, y, config) / (D * len(value)))
        return found

    return weights


def kto(rho: float, y: float, c: ObjectiveConfig) -> float:
    s = sigmoid(y * c.temperature * rho)
    return y * c.temperature * s * (1 - s)


def bce(rho: float, y: float, c: ObjectiveConfig) -> float:
    return y * c.temperature * sigmoid(-y * c.temperature * rho)


def sppo(rho: float, y: float, c: ObjectiveConfig) -> float:
    return -2 * (rho - y / (2 * c.temperature))


# ---------------------------------------------------------------------------------------------------- groups and lists


def dgpo(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
    """w β A σ(-β mean A ρ), the mean over the prompt's samples at that step."""
    found, every, rho = [0.0] * len(value), comparisons(e), per_dimension(e, config)
    for members in every:
        x = config.temperature * sum(value[m] * rho[m] for m in members) / len(members)
        for m in members:
            force = config.preference.weight * config.temperature * value[m] * sigmoid(-x)
            found[m] = force / (len(members) * D * len(every))
    return found


def crd(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
    """∓2β (β ρ̃ - Ã), both without the mean of their group; the residuals of a group add up to 0."""
    found, rho = [0.0] * len(value), per_dimension(e, config)
    for members in comparisons(e):
        means = [sum(v[m] for m in members) / len(members) for v in (rho, value)]
        for m in members:
            residual = config.temperature * (rho[m] - means[0]) - (value[m] - means[1])
            found[m] = -2 * config.temperature * residual / (D * len(value))
    return found


def lists(push: Callable[[list[float], list[float]], list[float]], utility: Utility = identity) -> Weights:
    """``push(scores, values)`` = -∂L/∂score, best first, of whole samples; shared out over their S decisions."""

    def weights(e: Evidence, value: list[float], config: ObjectiveConfig) -> list[float]:
        found, samples, groups = [0.0] * len(value), e.sample_M.tolist(), e.group_M.tolist()
        u = [utility(rho, config) for rho in per_dimension(e, config)]
        for g in set(groups):
            mine = {s: [m for m in range(len(samples)) if samples[m] == s] for s in set(samples)}
            members = [s for s in mine if groups[mine[s][0]] == g]
            members.sort(key=lambda s: -value[mine[s][0]])
            scores = [config.temperature * sum(u[m][0] for m in mine[s]) / len(mine[s]) for s in members]
            force = push(scores, [value[mine[s][0]] for s in members])
            force[0] += config.preference.sft / config.temperature
            for s, f in zip(members, force, strict=True):
                for m in mine[s]:
                    found[m] += config.temperature * f * u[m][1] / (D * len(mine[s]) * len(set(groups)))
        return found

    return weights


def plackett_luce(scores: list[float], values: list[float]) -> list[float]:
    """Σ over stages of 1[chosen] - share."""
    found = [0.0] * len(scores)
    for k in range(len(scores)):
        total = sum(math.exp(s) for s in scores[k:])
        for i in range(k, len(scores)):
            found[i] += (i == k) - math.exp(scores[i]) / total
    return found


def pro(scores: list[float], values: list[float]) -> list[float]:
    """Σ over stages of T (1 - share) for the chosen and -(r_k - r_i) share for the others, T the largest gap."""
    found = [0.0] * len(scores)
    for k in range(len(scores) - 1):
        gaps = [values[k] - values[-1], *(values[k] - r for r in values[k + 1 :])]
        parts = [math.exp(s * gap) for s, gap in zip(scores[k:], gaps, strict=True)]
        for i, (part, gap) in enumerate(zip(parts, gaps, strict=True)):
            found[k + i] += gap * ((i == 0) - part / sum(parts))
    return found


PREFERENCE_TABLE: dict[str, Weights] = {
    "DPO": pairs(dpo),
    "cDPO": pairs(cdpo),
    "robust DPO": pairs(robust),
    "soft labels": pairs(soft),
    "Bradley-Terry labels": pairs(bradley_terry),
    "IPO": pairs(ipo),
    "SLiC": pairs(hinge),
    "RRHF": on_the_best(pairs(hinge), sft),
    "EXO": pairs(exo),
    "APO-down": on_the_best(pairs(kto_pair), down),
    "SimPO": pairs(simpo),
    "ORPO": on_the_best(pairs(dpo, log_odds), sft),
    "MaPO": on_the_best(pairs(dpo, mapo_score), sft),
    "CaPO": pairs(regress),
    "D3PO": pairs(dpo, clipped_ratio),
    "SPO": pairs(dpo, clipped_ratio, far_extremes),
    "SDPO": sdpo,
    "Diffusion-SDPO": safeguarded,
    "KTO": points(kto, MEASURED.log_ratio_all),
    "BCO": points(bce, MEASURED.log_ratio),
    "DIL": points(bce),
    "APO-zero": points(kto),
    "SPPO": points(sppo),
    "DGPO": dgpo,
    "CRD": crd,
    "Dense Reward View": lists(plackett_luce, clipped),
    "PRO": lists(pro),
}
