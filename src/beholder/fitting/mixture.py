"""Groups of annotators with a reward each, by hard expectation maximisation (MaxMin-RLHF, 2402.08925, alg. 2).

E-step: an annotator belongs to the group whose reward explains their judgements best. M-step: each reward is trained on
its annotators' records. Shapes: ``_A`` annotators, ``_R`` records, ``_E`` groups.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.fitting.labels import Labels


def annotators_of(labels: Labels, groups: int) -> list[str]:
    """Who judged; InputError where somebody is not named or they are too few."""
    if "" in labels.annotators:
        row = labels.row_R[labels.annotators.index("")].item()
        raise InputError(f"groups: record {row} names no annotator; groups are found by who judged, use --groups 1")
    names = sorted(set(labels.annotators))
    if len(names) < groups:
        raise InputError(f"groups: {len(names)} annotators cannot be {groups} groups; ask for fewer")
    return names


def annotator_numbers(labels: Labels, names: Sequence[str]) -> Tensor:
    """Which of ``names`` judged each record ``[R]``; −1 for somebody else."""
    place = {name: a for a, name in enumerate(names)}
    return torch.tensor([place.get(name, -1) for name in labels.annotators])


def groups_of_records(labels: Labels, names: Sequence[str], group_A: Tensor) -> Tensor | None:
    """The group of each record's annotator ``[R]``, −1 where nobody knows; None without groups."""
    if not len(group_A):
        return None
    annotator_R = annotator_numbers(labels, names)
    return torch.where(annotator_R < 0, -1, group_A[annotator_R])


def first_groups(annotators: int, groups: int, seed: int) -> Tensor:
    """Groups ``[A]`` of nearly equal size, at random."""
    return torch.randperm(annotators, generator=torch.Generator().manual_seed(seed)) % groups


def likeliest_groups(loss_RE: Tensor, annotator_R: Tensor, before_A: Tensor) -> Tensor:
    """E-step: the group ``[A]`` with the smallest sum of losses; who has no judgement here stays where they were."""
    total_AE = loss_RE.new_zeros(len(before_A), loss_RE.shape[1]).index_add_(0, annotator_R, loss_RE)
    judged_A = torch.zeros(len(before_A), dtype=torch.bool).index_fill_(0, annotator_R, True)
    return torch.where(judged_A, total_AE.argmin(1), before_A)


def named_groups(names: Sequence[str], group_A: Tensor, groups: int) -> list[list[str]]:
    """The annotators of each group."""
    return [[name for name, g in zip(names, group_A.tolist(), strict=True) if g == group] for group in range(groups)]
