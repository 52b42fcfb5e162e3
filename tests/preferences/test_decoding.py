"""Images as people save them, from bytes and from files, to pixels in 0..1: right, or an error that says why."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import BLUE, GREEN, RED, encoded, noise, picture

from beholder.errors import InputError
from beholder.media import read_image
from beholder.preferences.decoding import check_media, decode
from beholder.preferences.schema import HeatMap, Medium, Record, RowError

HALF = 128 / 255


def corner(data: bytes) -> list[float]:
    return read_image(data)[:, 0, 0].tolist()


def test_bytes_and_files_are_read_alike(tmp_path: Path) -> None:
    picture_ = noise((7, 5))
    (tmp_path / "a.png").write_bytes(encoded(picture_))
    expected = torch.from_numpy(np.asarray(picture_).copy()).permute(2, 0, 1).float() / 255
    for source in (tmp_path / "a.png", encoded(picture_)):
        image = read_image(source)
        assert image.dtype == torch.float32 and torch.equal(image, expected)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(form: str, orientation: int) -> None:
    """Saved turned and marked with how to turn it back, the picture comes back upright."""
    upright = Image.new("RGB", (16, 32), BLUE)
    upright.paste(RED, (0, 0, 8, 16))
    upright.paste(GREEN, (8, 0, 16, 16))
    saved: dict[int, Callable[[Image.Image], Image.Image]] = {
        1: lambda im: im,
        2: lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda im: im.transpose(Image.Transpose.ROTATE_180),
        4: lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda im: im.transpose(Image.Transpose.TRANSPOSE),
        6: lambda im: im.transpose(Image.Transpose.ROTATE_90),
        7: lambda im: im.transpose(Image.Transpose.TRANSVERSE),
        8: lambda im: im.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(encoded(saved[orientation](upright), form, exif=exif, quality=95))
    assert image.shape == (3, 32, 16)
    for place, colour in {(4, 4): RED, (4, 12): GREEN, (28, 8): BLUE}.items():
        assert torch.allclose(image[:, *place], torch.tensor(colour) / 255, atol=0.15)


def palette(**settings) -> bytes:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, *RED, *GREEN])
    return encoded(image, **settings)


KINDS: dict[str, tuple[bytes, list[float]]] = {
    "grey": (encoded(Image.new("L", (2, 2), 51)), [0.2] * 3),
    "black and white": (encoded(Image.new("1", (2, 2), 1)), [1.0] * 3),
    "half transparent": (encoded(Image.new("RGBA", (2, 2), (*RED, 128))), [1, 1 - HALF, 1 - HALF]),
    "transparent": (encoded(Image.new("RGBA", (2, 2), (*RED, 0))), [1.0] * 3),
    "transparent webp": (encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), "WEBP", lossless=True), [1.0] * 3),
    "grey with alpha": (encoded(Image.new("LA", (2, 2), (0, 128))), [1 - HALF] * 3),
    "palette": (palette(), [1, 0, 0]),
    "palette, transparent": (palette(transparency=1), [1.0] * 3),
    "transparent colour": (encoded(Image.new("RGB", (2, 2), RED), transparency=RED), [1.0] * 3),
    "16 bit": (encoded(Image.fromarray(np.full((2, 2), 13107, np.uint16))), [0.2] * 3),
    "16 bit tiff": (encoded(Image.fromarray(np.full((2, 2), 65535, np.uint16)), "TIFF"), [1.0] * 3),
    "cmyk": (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), [1, 0, 0]),
    "cmyk tiff": (encoded(Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "TIFF"), [0, 1, 1]),
    "ycbcr": (encoded(Image.new("RGB", (8, 8), GREEN), "JPEG", quality=100), [0, 1, 0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pixels(kind: str) -> None:
    data, expected = KINDS[kind]
    image = read_image(data)
    assert image.shape[0] == 3 and image.dtype == torch.float32
    assert image[:, 0, 0].tolist() == pytest.approx(expected, abs=0.008 if "JFIF" in str(data[:20]) else 1e-6)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(form: str) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert corner(data) == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000), (10_000, 100)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    image = read_image(picture(BLUE, size))
    assert image.shape == (3, *size[::-1]) and image.mean() == pytest.approx(1 / 3)


BROKEN = {
    "empty": (b"", "no known format"),
    "text": (b"hello", "no known format"),
    "cut": (encoded(noise((64, 64)))[:3000], "truncated"),
    "cut jpeg": (encoded(noise((64, 64)), "JPEG")[:900], "truncated"),
    "float": (encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "32-bit pixels have no agreed range"),
    "int": (encoded(Image.fromarray(np.ones((2, 2), np.int32)), "TIFF"), "32-bit pixels have no agreed range"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_said(name: str, tmp_path: Path) -> None:
    data, said = BROKEN[name]
    with pytest.raises(InputError, match=rf"^image: x.png is not a readable image \(.*{said}"):
        read_image(data, "x.png")
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(InputError, match=rf"x.png' is not a readable image \(.*{said}"):
        read_image(tmp_path / "x.png")
    with pytest.raises(RowError) as raised:
        decode(Medium(data), "set.parquet", 5, "media[1]")
    assert (raised.value.problem.row, raised.value.problem.field) == (5, "media[1]")
    assert said in raised.value.problem.reason


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own remarks
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_are_an_image_or_an_input_error(form: str) -> None:
    data = np.frombuffer(encoded(noise((24, 20)), form), np.uint8)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(150):
        damaged = data.copy()[: int(rng.integers(1, len(data) + 1))]
        damaged[rng.integers(0, len(damaged), 3)] = rng.integers(0, 256, 3)
        try:
            assert read_image(damaged.tobytes()).shape[0] == 3
        except InputError:
            refused += 1
    assert refused > 20


def test_every_medium_of_a_record_is_checked(tmp_path: Path) -> None:
    good, bad = Medium(picture()), Medium(b"x")
    (tmp_path / "a.mp4").write_bytes(b"video")
    check_media(Record("x", (good, good), maps=(HeatMap("m", 0, good),), context=good), "f", 0)
    check_media(Record("x", (Medium(path=str(tmp_path / "a.mp4")),), kind="video"), "f", 0)
    wrong = {
        "media[1]": Record("x", (good, bad)),
        "maps[0]": Record("x", (good,), maps=(HeatMap("m", 0, bad),)),
        "context": Record("x", kind="text", texts=("a", "b"), context=bad),
        "media[0]": Record("x", (Medium(path=str(tmp_path / "b.mp4")),), kind="video"),
    }
    for field, record in wrong.items():
        with pytest.raises(RowError) as raised:
            check_media(record, "f", 0)
        assert raised.value.problem.field == field
