"""Records on disk and back, and what a row may not say."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import full_record, pair, picture

from beholder.errors import InputError
from beholder.preferences.rows import check, from_row, to_row
from beholder.preferences.schema import COLUMNS, HeatMap, Medium, Record, RowError, arrow_schema, words
from beholder.preferences.store import open_preferences, write_preferences


def same(a: Record, b: Record) -> bool:
    """Equality that takes NaN for NaN."""
    return repr(a) == repr(b)


def test_the_schema_has_a_column_for_every_field() -> None:
    assert tuple(arrow_schema().names) == COLUMNS


def test_every_field_comes_back(tmp_path: Path) -> None:
    record = full_record(tmp_path)
    assert write_preferences(tmp_path / "set.parquet", [record, pair(3)]) == 2
    there = open_preferences(tmp_path / "set.parquet")
    assert same(there[0], record)
    assert same(there[1], pair(3))


numbers = st.floats(allow_infinity=False, width=64) | st.just(math.nan)


@st.composite
def any_record(draw: Callable) -> Record:
    k = draw(st.integers(1, 4))

    def each(values: st.SearchStrategy) -> Any:
        return draw(st.lists(values, min_size=k, max_size=k).map(tuple))

    texts = st.text(max_size=8)
    return Record(
        prompt=draw(texts),
        media=each(st.binary(min_size=1, max_size=8).map(Medium)),
        ranks=draw(st.none()) or each(st.floats(1, 1e6) | st.just(math.nan)),
        votes=each(st.floats(0, 1e6)) if draw(st.booleans()) else None,
        ties=draw(st.floats(0, 1e3)),
        ratings={name: each(numbers) for name in draw(st.sets(texts, max_size=2))},
        answers={name: each(st.floats(0, 1) | st.just(math.nan)) for name in draw(st.sets(texts, max_size=2))},
        annotator=draw(st.none() | texts),
        weight=draw(st.floats(0, 10)),
        meta=draw(st.dictionaries(texts, st.integers() | texts, max_size=2)),
    )


@settings(max_examples=80, deadline=None)
@given(any_record())
def test_any_record_survives_the_arrow_types(record: Record) -> None:
    row = pa.Table.from_pylist([to_row(record)], schema=arrow_schema()).to_pylist()[0]
    assert same(from_row(row, "set.parquet", 0), record)


def test_the_words_of_a_prompt_are_those_of_richhf() -> None:
    assert words('a "red" cat, on:the;mat. yes?!') == ["a", "red", "cat", "on", "the", "mat", "yes"]
    assert words("") == []


two = pair(0)
CONTRADICTIONS: dict[str, tuple[Record, str, str]] = {
    "ranks of three": (replace(two, ranks=(1.0, 2.0, 3.0)), "ranks", "3 values for 2 candidates; give one each"),
    "one vote": (replace(two, votes=(1.0,)), "votes", "1 values for 2 candidates"),
    "negative votes": (replace(two, votes=(1.0, -1.0)), "votes", "must be 0 or more"),
    "votes unknown": (replace(two, votes=(1.0, math.nan)), "votes", "must be 0 or more"),
    "negative ties": (replace(two, ties=-1.0), "votes", "must be 0 or more"),
    "rank zero": (replace(two, ranks=(0.0, 1.0)), "ranks", "must be 1 (best) or more"),
    "rating": (replace(two, ratings={"x": (1.0,)}), "ratings['x']", "1 values for 2 candidates"),
    "infinite": (replace(two, ratings={"x": (1.0, math.inf)}), "ratings['x']", "leave out what failed"),
    "answer": (replace(two, answers={"q": (1.0, -1.0)}), "answers['q']", "0 (no) to 1 (yes)"),
    "kind": (replace(two, kind="audio"), "kind", "image, video, text"),  # pyright: ignore[reportArgumentType]
    "nothing": (Record("x"), "media", "kind 'image' has its candidates in media"),
    "texts with images": (replace(two, texts=("a", "b")), "media", "in media only"),
    "text without texts": (replace(two, kind="text"), "media", "in texts only"),
    "no bytes": (replace(two, media=(Medium(), Medium(b"x"))), "media[0]", "neither bytes nor a path"),
    "map of none": (replace(two, maps=(HeatMap("m", 2, Medium(b"x")),)), "maps[0]", "medium 2 must be 0..1"),
    "empty map": (replace(two, maps=(HeatMap("m", 0, Medium()),)), "maps[0]", "neither bytes nor a path"),
    "word": (replace(two, misaligned=((0,), (2,))), "misaligned[1]", "words 0..1 of 'prompt 0'"),
    "weight": (replace(two, weight=-1.0), "weight", "must be 0 or more"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_names_its_row_and_field(name: str, tmp_path: Path) -> None:
    record, field, said = CONTRADICTIONS[name]
    with pytest.raises(RowError) as raised:
        check(record, "some/set.parquet", 41)
    problem = raised.value.problem
    assert (problem.file, problem.row, problem.field) == ("some/set.parquet", 41, field)
    assert said in problem.reason
    assert str(raised.value).startswith(f"some/set.parquet, row 41, {field}: ")
    with pytest.raises(RowError, match="row 1"):
        write_preferences(tmp_path / "set.parquet", [two, record])
    assert not list(tmp_path.iterdir())


def table(rows: list[dict], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_set_may_have_few_columns_and_close_types(tmp_path: Path) -> None:
    """Written by something else: integers for ranks, large strings, media by path, nothing more."""
    (tmp_path / "a.png").write_bytes(picture())
    columns = {
        "prompt": pa.array(["x"], pa.large_string()),
        "media": pa.array([[{"path": "a.png", "bytes": None}] * 2]),
        "ranks": pa.array([[1, 2]], pa.list_(pa.int16())),
    }
    pq.write_table(pa.table(columns), tmp_path / "set.parquet")
    record = open_preferences(tmp_path)[0]
    assert record.ranks == (1.0, 2.0) and record.kind == "image" and record.weight == 1
    assert record.media[0].path == str(tmp_path / "a.png")


MEDIA = [{"bytes": b"x", "path": None}]
FOREIGN: dict[str, tuple[dict, str]] = {
    "unknown": ({"prompt": "x", "media": MEDIA, "rank": [1]}, "unknown column 'rank'; did you mean 'ranks'"),
    "no prompt": ({"media": MEDIA}, "no column 'prompt'"),
    "no candidates": ({"prompt": "x"}, "no column 'prompt' with 'media' or 'texts'"),
    "type": ({"prompt": "x", "media": MEDIA, "ranks": "first"}, "set.parquet, ranks: string is not list"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_columns_are_named(name: str, tmp_path: Path) -> None:
    row, said = FOREIGN[name]
    with pytest.raises(InputError, match=said):
        open_preferences(table([row], tmp_path / "set.parquet"))


BAD_ROWS: dict[str, tuple[dict, str, str]] = {
    "meta": ({"meta": "{"}, "meta", "not JSON"),
    "meta list": ({"meta": "[1]"}, "meta", "no JSON object"),
    "twice": ({"ratings": [{"name": "x", "values": [1.0]}] * 2}, "ratings", "'x' stands there twice"),
    "unnamed": ({"answers": [{"name": None, "values": [1.0]}]}, "answers", "a name or its values are missing"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_values_on_disk_are_named(name: str, tmp_path: Path) -> None:
    values, field, said = BAD_ROWS[name]
    good = {"prompt": "x", "media": MEDIA, "kind": "image"}
    path = tmp_path / "set.parquet"
    pq.write_table(pa.Table.from_pylist([good, {**good, **values}], schema=arrow_schema()), path)
    there = open_preferences(path)
    assert there[0].prompt == "x"
    with pytest.raises(RowError, match=said) as raised:
        there[1]
    assert (raised.value.problem.row, raised.value.problem.field) == (1, field)
    assert [isinstance(record, RowError) for record in there.scan()] == [False, True]


def test_a_missing_prompt_is_not_an_empty_one(tmp_path: Path) -> None:
    path = table([{"prompt": None, "media": MEDIA}, {"prompt": "", "media": MEDIA}], tmp_path / "set.parquet")
    there = open_preferences(path)
    assert there[1].prompt == ""
    with pytest.raises(RowError, match="row 0, prompt: it is missing; write '' where there is none"):
        there[0]
