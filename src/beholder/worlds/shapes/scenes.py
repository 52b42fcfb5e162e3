"""Scenes of coloured shapes: their description, layout and anti-aliased rendering.

Shapes: ``_NCHW`` images in 0..1, ``_HW`` one coverage map. Lengths are pixels, y points down, pixel
``(i, j)`` has its centre at ``(j + 0.5, i + 0.5)``.
"""

from dataclasses import dataclass

import numpy as np

SIZE = 32
SHAPES = ("circle", "square", "triangle", "cross")
PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.12),
    "orange": (1.00, 0.54, 0.05),
    "yellow": (1.00, 0.93, 0.15),
    "green": (0.12, 0.72, 0.18),
    "cyan": (0.10, 0.86, 0.90),
    "blue": (0.16, 0.26, 0.95),
    "purple": (0.70, 0.18, 0.85),
    "white": (0.97, 0.97, 0.97),
}
COLOURS = tuple(PALETTE)
PALETTE_RGB = np.array(list(PALETTE.values()), dtype=np.float32)

RADIUS_BY_COUNT = {1: (6.0, 8.5), 2: (4.8, 6.6), 3: (4.4, 5.6), 4: (4.0, 4.8)}
"""Radius range in pixels by the number of objects, so that every count fits the canvas."""

GAP, MARGIN = 1.5, 1.5
LAYOUT_TRIES = 32


@dataclass(frozen=True)
class Thing:
    """One object: shape and colour names, centre and radius in pixels."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Background:
    """A dull colour with a linear gradient: ``rgb`` at the centre, change across the canvas per axis."""

    rgb: tuple[float, float, float]
    gradient_x: float
    gradient_y: float


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    background: Background
    noise: float
    """Standard deviation of the pixel noise, 0..1."""


def extent(shape: str) -> float:
    """Largest distance of a shape's outline from its centre, in units of its radius."""
    return {"circle": 1.0, "square": 0.88 * 2**0.5, "triangle": 1.36, "cross": 1.13}[shape]


def signed_distance(shape: str, dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance in pixels to the outline (negative inside) at offsets ``dx, dy`` from the centre."""
    if shape == "circle":
        return np.hypot(dx, dy) - radius
    if shape == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * radius
    if shape == "triangle":
        return _triangle_distance(dx, dy, radius)
    if shape == "cross":
        return _cross_distance(dx, dy, 1.06 * radius, 0.40 * radius)
    raise ValueError(f"shape: {shape!r} is not one of {', '.join(SHAPES)}")


def _triangle_distance(dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    apex, base, half = -1.20 * radius, 0.75 * radius, 1.12 * radius
    height = base - apex
    norm = np.hypot(height, half)
    side = (height * np.abs(dx) - half * (dy - apex)) / norm
    return np.maximum(side, dy - base)


def _cross_distance(dx: np.ndarray, dy: np.ndarray, length: float, half_width: float) -> np.ndarray:
    across = np.maximum(np.abs(dx) - length, np.abs(dy) - half_width)
    upright = np.maximum(np.abs(dx) - half_width, np.abs(dy) - length)
    return np.minimum(across, upright)


def pixel_centres(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """``(xs [1, W], ys [H, 1])``: coordinates of the pixel centres."""
    line = np.arange(size, dtype=np.float32) + 0.5
    return line[None, :], line[:, None]


def coverage(shape: str, x: float, y: float, radius: float, size: int = SIZE) -> np.ndarray:
    """Anti-aliased coverage ``[H, W]`` in 0..1 of one shape."""
    xs, ys = pixel_centres(size)
    return np.clip(0.5 - signed_distance(shape, xs - x, ys - y, radius), 0.0, 1.0).astype(np.float32)


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """One scene as ``[3, H, W]`` float32 in 0..1; ``rng`` draws the pixel noise."""
    xs, ys = pixel_centres()
    ramp = scene.background.gradient_x * (xs / SIZE - 0.5) + scene.background.gradient_y * (ys / SIZE - 0.5)
    image = np.asarray(scene.background.rgb, np.float32)[:, None, None] + ramp[None]
    for thing in scene.things:
        alpha = coverage(thing.shape, thing.x, thing.y, thing.radius)
        image = image * (1 - alpha) + np.asarray(PALETTE[thing.colour], np.float32)[:, None, None] * alpha
    if scene.noise > 0:
        image = image + scene.noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def random_background(rng: np.random.Generator) -> Background:
    """A dull background: luminance 0.06..0.40, little tint, a gentle gradient."""
    luminance, tint = rng.uniform(0.06, 0.40), rng.uniform(-0.05, 0.05, 3)
    rgb = np.clip(luminance + tint, 0.02, 0.45)
    gradient_x, gradient_y = rng.uniform(-0.12, 0.12, 2)
    return Background((float(rgb[0]), float(rgb[1]), float(rgb[2])), float(gradient_x), float(gradient_y))


def random_layout(shapes: list[str], rng: np.random.Generator) -> list[tuple[float, float, float]] | None:
    """Centres and radii ``(x, y, radius)`` of objects that do not touch; None when one found no room."""
    low, high = RADIUS_BY_COUNT[len(shapes)]
    placed: list[tuple[float, float, float]] = []
    reaches: list[float] = []
    for shape in shapes:
        radius = float(rng.uniform(low, high))
        reach = extent(shape) * radius
        tries_T2 = rng.uniform(reach + MARGIN, SIZE - reach - MARGIN, (LAYOUT_TRIES, 2))
        free_T = np.ones(LAYOUT_TRIES, bool)
        for (x, y, _), other in zip(placed, reaches, strict=True):
            free_T &= np.hypot(tries_T2[:, 0] - x, tries_T2[:, 1] - y) >= reach + other + GAP
        if not free_T.any():
            return None
        x, y = tries_T2[free_T.argmax()]
        placed.append((float(x), float(y), radius))
        reaches.append(reach)
    return placed
