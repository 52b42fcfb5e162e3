"""The table of losses: what each is over, how many outputs it wants, and how it reads a batch.

Every row gives losses ``[J, E]`` of J items (pairs, groups or images) for each copy of the reward, and the record that
each item belongs to. Shapes as in `batches`, outputs ``[N, M, E, C]``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from beholder.errors import InputError
from beholder.fitting import losses
from beholder.fitting.batches import Batch, Targets
from beholder.fitting.grades import crowd_shares, grades_of, nearest_grade, vote_shares
from beholder.fitting.labels import Labels
from beholder.fitting.settings import FitConfig

Terms = Mapping[str, Tensor]
"""What a loss learns besides rewards: thresholds of ties and grades."""
Items = tuple[Tensor, Tensor]
LEAST = 1e-4
"""Below this a threshold of ties is none, and a tie impossible."""


@dataclass(frozen=True)
class Criterion:
    over: Literal["pairs", "groups", "images"]
    items: Callable[[Tensor, Batch, Labels, Targets, Terms, FitConfig], Items]
    outputs: int = 1
    """Numbers for a value; 0: one for each grade."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Learned numbers and where they start."""
    units: bool = False
    """Whether rewards are in units of the ratings."""


# -------------------------------------------------------------------------------------------------------------- pairs


def _pairs(
    loss: Callable[[Tensor, Tensor, Tensor, Tensor, Terms, FitConfig], Tensor],
    output: Tensor,
    batch: Batch,
    labels: Labels,
    targets: Targets,
    terms: Terms,
    config: FitConfig,
) -> Items:
    record_P, m_P, first_P, second_P = batch.pair_P4.unbind(1)
    win_P1, tie_P1 = (x[batch.pair_P, None].to(output) for x in (labels.win_P, labels.tie_P))
    first_PEC, second_PEC = output[first_P, m_P], output[second_P, m_P]
    found_PE = loss(first_PEC, second_PEC, win_P1, tie_P1, terms, config)
    if config.centring:
        found_PE = found_PE + config.centring * losses.centring(first_PEC[..., 0], second_PEC[..., 0])
    return found_PE, record_P


def _gap(first_PEC: Tensor, second_PEC: Tensor) -> Tensor:
    return first_PEC[..., 0] - second_PEC[..., 0]


def _bradley_terry(first: Tensor, second: Tensor, win: Tensor, tie: Tensor, terms: Terms, config: FitConfig) -> Tensor:
    return losses.bradley_terry(_gap(first, second), win + tie / 2, config.margin)


def _rao_kupper(first: Tensor, second: Tensor, win: Tensor, tie: Tensor, terms: Terms, config: FitConfig) -> Tensor:
    return losses.rao_kupper(_gap(first, second), win, tie, softplus(terms["threshold"]) + LEAST)


def _davidson(first: Tensor, second: Tensor, win: Tensor, tie: Tensor, terms: Terms, config: FitConfig) -> Tensor:
    return losses.davidson(_gap(first, second), win, tie, terms["log_nu"])


def _gaussian(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    first: Tensor,
    second: Tensor,
    win: Tensor,
    tie: Tensor,
    terms: Terms,
    config: FitConfig,
) -> Tensor:
    variance = (2 * first[..., 1]).exp() + (2 * second[..., 1]).exp()
    return loss(_gap(first, second), variance, (win + tie / 2).expand_as(variance))


# ------------------------------------------------------------------------------------------------------------- groups


def _groups(
    loss: Callable[[Tensor, Tensor], Tensor],
    output: Tensor,
    batch: Batch,
    labels: Labels,
    targets: Targets,
    terms: Terms,
    config: FitConfig,
) -> Items:
    target_IM = labels.value_IM if targets.share_IM is None else targets.share_IM
    target_RKM = target_IM[batch.image_N][batch.slot_RK].masked_fill(batch.slot_RK[..., None] < 0, torch.nan)
    record_G, m_G = ((~target_RKM.isnan()).sum(1) > 1).nonzero(as_tuple=True)
    value_GKE = output[batch.slot_RK[record_G], m_G[:, None], :, 0]
    return loss(value_GKE, target_RKM[record_G, :, m_G].to(output)), record_G


# ------------------------------------------------------------------------------------------------------------- images


def _images(
    loss: Callable[[Tensor, Tensor, Tensor, Targets, Terms], Tensor],
    output: Tensor,
    batch: Batch,
    labels: Labels,
    targets: Targets,
    terms: Terms,
    config: FitConfig,
) -> Items:
    value_NM = labels.value_IM[batch.image_N]
    image_J, m_J = (~value_NM.isnan()).nonzero(as_tuple=True)
    found_JE = loss(output[image_J, m_J], batch.image_N[image_J], m_J, targets, terms)
    return found_JE, batch.record_N[image_J]


def _regression(output_JEC: Tensor, image_J: Tensor, m_J: Tensor, targets: Targets, terms: Terms) -> Tensor:
    value_JE = output_JEC[..., 0]
    return losses.regression(value_JE, _of(targets.grade_IM, image_J, m_J).to(value_JE)[:, None].expand_as(value_JE))


def _ordinal(output_JEC: Tensor, image_J: Tensor, m_J: Tensor, targets: Targets, terms: Terms) -> Tensor:
    steps_C = softplus(terms["steps"]) + LEAST
    cut_C = terms["first_cut"] + torch.cat([steps_C.new_zeros(1), steps_C.cumsum(0)])
    grade_J = _of(targets.grade_IM, image_J, m_J).to(output_JEC.device, torch.int64)
    return losses.ordinal(output_JEC[..., 0], grade_J[:, None], cut_C)


def _distribution(
    loss: Callable[[Tensor, Tensor], Tensor],
    output_JEC: Tensor,
    image_J: Tensor,
    m_J: Tensor,
    targets: Targets,
    terms: Terms,
) -> Tensor:
    return loss(output_JEC, _of(targets.crowd_IMC, image_J, m_J).to(output_JEC))


def _of(target: Tensor | None, image_J: Tensor, m_J: Tensor) -> Tensor:
    assert target is not None, "targets were not made for this loss"
    return target[image_J, m_J]


CRITERIA: dict[str, Criterion] = {
    "bradley_terry": Criterion("pairs", partial(_pairs, _bradley_terry)),
    "rao_kupper": Criterion("pairs", partial(_pairs, _rao_kupper), terms={"threshold": 0.0}),
    "davidson": Criterion("pairs", partial(_pairs, _davidson), terms={"log_nu": 0.0}),
    "gaussian": Criterion("pairs", partial(_pairs, partial(_gaussian, losses.gaussian)), 2),
    "gaussian_marginal": Criterion("pairs", partial(_pairs, partial(_gaussian, losses.gaussian_marginal)), 2),
    "plackett_luce": Criterion("groups", partial(_groups, losses.plackett_luce)),
    "group_softmax": Criterion("groups", partial(_groups, losses.group_softmax)),
    "regression": Criterion("images", partial(_images, _regression), units=True),
    "ordinal": Criterion("images", partial(_images, _ordinal)),
    "wasserstein": Criterion("images", partial(_images, partial(_distribution, losses.wasserstein)), 0, units=True),
    "cramer": Criterion("images", partial(_images, partial(_distribution, losses.cramer)), 0, units=True),
}


@dataclass(frozen=True)
class Scale:
    """Mean and spread of each dimension's ratings, for rewards in their units."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]


def scale_of(labels: Labels, criterion: Criterion) -> Scale:
    """Of the ratings, where a head of one number predicts them; 0 and 1 otherwise."""
    m = len(labels.dimensions)
    if not criterion.units or criterion.outputs == 0:
        return Scale((0.0,) * m, (1.0,) * m)
    columns = [column[~column.isnan()].double() for column in labels.value_IM.T]
    spread = tuple(max(column.std().item(), 1e-6) if len(column) > 1 else 1.0 for column in columns)
    return Scale(tuple(column.mean().item() for column in columns), spread)


def targets_of(labels: Labels, config: FitConfig, scale: Scale) -> tuple[Targets, tuple[float, ...]]:
    """What this loss wants of the images, and the grades where it has some; InputError where they are no ratings."""
    if config.loss == "group_softmax":
        return Targets(share_IM=vote_shares(labels)), ()
    if CRITERIA[config.loss].over != "images":
        return Targets(), ()
    for name in labels.dimensions:
        if name in ("votes", "ranks"):
            raise InputError(
                f"loss: {config.loss} wants ratings, and {name} are none; name a rating of the set, --by NAME 1.0, or "
                "take a loss over pairs, e.g. --loss bradley_terry"
            )
    if config.loss == "regression":
        offset_M, scale_M = (torch.tensor(numbers) for numbers in (scale.offset, scale.scale))
        return Targets(grade_IM=(labels.value_IM - offset_M) / scale_M), ()
    grades = grades_of(labels, config.grades)
    if config.loss == "ordinal":
        return Targets(grade_IM=nearest_grade(labels.value_IM, grades)), grades
    return Targets(crowd_IMC=crowd_shares(labels, grades, config.prior)), grades


def first_terms(criterion: Criterion, grades: tuple[float, ...]) -> dict[str, Tensor]:
    """The learned numbers before the first step."""
    terms = {name: torch.tensor(value) for name, value in criterion.terms.items()}
    if criterion is CRITERIA["ordinal"]:
        cuts = len(grades) - 1
        terms |= {"first_cut": torch.tensor(-(cuts - 1) / 2), "steps": torch.full((cuts - 1,), 0.54)}  # steps of 1
    return terms
