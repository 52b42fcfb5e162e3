"""The quality rewards: high on rendered scenes, each falling with its own damage and hardly with the others'."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from beholder.worlds.shapes.prompts import random_prompts, scene_for
from beholder.worlds.shapes.quality import QUALITIES, quality
from beholder.worlds.shapes.scenes import SIZE, Background, Scene, Thing, render

N = 120
Damage = Callable[[np.ndarray, float], np.ndarray]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(51)
    return np.stack([render(scene_for(p, rng), rng) for p in random_prompts(N, rng)])


def blur(x: np.ndarray, sd: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, 0, sd, sd), mode="nearest") if sd else x


def blotch(x: np.ndarray, sd: float) -> np.ndarray:
    texture = ndimage.gaussian_filter(np.random.default_rng(52).standard_normal(x.shape), (0, 0, 3.0, 3.0))
    return np.clip(x + sd * texture / texture.std(), 0.0, 1.0)


def pixel_noise(x: np.ndarray, sd: float) -> np.ndarray:
    return np.clip(x + sd * np.random.default_rng(53).standard_normal(x.shape), 0.0, 1.0)


def warp(x: np.ndarray, sd: float) -> np.ndarray:
    """Wobbly outlines: every pixel is fetched from a smoothly random place ``sd`` pixels away."""
    shift = ndimage.gaussian_filter(np.random.default_rng(54).standard_normal((2, SIZE, SIZE)), (0, 3.0, 3.0))
    rows, columns = np.mgrid[:SIZE, :SIZE] + sd * shift / shift.std()
    planes = x.reshape(-1, SIZE, SIZE)
    return np.stack([ndimage.map_coordinates(p, [rows, columns], order=1, mode="nearest") for p in planes]).reshape(
        x.shape
    )


def fade(x: np.ndarray, amount: float) -> np.ndarray:
    return x + amount * (np.median(x, axis=(2, 3), keepdims=True) - x)


def dent(x: np.ndarray, share: float) -> np.ndarray:
    """Paints background over a disc in the middle of the canvas, where the bundled dent scene has its object."""
    ys, xs = np.mgrid[:SIZE, :SIZE] + 0.5
    hole = np.hypot(xs - 20.0, ys - 16.0) < 6.0 * share
    return np.where(hole, np.median(x, axis=(2, 3), keepdims=True), x)


def test_rendered_scenes_are_good(images: np.ndarray) -> None:
    scores = quality(images)
    assert tuple(scores) == QUALITIES
    assert scores["sharpness"].min() > 0.95
    assert scores["completeness"].min() > 0.95
    assert scores["cleanliness"].min() > 0.8
    assert scores["contrast"].min() > 0.35


@pytest.mark.parametrize(
    ("name", "damage", "steps", "last"),
    [
        ("sharpness", blur, (0.0, 0.6, 0.9, 1.2, 1.6), 0.5),
        ("cleanliness", blotch, (0.0, 0.015, 0.03, 0.05, 0.08), 0.4),
        ("cleanliness", pixel_noise, (0.0, 0.04, 0.08, 0.12), 0.4),
        ("completeness", warp, (0.0, 0.4, 0.8, 1.2, 1.6), 0.85),
        ("contrast", fade, (0.0, 0.1, 0.2, 0.3), 0.65),
    ],
)
def test_each_quality_falls_with_its_damage(
    images: np.ndarray, name: str, damage: Damage, steps: tuple[float, ...], last: float
) -> None:
    scores_SN = np.stack([quality(damage(images, step))[name] for step in steps])
    assert (np.diff(scores_SN.mean(axis=1)) < 0).all()
    assert (np.diff(scores_SN, axis=0) < 0.02).mean() > 0.95, "single images follow"
    assert scores_SN[-1].mean() < last


def test_completeness_falls_as_an_object_loses_a_piece() -> None:
    image = render(
        Scene((Thing("square", "red", 16.0, 16.0, 8.0),), Background((0.2, 0.2, 0.25), 0, 0), 0),
        np.random.default_rng(0),
    )
    scores = [quality(dent(image[None], share))["completeness"][0] for share in (0.0, 0.3, 0.5, 0.7)]
    assert (np.diff(scores) < -0.01).all()


@pytest.mark.parametrize(
    ("name", "damage", "amount"),
    [
        ("sharpness", pixel_noise, 0.06),
        ("sharpness", blotch, 0.03),
        ("sharpness", fade, 0.25),
        ("cleanliness", blur, 1.2),
        ("cleanliness", fade, 0.2),
        ("completeness", blur, 0.8),
        ("completeness", pixel_noise, 0.04),
        ("contrast", pixel_noise, 0.06),
        ("contrast", blur, 0.8),
    ],
)
def test_the_qualities_are_distinct(images: np.ndarray, name: str, damage: Damage, amount: float) -> None:
    before, after = quality(images)[name], quality(damage(images, amount))[name]
    assert abs(before.mean() - after.mean()) < 0.06


def test_images_without_objects() -> None:
    rng = np.random.default_rng(55)
    blank, noise = np.full((3, SIZE, SIZE), 0.3), rng.random((3, SIZE, SIZE))
    scores = quality(np.stack([blank, noise]))
    np.testing.assert_allclose(scores["cleanliness"], [1.0, 0.0], atol=0.1)
    for name in ("sharpness", "contrast"):
        np.testing.assert_array_equal(scores[name], [0.0, 0.0])
    assert scores["completeness"][0] == 0.0
    assert scores["completeness"][1] < 0.5


def test_everything_lies_in_0_to_1_and_nan_stays_nan(images: np.ndarray) -> None:
    rng = np.random.default_rng(56)
    mixed = np.concatenate([images[:20], rng.random((10, 3, SIZE, SIZE)), images[:1]]).astype(np.float32)
    mixed[-1, 0, 0, 0] = np.nan
    for values in quality(mixed).values():
        assert np.isnan(values[-1])
        assert ((values[:-1] >= 0) & (values[:-1] <= 1)).all()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="values span"):
        quality(np.full((1, 3, SIZE, SIZE), 2.0))


def test_pixel_noise_does_not_pass_for_sharpness(images: np.ndarray) -> None:
    soft = blur(images, 1.0)
    before, after = quality(soft)["sharpness"], quality(pixel_noise(soft, 0.08))["sharpness"]
    assert abs(before.mean() - after.mean()) < 0.03
