"""Prompt sources: files that are fine, files that are not, and draws that repeat and balance."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.errors import InputError
from beholder.prompts import MAX_BYTES, PromptSet, load_prompts


def file(folder: Path, content: bytes) -> str:
    path = folder / "prompts.txt"
    path.write_bytes(content)
    return str(path)


def refusal(source: str) -> str:
    with pytest.raises(InputError) as refused:
        load_prompts(source)
    message = str(refused.value)
    assert message.startswith("prompts: ") and "\n" not in message
    return message


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "content, texts",
    [
        (b"a red circle\ntwo cats\n", ("a red circle", "two cats")),
        (b"a red circle\r\n\r\n  two cats  \r\n", ("a red circle", "two cats")),
        (b"\xef\xbb\xbfa red circle", ("a red circle",)),
        ("ein grünes Kreuz\n猫\n".encode(), ("ein grünes Kreuz", "猫")),
        (b"same\nsame\n", ("same", "same")),
    ],
    ids=["plain", "Windows", "byte order mark", "beyond ASCII", "repeated"],
)
def test_one_prompt_a_line(content: bytes, texts: tuple[str, ...], tmp_path: Path) -> None:
    loaded = load_prompts(file(tmp_path, content))
    assert loaded.texts == texts
    assert loaded.kinds is None


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_a_file_without_prompts_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "holds no prompt" in refusal(file(tmp_path, content))


def test_a_file_that_is_not_utf8_is_refused_with_the_place(tmp_path: Path) -> None:
    assert "not UTF-8 (byte 7)" in refusal(file(tmp_path, b"ein gr\xfcnes Kreuz".replace(b"gr", b"gro")))
    assert "not UTF-8" in refusal(file(tmp_path, "a red circle".encode("utf-16")))


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as sparse:
        sparse.truncate(2**40)
    assert "split it" in refusal(str(path))


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"a red circle\n" + b"x" * (MAX_BYTES - 13))
    assert [len(text) for text in load_prompts(str(path)).texts] == [12, MAX_BYTES - 13]
    with path.open("ab") as more:
        more.write(b"\n")
    assert "more than" in refusal(str(path))


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    assert "no file" in refusal(str(tmp_path))
    assert "no file" in refusal(str(tmp_path / "nowhere.txt"))
    assert "'shapes:held_out'" in refusal("shapes:heldout")


# ---------------------------------------------------------------------------------------------------------- the world


def test_the_splits_of_the_world_share_no_prompt_but_all_kinds() -> None:
    train, heldout = load_prompts("shapes:train"), load_prompts("shapes:held_out")
    assert train.kinds is not None and heldout.kinds is not None
    assert not set(train.texts) & set(heldout.texts)
    assert set(train.kinds) == set(heldout.kinds)
    assert len(train.texts) == len(train.kinds)


# -------------------------------------------------------------------------------------------------------------- draws


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 40), n=st.integers(1, 100), key=st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_nothing_repeats_before_everything_was_drawn(size: int, n: int, key: list[int]) -> None:
    prompts = PromptSet(tuple(str(i) for i in range(size)))
    drawn = prompts.draw(n, key)
    assert drawn == prompts.draw(n, key)
    assert len(drawn) == n
    for start in range(0, n, size):
        part = drawn[start : start + size]
        assert len(set(part)) == len(part) and set(part) <= set(range(size))


def test_other_keys_draw_otherwise() -> None:
    prompts = PromptSet(tuple(str(i) for i in range(50)))
    draws = [tuple(prompts.draw(10, key)) for key in ([0, 1], [0, 2], [1, 1], [1, 2])]
    assert len(set(draws)) == 4


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6), n=st.integers(1, 60), key=st.integers(0, 2**40))
def test_kinds_get_equal_shares_whatever_their_size(sizes: list[int], n: int, key: int) -> None:
    kinds = [f"kind {i}" for i, size in enumerate(sizes) for _ in range(size)]
    prompts = PromptSet(tuple(map(str, range(len(kinds)))), tuple(kinds))
    drawn = prompts.draw(n, [key])
    assert drawn == prompts.draw(n, [key])
    shares = Counter(kinds[i] for i in drawn)
    assert all(n // len(sizes) <= shares[f"kind {i}"] <= -(-n // len(sizes)) for i in range(len(sizes)))


def test_every_kind_takes_the_odd_place_and_every_prompt_its_turn() -> None:
    prompts = PromptSet(tuple("abcdef"), ("x", "x", "y", "y", "z", "z"))
    first = Counter(prompts.draw(1, [0, i])[0] for i in range(600))
    assert set(first) == set(range(6))
    assert max(first.values()) < 100 + 5 * (600 * 5 / 36) ** 0.5


def test_jsonl_without_images_gives_prompts_and_their_tags_as_kinds(tmp_path: Path) -> None:
    file = tmp_path / "geneval.jsonl"
    file.write_text(
        '{"tag": "counting", "prompt": "a photo of two dogs", "include": []}\n\n{"prompt": "x", "tag": "t"}\n'
    )
    prompts = load_prompts(str(file))
    assert (prompts.texts, prompts.kinds, prompts.image) == (("a photo of two dogs", "x"), ("counting", "t"), None)
    file.write_text('{"prompt": "one", "tag": "t"}\n{"prompt": "two"}\n')
    assert load_prompts(str(file)).kinds is None
    file.write_text('{"prompt": "one"}\n{"prompt": 2}\n')
    with pytest.raises(InputError, match="line 2"):
        load_prompts(str(file))
    file.write_bytes(b'{"prompt": "one"}\n{"prompt": "caf\xe9"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        load_prompts(str(file))
