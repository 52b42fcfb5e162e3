"""Pre-processing: what the originals feed their networks, to the last bit where they use Pillow, and its gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from beholder.errors import InputError
from beholder.rewards.zoo.preprocess import CLIP_MEAN, CLIP_STD, Preprocess, smooth_resize

SIDES = st.integers(1, 90)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    wave = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], 2)
    return (127 + 90 * wave).round().astype(np.uint8)


def as_images(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def unnormalised(pixels: Tensor) -> Tensor:
    return pixels * torch.tensor(CLIP_STD).view(3, 1, 1) + torch.tensor(CLIP_MEAN).view(3, 1, 1)


def filter_matrix(length: int, scaled: int, antialias: bool) -> np.ndarray:
    """[scaled, length]: bicubic weights written down from Keys' kernel, widened by the scale when antialiased."""
    a, scale = (-0.5, length / scaled) if antialias else (-0.75, length / scaled)
    widen = max(scale, 1.0) if antialias else 1.0
    matrix = np.zeros((scaled, length))
    for i in range(scaled):
        centre = (i + 0.5) * scale - 0.5
        taps = range(math.floor(centre - 2 * widen), math.ceil(centre + 2 * widen) + 1)
        weights = {j: keys((j - centre) / widen, a) for j in taps}
        if antialias:  # beyond the border is left out; without antialiasing the border is repeated
            weights = {j: w for j, w in weights.items() if 0 <= j < length}
        total = sum(weights.values())
        for j, weight in weights.items():
            matrix[i, min(max(j, 0), length - 1)] += weight / total
    return matrix


def keys(t: float, a: float) -> float:
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


# ------------------------------------------------------------------------------------------------ against the originals


@given(SIDES, SIDES, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_transformers_processor_to_the_last_bit(height: int, width: int, seed: int) -> None:
    """PickScore's: Pillow, and odd margins rounded down."""
    pixels = picture(height, width, seed)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    if max(height, width) > 64 * min(height, width):
        return
    wanted = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    assert (Preprocess(24, crop="floor")(as_images(pixels)) - wanted).abs().max() <= 1e-6


@given(SIDES, SIDES, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_pillow_and_torchvisions_crop_to_the_last_bit(height: int, width: int, seed: int) -> None:
    """Everyone else's: an odd margin is halved and rounded to even."""
    if max(height, width) > 64 * min(height, width):
        return
    pixels = picture(height, width, seed)
    short, long = min(height, width), max(height, width)
    scaled = (24, int(24 * long / short))
    shape = scaled if width <= height else scaled[::-1]
    resized = Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC)
    left, top = (round((side - 24) / 2.0) for side in shape)
    cut = np.asarray(resized.crop((left, top, left + 24, top + 24)), np.float32) / 255
    wanted = ((cut - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)).transpose(2, 0, 1)
    assert np.abs(Preprocess(24)(as_images(pixels))[0].numpy() - wanted).max() <= 1e-6


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (50, 33), (24, 24), (24, 31), (7, 11), (90, 200)])
def test_the_float_resize_by_its_weights(shape: tuple[int, int], antialias: bool) -> None:
    """HPSv2's resize of float tensors, as a matrix product in float64; nothing is rounded or clamped."""
    pixels = picture(*shape)
    short, long = min(shape), max(shape)
    height, width = (24, int(24 * long / short)) if shape[0] <= shape[1] else (int(24 * long / short), 24)
    rows, columns = filter_matrix(shape[0], height, antialias), filter_matrix(shape[1], width, antialias)
    scaled = np.einsum("ah,hwc,bw->abc", rows, pixels / 255, columns)
    top, left = round((height - 24) / 2), round((width - 24) / 2)
    wanted = scaled[top : top + 24, left : left + 24].transpose(2, 0, 1)
    got = unnormalised(Preprocess(24, "tensor", antialias=antialias)(as_images(pixels)))[0]
    assert np.abs(got.numpy() - wanted).max() < 2e-5


def test_odd_margins_differ_between_the_two_libraries() -> None:
    """A margin of 3 starts the cut at 2 for torchvision, at 1 for transformers."""
    images = as_images(picture(24, 27))
    rounded, floored = Preprocess(24)(images), Preprocess(24, crop="floor")(images)
    assert torch.equal(rounded[..., :-1], floored[..., 1:]) and not torch.equal(rounded, floored)


# ------------------------------------------------------------------------------------------------------------ gradients


def test_values_with_gradients_are_those_without() -> None:
    images = as_images(picture(70, 50))
    free = images.clone().requires_grad_()
    for prepare in (Preprocess(24), Preprocess(24, "tensor")):
        assert torch.allclose(prepare(free), prepare(images), atol=1e-6)
        assert prepare(free).requires_grad and not prepare(images).requires_grad
        with torch.no_grad():
            assert not prepare(free).requires_grad


def test_gradients_are_those_of_the_float_resize() -> None:
    """Resizing is linear, so the gradient against any direction is the resized direction itself."""
    images = as_images(picture(40, 60)).requires_grad_()
    prepare, weight = Preprocess(16), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    (prepare(images) * weight).sum().backward()
    direction = torch.randn(1, 3, 40, 60, generator=torch.Generator().manual_seed(2))
    moved = prepare.centre(smooth_resize(direction, (16, 24))) / torch.tensor(CLIP_STD).view(3, 1, 1)
    assert images.grad is not None
    assert (images.grad * direction).sum().item() == pytest.approx((moved * weight).sum().item(), rel=1e-4)


def test_the_float_resize_is_close_to_pillows() -> None:
    """On a picture without noise the two differ by rounding alone: less than 1.2 of 255 steps."""
    pixels = smooth_picture(180, 130)
    exact, floating = (unnormalised(Preprocess(48, resize)(as_images(pixels))) for resize in ("pillow", "tensor"))
    assert 0 < (exact - floating).abs().max() * 255 < 1.2


# -------------------------------------------------------------------------------------------------- sizes and bad input


@pytest.mark.parametrize("resize", ["pillow", "tensor"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (10_000, 300), (3, 2)])
def test_odd_sizes_work(shape: tuple[int, int], resize: str) -> None:
    images = torch.full((1, 3, *shape), 0.25)
    got = unnormalised(Preprocess(16, resize)(images))  # type: ignore[arg-type]
    assert got.shape == (1, 3, 16, 16)
    assert torch.allclose(got, torch.full_like(got, 64 / 255 if resize == "pillow" else 0.25), atol=1e-5)


def test_no_image_is_no_error() -> None:
    assert Preprocess(16)(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float64])
def test_other_float_types(given: torch.dtype) -> None:
    images = torch.full((1, 3, 8, 8), 0.5, dtype=given)
    assert Preprocess(16)(images).dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (torch.zeros(2, 4, 8, 8), r"float32 \[2, 4, 8, 8\]"),
        (torch.zeros(3, 8, 8), r"\[3, 8, 8\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((1, 3, 8, 8), 128.0), "values from 128 to 128"),
        (torch.full((1, 3, 8, 8), -0.5), "values from -0.5 to -0.5; expected 0..1"),
        (torch.zeros(1, 3, 0, 8), "0 × 8"),
        (torch.zeros(1, 3, 1, 65), "1 × 65 pixels is longer than 64 times"),
    ],
)
def test_what_is_no_image_is_named(images: Tensor, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        Preprocess(16)(images)


def test_an_image_with_nan_becomes_nan_and_leaves_the_others() -> None:
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    images[1, 0, 3, 3] = math.nan
    for prepare in (Preprocess(16), Preprocess(16, "tensor")):
        got = prepare(images)
        assert got[1].isnan().any() and not got[[0, 2]].isnan().any()
        assert torch.equal(got[0], prepare(images[:1])[0])
    images[2] = 3.0
    with pytest.raises(InputError, match="to 3;"):
        Preprocess(16)(images)
