"""From a set with answers and preferences to a checklist with weights, and how good they are.

Shapes as in `weights`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beholder.checklists.answers import Answered, read_answered
from beholder.checklists.settings import WeighConfig
from beholder.checklists.weights import Pairs, bootstrap, descend, loss_of, solve, violation
from beholder.errors import InputError
from beholder.fitting import metrics
from beholder.fitting.split import split_by_prompt
from beholder.judges.checklist import Checklist
from beholder.preferences.selection import Selection
from beholder.preferences.store import open_preferences

Report = dict[str, Any]
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap."""


def weigh(data: Path | str, checklist: Checklist, config: WeighConfig) -> tuple[Checklist, Report]:
    """The checklist with weights fitted to the set, and the report.

    The difference of two totals is then the log-odds that the first is preferred. InputError where the set has no
    answers, no judgements, or where no question tells the preferred one from the other.
    """
    selection = Selection(
        by=() if config.by is None else (config.by,), ties=config.ties, temperature=config.temperature
    )
    answered = read_answered(open_preferences(data), checklist, selection)
    pairs, whole_P = answered.counted()
    if not whole_P.any():
        raise InputError(f"answers: all {len(answered)} pairs have an answer that failed; let the judge answer again")
    train_P, held_P = _split([p for p, whole in zip(answered.prompts, whole_P, strict=True) if whole], config)
    train, weighed_Q = pairs.rows(train_P), weighed(checklist)
    found = fit(train, weighed_Q, config)
    if not found["weight_Q"].any():
        raise InputError(
            "preferences: no question was answered better about the preferred ones, so none has a weight; look at "
            "beholder bias"
        )
    report = _report(found, train, pairs.rows(held_P), answered, config)
    report["questions"] = _questions(checklist, weighed_Q, found, train, config)
    return weighted(checklist, found["weight_Q"]), report


def weighed(checklist: Checklist) -> np.ndarray:
    """Which questions get a weight ``[Q]``: not those that only say whether others apply."""
    conditions = {q.only_if for q in checklist.questions}
    return np.array([q.id not in conditions for q in checklist.questions])


def weighted(checklist: Checklist, weight_Q: np.ndarray) -> Checklist:
    """The checklist with these weights; its total is their sum, without an intercept."""
    questions = tuple(
        replace(q, weight=float(w) + 0.0) for q, w in zip(checklist.questions, weight_Q.tolist(), strict=True)
    )
    return replace(checklist, questions=questions, reduction="sum", intercept=0.0)


def fit(pairs: Pairs, weighed_Q: np.ndarray, config: WeighConfig) -> dict[str, Any]:
    """Weights ``[Q]``, 0 for questions that are not weighed, and what the solver says."""
    few = replace(pairs, gap_PQ=pairs.gap_PQ[:, weighed_Q])
    said: dict[str, Any] = {}
    if config.solver == "sgd":
        descent = descend(few, config.ridge, config.rate, config.tolerance, config.passes, config.mask)
        weight, said = descent.weight_Q, {"passes": descent.passes, "change": descent.change}
    else:
        weight = solve(few, config.ridge, config.mask)
    said |= {
        "loss": loss_of(weight, few, config.ridge)[0],
        "violation": violation(weight, few, config.ridge, config.mask),
    }
    return {"weight_Q": _spread(weight, weighed_Q), "solver": said}


def _spread(weight: np.ndarray, weighed_Q: np.ndarray) -> np.ndarray:
    weight_Q = np.zeros((*weight.shape[:-1], len(weighed_Q)))
    weight_Q[..., weighed_Q] = weight
    return weight_Q


def _split(prompts: list[str], config: WeighConfig) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the pairs that are fitted and of those held out."""
    if config.held_out == 0:
        return np.arange(len(prompts)), np.arange(0)
    split = split_by_prompt(prompts, config.held_out, config.seed, report=False)
    return np.array(split.train), np.array(split.stop)


def agreement(weight_Q: np.ndarray, train: Pairs, held: Pairs) -> dict[str, float]:
    """Accuracy on the held-out pairs without ties and with them, where gaps up to a threshold are called ties.

    The threshold is the best one on the pairs that were fitted.
    """
    gap_P, label_P = _gaps(weight_Q, held)
    decided = label_P != 0
    _, threshold = metrics.calibrate_ties(*_gaps(weight_Q, train))
    right_P, cluster_P = (gap_P * label_P > 0)[decided], torch.from_numpy(held.cluster_P)[decided]
    return {
        "accuracy": metrics.accuracy(gap_P, label_P),
        "accuracy_error": metrics.clustered_error(right_P, cluster_P),
        "accuracy_with_ties": metrics.accuracy_with_ties(gap_P, label_P, threshold),
        "tau": metrics.calibrate_ties(gap_P, label_P)[0],
        "loss": loss_of(weight_Q, held, 0.0)[0],
    }


def _gaps(weight_Q: np.ndarray, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    gap_P = np.round(pairs.gap_PQ @ weight_Q, 12)  # equal answers tie, whatever the order of the sum
    return torch.from_numpy(gap_P), metrics.labels_of(torch.from_numpy(pairs.p_P))


def _report(found: dict[str, Any], train: Pairs, held: Pairs, answered: Answered, config: WeighConfig) -> Report:
    checklist, weighed_Q = answered.checklist, weighed(answered.checklist)
    report: Report = {
        "checklist": checklist.name,
        "pairs": {"train": len(train), "held_out": len(held)},
        "ties": int((train.p_P == 0.5).sum() + (held.p_P == 0.5).sum()),
        "failed": len(answered) - len(train) - len(held),
        "silent": answered.silent,
        "unjudged": answered.unjudged,
        "solver": {"name": config.solver, **found["solver"]},
        "held_out": None,
    }
    if len(held):
        free = fit(train, weighed_Q, replace(config, mask=False, solver="exact"))["weight_Q"]
        before = np.array([q.weight for q in checklist.questions])
        report["held_out"] = {
            "fitted": agreement(found["weight_Q"], train, held),
            "without_mask": agreement(free, train, held),
            "equal_weights": agreement(weighed_Q.astype(float), train, held),
            "weights_before": agreement(before, train, held),
        }
    return report


def _questions(
    checklist: Checklist, weighed_Q: np.ndarray, found: dict[str, Any], train: Pairs, config: WeighConfig
) -> list[dict[str, Any]]:
    few = replace(train, gap_PQ=train.gap_PQ[:, weighed_Q])
    low = high = np.full(len(weighed_Q), np.nan)
    if config.bootstrap:
        draws = bootstrap(few, config.bootstrap, config.seed, config.ridge, config.mask)
        low, high = np.percentile(_spread(draws, weighed_Q), INTERVAL, axis=0)
    free_Q = _spread(solve(few, config.ridge, masked=False), weighed_Q)
    rows = []
    for i in np.flatnonzero(weighed_Q).tolist():
        question = checklist.questions[i]
        row = {"id": question.id, "dimension": question.dimension, "weight": float(found["weight_Q"][i])}
        interval = {"low": float(low[i]), "high": float(high[i])} if config.bootstrap else {}
        rows.append(row | interval | {"without_mask": float(free_Q[i])})
    return rows
