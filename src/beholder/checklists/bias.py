"""In what the preferred ones are better: yes-rates by question and by dimension (2412.21059, Fig. 4).

Shapes as in `answers`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beholder.checklists.answers import Answered, applying, read_answered
from beholder.judges.checklist import Checklist
from beholder.preferences.selection import Selection
from beholder.preferences.store import open_preferences

Z95 = 1.959963984540054
Row = dict[str, Any]


def bias(data: Path | str, checklist: Checklist, by: str | None = None) -> dict[str, Any]:
    """A row for every dimension and one for every question, over the pairs of a set that are no tie."""
    selection = Selection(by=() if by is None else (by,), ties="drop")
    answered = read_answered(open_preferences(data), checklist, selection)
    preferred_PQ, other_PQ = (_hard(applying(checklist, yes_PQ)) for yes_PQ in answered.yes_2PQ)
    rows = [_row(q.id, q.dimension, preferred_PQ[:, [i]], other_PQ[:, [i]], answered) for i, q in _listed(checklist)]
    dimensions = []
    for name in dict.fromkeys(q.dimension for _, q in _listed(checklist)):
        columns = [i for i, q in _listed(checklist) if q.dimension == name]
        dimensions.append(_row(name, name, preferred_PQ[:, columns], other_PQ[:, columns], answered))
    return {"checklist": checklist.name, "pairs": len(answered), "dimensions": dimensions, "questions": rows}


def _listed(checklist: Checklist) -> list[tuple[int, Any]]:
    """Questions of which one answer is the better: not those that only say whether others apply."""
    conditions = {q.only_if for q in checklist.questions}
    return [(i, q) for i, q in enumerate(checklist.questions) if q.id not in conditions]


def _hard(yes_PQ: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(yes_PQ), np.nan, yes_PQ > 0.5)


def _row(name: str, dimension: str, preferred_PQ: np.ndarray, other_PQ: np.ndarray, answered: Answered) -> Row:
    """Yes-rates over the questions that apply to both of a pair, and how often either one has more of them."""
    both_PQ = ~(np.isnan(preferred_PQ) | np.isnan(other_PQ))
    used_P = both_PQ.any(1)
    n_P = both_PQ[used_P].sum(1)
    a_P, b_P = (np.where(both_PQ, yes_PQ, 0.0)[used_P].sum(1) / n_P for yes_PQ in (preferred_PQ, other_PQ))
    weight_P, cluster_P = answered.weight_P[used_P], answered.cluster_P[used_P]
    gap_P = np.round(a_P - b_P, 12)
    differ_P = gap_P != 0
    row: Row = {"name": name, "dimension": dimension, "pairs": int(used_P.sum()), "differ": int(differ_P.sum())}
    row |= {"preferred": _mean(a_P, weight_P), "other": _mean(b_P, weight_P)}
    row |= dict(zip(("difference", "low", "high"), interval(gap_P, weight_P, cluster_P), strict=True))
    better = interval((gap_P > 0)[differ_P].astype(float), weight_P[differ_P], cluster_P[differ_P])
    return row | dict(zip(("better", "better_low", "better_high"), better, strict=True))


def _mean(value_P: np.ndarray, weight_P: np.ndarray) -> float | None:
    return float(np.average(value_P, weights=weight_P)) if len(value_P) else None


def interval(
    value_P: np.ndarray, weight_P: np.ndarray, cluster_P: Sequence[int] | np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """The weighted mean and its 95 % interval, where values of one cluster (a prompt) go together.

    Error √(G/(G−1) Σ_g (Σ_{i∈g} c_i (v_i − mean))²) / Σ c over G clusters; None with nothing to average, no interval
    with one cluster.
    """
    if not len(value_P):
        return None, None, None
    mean = float(np.average(value_P, weights=weight_P))
    _, place_P = np.unique(cluster_P, return_inverse=True)
    off_G = np.bincount(place_P, weight_P * (value_P - mean))
    if len(off_G) < 2:
        return mean, None, None
    error = float(np.sqrt(len(off_G) / (len(off_G) - 1)) * np.linalg.norm(off_G) / weight_P.sum())
    return mean, mean - Z95 * error, mean + Z95 * error
