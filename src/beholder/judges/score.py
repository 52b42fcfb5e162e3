"""From answers to a score: masks, coding, weights.

Shapes: ``_N`` media, ``_Q`` questions of the checklist. Everything is float64, so that equal answers tie exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.judges.checklist import Checklist, Question


@dataclass(frozen=True)
class Scores:
    """What a checklist gives for N media; NaN where an answer that matters failed."""

    total_N: Tensor
    parts_NQ: Tensor
    """What each question adds to the total; 0 where its mask says that it does not apply."""
    checklist: Checklist

    def dimension(self, name: str) -> Tensor:
        """The sum ``[N]`` of the parts of one dimension."""
        columns = [i for i, q in enumerate(self.checklist.questions) if q.dimension == name]
        return self.parts_NQ[:, columns].sum(1)

    def dimensions(self) -> dict[str, Tensor]:
        """Every dimension with a weight; they add up to the total less the intercept."""
        return {name: self.dimension(name) for name in self.checklist.dimensions}


def score_answers(checklist: Checklist, yes_NQ: Tensor) -> Scores:
    """``total = intercept + Σ_q w_q · x_q · m_q / divisor`` with x the coded answer and m the mask, 1 or 0.

    Signed: x = ±1, yes where ``yes > ½`` (VisionReward's released code); binary: 0 or 1 (its paper); probability: yes
    itself. A question that does not apply adds 0, in every coding. NaN answers stay NaN, unless their weight is 0 or
    their mask is a clear no; where the mask itself is NaN, so is what it guards.
    """
    weight_Q = torch.tensor([q.weight for q in checklist.questions], dtype=torch.float64) / checklist.divisor
    parts_NQ = torch.where(weight_Q == 0, 0.0, count_answers(checklist, yes_NQ) * weight_Q)
    return Scores(parts_NQ.sum(1) + checklist.intercept, parts_NQ, checklist)


def count_answers(checklist: Checklist, yes_NQ: Tensor) -> Tensor:
    """What every answer counts before its weight, x_q · m_q ``[N, Q]``, also of questions without one.

    0 where a question does not apply; NaN where it, or what it depends on, failed.
    """
    yes_NQ = yes_NQ.double()
    place = {q.id: i for i, q in enumerate(checklist.questions)}
    return torch.stack([_count(checklist, q, yes_NQ, place) for q in checklist.questions], 1)


def _count(checklist: Checklist, question: Question, yes_NQ: Tensor, place: dict[str, int]) -> Tensor:
    yes_N = yes_NQ[:, place[question.id]]
    match checklist.coding_of(question):
        case "signed":
            coded_N = 2 * (yes_N > 0.5).double() - 1
        case "binary":
            coded_N = (yes_N > 0.5).double()
        case "probability":
            coded_N = yes_N
    coded_N = torch.where(yes_N.isnan(), torch.nan, coded_N)
    if question.only_if is None:
        return coded_N
    mask_N = yes_NQ[:, place[question.only_if]]
    return torch.where(mask_N.isnan(), torch.nan, torch.where(mask_N > 0.5, coded_N, 0.0))
