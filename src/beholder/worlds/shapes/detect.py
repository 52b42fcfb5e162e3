"""Finding the objects of an image: background plane, foreground, components, colour, best-fitting shape.

Shapes: ``_N`` images, ``_C`` components of the whole batch, ``_P`` pixels, ``_S`` shapes of the world, ``_HW`` maps.
All lengths are pixels, all colours 0..1.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from beholder.worlds.shapes.scenes import COLOURS, PALETTE_RGB, SHAPES, SIZE, coverage, pixel_centres, signed_distance

DENOISE = 0.6
"""Standard deviation in pixels of the Gaussian that precedes everything."""
FOREGROUND = 0.2
"""A pixel is foreground when some channel differs from the background by more than this ..."""
NEIGHBOUR_FRACTION = 0.62
"""... and by more than this fraction of the largest difference within two pixels (parts objects that nearly touch)."""
MIN_PIXELS = 6
"""Components with fewer foreground pixels are specks and are ignored."""
MIN_FIT = 0.73
"""Least soft IoU with which a component is called a shape."""
MIN_CONTRAST = 0.25
"""Least difference from the background, in some channel, with which a component is called a shape."""
MIN_RADIUS, MAX_RADIUS = 3.0, 11.0
MAX_BORDER_PIXELS = 2
"""A component with more foreground pixels than this on the outermost rows and columns is cut off: no shape."""
MAX_COLOUR_DISTANCE = 0.28
"""Largest Euclidean RGB distance at which a colour gets a palette name."""
MIN_PURITY = 0.9
"""A component whose core agrees less on one palette colour is split by colour; none is called a shape below it."""
MIN_SHARE = 0.06
"""A colour that holds at least this share of an impure component's core gets its own component."""
SOFTENINGS = (1, 3)
"""Side of the box that blurs the templates: objects drawn crisply or softly."""
REACH = 2
"""Soft coverage is read up to this many pixels around a component."""
CHUNK = 128
"""Images handled at once."""

IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
ON_BORDER = np.pad(np.zeros((SIZE - 2, SIZE - 2), bool), 1, constant_values=True)


@dataclass(frozen=True)
class Found:
    """One detected object; ``shape`` or ``colour`` None when not recognised."""

    shape: str | None
    colour: str | None
    x: float
    y: float
    radius: float
    area: float
    """Soft area in pixels."""
    fit: float
    """Soft IoU with the best shape, 0..1."""
    purity: float
    """Share of the core's pixels whose palette colour is the commonest one, 0..1."""


@dataclass(frozen=True)
class Layers:
    """Of a chunk: ``smooth`` and ``background`` images ``[N, 3, H, W]``, component ``labels [N, H, W]`` (0: none)."""

    smooth: np.ndarray
    background: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Components:
    """Per component: image, label, mean colour and background and palette shares of its core, border pixels."""

    image_C: np.ndarray
    label_C: np.ndarray
    rgb_C3: np.ndarray
    background_C3: np.ndarray
    shares_CK: np.ndarray
    on_border_C: np.ndarray

    @property
    def purity_C(self) -> np.ndarray:
        return self.shares_CK.max(axis=1, initial=0.0)


def detect(image_3HW: np.ndarray) -> list[Found]:
    """The objects of one image with values in 0..1, largest first."""
    return detect_batch(np.asarray(image_3HW)[None])[0]


def detect_batch(images_N3HW: np.ndarray) -> list[list[Found]]:
    """The objects of each image, largest first."""
    found_N: list[list[Found]] = []
    for start in range(0, len(images_N3HW), CHUNK):
        found_N += _detect_chunk(np.asarray(images_N3HW[start : start + CHUNK], np.float32))
    return found_N


def _detect_chunk(images_N3HW: np.ndarray) -> list[list[Found]]:
    layers = segment(images_N3HW)
    parts = _measure(layers)
    if (parts.purity_C < MIN_PURITY).any():
        _split_by_colour(layers, parts)
        parts = _measure(layers)
    found_N: list[list[Found]] = [[] for _ in images_N3HW]
    for image, found in zip(parts.image_C, _recognise(layers, parts), strict=True):
        found_N[image].append(found)
    return [sorted(found, key=lambda f: -f.area) for found in found_N]


def denoise(maps: np.ndarray) -> np.ndarray:
    """Maps ``[..., H, W]`` after a Gaussian of ``DENOISE`` pixels."""
    return ndimage.gaussian_filter(maps, DENOISE, axes=(-2, -1), mode="nearest", truncate=3.4)


def segment(images_N3HW: np.ndarray) -> Layers:
    """Denoised image, background plane and labelled foreground."""
    smooth = denoise(images_N3HW)
    background = fit_background(smooth)
    difference = np.abs(smooth - background).max(axis=1)
    peak = ndimage.maximum_filter(difference, (1, 5, 5))
    mask = difference > np.maximum(FOREGROUND, NEIGHBOUR_FRACTION * peak)
    return Layers(smooth, background, _connected(mask))


def _connected(mask_NHW: np.ndarray) -> np.ndarray:
    """Labels of the connected components within each image, specks left out."""
    labels = np.zeros(mask_NHW.shape, np.int32)
    ndimage.label(mask_NHW, IN_PLANE, output=labels)
    return np.where(np.bincount(labels.ravel())[labels] >= MIN_PIXELS, labels, 0)


def fit_background(smooth_N3HW: np.ndarray, rounds: int = 3, inlier: float = 0.1) -> np.ndarray:
    """A plane per channel, clipped to 0..1: medians of the border ring, then least squares over the pixels it explains.

    A pixel is explained when every channel is within ``inlier`` of the plane; least squares start from the ring.
    """
    ys, xs = np.mgrid[:SIZE, :SIZE].astype(np.float32).reshape(2, -1) / (SIZE - 1) - 0.5
    basis_PB = np.stack([np.ones_like(xs), xs, ys], axis=1)
    pixels_N3P = smooth_N3HW.reshape(len(smooth_N3HW), 3, -1)
    left, right, top, bottom = xs < -0.46, xs > 0.46, ys < -0.46, ys > 0.46
    medians = [np.median(pixels_N3P[:, :, side], axis=2) for side in (left, right, top, bottom)]
    level = np.median(pixels_N3P[:, :, left | right | top | bottom], axis=2)
    planes_N3B = np.stack([level, medians[1] - medians[0], medians[3] - medians[2]], axis=2)
    products_PQ = (basis_PB[:, :, None] * basis_PB[:, None, :]).reshape(-1, 9)
    for _ in range(rounds):
        residual_N3P = np.abs(pixels_N3P - np.clip(planes_N3B @ basis_PB.T, 0.0, 1.0))
        explained_NP = (residual_N3P.max(axis=1) < inlier).astype(np.float32)
        normal_NBB = (explained_NP @ products_PQ).reshape(-1, 3, 3) + 1e-2 * np.eye(3)
        # The ridge pulls towards the current plane, which keeps it where next to nothing is explained.
        target_N3B = (pixels_N3P * explained_NP[:, None]) @ basis_PB + 1e-2 * planes_N3B
        planes_N3B = np.linalg.solve(normal_NBB, target_N3B.transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.clip(planes_N3B @ basis_PB.T, 0.0, 1.0).reshape(smooth_N3HW.shape).astype(np.float32)


def _measure(layers: Layers) -> Components:
    """Colours of every component, over its core: pixels whose four neighbours belong to it (all pixels if too few)."""
    labels = layers.labels
    names, inverse = np.unique(labels, return_inverse=True)
    index = inverse.reshape(labels.shape) - int(names[0] == 0)
    names = names[names > 0]
    core = (labels > 0) & _inner(labels)
    enough = np.bincount(index[core], minlength=len(names)) >= 4
    core |= (labels > 0) & ~np.append(enough, True)[index]
    image_P, y_P, x_P = np.nonzero(core)
    part_P = index[core]
    rgb_P3, background_P3 = layers.smooth[image_P, :, y_P, x_P], layers.background[image_P, :, y_P, x_P]
    difference_P = np.abs(rgb_P3 - background_P3).max(axis=1)
    mean_C = _means(difference_P[:, None], part_P, len(names))[:, 0]
    upper_P = difference_P >= 0.95 * mean_C[part_P]
    class_PK = np.eye(len(COLOURS), dtype=np.float32)[nearest_ray(rgb_P3 - background_P3, background_P3)]
    first_C = np.zeros(len(names), int)
    first_C[part_P] = image_P
    return Components(
        first_C,
        names,
        _means(rgb_P3[upper_P], part_P[upper_P], len(names)),
        _means(background_P3[upper_P], part_P[upper_P], len(names)),
        _means(class_PK, part_P, len(names)),
        np.bincount(index[(labels > 0) & ON_BORDER], minlength=len(names)),
    )


def _inner(labels_NHW: np.ndarray) -> np.ndarray:
    """Whether the four neighbours (those on the canvas) carry the pixel's own label."""
    inner = np.ones(labels_NHW.shape, bool)
    same_y, same_x = labels_NHW[:, 1:] == labels_NHW[:, :-1], labels_NHW[:, :, 1:] == labels_NHW[:, :, :-1]
    inner[:, 1:] &= same_y
    inner[:, :-1] &= same_y
    inner[:, :, 1:] &= same_x
    inner[:, :, :-1] &= same_x
    return inner


def _means(values_PD: np.ndarray, part_P: np.ndarray, n: int) -> np.ndarray:
    counts = np.maximum(np.bincount(part_P, minlength=n), 1)
    return np.stack([np.bincount(part_P, v, minlength=n) / counts for v in values_PD.T], axis=1)


def nearest_ray(offsets_P3: np.ndarray, backgrounds_P3: np.ndarray) -> np.ndarray:
    """Index of the palette colour whose mixtures with the background come closest to ``background + offset``."""
    rays_PK3 = PALETTE_RGB[None] - backgrounds_P3[:, None]
    along_PK = (offsets_P3[:, None] * rays_PK3).sum(2) / np.maximum((rays_PK3**2).sum(2), 1e-6)
    rest_PK3 = offsets_P3[:, None] - np.clip(along_PK, 0.0, 1.0)[:, :, None] * rays_PK3
    return (rest_PK3**2).sum(2).argmin(axis=1)


def _split_by_colour(layers: Layers, parts: Components) -> None:
    """Gives the colours of impure components labels of their own, in place; what is left below a speck is dropped."""
    allowed_CK = parts.shares_CK >= MIN_SHARE
    split_C = (parts.purity_C < MIN_PURITY) & (allowed_CK.sum(axis=1) >= 2)
    row_of_label = np.full(layers.labels.max() + 1, -1)
    row_of_label[parts.label_C[split_C]] = np.flatnonzero(split_C)
    image_P, y_P, x_P = where = np.nonzero(row_of_label[layers.labels] >= 0)
    allowed_PK = allowed_CK[row_of_label[layers.labels[where]]]
    distance_PK = ((layers.smooth[image_P, :, y_P, x_P][:, None] - PALETTE_RGB) ** 2).sum(axis=2)
    colour_NHW = np.full(layers.labels.shape, -1)
    colour_NHW[where] = np.where(allowed_PK, distance_PK, np.inf).argmin(axis=1)
    layers.labels[where] = 0
    for k in range(len(COLOURS)):
        pieces = _connected(colour_NHW == k)
        layers.labels[pieces > 0] = pieces[pieces > 0] + layers.labels.max()


def _recognise(layers: Layers, parts: Components) -> list[Found]:
    alpha_CHW = _coverages(layers, parts)
    fit_SC, x_SC, y_SC, radius_SC = fit_shapes(alpha_CHW)
    contrast_C = np.abs(parts.rgb_C3 - parts.background_C3).max(axis=1)
    distance_CK = np.linalg.norm(parts.rgb_C3[:, None] - PALETTE_RGB[None], axis=2)
    clear_C = (contrast_C >= MIN_CONTRAST) & (parts.purity_C >= MIN_PURITY) & (parts.on_border_C <= MAX_BORDER_PIXELS)
    found: list[Found] = []
    for c, area in enumerate(alpha_CHW.sum(axis=(1, 2))):
        s, k = int(fit_SC[:, c].argmax()), int(distance_CK[c].argmin())
        fits = fit_SC[s, c] >= MIN_FIT and MIN_RADIUS <= radius_SC[s, c] <= MAX_RADIUS
        shape = SHAPES[s] if fits and clear_C[c] else None
        colour = COLOURS[k] if distance_CK[c, k] <= MAX_COLOUR_DISTANCE else None
        place = (float(x_SC[s, c]), float(y_SC[s, c]), float(radius_SC[s, c]), float(area))
        found.append(Found(shape, colour, *place, float(fit_SC[s, c]), float(parts.purity_C[c])))
    return found


def _coverages(layers: Layers, parts: Components) -> np.ndarray:
    """Soft coverage ``alpha = clip(<p - b, c - b> / |c - b|^2, 0, 1)`` of each component, ``[C, H, W]``."""
    reach = layers.labels
    for _ in range(REACH):
        reach = np.where(reach > 0, reach, ndimage.maximum_filter(reach, (1, 3, 3)))
    mine_CHW = reach[parts.image_C] == parts.label_C[:, None, None]
    ray_C3 = (parts.rgb_C3 - parts.background_C3).astype(np.float32)
    ray_C3 = ray_C3 / np.maximum((ray_C3**2).sum(axis=1, keepdims=True), 1e-6)
    offset_N3HW = layers.smooth - layers.background
    alpha_CHW = np.einsum("cdhw,cd->chw", offset_N3HW[parts.image_C], ray_C3)
    return np.clip(alpha_CHW, 0.0, 1.0) * mine_CHW


def _unit_moments(shape: str) -> tuple[float, float]:
    """Area and height of the centroid below the centre of a shape of radius 1."""
    alpha = coverage(shape, 64.0, 64.0, 32.0, size=128)
    _, ys = pixel_centres(128)
    return float(alpha.sum()) / 32.0**2, float((alpha * (ys - 64.0)).sum() / alpha.sum()) / 32.0


UNIT_MOMENTS = {shape: _unit_moments(shape) for shape in SHAPES}


def fit_shapes(alpha_CHW: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``(fit, x, y, radius)``, each ``[S, C]``: every shape laid on every component with its area and centroid.

    fit = sum min(alpha, t) / (sum alpha + sum t - sum min(alpha, t)), the best over ``SOFTENINGS``, with
    ``t`` the rendered coverage, denoised as the image was, blurred, and ``sum t = sum alpha`` by the choice of the
    radius, over the whole shape, also what lies off the canvas.
    """
    xs, ys = pixel_centres()
    area_C = np.maximum(alpha_CHW.sum(axis=(1, 2)), 1e-6)
    x_C, y_C = (alpha_CHW * xs).sum(axis=(1, 2)) / area_C, (alpha_CHW * ys).sum(axis=(1, 2)) / area_C
    results = []
    for shape in SHAPES:
        unit_area, drop = UNIT_MOMENTS[shape]
        radius_C = np.sqrt(area_C / unit_area)
        centre_y_C = y_C - drop * radius_C
        r, x, y = radius_C[:, None, None], x_C[:, None, None], centre_y_C[:, None, None]
        distance_CHW = r * signed_distance(shape, (xs - x) / r, (ys - y) / r, 1.0)
        results.append((_overlap(alpha_CHW, area_C, distance_CHW), x_C, centre_y_C, radius_C))
    fit, x, y, radius = (np.stack(column) for column in zip(*results, strict=True))
    return fit, x, y, radius


def _overlap(alpha_CHW: np.ndarray, area_C: np.ndarray, distance_CHW: np.ndarray) -> np.ndarray:
    rendered_CHW, best_C = denoise(np.clip(0.5 - distance_CHW, 0.0, 1.0)), np.zeros(len(alpha_CHW))
    for side in SOFTENINGS:
        template_CHW = ndimage.uniform_filter(rendered_CHW, side, axes=(-2, -1), mode="constant")
        common_C = np.minimum(alpha_CHW, template_CHW).sum(axis=(1, 2))
        best_C = np.maximum(best_C, common_C / (2 * area_C - common_C))
    return best_C
