"""Simulated people: they look at rewards, weigh them by their taste, make mistakes and find things equally good.

Shapes: ``_K`` candidates of one prompt, ``_KM`` their values under M rewards, ``_U`` annotators. A candidate without a
value (NaN) in a reward that an annotator cares for is not judged by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from beholder.errors import InputError, nearest


@dataclass(frozen=True)
class Taste:
    """A group of annotators who weigh the rewards alike."""

    weights: Mapping[str, float]
    """Of each reward in the utility u = Σ_m w_m R_m."""
    share: float = 1.0
    """Of the annotators, in proportion to the other groups' shares."""


@dataclass(frozen=True)
class Crowd:
    """Annotators: who there is and how they judge.

    An annotator perceives s_k = u_k + temperature · g_k with standard Gumbel noise g_k, orders by s, and ties whoever
    is within ``tie`` of the best not yet ranked. So a ranking is Plackett–Luce in u / temperature, and a pair is
    Bradley–Terry with ties (Rao & Kupper 1967): P(i beats j) = σ((u_i - u_j - tie) / temperature).
    """

    tastes: Mapping[str, Taste]
    size: int = 8
    """Annotators, shared out among the tastes; their ids are `taste-number`."""
    temperature: float = 0.1
    """In units of the utility; 0 makes no mistakes."""
    tie: float = 0.0
    """Perceived differences up to this are ties."""
    members: tuple[tuple[str, str], ...] = field(init=False)
    """The id and the taste of each annotator."""

    def __post_init__(self) -> None:
        if not self.tastes:
            raise InputError("annotators: no group given; give one, e.g. all=shapes:1")
        for name, value in {"temperature": self.temperature, "tie": self.tie}.items():
            if not 0 <= value < np.inf:
                raise InputError(f"annotators: {name} {value} must be 0 or more")
        if self.size < len(self.tastes):
            raise InputError(f"annotators: {self.size} cannot be of {len(self.tastes)} groups; ask for more annotators")
        counts = _shared_out(self.size, [taste.share for taste in self.tastes.values()])
        members = [(f"{name}-{i}", name) for name, n in zip(self.tastes, counts, strict=True) for i in range(n)]
        object.__setattr__(self, "members", tuple(members))

    def draw(self, n: int, key: Sequence[int]) -> list[int]:
        """``n`` different annotators of ``members``, a function of ``key``."""
        if not 0 < n <= self.size:
            raise InputError(f"annotators: {n} judgements by {self.size} annotators; ask for 1..{self.size}")
        return np.random.default_rng([*key, 0]).permutation(self.size)[:n].tolist()

    def ranks(self, value_KM: np.ndarray, names: Sequence[str], annotator: int, key: Sequence[int]) -> list[float]:
        """One annotator's ranks ``[K]``, 1 the best; NaN where there was nothing to judge. A function of ``key``."""
        utility_K = utility(value_KM, names, self.tastes[self.members[annotator][1]].weights)
        noise_K = np.random.default_rng([*key, 1, annotator]).gumbel(size=len(utility_K))
        return ranks_of(utility_K + self.temperature * noise_K, self.tie)


def _shared_out(n: int, shares: Sequence[float]) -> list[int]:
    """``n`` in proportion to the shares, at least one each, the largest remainders rounded up."""
    if not all(0 < s < np.inf for s in shares):
        raise InputError(f"annotators: shares {list(shares)} must be greater than 0")
    exact = np.array(shares) / sum(shares) * (n - len(shares))
    counts = np.floor(exact).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: n - len(shares) - int(counts.sum())]:
        counts[i] += 1
    return (counts + 1).tolist()


def utility(value_KM: np.ndarray, names: Sequence[str], weights: Mapping[str, float]) -> np.ndarray:
    """Σ_m w_m R_km ``[K]``; rewards of weight 0 do not matter, not even where they failed."""
    for name in weights:
        if name not in names:
            raise InputError(f"annotators: no reward {name!r} is measured; {nearest(name, names)}")
    weight_M = np.array([weights.get(name, 0.0) for name in names])
    cared_for = weight_M != 0
    return np.asarray(value_KM, np.float64)[:, cared_for] @ weight_M[cared_for]


def ranks_of(score_K: np.ndarray, tie: float) -> list[float]:
    """Ranks of scores: 1 for the best and all within ``tie`` of it, then the next; like a race, ties leave a gap."""
    ranks = np.full(len(score_K), np.nan)
    left = [int(k) for k in np.argsort(-score_K, kind="stable") if not np.isnan(score_K[k])]
    rank = 1
    while left:
        equal = [k for k in left if score_K[k] >= score_K[left[0]] - tie]
        ranks[equal] = rank
        rank += len(equal)
        left = left[len(equal) :]
    return ranks.tolist()


def count_votes(rankings: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], float]:
    """Votes ``[K]`` and ties of several rankings: a vote for the one on top, a tie where several are.

    Whoever judged fewer than two candidates has compared nothing and has no vote.
    """
    votes, ties = [0.0] * len(rankings[0]), 0.0
    for ranks in rankings:
        if np.isfinite(ranks).sum() < 2:
            continue
        top = [k for k, rank in enumerate(ranks) if rank == 1]
        if len(top) == 1:
            votes[top[0]] += 1
        elif len(top) > 1:
            ties += 1
    return tuple(votes), ties
