"""Values as grades and as distributions over grades, and votes as shares of a group.

Shapes as in `labels`, with ``_C`` grades.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.fitting.labels import Labels

MOST_GRADES = 20


def grades_of(labels: Labels, given: Sequence[float]) -> tuple[float, ...]:
    """The grades: those given, or every value in the set; InputError where these are too few or too many."""
    found = tuple(given) or tuple(labels.value_IM[~labels.value_IM.isnan()].unique().tolist())
    if not 2 <= len(found) <= MOST_GRADES:
        raise InputError(f"grades: {len(found)} of them, expected 2..{MOST_GRADES}; name them, e.g. --grades 1 2 3 4 5")
    return found


def nearest_grade(value: Tensor, grades: Sequence[float]) -> Tensor:
    """Index of the nearest grade; 0 where the value is NaN."""
    return (value.nan_to_num(0.0)[..., None] - value.new_tensor(grades)).abs().argmin(-1)


def grade_shares(value: Tensor, grades: Sequence[float]) -> Tensor:
    """A value as a distribution over grades ``[..., C]`` with this mean: its two neighbours share it; NaN stays NaN."""
    grade_C = value.new_tensor(grades)
    within = value.nan_to_num(0.0).clamp(grade_C[0], grade_C[-1])
    upper = torch.searchsorted(grade_C, within).clamp(1, len(grade_C) - 1)
    low, high = grade_C[upper - 1], grade_C[upper]
    share = ((within - low) / (high - low))[..., None]
    shares = value.new_zeros(*value.shape, len(grade_C)).scatter_(-1, upper[..., None], share)
    return shares.scatter_(-1, upper[..., None] - 1, 1 - share).masked_fill(value.isnan()[..., None], torch.nan)


def crowd_shares(labels: Labels, grades: Sequence[float], prior: float = 0.0) -> Tensor:
    """``[I, M, C]``: what all who judged an image say of it together: (prior / C + counts) / (prior + people).

    ``prior`` people hold every opinion alike (Dirichlet). Who judged the same images is told by prompt and group.
    """
    own_IMC = grade_shares(labels.value_IM, grades)
    judged_IM1 = (~labels.value_IM.isnan()).float()[..., None]
    counts: dict[str, Tensor] = {}
    people: dict[str, Tensor] = {}
    for r, key in enumerate(labels.sets):
        rows = list(labels.images(r))
        counts[key] = counts.get(key, torch.zeros(())) + own_IMC[rows].nan_to_num(0.0)
        people[key] = people.get(key, torch.zeros(())) + judged_IM1[rows]
    all_IMC, all_IM1 = (torch.cat([found[key] for key in labels.sets]) for found in (counts, people))
    return (all_IMC + prior / len(grades)) / (all_IM1 + prior)


def vote_shares(labels: Labels) -> Tensor:
    """``[I, M]``: each candidate's share of its group's votes, ties spread evenly; for values, of the first place."""
    share_IM = torch.full_like(labels.value_IM, torch.nan)
    for r in range(len(labels)):
        rows = list(labels.images(r))
        for m, name in enumerate(labels.dimensions):
            value_K = labels.value_IM[rows, m]
            judged_K = ~value_K.isnan()
            if judged_K.sum() < 2:
                continue
            if name == "votes":
                top_K = value_K.nan_to_num(0.0) + labels.ties_R[r] / judged_K.sum()
            else:
                top_K = (value_K == value_K[judged_K].max()).float()
            if top_K[judged_K].sum() > 0:
                share_IM[rows, m] = torch.where(judged_K, top_K / top_K[judged_K].sum(), torch.nan)
    return share_IM
