"""Kilobytes of a JPEG, as DDPO counts them."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.errors import InputError
from beholder.rewards import load_reward, score


def test_the_size_of_the_file() -> None:
    """Rounded to 8 bits, quality 95, thousands of bytes."""
    images = torch.rand(3, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    images[1] = 0.5
    sizes = []
    for image in images:
        data = io.BytesIO()
        pixels = (image * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(data, "JPEG", quality=95)
        sizes.append(len(data.getvalue()) / 1000)
    large, small = load_reward("jpeg_incompressibility"), load_reward("jpeg_compressibility")
    table = score(images, ["", "a", "b"], [large, small])
    assert table.values_NM[:, 0].tolist() == pytest.approx(sizes)
    assert table.values_NM[:, 1].tolist() == pytest.approx([-size for size in sizes])
    assert not large.differentiable and sizes[1] < sizes[0]


def test_a_failed_image_is_nan_and_weights_are_refused() -> None:
    images = torch.rand(3, 3, 16, 16)
    images[1, 0, 0, 0] = math.nan
    got = load_reward("jpeg_compressibility").score(images, ["a"] * 3)
    assert got.isnan().tolist() == [False, True, False]
    with pytest.raises(InputError, match=r"0\.\.1"):
        load_reward("jpeg_compressibility").score(images * 255, ["a"] * 3)
    with pytest.raises(InputError, match="has no weights; leave out '@here'"):
        load_reward("jpeg_compressibility@here")
