"""From answers to scores: by hand, against the released arithmetic, and as invariants."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beholder.judges.checklist import Checklist, Question
from beholder.judges.checklist_file import load_checklist
from beholder.judges.score import score_answers

NAN = float("nan")
IMAGE, VIDEO = (load_checklist(f"visionreward-{media}").needed() for media in ("image", "video"))


def question(name: str, dimension: str, weight: float, only_if: str | None = None) -> Question:
    return Question(name, "?", dimension, weight=weight, only_if=only_if)


LIST = Checklist(
    "mine", "image", (question("face", "a", 0.0), question("smile", "a", 1.0, "face"), question("sharp", "b", 4.0))
)


def totals(answers: list[list[float]], **settings: str | float) -> list[float]:
    return score_answers(replace(LIST, **settings), torch.tensor(answers)).total_N.tolist()  # pyright: ignore[reportArgumentType]


def test_codings_and_reductions_by_hand() -> None:
    """face, smile, sharp: a face that smiles and is sharp; one that does neither; no face, sharp."""
    answers = [[0.9, 0.8, 0.6], [0.9, 0.2, 0.5], [0.1, 0.8, 0.6]]
    assert totals(answers) == [5.0, -5.0, 4.0]
    assert totals(answers, coding="binary") == [5.0, 0.0, 4.0]
    assert totals(answers, coding="probability") == pytest.approx([0.8 + 2.4, 0.2 + 2.0, 2.4], abs=1e-6)
    assert totals(answers, reduction="mean", intercept=1.0) == [3.5, -1.5, 3.0]


def test_a_question_may_have_its_own_coding() -> None:
    own = Checklist(
        "mine", "image", (Question("a", "?", "x", weight=2.0, coding="probability"), question("b", "x", 1.0))
    )
    assert score_answers(own, torch.tensor([[0.25, 0.75]])).total_N.item() == 1.5


def test_failed_answers_stay_failed_where_they_matter() -> None:
    scores = score_answers(
        LIST,
        torch.tensor([[NAN, 1.0, 1.0], [1.0, NAN, 1.0], [0.0, NAN, 1.0], [1.0, 1.0, NAN]]),
    )
    assert scores.total_N.isnan().tolist() == [True, True, False, True]
    assert scores.total_N[2] == 4.0, "what does not apply cannot fail"
    assert scores.dimension("a").isnan().tolist() == [True, True, False, False]
    assert scores.dimension("b").isnan().tolist() == [False, False, False, True]
    alone = Checklist("mine", "image", LIST.questions[::2])
    assert not score_answers(alone, torch.tensor([[NAN, 1.0]])).total_N.isnan().any(), "weight 0 without a mask"


# --------------------------------------------------------------------------------- the released script's arithmetic


def released_image_score(yes: np.ndarray, alignment: float) -> float:
    """``cal_score`` on the 30 answers: ±1, masks by position, the mask answers dropped, the alignment in front."""
    x = np.where(yes, 1.0, -1.0)
    for mask, members in {0: (22, 23, 24, 28, 29), 1: (25, 26), 2: (27,)}.items():
        x[list(members)] *= x[mask] > 0
    weights = [q.weight for q in IMAGE.questions if q.weight]
    return float(np.array([alignment, *x[3:]]) @ np.array(weights))


@given(hnp.arrays(bool, 30), st.floats(0, 1))
def test_image_scores_are_those_of_the_released_script(yes: np.ndarray, alignment: float) -> None:
    """Hard answers in the order of the short list, with the VQAScore as the answer to the first question."""
    answers = torch.tensor([[alignment, *yes.astype(float)]], dtype=torch.float64)
    total = score_answers(IMAGE, answers).total_N.item()
    assert total == pytest.approx(released_image_score(yes, alignment), abs=1e-12)


@pytest.mark.parametrize(
    ("yes", "alignment", "expected"),
    [
        ([True] * 30, 0.0, 2.5369059108958987),
        ([False] * 30, 0.1, -1.9265122788080475),
        ([False] * 3 + [True] * 27, 0.3, 2.868227615627551),
    ],
    ids=["all yes", "all no", "nobody in it"],
)
def test_image_scores_computed_by_the_released_script(yes: list[bool], alignment: float, expected: float) -> None:
    answers = torch.tensor([[alignment, *map(float, yes)]], dtype=torch.float64)
    assert score_answers(IMAGE, answers).total_N.item() == pytest.approx(expected, abs=1e-6)


def test_video_scores_computed_by_the_released_script() -> None:
    """The floor that users met when no reply was the script's one word for yes."""
    answers = torch.stack([torch.ones(29), torch.zeros(29)])
    expected = [0.21645422762093175, -0.21645422762093175]
    assert score_answers(VIDEO, answers).total_N.tolist() == pytest.approx(expected, abs=1e-12)


@given(hnp.arrays(bool, (2, 29)))
def test_video_comparisons_are_those_of_the_released_script(yes: np.ndarray) -> None:
    weights = np.array([q.weight for q in VIDEO.questions])
    x = np.where(yes, 1, -1)
    first, second = score_answers(VIDEO, torch.tensor(yes.astype(float))).total_N.tolist()
    released = float(((x[0] - x[1]) * weights).sum())
    assert first - second == pytest.approx(released / 29, abs=1e-12)
    assert (first == second) >= bool((yes[0] == yes[1]).all())


# ------------------------------------------------------------------------------------------------------ invariants


@given(hnp.arrays(float, (3, 31), elements=st.floats(0, 1) | st.just(NAN)))
def test_dimensions_add_up_and_rows_do_not_mix(answers: np.ndarray) -> None:
    yes_NQ = torch.tensor(answers)
    scores = score_answers(IMAGE, yes_NQ)
    added = torch.stack(list(scores.dimensions().values())).sum(0)
    assert torch.allclose(added, scores.total_N, equal_nan=True)
    for i in range(3):
        alone = score_answers(IMAGE, yes_NQ[i : i + 1]).total_N[0]
        assert torch.equal(alone.nan_to_num(9e9), scores.total_N[i].nan_to_num(9e9))


@given(hnp.arrays(float, 31, elements=st.floats(0, 1)), st.integers(4, 30))
def test_yes_is_never_worse_than_no(answers: np.ndarray, which: int) -> None:
    """Except for the masks: a body with errors is worse than none."""
    yes, no = answers.copy(), answers.copy()
    yes[which], no[which] = 1.0, 0.0
    a, b = score_answers(IMAGE, torch.tensor(np.stack([yes, no]))).total_N.tolist()
    assert a >= b
