"""The exact verifier: right on rendered scenes, never fooled, fair in its partial credit."""

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from beholder.worlds.shapes.prompts import (
    KINDS,
    Prompt,
    all_prompts,
    misdescribe,
    parse,
    random_prompts,
    relation_holds,
    scene_for,
)
from beholder.worlds.shapes.scenes import (
    COLOURS,
    PALETTE,
    PALETTE_RGB,
    SHAPES,
    SIZE,
    Background,
    Scene,
    Thing,
    coverage,
    extent,
    render,
)
from beholder.worlds.shapes.verifier import Found, detect, grade, verify

PER_KIND = 400
MIRROR = {"left of": "right of", "right of": "left of", "above": "above", "below": "below", None: None}
PROMPTS = all_prompts()
DULL = Background((0.2, 0.2, 0.2), 0.0, 0.0)


def draw(prompts: list[Prompt], seed: int) -> tuple[list[Scene], np.ndarray]:
    rng = np.random.default_rng(seed)
    scenes = [scene_for(p, rng) for p in prompts]
    return scenes, np.stack([render(scene, rng) for scene in scenes])


def of_kind(kind: str, n: int, seed: int) -> list[Prompt]:
    pool, rng = [p for p in PROMPTS if p.kind == kind], np.random.default_rng(seed)
    return [pool[i] for i in rng.integers(len(pool), size=n)]


def truth(scene: Scene, prompt: Prompt) -> bool:
    """Whether the scene's description satisfies the prompt, decided without pixels."""
    colours = [t.colour if w.colour else None for t, w in zip(scene.things, prompt.wanted, strict=False)]
    if len(scene.things) != len(prompt.wanted):
        return False
    if prompt.relation:
        by_shape = {t.shape: t for t in scene.things}
        if set(by_shape) != {w.shape for w in prompt.wanted}:
            return False
        a, b = (by_shape[w.shape] for w in prompt.wanted)
        return relation_holds(prompt.relation, a.x, a.y, b.x, b.y)
    seen = Counter((t.shape, t.colour if any(colours) else None) for t in scene.things)
    return seen == Counter((w.shape, w.colour) for w in prompt.wanted)


def picture(*things: Thing, background: Background = DULL) -> np.ndarray:
    return render(Scene(things, background, 0.0), np.random.default_rng(0))


def one(image: np.ndarray, text: str) -> tuple[float, float]:
    verdicts = verify(image[None], [parse(text)])
    return float(verdicts.strict[0]), float(verdicts.graded[0])


@pytest.fixture(scope="module")
def rendered() -> tuple[list[Prompt], list[Scene], np.ndarray]:
    prompts = [p for kind in KINDS for p in of_kind(kind, PER_KIND, 11)]
    return prompts, *draw(prompts, 12)


@pytest.mark.parametrize("kind", KINDS)
def test_rendered_scenes_pass(kind: str, rendered: tuple[list[Prompt], list[Scene], np.ndarray]) -> None:
    prompts, _, images = rendered
    mine = np.array([p.kind == kind for p in prompts])
    assert verify(images[mine], [p for p in prompts if p.kind == kind]).strict.mean() >= 0.995


def test_detected_objects_are_the_drawn_ones(rendered: tuple[list[Prompt], list[Scene], np.ndarray]) -> None:
    _, scenes, images = rendered
    for scene, image in list(zip(scenes, images, strict=True))[:: len(scenes) // 100]:
        found = sorted(detect(image), key=lambda f: (f.x, f.y))
        for f, t in zip(found, sorted(scene.things, key=lambda t: (t.x, t.y)), strict=True):
            assert (f.shape, f.colour) == (t.shape, t.colour)
            assert max(abs(f.x - t.x), abs(f.y - t.y), abs(f.radius - t.radius)) < 0.35
            assert f.fit > 0.9
            assert f.purity > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["blur", "noise"])
def test_tolerates_a_small_decoder(kind: str, damage: str) -> None:
    prompts = of_kind(kind, 200, 21)
    _, images = draw(prompts, 22)
    if damage == "blur":
        images = ndimage.uniform_filter(images, 3, axes=(2, 3), mode="nearest")
    else:
        images = np.clip(images + 0.06 * np.random.default_rng(23).standard_normal(images.shape), 0.0, 1.0)
    assert verify(images, prompts).strict.mean() >= 0.97


def test_wrong_captions_are_not_accepted_and_get_intermediate_credit() -> None:
    rng = np.random.default_rng(31)
    prompts = random_prompts(600, rng)
    _, images = draw(prompts, 32)
    verdicts = verify(images, [misdescribe(p, rng) for p in prompts])
    assert verdicts.strict.mean() <= 0.002
    assert ((verdicts.graded > 0.05) & (verdicts.graded < 0.95)).mean() > 0.99


def test_other_prompts_are_accepted_just_when_the_scene_satisfies_them(
    rendered: tuple[list[Prompt], list[Scene], np.ndarray],
) -> None:
    prompts, scenes, images = rendered
    others = [prompts[i] for i in np.random.default_rng(33).permutation(len(prompts))]
    expected = np.array([truth(scene, other) for scene, other in zip(scenes, others, strict=True)])
    strict = verify(images, others).strict.astype(bool)
    assert 0.005 < expected.mean() < 0.5, "the comparison needs both answers"
    assert (strict & ~expected).sum() <= 0.002 * (~expected).sum()
    assert (~strict & expected).mean() <= 0.005


def test_partial_credit_in_order() -> None:
    red_circle, blue_square = Thing("circle", "red", 9.0, 16.0, 5.0), Thing("square", "blue", 23.0, 16.0, 5.0)
    both = picture(red_circle, blue_square)
    text = "a red circle and a blue square"
    assert one(both, text) == (1.0, 1.0)
    assert one(picture(replace(red_circle, colour="blue"), replace(blue_square, colour="red")), text)[
        1
    ] == pytest.approx(0.6)
    assert one(picture(red_circle), text)[1] == pytest.approx(0.5)
    assert one(picture(red_circle, blue_square, Thing("cross", "green", 16.0, 26.0, 4.0)), text)[1] == pytest.approx(
        4 / 9
    )
    assert one(both, "a circle left of a square") == (1.0, 1.0)
    assert one(both, "a circle right of a square")[1] == pytest.approx(0.5)
    assert one(both, "a circle above a square")[1] == pytest.approx(0.5)
    assert one(both, "a circle")[1] == pytest.approx(0.25)
    assert one(picture(red_circle), "a square")[1] == pytest.approx(0.2)
    assert one(picture(red_circle), "a blue circle")[1] == pytest.approx(0.6)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_miscounting_costs_more_the_further_it_is_off(n: int) -> None:
    places = [(7.0, 7.0), (24.0, 8.0), (8.0, 24.0), (24.0, 24.0), (16.0, 16.0)]
    circles = [Thing("circle", COLOURS[i], x, y, 4.2) for i, (x, y) in enumerate(places)]
    text = {2: "two circles", 3: "three circles", 4: "four circles"}[n]
    graded = {m: one(picture(*circles[:m]), text)[1] for m in range(6)}
    assert graded[0] == 0.0
    assert graded[n] == 1.0
    assert all(graded[m] < graded[m + 1] for m in range(n))
    assert all(graded[m] > graded[m + 1] for m in range(n, 5))
    assert 0.4 <= graded[n - 1] < 0.95
    assert 0.4 <= graded[n + 1] < 0.95


def test_an_unrecognised_blob_is_an_extra_and_a_speck_is_not() -> None:
    image = picture(Thing("circle", "red", 11.0, 11.0, 6.0))
    speck, blob = image.copy(), image.copy()
    speck[:, 25:27, 25:27] = 0.9
    blob[:, 25:28, 22:30] = 0.9
    assert one(speck, "a red circle")[0] == 1.0
    assert one(blob, "a red circle") == (0.0, pytest.approx(0.25))


@pytest.mark.parametrize("colours", [("red", "blue"), ("yellow", "white"), ("cyan", "green"), ("purple", "orange")])
def test_objects_that_touch_are_told_apart_by_colour(colours: tuple[str, str]) -> None:
    square, circle = Thing("square", colours[0], 9.0, 16.0, 6.0), Thing("circle", colours[1], 20.2, 16.0, 6.0)
    image = picture(square, circle)
    assert one(image, f"a {square.colour} square and a {circle.colour} circle".replace("a o", "an o"))[0] == 1.0
    assert one(image, "a square left of a circle")[0] == 1.0
    assert one(picture(square, replace(circle, colour=square.colour)), "a square left of a circle")[0] == 0.0


def test_what_is_no_shape_of_the_world_is_not_called_one() -> None:
    ys, xs = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    bar = (np.abs(xs) < 11) & (np.abs(ys) < 3)
    ell = ((np.abs(xs + 5) < 2.5) & (np.abs(ys) < 9)) | ((np.abs(ys - 7) < 2.5) & (np.abs(xs) < 8))
    arrow = (np.abs(ys) - 3 < xs) & (np.abs(ys) + 3 > xs) & (np.abs(ys) < 9)
    for mask in (bar, ell, arrow):
        (found,) = detect(np.where(mask, np.array(PALETTE["red"])[:, None, None], 0.2))
        assert (found.shape, found.colour) == (None, "red")


def test_a_dull_object_has_a_shape_but_no_colour() -> None:
    brown = 0.1 + coverage("circle", 16.0, 16.0, 7.0) * (np.array((0.5, 0.35, 0.25)) - 0.1)[:, None, None]
    assert one(brown, "a circle") == (1.0, 1.0)
    assert max(one(brown, f"{'an' if c == 'orange' else 'a'} {c} circle")[0] for c in COLOURS) == 0.0


def blank_and_saturated() -> list[np.ndarray]:
    corners = [np.array(c, float) for c in np.ndindex(2, 2, 2)]
    levels = [np.full(3, v) for v in (0.2, 0.5)]
    return [np.broadcast_to(c[:, None, None], (3, SIZE, SIZE)) for c in [*corners, *levels, *PALETTE_RGB]]


def noises() -> list[np.ndarray]:
    rng = np.random.default_rng(41)
    images = [rng.random((3, SIZE, SIZE)) for _ in range(10)]
    images += [PALETTE_RGB[rng.integers(8, size=(SIZE, SIZE))].transpose(2, 0, 1) for _ in range(5)]
    for scale in (1.0, 2.0, 3.0, 4.0):
        smooth = ndimage.gaussian_filter(rng.standard_normal((10, 3, SIZE, SIZE)), (0, 0, scale, scale))
        images += list(np.clip(0.35 + 0.25 * smooth / smooth.std(), 0, 1))
    return images


def checkerboards() -> list[np.ndarray]:
    images = []
    for side in (1, 2, 3, 4, 5, 6, 8, 11, 16):
        ys, xs = np.mgrid[:SIZE, :SIZE] // side
        images += [0.2 + ((xs + ys) % 2) * (np.array(rgb)[:, None, None] - 0.2) for rgb in PALETTE.values()]
        images.append(PALETTE_RGB[(3 * ys + 5 * xs) % 8].transpose(2, 0, 1))
        images.append(np.broadcast_to((xs % 2).astype(float), (3, SIZE, SIZE)))
    return images


def tilings() -> list[np.ndarray]:
    """Grids of 9 and more shapes, of one colour and of all eight, of one shape and of all four."""
    images = []
    for k in (3, 4, 5, 6):
        cell = SIZE / k
        grid = [((i + 0.5) * cell, (j + 0.5) * cell) for i in range(k) for j in range(k)]
        for shape in SHAPES:
            for colours in ((c,) for c in COLOURS):
                images.append(picture(*(Thing(shape, colours[0], x, y, 0.36 * cell) for x, y in grid)))
            images.append(picture(*(Thing(shape, COLOURS[i % 8], x, y, 0.36 * cell) for i, (x, y) in enumerate(grid))))
        images.append(
            picture(*(Thing(SHAPES[i % 4], COLOURS[i % 8], x, y, 0.36 * cell) for i, (x, y) in enumerate(grid)))
        )
    return images


def giants_and_fragments() -> list[np.ndarray]:
    middle = SIZE / 2
    images = [
        picture(Thing(s, c, middle, middle, r)) for s in SHAPES for c in ("red", "white") for r in (12, 14, 16, 20, 30)
    ]
    images += [
        picture(Thing(s, "red", x, y, 8.0)) for s in SHAPES for x, y in ((0.0, middle), (middle, SIZE), (2.0, middle))
    ]
    images += [
        0.2 + 0.7 * np.stack([coverage(s, middle, middle, 8.0) - coverage(s, middle, middle, 5.0)] * 3) for s in SHAPES
    ]
    for shape in SHAPES:
        halves = picture(Thing(shape, "red", middle, middle, 8.0))
        halves[:, :, SIZE // 2 :] = picture(Thing(shape, "blue", middle, middle, 8.0))[:, :, SIZE // 2 :]
        images.append(halves)
    return images


FAMILIES = {f.__name__: f for f in (blank_and_saturated, noises, checkerboards, tilings, giants_and_fragments)}


@pytest.mark.parametrize(
    ("family", "most"),
    [
        ("blank_and_saturated", 0.0),
        ("noises", 0.15),
        ("checkerboards", 0.15),
        ("tilings", 0.2),
        ("giants_and_fragments", 0.0),
    ],
)
def test_no_prompt_is_satisfied_by_a_trick(family: str, most: float) -> None:
    prompts = [p for p in PROMPTS if p.kind != "attribution"] + [p for p in PROMPTS if p.kind == "attribution"][::8]
    for image in FAMILIES[family]():
        found = detect(image)
        assert max(grade(found, p) for p in prompts) <= most, [f.shape for f in found]


@pytest.mark.parametrize("inner", SHAPES)
def test_an_object_upon_an_object_spoils_it(inner: str) -> None:
    for outer in SHAPES:
        image = picture(Thing(outer, "red", 16.0, 16.0, 8.5), Thing(inner, "blue", 16.0, 16.0, 4.0))
        for text in (f"a {outer}", f"a red {outer}", f"a blue {inner}", f"a red {outer} and a blue {inner}"):
            if outer != inner or " and " not in text:
                assert one(image, text)[0] == 0.0


def room(scene: Scene, axis: str) -> tuple[int, int]:
    """How far the whole scene can move along ``x`` or ``y`` in whole pixels and stay a pixel inside the canvas."""
    spans = [(t.x if axis == "x" else t.y, extent(t.shape) * t.radius + 1.0) for t in scene.things]
    return int(np.ceil(max(r - at for at, r in spans))), int(np.floor(min(SIZE - r - at for at, r in spans)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PROMPTS), st.integers(0, 2**32 - 1), st.integers(-9, 9), st.integers(-9, 9))
def test_moving_the_scene_keeps_the_verdict(prompt: Prompt, seed: int, dx: int, dy: int) -> None:
    rng = np.random.default_rng(seed)
    scene, asked = scene_for(prompt, rng), PROMPTS[rng.integers(len(PROMPTS))]
    dx, dy = (int(np.clip(step, *room(scene, axis))) for step, axis in ((dx, "x"), (dy, "y")))
    moved = replace(scene, things=tuple(replace(t, x=t.x + dx, y=t.y + dy) for t in scene.things))
    images = np.stack([render(s, np.random.default_rng(seed)) for s in (scene, moved)])
    for asked_for in (prompt, asked):
        graded = verify(images, [asked_for] * 2).graded
        assert graded[0] == pytest.approx(graded[1])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PROMPTS), st.sampled_from(PROMPTS), st.integers(0, 2**32 - 1), st.randoms())
def test_the_order_of_things_does_not_matter(prompt: Prompt, asked: Prompt, seed: int, random: Random) -> None:
    rng = np.random.default_rng(seed)
    scene = scene_for(prompt, rng)
    image = render(scene, np.random.default_rng(seed))
    shuffled = replace(scene, things=tuple(random.sample(scene.things, len(scene.things))))
    np.testing.assert_allclose(image, render(shuffled, np.random.default_rng(seed)), atol=1e-6)
    found = detect(image)
    assert grade(random.sample(found, len(found)), asked) == pytest.approx(grade(found, asked))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([p for p in PROMPTS if p.kind == "position"]), st.integers(0, 2**32 - 1))
def test_a_mirror_swaps_left_and_right_and_nothing_else(prompt: Prompt, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = render(scene_for(prompt, rng), rng)
    mirrored_prompt = replace(prompt, relation=MIRROR[prompt.relation])
    both = verify(np.stack([image, image[:, :, ::-1]]), [prompt, mirrored_prompt])
    assert both.strict.tolist() == [1.0, 1.0]
    if prompt.relation in ("left of", "right of"):
        assert verify(image[None, :, :, ::-1], [prompt]).strict[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PROMPTS), st.permutations(COLOURS), st.integers(0, 2**32 - 1))
def test_exchanging_colours_in_scene_and_prompt_keeps_the_verdict(
    prompt: Prompt, colours: list[str], seed: int
) -> None:
    renamed = dict(zip(COLOURS, colours, strict=True))
    scene = scene_for(prompt, np.random.default_rng(seed))
    recoloured = replace(scene, things=tuple(replace(t, colour=renamed[t.colour]) for t in scene.things))
    wanted = tuple(replace(w, colour=renamed[w.colour]) if w.colour else w for w in prompt.wanted)
    image = render(recoloured, np.random.default_rng(seed))
    assert verify(image[None], [replace(prompt, wanted=wanted)]).strict[0] == 1.0
    asked_colours = {w.colour for w in prompt.wanted} - {None}
    if any(renamed[c] != c for c in asked_colours if c):
        assert verify(image[None], [prompt]).strict[0] == 0.0


shapes_or_none, colours_or_none = st.sampled_from([None, *SHAPES]), st.sampled_from([None, *COLOURS])
founds = st.builds(
    Found,
    shape=shapes_or_none,
    colour=colours_or_none,
    x=st.floats(4, 28),
    y=st.floats(4, 28),
    radius=st.just(5.0),
    area=st.just(60.0),
    fit=st.just(0.9),
    purity=st.just(1.0),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(founds, max_size=8), st.sampled_from(PROMPTS))
def test_full_credit_is_the_same_as_all_requirements_met(found: list[Found], prompt: Prompt) -> None:
    graded = grade(found, prompt)
    assert 0.0 <= graded <= 1.0
    asks_colour = prompt.wanted[0].colour is not None
    met = Counter((f.shape, f.colour if asks_colour else None) for f in found) == Counter(
        (w.shape, w.colour) for w in prompt.wanted
    )
    if met and prompt.relation:
        a, b = (next(f for f in found if f.shape == w.shape) for w in prompt.wanted)
        met = relation_holds(prompt.relation, a.x, a.y, b.x, b.y)
    assert (graded == 1.0) == met


@settings(max_examples=200, deadline=None)
@given(st.lists(founds, max_size=5), founds, st.sampled_from(PROMPTS))
def test_something_unrecognised_never_helps(found: list[Found], blob: Found, prompt: Prompt) -> None:
    assert grade([*found, replace(blob, shape=None)], prompt) <= grade(found, prompt)


def test_strict_is_one_just_where_graded_is(rendered: tuple[list[Prompt], list[Scene], np.ndarray]) -> None:
    prompts, _, images = rendered
    asked = prompts[::2] + prompts[1::2]
    verdicts = verify(images, asked)
    assert 0 < verdicts.strict.mean() < 1
    np.testing.assert_array_equal(verdicts.strict == 1.0, verdicts.graded == 1.0)
    assert set(verdicts.strict) == {0.0, 1.0}
    assert verdicts.graded.min() >= 0.0


def test_every_image_is_judged_on_its_own(rendered: tuple[list[Prompt], list[Scene], np.ndarray]) -> None:
    prompts, _, images = rendered
    some = list(range(0, len(prompts), 40))
    together = verify(images[some], [prompts[i] for i in some][::-1]).graded
    alone = [
        verify(images[i : i + 1], [p]).graded[0] for i, p in zip(some, [prompts[i] for i in some][::-1], strict=True)
    ]
    np.testing.assert_allclose(together, alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_image_gets_nan_and_the_others_their_verdict(bad: float) -> None:
    image = picture(Thing("circle", "red", 16.0, 16.0, 7.0))
    broken = image.copy()
    broken[1, 3, 4] = bad
    verdicts = verify(np.stack([image, broken, image]), [parse("a circle"), parse("a circle"), parse("a square")])
    np.testing.assert_array_equal(verdicts.strict, [1.0, np.nan, 0.0])
    np.testing.assert_allclose(verdicts.graded, [1.0, np.nan, 0.2])


def test_no_images() -> None:
    assert verify(np.zeros((0, 3, SIZE, SIZE)), []).strict.shape == (0,)


@pytest.mark.parametrize(
    ("images", "n_prompts", "message"),
    [
        (np.zeros((3, SIZE, SIZE)), 3, r"images: shape \(3, 32, 32\) is not \[N, 3, 32, 32\]; stack"),
        (np.zeros((1, SIZE, SIZE, 3)), 1, r"images: shape \(1, 32, 32, 3\).*channels first"),
        (np.full((1, 3, SIZE, SIZE), 255.0), 1, r"images: values span 0\.\.255, not 0\.\.1; divide by 255"),
        (np.full((1, 3, SIZE, SIZE), -0.01), 1, r"images: values span -0\.01\.\.1"),
        (np.zeros((2, 3, SIZE, SIZE)), 1, "prompts: 1 for 2 images; give one prompt per image"),
    ],
)
def test_bad_input_is_refused(images: np.ndarray, n_prompts: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(images, [parse("a circle")] * n_prompts)


def test_rounding_beyond_the_range_is_accepted() -> None:
    image = picture(Thing("circle", "red", 16.0, 16.0, 7.0))
    assert one(image * 1.0 + np.where(image < 0.15, -0.0, 0.0), "a circle")[0] == 1.0
    image[0, 0, 0], image[0, 0, 1] = -5e-4, 1 + 5e-4
    assert one(image, "a circle")[0] == 1.0
