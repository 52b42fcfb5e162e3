"""What a set is said to hold."""

from dataclasses import replace
from pathlib import Path

from small_sets import numbered, pair

from beholder.preferences.schema import Medium, Record
from beholder.preferences.store import open_preferences, write_preferences
from beholder.preferences.summary import summarise


def summary(folder: Path, records: list[Record], **given) -> dict:
    write_preferences(folder / "set.parquet", records)
    return summarise(open_preferences(folder), **given)


def test_counts_by_hand(tmp_path: Path) -> None:
    triple = Record("prompt 0", tuple(Medium(numbered(i)) for i in range(3)), ranks=(1.0, 2.0, 2.0), split="test")
    records = [
        pair(0, annotator="a", split="train", source="x"),
        pair(1, annotator="b", split="train", votes=(1.0, 1.0), source="x"),
        pair(2, ratings={"q": (0.0, 1.0), "r": (1.0, 0.0)}),
        triple,
        replace(pair(3), votes=None),
    ]
    heard: list[int] = []
    said = summary(tmp_path, records, advance=heard.append)
    assert sum(heard) == said["records"] == 5 and said["problems"] == []
    assert (said["pairs"], said["ties"], said["without_a_pair"]) == (1 + 1 + 3, 1 + 1, 2)
    assert (said["prompts"], said["annotators"], said["prompts_in_several_splits"]) == (4, 2, 1)
    assert said["kinds"] == {"image": 5} and said["k"] == {"2": 4, "3": 1}
    assert said["judged_by"] == {"ranks": 1, "ratings": 1, "votes": 2} and said["ratings"] == {"q": 1, "r": 1}
    assert said["sources"] == {"x": 2} and said["splits"] == {"test": 1, "train": 2}
    without = summarise(open_preferences(tmp_path), media=False)
    assert {**said, "repeated": 0, "contradictions": 0} == without


def test_repeated_and_contradicting_judgements_are_counted(tmp_path: Path) -> None:
    first = pair(0)
    turned = replace(first, media=first.media[::-1], votes=(1.0, 0.0))
    against = replace(first, votes=(1.0, 0.0))
    other = replace(first, prompt="another")
    tie = replace(first, votes=(1.0, 1.0))
    said = summary(tmp_path, [first, turned, against, other, tie, pair(1)])
    assert (said["repeated"], said["contradictions"]) == (2, 1)


def test_damaged_media_are_named(tmp_path: Path) -> None:
    said = summary(tmp_path, [pair(0), replace(pair(1), media=(Medium(b"x"), Medium(numbered(0))))])
    assert len(said["problems"]) == 1 and "set.parquet, row 1, media[0]: " in said["problems"][0]
    assert said["records"] == 2 and said["pairs"] == 1
