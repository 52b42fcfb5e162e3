"""From records to tensors: what was judged, by whom, about which pictures."""

import math
from pathlib import Path

import pytest
import torch
from coloured_sets import records, save
from hypothesis import given
from hypothesis import strategies as st

from beholder.errors import InputError
from beholder.fitting.grades import crowd_shares, grade_shares, grades_of, nearest_grade, vote_shares
from beholder.fitting.labels import Labels, read_labels
from beholder.fitting.split import split_by_prompt
from beholder.preferences.schema import Medium, Record
from beholder.preferences.store import open_preferences, write_preferences

NAN = math.nan


def labels_of(folder: Path, *found: Record, by: tuple[str, ...] = (), **more) -> Labels:
    write_preferences(folder / "set.parquet", found)
    return read_labels(open_preferences(folder / "set.parquet"), by, **more)


def made(k: int = 2, prompt: str = "p", **judged) -> Record:
    return Record(prompt, tuple(Medium(b"x") for _ in range(k)), **judged)


def test_votes_keep_ties_apart_from_shares(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, made(votes=(6.0, 2.0), ties=2.0), made(votes=(0.0, 0.0), ties=1.0))
    assert labels.dimensions == ("votes",)
    assert labels.pair_P3.tolist() == [[0, 0, 1], [0, 2, 3]]
    assert labels.win_P.tolist() == pytest.approx([0.6, 0.0]) and labels.tie_P.tolist() == pytest.approx([0.2, 1.0])
    assert labels.p_P.tolist() == pytest.approx([0.7, 0.5])
    assert labels.record_P.tolist() == [0, 1] and list(labels.pairs(1)) == [1] and list(labels.images(1)) == [2, 3]


def test_ranks_are_pairs_of_winner_and_loser(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, made(1, votes=None, ranks=(1.0,)), made(3, ranks=(2.0, 1.0, 2.0)))
    assert {tuple(row) for row in labels.pair_P3.tolist()} == {(0, 2, 1), (0, 2, 3), (0, 1, 3)}
    outcome = {
        tuple(row[1:]): (win, tie)
        for row, win, tie in zip(labels.pair_P3.tolist(), labels.win_P, labels.tie_P, strict=True)
    }
    assert outcome[2, 1] == (1, 0) and outcome[1, 3] == (0, 1)
    assert labels.value_IM[:, 0].tolist() == [-1, -2, -1, -2]


def test_several_dimensions_have_pairs_of_their_own(tmp_path: Path) -> None:
    one = made(ratings={"sharp": (1.0, 3.0), "fun": (5.0, 2.0)})
    other = made(ratings={"sharp": (2.0, NAN)})
    labels = labels_of(tmp_path, one, other, by=("sharp", "fun"), temperature=1.0)
    assert labels.pair_P3.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert labels.win_P.tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-3))])
    assert torch.equal(labels.value_IM.isnan(), torch.tensor([[0, 0], [0, 0], [0, 1], [1, 1]]).bool())


def test_what_was_not_judged_is_counted(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, made(votes=(1.0, 0.0)), made())
    assert len(labels) == 1 and labels.left_out == 1


@pytest.mark.parametrize(
    ("record", "by", "says"),
    [
        (made(), (), "no judgement; let people"),
        (made(ratings={"sharp": (1.0, 2.0)}), ("shrap",), "no record has shrap; did you mean 'sharp'"),
        (made(ratings={"a": (1.0, 2.0), "b": (1.0, 2.0)}), (), "row 0, by: there are no votes or ranks, and 2 ratings"),
        (Record("p", kind="text", texts=("a", "b"), votes=(1.0, 0.0)), (), "row 0, kind: 'text' has no backbone"),
    ],
)
def test_what_cannot_be_learned_from_is_said(tmp_path: Path, record: Record, by: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        labels_of(tmp_path, record, by=by)


def test_the_truth_is_a_rating_of_the_set(tmp_path: Path) -> None:
    labels = labels_of(
        tmp_path, made(votes=(1.0, 0.0), ratings={"shapes": (0.5, NAN)}), made(votes=(1.0, 0.0)), gold="shapes"
    )
    assert labels.gold_I[0] == 0.5 and labels.gold_I[1:].isnan().all()


# ------------------------------------------------------------------------------------------------------------- grades


@given(st.floats(0, 6))
def test_a_value_between_grades_is_shared_with_its_mean(value: float) -> None:
    grades = (1.0, 2.0, 4.0, 5.0)
    share = grade_shares(torch.tensor([value, NAN], dtype=torch.float64), grades)
    assert share[0].sum().item() == pytest.approx(1) and (share[0] > 0).sum() <= 2
    assert (share[0] @ torch.tensor(grades, dtype=torch.float64)).item() == pytest.approx(
        min(max(value, 1), 5), abs=1e-5
    )
    assert share[1].isnan().all()


def test_a_crowd_is_counted_over_records_about_the_same_images(tmp_path: Path) -> None:
    found = [
        made(group="g", ratings={"q": (float(a), float(b))}, annotator=str(a)) for a, b in ((1, 3), (2, 3), (1, NAN))
    ]
    labels = labels_of(tmp_path, *found, made(group="h", ratings={"q": (2.0, 2.0)}))
    grades = grades_of(labels, ())
    assert grades == (1, 2, 3)
    shares = crowd_shares(labels, grades)
    assert torch.allclose(shares[0, 0], torch.tensor([2 / 3, 1 / 3, 0.0])) and torch.equal(shares[0], shares[2])
    assert shares[1, 0].tolist() == [0, 0, 1] and shares[6, 0].tolist() == [0, 1, 0]
    with_prior = crowd_shares(labels, grades, prior=3.0)
    assert torch.allclose(with_prior[0, 0], torch.tensor([3 / 6, 2 / 6, 1 / 6]))
    assert nearest_grade(torch.tensor([0.2, 2.4, 9.0, NAN]), grades).tolist() == [0, 1, 2, 0]
    with pytest.raises(InputError, match=r"name them, e\.g\. --grades"):
        grades_of(labels_of(tmp_path, made(ratings={"q": (1.0, 1.0)})), ())


def test_shares_of_votes_spread_ties_evenly(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, made(3, votes=(2.0, 1.0, 0.0), ties=3.0), made(votes=(0.0, 0.0), ties=1.0))
    assert vote_shares(labels)[:, 0].tolist() == pytest.approx([0.5, 1 / 3, 1 / 6, 0.5, 0.5])
    ranked = labels_of(tmp_path, made(3, ranks=(1.0, 2.0, 1.0)), made(1, ranks=(1.0,)))
    assert vote_shares(ranked)[:3, 0].tolist() == [0.5, 0.0, 0.5] and vote_shares(ranked)[3].isnan().all()


# -------------------------------------------------------------------------------------------------------------- split


@given(st.lists(st.integers(0, 29), max_size=170), st.integers(0, 5))
def test_a_prompt_is_on_one_side_only(more: list[int], seed: int) -> None:
    prompts = [f"prompt {i}" for i in (*range(30), *more)]
    mixed = [prompt.upper() + " " * (i % 2) if i % 3 == 0 else prompt for i, prompt in enumerate(prompts)]
    split = split_by_prompt(mixed, 0.4, seed)
    assert sorted(split.train + split.stop + split.report) == list(range(len(prompts)))
    sides = [{prompts[r] for r in side} for side in split]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert len(split.stop) <= 0.2 * len(prompts) and len(split.report) <= 0.2 * len(prompts)
    assert split == split_by_prompt(mixed, 0.4, seed)


def test_a_split_depends_on_the_seed_and_may_be_without_a_report() -> None:
    prompts = [f"prompt {i % 40}" for i in range(200)]
    assert split_by_prompt(prompts, 0.2, 0) != split_by_prompt(prompts, 0.2, 1)
    split = split_by_prompt(prompts, 0.2, 0, report=False)
    assert split.report == [] and len(split.stop) == 40
    with pytest.raises(InputError, match="1 prompts in 9 records cannot be split"):
        split_by_prompt(["same"] * 9, 0.2, 0)


def test_a_set_of_the_project_is_read(tmp_path: Path) -> None:
    labels = read_labels(open_preferences(save(tmp_path / "set.parquet", records(20, k=3))), (), gold="shapes")
    assert len(labels) == 20 and len(labels.value_IM) == 60 and not labels.gold_I.isnan().any()
