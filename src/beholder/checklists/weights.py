"""Weights of a checklist from pairs: non-negative logistic regression on differences of answers (2412.21059, §3.2).

    L(w) = Σ_p c_p [−p_p log σ(z_p) − (1 − p_p) log(1 − σ(z_p))] / Σ_p c_p + ridge/2 · |w|²,   z = ΔX w,   w ≥ 0

Shapes: ``_P`` pairs with ``gap`` ΔX = X_first − X_second, the probability ``p`` in 0..1 that the first is preferred
(½ is a tie) and a weight ``c``; ``_Q`` questions; ``_B`` bootstrap draws.

Every question is phrased so that yes is good: a negative weight is a spurious correlation, and the mask w ≥ 0 is the
paper's. An intercept would cancel in ΔX.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from beholder.errors import InputError, RunError

TIGHT = 1e-6
"""How far from optimal, in units of the gradient, the deterministic solution may be."""


@dataclass(frozen=True)
class Pairs:
    """What a regression sees."""

    gap_PQ: np.ndarray
    p_P: np.ndarray
    weight_P: np.ndarray
    cluster_P: np.ndarray
    """Pairs of one prompt have one number: a bootstrap draws them together."""

    def __len__(self) -> int:
        return len(self.p_P)

    def rows(self, chosen: np.ndarray) -> "Pairs":
        """Those at these places, or where this mask is true."""
        return Pairs(self.gap_PQ[chosen], self.p_P[chosen], self.weight_P[chosen], self.cluster_P[chosen])


def loss_of(weight_Q: np.ndarray, pairs: Pairs, ridge: float) -> tuple[float, np.ndarray]:
    """L(w) and its gradient ``[Q]``; exact for large |z|."""
    z_P = pairs.gap_PQ @ weight_Q
    share_P = pairs.weight_P / pairs.weight_P.sum()
    loss = share_P @ (np.logaddexp(0.0, z_P) - pairs.p_P * z_P) + ridge / 2 * weight_Q @ weight_Q
    gradient_Q = (share_P * (expit(z_P) - pairs.p_P)) @ pairs.gap_PQ + ridge * weight_Q
    return float(loss), gradient_Q


def violation(weight_Q: np.ndarray, pairs: Pairs, ridge: float, masked: bool = True) -> float:
    """How far from optimal: max_q |w − max(w − ∇L, 0)|, without the mask max |∇L|; 0 just at the minimum."""
    _, gradient_Q = loss_of(weight_Q, pairs, ridge)
    step_Q = weight_Q - np.maximum(weight_Q - gradient_Q, 0.0) if masked else gradient_Q
    return float(np.abs(step_Q).max(initial=0.0))


def solve(pairs: Pairs, ridge: float, masked: bool = True, start_Q: np.ndarray | None = None) -> np.ndarray:
    """The minimum ``[Q]``: L-BFGS-B with bounds, the same numbers every time.

    InputError where there is none: without a ridge, pairs that answers decide without exception drive weights to
    infinity.
    """
    start_Q = np.zeros(pairs.gap_PQ.shape[1]) if start_Q is None else start_Q
    bounds = [(0.0, None) if masked else (None, None)] * len(start_Q)
    settings = {"maxiter": 5000, "maxfun": 50_000, "ftol": 0.0, "gtol": TIGHT / 100, "maxcor": 30}
    found = minimize(
        loss_of, start_Q, args=(pairs, ridge), jac=True, method="L-BFGS-B", bounds=bounds, options=settings
    )
    weight_Q = np.asarray(found.x, np.float64)
    if ridge == 0 and _separated(weight_Q, pairs):
        raise InputError(
            "ridge: 0 has no finite weights where answers decide every pair without exception; give --ridge 0.001"
        )
    if not violation(weight_Q, pairs, ridge, masked) < TIGHT:
        raise RunError(f"weigh: no minimum was found ({found.message}); give a larger --ridge than {ridge:g}")
    return weight_Q


def _separated(weight_Q: np.ndarray, pairs: Pairs) -> bool:
    z_P, certain_P = pairs.gap_PQ @ weight_Q, np.isin(pairs.p_P, (0.0, 1.0))
    right_P = np.where(pairs.p_P == 1, z_P, -z_P) > 0
    silent_P = ~pairs.gap_PQ.any(1)
    return bool((silent_P | (certain_P & right_P)).all() and not silent_P.all())


class Descent(NamedTuple):
    weight_Q: np.ndarray
    passes: int
    change: float
    """|w − w_old| over the last pass."""


def descend(
    pairs: Pairs, ridge: float = 0.0, rate: float = 0.01, tolerance: float = 1e-3, most: int = 500, masked: bool = True
) -> Descent:
    """The paper's algorithm: a pass of SGD over all pairs in their order, then w ← w · 1[w > 0], until w stays put.

    w ← w − rate · (c_p (σ(ΔX_p · w) − p_p) ΔX_p + ridge · w), c with mean 1. At a constant rate the pass has a fixed
    point near the minimum, nearer for a smaller rate. A masked weight may come back in the next pass. Rate and
    tolerance are ours: the paper names none.
    """
    weight_Q, change, done = np.zeros(pairs.gap_PQ.shape[1]), np.inf, 0
    rows = list(zip(pairs.gap_PQ, pairs.p_P.tolist(), (pairs.weight_P / pairs.weight_P.mean()).tolist(), strict=True))
    while done < most and change > tolerance:
        old_Q = weight_Q
        for gap_Q, p, c in rows:
            miss = c * (_sigmoid(float(gap_Q @ weight_Q)) - p)
            weight_Q = (1 - rate * ridge) * weight_Q - (rate * miss) * gap_Q
        weight_Q = np.where(weight_Q > 0, weight_Q, 0.0) if masked else weight_Q
        change, done = float(np.linalg.norm(weight_Q - old_Q)), done + 1
    return Descent(weight_Q, done, change)


def _sigmoid(z: float) -> float:
    return 0.5 * (1.0 + float(np.tanh(0.5 * z)))


def bootstrap(pairs: Pairs, draws: int, seed: int, ridge: float, masked: bool = True) -> np.ndarray:
    """Weights ``[B, Q]`` of sets with as many prompts, drawn with replacement: how far the next set's would differ."""
    _, cluster_P = np.unique(pairs.cluster_P, return_inverse=True)
    clusters, rng = int(cluster_P.max(initial=-1)) + 1, np.random.default_rng([seed, 29])
    start_Q = solve(pairs, ridge, masked)
    found = []
    for _ in range(draws):
        times_P = rng.multinomial(clusters, np.full(clusters, 1 / clusters))[cluster_P]
        kept = times_P > 0
        drawn = pairs.rows(kept)
        drawn = Pairs(drawn.gap_PQ, drawn.p_P, drawn.weight_P * times_P[kept], drawn.cluster_P)
        found.append(solve(drawn, ridge, masked, start_Q))
    return np.array(found).reshape(draws, len(start_Q))
