"""The scenes and prompts of the shapes world: split, grammar, wrong captions, scenes that satisfy their prompt."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.worlds.shapes.prompts import (
    KINDS,
    OPPOSITE,
    Prompt,
    all_prompts,
    misdescribe,
    parse,
    random_prompts,
    relation_holds,
    scene_for,
    split,
)
from beholder.worlds.shapes.scenes import (
    COLOURS,
    PALETTE,
    SHAPES,
    SIZE,
    Background,
    Scene,
    Thing,
    coverage,
    extent,
    render,
)

TRAIN, HELD_OUT = split("train"), split("held_out")
TRAIN_TEXTS = {p.text for p in TRAIN}
UNORDERED_PAIRS, COLOUR_PAIRS = 4 * 3 // 2, 8 * 7 // 2


def words(prompts: tuple[Prompt, ...]) -> set[str]:
    return {word for p in prompts for word in p.text.split()}


@pytest.mark.parametrize(
    ("kind", "prompts", "combinations"),
    [
        ("single", 4, 4),
        ("two", 12, UNORDERED_PAIRS),
        ("counting", 4 * 9 * 3, 4 * 9 * 3),
        ("colour", 32, 32),
        ("position", 48, 2 * UNORDERED_PAIRS),
        ("attribution", 12 * 56, UNORDERED_PAIRS * COLOUR_PAIRS),
    ],
)
def test_every_kind_has_its_prompts(kind: str, prompts: int, combinations: int) -> None:
    mine = [p for p in all_prompts() if p.kind == kind]
    assert len(mine) == prompts
    assert len({p.combination for p in mine}) == combinations


def test_texts_are_unique() -> None:
    assert max(Counter(p.text for p in all_prompts()).values()) == 1


def test_train_and_held_out_partition_the_prompts_without_a_shared_combination() -> None:
    assert len(TRAIN) + len(HELD_OUT) == len(all_prompts())
    assert not {p.combination for p in TRAIN} & {p.combination for p in HELD_OUT}


def test_no_held_out_prompt_is_a_training_prompt_in_another_order() -> None:
    train = {(p.kind, p.relation in ("left of", "right of"), frozenset(Counter(p.wanted).items())) for p in TRAIN}
    held = {(p.kind, p.relation in ("left of", "right of"), frozenset(Counter(p.wanted).items())) for p in HELD_OUT}
    assert not train & held


@pytest.mark.parametrize("kind", KINDS)
def test_both_splits_have_every_kind_and_training_knows_every_word(kind: str) -> None:
    train, held = [tuple(p for p in part if p.kind == kind) for part in (TRAIN, HELD_OUT)]
    assert train
    assert held
    assert words(held) <= words(TRAIN)


def test_training_knows_every_shape_colour_and_relation() -> None:
    assert {*SHAPES, *COLOURS, "left", "right", "above", "below", "two", "three", "four"} <= words(TRAIN)


def test_split_refuses_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="'test' is not 'train' or 'held_out'"):
        split("test")


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_caption_is_another_training_text_of_the_kind(kind: str) -> None:
    rng = np.random.default_rng(0)
    for prompt in [p for p in TRAIN if p.kind == kind]:
        wrong = misdescribe(prompt, rng)
        assert wrong.text != prompt.text
        assert wrong.text in TRAIN_TEXTS
        assert wrong.kind == prompt.kind
        assert parse(wrong.text) == wrong


def test_parse_round_trip() -> None:
    for prompt in all_prompts():
        assert parse(prompt.text) == prompt
        assert parse(f"  {prompt.text.upper()}. ") == prompt


@pytest.mark.parametrize(
    "text", ["", "a hexagon", "five circles", "a circle and a circle", "a red circle above a square"]
)
def test_parse_refuses_unknown_texts_with_the_grammar(text: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(repr(text))} is not a text.*circle, square, triangle, cross"):
        parse(text)


def test_random_prompts_take_the_kinds_in_turn() -> None:
    drawn = random_prompts(12, np.random.default_rng(0), "held_out")
    assert [p.kind for p in drawn] == [*KINDS, *KINDS]
    assert set(drawn) <= set(HELD_OUT)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(all_prompts()), st.integers(0, 2**32 - 1))
def test_scene_for_satisfies_its_prompt_and_fits_the_canvas(prompt: Prompt, seed: int) -> None:
    things = scene_for(prompt, np.random.default_rng(seed)).things
    assert [t.shape for t in things] == [w.shape for w in prompt.wanted]
    assert all(w.colour in (None, t.colour) for t, w in zip(things, prompt.wanted, strict=True))
    if prompt.relation is not None:
        a, b = things
        assert relation_holds(prompt.relation, a.x, a.y, b.x, b.y)
        assert not relation_holds(OPPOSITE[prompt.relation], a.x, a.y, b.x, b.y)
    for i, t in enumerate(things):
        reach = extent(t.shape) * t.radius
        assert reach <= min(t.x, t.y, SIZE - t.x, SIZE - t.y)
        for other in things[:i]:
            assert np.hypot(t.x - other.x, t.y - other.y) >= reach + extent(other.shape) * other.radius


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_stays_within_its_extent_and_touches_it(shape: str) -> None:
    ys, xs = np.nonzero(coverage(shape, 64.0, 64.0, 40.0, size=128) > 0.5)
    furthest = np.hypot(xs + 0.5 - 64.0, ys + 0.5 - 64.0).max()
    assert extent(shape) * 40.0 - 2.0 <= furthest <= extent(shape) * 40.0 + 0.5


def test_render_paints_the_colour_on_the_background() -> None:
    scene = Scene((Thing("square", "blue", 16.0, 16.0, 8.0),), Background((0.2, 0.3, 0.1), 0.1, 0.0), noise=0.0)
    image = render(scene, np.random.default_rng(0))
    assert image.shape == (3, SIZE, SIZE)
    np.testing.assert_allclose(image[:, 16, 16], PALETTE["blue"], atol=1e-6)
    np.testing.assert_allclose(image[:, 2, 0], np.array((0.2, 0.3, 0.1)) + 0.1 * (0.5 / SIZE - 0.5), atol=1e-6)


def test_render_is_decided_by_scene_and_generator() -> None:
    scene = scene_for(parse("four crosses"), np.random.default_rng(1))
    first, again, other = (render(scene, np.random.default_rng(seed)) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
