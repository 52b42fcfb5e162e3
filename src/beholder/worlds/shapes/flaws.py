"""Pictures of the world with flaws that its generator rarely has, for judges to learn from and to be tried on.

Shapes: ``_3HW`` RGB in 0..1.
"""

import numpy as np
from scipy import ndimage

from beholder.worlds.shapes.prompts import Prompt, random_prompts, scene_for
from beholder.worlds.shapes.scenes import SIZE, pixel_centres, render

MISSED = 0.45
"""Share of the pictures that show something else than was asked."""
FLAWED = 0.25
"""Share of the pictures with each flaw."""
TRIES = 12


def flawed_picture(prompt: Prompt, rng: np.random.Generator) -> np.ndarray:
    """``[3, H, W]``: a scene for the prompt or for one that is like it, perhaps with flaws."""
    shown = like(prompt, rng) if rng.random() < MISSED else prompt
    scene = scene_for(shown, rng)
    image_3HW = render(scene, rng)
    background_3HW = np.median(image_3HW.reshape(3, -1), axis=1)[:, None, None]
    things = scene.things
    bitten = things[int(rng.integers(len(things)))]
    for flaw in (_faint, _bitten, _stained, _blurred, _grainy):
        if rng.random() < FLAWED:
            image_3HW = flaw(image_3HW, background_3HW, (bitten.x, bitten.y, bitten.radius), rng)
    return np.clip(image_3HW, 0.0, 1.0).astype(np.float32)


def like(prompt: Prompt, rng: np.random.Generator) -> Prompt:
    """Another training prompt of its kind, of several the one that asks for the most of the same things."""
    others = [p for p in random_prompts(TRIES, rng, kinds=(prompt.kind,)) if p.text != prompt.text]
    return max(others, key=lambda p: sum(w in prompt.wanted for w in p.wanted), default=prompt)


Place = tuple[float, float, float]


def _faint(image: np.ndarray, background: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    return background + (image - background) * rng.uniform(0.35, 0.8)


def _bitten(image: np.ndarray, background: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    """A disc of background at the outline of a thing."""
    x, y, radius = place
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6) * radius
    alpha = _disc(x + radius * np.cos(angle), y + radius * np.sin(angle), size)
    return image * (1 - alpha) + background * alpha


def _stained(image: np.ndarray, background: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    """Soft blots."""
    for _ in range(int(rng.integers(1, 4))):
        x, y, radius = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(1.5, 4.0)
        blot = ndimage.gaussian_filter(_disc(x, y, radius), 1.0)
        image = image + blot * rng.uniform(-0.2, 0.3, (3, 1, 1))
    return image


def _blurred(image: np.ndarray, background: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(image, rng.uniform(0.5, 1.6), axes=(1, 2), mode="nearest")


def _grainy(image: np.ndarray, background: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    return image + rng.uniform(0.02, 0.06) * rng.standard_normal(image.shape)


def _disc(x: float, y: float, radius: float) -> np.ndarray:
    xs, ys = pixel_centres()
    return np.clip(radius + 0.5 - np.hypot(xs - x, ys - y), 0.0, 1.0)
