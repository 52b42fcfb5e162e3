"""What is learned from: as many yes as no, each picture once, nothing that does not apply."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answered_sets import answered_records, portraits
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.checklists.lessons import balanced, by_medium, read_lessons
from beholder.errors import InputError
from beholder.preferences.store import open_preferences, write_preferences


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 6), st.none() | st.integers(1, 5))
def test_every_question_has_as_many_yes_as_no(seed: int, media: int, questions: int, most: int | None) -> None:
    rng = np.random.default_rng(seed)
    yes_MQ = rng.choice([0.0, 1.0, np.nan], (media, questions), p=[0.2, 0.6, 0.2])
    allowed = np.flatnonzero(rng.random(media) < 0.7)
    drawn_E2 = balanced(yes_MQ, allowed, (seed, 0), most)
    assert len({tuple(row) for row in drawn_E2.tolist()}) == len(drawn_E2)
    assert set(drawn_E2[:, 0]) <= set(allowed)
    for q in range(questions):
        said = yes_MQ[drawn_E2[drawn_E2[:, 1] == q, 0], q]
        wanted = min((yes_MQ[allowed, q] == 1).sum(), (yes_MQ[allowed, q] == 0).sum(), most or media)
        assert (said == 1).sum() == (said == 0).sum() == wanted


def test_examples_about_a_medium_stand_together_in_another_order_each_epoch() -> None:
    yes_MQ = np.random.default_rng(0).integers(0, 2, (30, 5)).astype(float)
    first, again, later = (balanced(yes_MQ, np.arange(30), (0, epoch)) for epoch in (0, 0, 1))
    assert (first == again).all() and first.tolist() != later.tolist()
    groups = by_medium(first)
    assert [m for m, questions in groups for _ in questions] == first[:, 0].tolist()
    assert [m for m, _ in groups] != sorted(m for m, _ in groups)


def test_lessons_of_a_set(tmp_path: Path) -> None:
    records = answered_records(20)
    write_preferences(tmp_path / "set.parquet", [replace(records[0], answers={}), *records[1:]])
    lessons = read_lessons(open_preferences(tmp_path / "set.parquet"), portraits())
    assert len(lessons) == 38 and lessons.place_M2[0].tolist() == [1, 0]
    face_M, smile_M = lessons.yes_MQ[:, 3], lessons.yes_MQ[:, 4]
    assert (np.isnan(smile_M) == (face_M == 0)).all() and np.isnan(smile_M).any()
    assert lessons.shows_M.tolist() == (lessons.yes_MQ[:, 0] == 1).tolist()
    assert lessons.prompts[0] == records[1].prompt


def test_a_set_without_answers_says_so(tmp_path: Path) -> None:
    write_preferences(tmp_path / "set.parquet", [replace(r, answers={}) for r in answered_records(3)])
    with pytest.raises(InputError, match="beholder annotate"):
        read_lessons(open_preferences(tmp_path / "set.parquet"), portraits())
