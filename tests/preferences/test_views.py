"""What a trainer sees: pairs and groups by index, the same every time, damaged media noted and passed over."""

import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_sets import RED, number_of, numbered, pair, picture

from beholder.errors import InputError
from beholder.preferences import Selection, groups, open_preferences, pairs, write_preferences
from beholder.preferences.schema import Medium, Record, RowError, arrow_schema
from beholder.preferences.store import PreferenceSet
from beholder.preferences.views import Pair


def saved(folder: Path, records: list[Record]) -> PreferenceSet:
    write_preferences(folder / "set.parquet", records)
    return open_preferences(folder)


def numbers(pair: Pair) -> tuple[int, int]:
    return number_of(pair.winner), number_of(pair.loser)


def test_a_pair_is_prompt_winner_loser_and_label(tmp_path: Path) -> None:
    records = [pair(0, votes=(7.0, 3.0), weight=0.5), pair(1), pair(2, votes=(1.0, 1.0))]
    view = pairs(saved(tmp_path, records))
    assert len(view) == 3 and view.left_out == 0 and not view.problems
    first = view[0]
    assert (first.prompt, first.p, first.weight, first.record) == ("prompt 0", pytest.approx(0.7), 0.5, 0)
    assert first.winner.shape == (3, 3, 4) and first.winner.dtype == torch.float32
    assert [numbers(view[i]) for i in range(3)] == [(0, 1), (3, 2), (4, 5)]
    assert [view[i].p for i in (1, 2)] == [1, 0.5]
    with pytest.raises(IndexError):
        view[3]


def test_a_ranking_gives_all_its_pairs(tmp_path: Path) -> None:
    ranking = Record("x", tuple(Medium(numbered(i)) for i in range(3)), ranks=(2.0, 3.0, 1.0))
    view = pairs(saved(tmp_path, [pair(7), ranking]))
    assert [(view[i].record, *numbers(view[i])) for i in range(len(view))] == [
        *((0, 15, 14), (1, 0, 1), (1, 2, 0), (1, 2, 1))
    ]
    one = pairs(open_preferences(tmp_path), Selection("best_worst"))
    assert [(one[i].record, *numbers(one[i])) for i in range(len(one))] == [(0, 15, 14), (1, 2, 1)]


def test_what_nobody_judged_is_counted(tmp_path: Path) -> None:
    unjudged = replace(pair(0), votes=None)
    source = saved(tmp_path, [unjudged, pair(1), pair(2, votes=(0.0, 0.0), ties=1.0)])
    assert (len(pairs(source)), pairs(source).left_out) == (2, 1)
    dropped = pairs(source, Selection(ties="drop"))
    assert (len(dropped), dropped.left_out) == (1, 2)
    with pytest.raises(InputError, match="3 records hold no pair under the rule 'threshold'"):
        pairs(source, Selection("threshold", margin=5.0))


def test_an_epoch_goes_on_from_any_position(tmp_path: Path) -> None:
    view = pairs(saved(tmp_path, [pair(i) for i in range(50)]))
    whole = [(position, numbers(item)) for position, item in view.epoch(seed=3, epoch=1)]
    assert [position for position, _ in whole] == list(range(50))
    assert sorted(item for _, item in whole) == [(2 * i + 1, 2 * i) for i in range(50)]
    again = pairs(open_preferences(tmp_path))
    assert [(p, numbers(item)) for p, item in again.epoch(3, 1, start=17)] == whole[17:]
    other = [numbers(item) for _, item in view.epoch(3, 2)]
    assert other != [item for _, item in whole] and sorted(other) == sorted(item for _, item in whole)


def test_damaged_media_are_noted_and_passed_over(tmp_path: Path) -> None:
    records = [pair(i) for i in range(20)]
    records[7] = replace(records[7], media=(records[7].media[0], Medium(b"no image", "cat.png")))
    records[9] = replace(records[9], media=(Medium(path="gone.png"), records[9].media[1]))
    view = pairs(saved(tmp_path, records))
    seen = dict(view.epoch(0, 0))
    assert len(seen) == 18 and {item.record for item in seen.values()} == set(range(20)) - {7, 9}
    assert [(p.row, p.field) for p in sorted(view.problems.values(), key=lambda p: p.row)] == [
        *((7, "media[1]"), (9, "media[0]"))
    ]
    said = sorted(view.problems)
    assert "set.parquet, row 7, media[1]: cat.png is not a readable image" in said[0]
    assert "no file" in said[1] and "gone.png" in said[1]
    assert dict(view.epoch(0, 0)).keys() == seen.keys() and len(view.problems) == 2
    with pytest.raises(RowError, match="row 7"):
        view[7]


def test_rows_that_contradict_the_schema_are_noted(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from beholder.preferences.rows import to_row

    rows = [to_row(pair(0)), {**to_row(pair(1)), "votes": [1.0]}, to_row(pair(2))]
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema()), tmp_path / "set.parquet")
    view = pairs(open_preferences(tmp_path))
    assert [view[i].record for i in range(len(view))] == [0, 2]
    assert [(p.row, p.field) for p in view.problems.values()] == [(1, "votes")]


def test_what_has_no_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set.parquet, row 1, kind: 'text' is not decoded here"):
        pairs(saved(tmp_path, [pair(0), Record("why?", kind="text", texts=("a", "b"), votes=(1.0, 0.0))]))


def test_a_rule_that_does_not_fit_names_the_row(tmp_path: Path) -> None:
    source = saved(tmp_path, [pair(0, ratings={"a": (0.0, 1.0)}), pair(1, ratings={"b": (0.0, 1.0)})])
    with pytest.raises(InputError, match=r"set.parquet, row 1, by: no rating 'a'; known: b, ranks, votes"):
        pairs(source, Selection(by=("a",)))


def test_views_can_be_sent_to_another_process(tmp_path: Path) -> None:
    view = pairs(saved(tmp_path, [pair(i) for i in range(5)]))
    assert numbers(pickle.loads(pickle.dumps(view))[3]) == numbers(view[3])


def test_groups_hold_every_candidate_and_its_value(tmp_path: Path) -> None:
    likes = [Record(f"like {i}", (Medium(numbered(i)),), ratings={"like": (float(i % 2),)}) for i in range(4)]
    triple = Record("x", tuple(Medium(numbered(i)) for i in range(3)), ratings={"like": (0.5, math.nan, 2.0)}, weight=2)
    ranked = Record("y", (Medium(picture(RED, (2, 5))), Medium(numbered(1))), ranks=(2.0, 1.0))
    unjudged = Record("z", (Medium(numbered(0)),))
    view = groups(saved(tmp_path, [*likes, triple, ranked, unjudged]))
    assert len(view) == 6 and view.left_out == 1
    assert [view[i].value_K.tolist() for i in range(4)] == [[0], [1], [0], [1]]
    assert [number_of(image) for image in view[4].images] == [0, 1, 2] and view[4].weight == 2
    assert view[4].value_K[[0, 2]].tolist() == [0.5, 2] and view[4].value_K[1].isnan()
    assert view[5].value_K.tolist() == [-2, -1] and view[5].images[0].shape == (3, 5, 2)
    assert sorted(item.record for _, item in view.epoch(0, 0)) == list(range(6))
    by = groups(open_preferences(tmp_path), "ranks")
    assert (len(by), by.left_out, by[0].prompt) == (1, 6, "y")
    with pytest.raises(InputError, match="hold no value of votes"):
        groups(open_preferences(tmp_path), "votes")


MEASURE = """
import os, sys
import psutil
from beholder.preferences import open_preferences, pairs
def resident(): return psutil.Process().memory_info().rss / 2**20
view = pairs(open_preferences(sys.argv[1]))
before = None
for position, pair in view.epoch(0, 0):
    if position == 1000: before = peak = resident()
    elif position % 500 == 0 and before: peak = max(peak, resident())
print(len(view), before, peak)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """20,000 pairs of noise of 64 × 64 pixels, 470 MB: an epoch stays far below the set, and below 1.5 GB in all."""
    from small_sets import encoded, noise

    images = [Medium(encoded(noise((64, 64), seed))) for seed in range(64)]
    count = 20_000
    write_preferences(
        tmp_path / "set.parquet",
        (Record(f"prompt {i}", (images[i % 64], images[(i + 1) % 64]), votes=(1.0, 0.0)) for i in range(count)),
    )
    assert (tmp_path / "set.parquet").stat().st_size > 450e6
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "set.parquet")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    n, before, peak = map(float, result.stdout.split())
    print(f"resident: {before:.0f} MiB after 1,000 pairs, at most {peak:.0f} MiB until {n:.0f}")
    assert n == count
    assert peak - before < 100 and peak < 1500
