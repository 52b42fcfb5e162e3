"""From what is known about K candidates to pairs ``(winner, loser, p)``: which ones a loss gets to see.

``p`` in [½, 1] is the probability that the winner is preferred, a soft label: 1 is certain, ½ a tie. Shapes: ``_K``
candidates, ``_KM`` their values under M rewards; higher is better. NaN was not judged and takes no part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple, get_args

from beholder.errors import InputError, nearest
from beholder.preferences.schema import Record

Rule = Literal["all_pairs", "threshold", "best_worst", "dominance", "majority", "frontier"]


class Choice(NamedTuple):
    winner: int
    loser: int
    p: float


@dataclass(frozen=True)
class Selection:
    """Which pairs are made of a record."""

    rule: Rule = "all_pairs"
    """all_pairs; threshold: those further apart than `margin`; best_worst: one pair; dominance: better in no rating
    worse (VisionReward's MPO); majority: better in more ratings (BalancedDPO); frontier: CaPO's fronts."""
    by: tuple[str, ...] = ()
    """What decides: names of ratings, `votes` or `ranks`. None: the votes, else the ranks, else the only rating; for
    dominance, majority and frontier all ratings."""
    margin: float = 0.0
    """threshold: values must differ by more."""
    slack: tuple[float, ...] = (0.0,)
    """dominance: how much worse the winner may be, for all ratings or for each in the order of `by`."""
    temperature: float = 0.0
    """Values are logits at this temperature: p = σ(gap / temperature); 0 makes every gap certain. Votes have their
    own shares."""
    ties: Literal["keep", "drop"] = "keep"
    """keep: as pairs with p = ½, the lower index first."""

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise InputError(f"rule: unknown rule {self.rule!r}; {nearest(self.rule, get_args(Rule))}")
        for name, value in {"margin": self.margin, "temperature": self.temperature, "slack": min(self.slack)}.items():
            if not value >= 0:
                raise InputError(f"{name}: {value} must be 0 or more")


ALL_PAIRS = Selection()


def all_pairs(value_K: Sequence[float], temperature: float = 0.0) -> list[Choice]:
    """Every pair of judged candidates."""
    return [_decided(value_K, i, j, temperature) for i, j in combinations(_judged(value_K), 2)]


def threshold(value_K: Sequence[float], margin: float, temperature: float = 0.0) -> list[Choice]:
    """The pairs whose values differ by more than ``margin``."""
    return [c for c in all_pairs(value_K, temperature) if value_K[c.winner] - value_K[c.loser] > margin]


def best_worst(value_K: Sequence[float], temperature: float = 0.0) -> list[Choice]:
    """The best against the worst; the first of equals. A tie where all are equal, nothing below two candidates."""
    judged = _judged(value_K)
    if len(judged) < 2:
        return []
    best = max(judged, key=lambda k: value_K[k])
    worst = min((k for k in judged if k != best), key=lambda k: value_K[k])
    return [_decided(value_K, best, worst, temperature)]


def _judged(value_K: Sequence[float]) -> list[int]:
    return [k for k, value in enumerate(value_K) if not math.isnan(value)]


def _decided(value_K: Sequence[float], i: int, j: int, temperature: float) -> Choice:
    gap = value_K[i] - value_K[j]
    if gap < 0:
        return Choice(j, i, likely(-gap, temperature))
    return Choice(i, j, likely(gap, temperature))


def likely(gap: float, temperature: float) -> float:
    """Bradley–Terry's σ(gap / temperature) for a gap of 0 or more; at temperature 0 its limit."""
    if gap == 0:
        return 0.5
    return 1.0 if temperature == 0 else 1 / (1 + math.exp(-gap / temperature))


def vote_pairs(vote_K: Sequence[float], ties: float = 0.0) -> list[Choice]:
    """p = (v_i + ties/2) / (v_i + v_j + ties) for every pair that anybody voted about.

    For a choice among K that is one against the rest: pairs of losers got no vote and are left out.
    """
    pairs = []
    for i, j in combinations(range(len(vote_K)), 2):
        total = vote_K[i] + vote_K[j] + ties
        if total > 0:
            p = (vote_K[i] + ties / 2) / total
            pairs.append(Choice(i, j, p) if p >= 0.5 else Choice(j, i, 1 - p))
    return pairs


def dominance(value_KM: Sequence[Sequence[float]], slack: Sequence[float] = (0.0,)) -> list[Choice]:
    """Pairs in which the winner is nowhere worse by more than ``slack_m``, and somewhere better by more.

    Without slack: R_i ≥ R_j in every reward, and not equal (VisionReward's MPO, 2412.21059); of M independent rewards a
    share of 2^(1-M) of the pairs remains. With it: relaxed dominance (LPO, 2502.01051); never both ways round.
    """
    judged = [k for k, row in enumerate(value_KM) if not any(math.isnan(v) for v in row)]
    pairs = []
    for i, j in combinations(judged, 2):
        for a, b in ((i, j), (j, i)):
            if _dominates(value_KM[a], value_KM[b], slack):
                pairs.append(Choice(a, b, 1.0))
    return pairs


def _dominates(a_M: Sequence[float], b_M: Sequence[float], slack: Sequence[float]) -> bool:
    slack_M = tuple(slack) * len(a_M) if len(slack) == 1 else tuple(slack)
    if len(slack_M) != len(a_M):
        raise InputError(f"slack: {len(slack_M)} values for {len(a_M)} rewards; give one each, or one for all")
    gaps = list(zip(a_M, b_M, slack_M, strict=True))
    return all(a >= b - s for a, b, s in gaps) and any(a > b + s for a, b, s in gaps)


def majority(value_KM: Sequence[Sequence[float]]) -> list[Choice]:
    """The winner is better in more rewards: S = Σ_m sign(R_im - R_jm), p = (n + |S|) / 2n over the n judged ones."""
    pairs = []
    for i, j in combinations(range(len(value_KM)), 2):
        signs = [
            (a > b) - (a < b)
            for a, b in zip(value_KM[i], value_KM[j], strict=True)
            if not (math.isnan(a) or math.isnan(b))
        ]
        if signs:
            total, n = sum(signs), len(signs)
            pairs.append(Choice(*((i, j) if total >= 0 else (j, i)), p=(n + abs(total)) / (2 * n)))
    return pairs


def win_rates(value_KM: Sequence[Sequence[float]]) -> list[list[float]]:
    """CaPO's calibrated rewards ``[K, M]`` in 0..1: R_ca[i, m] = Σ_{j≠i} σ(R_im - R_jm) / (K-1), of what is judged."""
    rates = []
    for i, row in enumerate(value_KM):
        others = [other for j, other in enumerate(value_KM) if j != i]
        rates.append([_mean([_sigmoid(v - other[m]) for other in others]) for m, v in enumerate(row)])
    return rates


def _mean(values: Sequence[float]) -> float:
    judged = [v for v in values if not math.isnan(v)]
    return sum(judged) / len(judged) if judged else math.nan


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


def frontier(value_KM: Sequence[Sequence[float]]) -> list[Choice]:
    """CaPO: everyone on the upper Pareto front against everyone on the lower one; who is on both takes no part.

    A front of rewards is the front of their `win_rates`, which grow with the reward. The paper draws one of these pairs
    at random each step and takes the difference of the win rates for the target, which need not be positive.
    """
    judged = [k for k, row in enumerate(value_KM) if not any(math.isnan(v) for v in row)]
    beaten = {c.loser for c in dominance(value_KM)}
    beating = {c.winner for c in dominance(value_KM)}
    upper = [k for k in judged if k not in beaten and k in beating]
    lower = [k for k in judged if k not in beating and k in beaten]
    return [Choice(i, j, 1.0) for i in upper for j in lower]


# ------------------------------------------------------------------------------------------------------- of a record


def choose(record: Record, selection: Selection = ALL_PAIRS) -> list[Choice]:
    """The pairs of a record; none where nobody judged it. InputError where what should decide is not there."""
    s = selection
    if s.rule in ("dominance", "majority", "frontier"):
        columns = [values_by(record, name) for name in s.by or record.ratings]
        value_KM = list(zip(*columns, strict=True)) if columns else []
        if s.rule == "dominance":
            choices = dominance(value_KM, s.slack)
        else:
            choices = majority(value_KM) if s.rule == "majority" else frontier(value_KM)
    elif s.rule == "all_pairs" and decider(record, s.by) == "votes":
        choices = vote_pairs(record.votes or (), record.ties)
    else:
        choices = _by_value(record, s)
    return choices if s.ties == "keep" else [c for c in choices if c.p != 0.5]


def _by_value(record: Record, s: Selection) -> list[Choice]:
    name = decider(record, s.by)
    if name is None:
        return []
    value_K = values_by(record, name)
    if s.rule == "threshold":
        return threshold(value_K, s.margin, s.temperature)
    return (all_pairs if s.rule == "all_pairs" else best_worst)(value_K, s.temperature)


def decider(record: Record, by: Sequence[str]) -> str | None:
    """What decides for one value per candidate; None where nothing is known."""
    if len(by) > 1:
        raise InputError(f"by: {', '.join(by)} are several; name one, or choose dominance, majority or frontier")
    if by:
        return by[0]
    if record.votes is not None:
        return "votes"
    if record.ranks is not None:
        return "ranks"
    if len(record.ratings) > 1:
        raise InputError(
            f"by: there are no votes or ranks, and {len(record.ratings)} ratings; name one of "
            f"{', '.join(record.ratings)}, or choose dominance, majority or frontier"
        )
    return next(iter(record.ratings), None)


def values_by(record: Record, name: str) -> tuple[float, ...]:
    """Values ``[K]``, higher is better: votes, negative ranks, or a rating; NaN where the record lacks them."""
    if name in ("votes", "ranks"):
        values = record.votes if name == "votes" else record.ranks
        if values is None:
            return (math.nan,) * record.k
        return values if name == "votes" else tuple(-rank for rank in values)
    if name not in record.ratings:
        raise InputError(f"by: no rating {name!r}; {nearest(name, (*record.ratings, 'votes', 'ranks'))}")
    return record.ratings[name]
