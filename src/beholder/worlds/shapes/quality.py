"""Quality of an image of the shapes world, apart from what it shows: four gold rewards in 0..1, higher is better.

Shapes: ``_N`` images, ``_3HW`` RGB in 0..1, ``_HW`` maps; ``d`` is the signed distance to a fitted outline in pixels.
"""

import numpy as np

from beholder.worlds.shapes.detect import Found, denoise, detect_batch, fit_background
from beholder.worlds.shapes.scenes import pixel_centres, signed_distance
from beholder.worlds.shapes.verifier import check_images

QUALITIES = ("sharpness", "cleanliness", "completeness", "contrast")
EDGE_BAND = 3.0
"""Pixels on either side of an outline that count as its edge, and not as background."""
SOFT_EDGE = 2.0
"""Edge width beyond the rendered 1 pixel at which sharpness is one half."""
DIRTY = 0.05
"""Root mean square residue at which cleanliness is one half."""
FULL_CONTRAST = 0.8
"""Difference from the background, in some channel, that counts as full contrast."""


def quality(images_N3HW: np.ndarray) -> dict[str, np.ndarray]:
    """``{name: [N]}`` for ``QUALITIES``; NaN for an image with NaN or infinite pixels.

    Averages are over the recognised objects, for completeness over all of them; an image without any has sharpness,
    contrast and completeness 0, and may still be clean. Formulas: ``sharpness``, ``cleanliness``, ``completeness``,
    ``contrast``.
    """
    finite_N = check_images(images_N3HW)
    scores_NQ = np.full((len(images_N3HW), len(QUALITIES)), np.nan)
    images = np.asarray(images_N3HW[finite_N], np.float32)
    if len(images):
        smooth = denoise(images)
        scores_NQ[finite_N] = [
            _scores(*parts) for parts in zip(images, smooth, fit_background(smooth), detect_batch(images), strict=True)
        ]
    return dict(zip(QUALITIES, scores_NQ.T, strict=True))


def _scores(
    image_3HW: np.ndarray, smooth_3HW: np.ndarray, background_3HW: np.ndarray, found: list[Found]
) -> tuple[float, float, float, float]:
    distances = [distance(f) for f in found if f.shape is not None]
    nearest_HW = np.min(distances, axis=0) if distances else np.full(image_3HW.shape[1:], np.inf)
    return (
        sharpness(image_3HW, background_3HW, distances, nearest_HW),
        cleanliness(smooth_3HW, background_3HW, nearest_HW),
        completeness(found),
        contrast(smooth_3HW, background_3HW, distances),
    )


def distance(found: Found) -> np.ndarray:
    """Signed distance ``[H, W]`` to the fitted outline of a recognised object."""
    xs, ys = pixel_centres()
    return signed_distance(str(found.shape), xs - found.x, ys - found.y, found.radius)


def core(distance_HW: np.ndarray) -> np.ndarray:
    """The pixels well inside an outline: at least 0.6 times as deep as the deepest."""
    return distance_HW <= 0.6 * distance_HW.min()


def sharpness(
    image_3HW: np.ndarray, background_3HW: np.ndarray, distances: list[np.ndarray], nearest_HW: np.ndarray
) -> float:
    """``1 / (1 + (max(w - 1, 0) / SOFT_EDGE)^2)`` with w the mean edge width of the objects in pixels; rendered: w = 1.

    Across a straight edge that rises over w pixels, the coverage alpha has ``sum alpha (1 - alpha) = w / 6``.
    """
    if not distances:
        return 0.0
    noise = noise_variance(image_3HW)
    width = np.mean([_edge_width(image_3HW, background_3HW, d, d <= nearest_HW, noise) for d in distances])
    return float(1.0 / (1.0 + (max(width - 1.0, 0.0) / SOFT_EDGE) ** 2))


def _edge_width(
    image_3HW: np.ndarray, background_3HW: np.ndarray, d_HW: np.ndarray, own_HW: np.ndarray, noise: float
) -> float:
    inside, band = core(d_HW), own_HW & (np.abs(d_HW) < EDGE_BAND)
    ray_3 = (image_3HW[:, inside] - background_3HW[:, inside]).mean(axis=1)
    power = max(float(ray_3 @ ray_3), 1e-6)
    alpha_P = ray_3 @ (image_3HW - background_3HW)[:, band] / power
    # White noise lowers alpha (1 - alpha) by its variance.
    rise = (alpha_P * (1 - alpha_P)).sum() + alpha_P.size * noise / power
    outline_length = (np.abs(d_HW) < 1.5).sum() / 3.0
    return float(6.0 * rise / outline_length)


def noise_variance(image_3HW: np.ndarray) -> float:
    """Variance of the white pixel noise, from the median second difference across diagonals (objects hardly matter)."""
    x = image_3HW
    second = x[:, 1:, 1:] - x[:, 1:, :-1] - x[:, :-1, 1:] + x[:, :-1, :-1]
    return float((np.median(np.abs(second)) / (0.6745 * 2.0)) ** 2)


def cleanliness(smooth_3HW: np.ndarray, background_3HW: np.ndarray, nearest_HW: np.ndarray) -> float:
    """``1 / (1 + (e / DIRTY)^2)``, e the root mean square over pixels of the largest channel's residue.

    The residue is what the denoised image has beyond its background plane, ``EDGE_BAND`` pixels and more from the
    recognised objects; anything not recognised is residue.
    """
    outside = nearest_HW >= EDGE_BAND
    if not outside.any():
        return 0.0
    residue_P = np.abs(smooth_3HW - background_3HW)[:, outside].max(axis=0)
    return float(1.0 / (1.0 + (residue_P**2).mean() / DIRTY**2))


def completeness(found: list[Found]) -> float:
    """Mean of ``fit * purity`` over all found objects, recognised or not: outlines as drawn, in one colour."""
    return float(np.mean([f.fit * f.purity for f in found])) if found else 0.0


def contrast(smooth_3HW: np.ndarray, background_3HW: np.ndarray, distances: list[np.ndarray]) -> float:
    """Mean over objects of ``min(1, max_channel |colour - background| / FULL_CONTRAST)``, over each object's core."""
    if not distances:
        return 0.0
    offset_3HW = smooth_3HW - background_3HW
    offsets = [np.abs(offset_3HW[:, core(d)].mean(axis=1)).max() for d in distances]
    return float(np.mean(np.minimum(np.array(offsets) / FULL_CONTRAST, 1.0)))
