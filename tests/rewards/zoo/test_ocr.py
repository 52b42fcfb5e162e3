"""The OCR reward: its formula against an independent one, and the real reader on text that Pillow rendered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards import load_reward
from beholder.rewards.zoo.ocr import OcrReward, distance, quoted, similarity

WORDS = st.text("abC é", max_size=7)


def by_recursion(a: str, b: str) -> int:
    """Levenshtein's definition."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return by_recursion(a[1:], b[1:])
    return 1 + min(by_recursion(a[1:], b), by_recursion(a, b[1:]), by_recursion(a[1:], b[1:]))


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS)
def test_the_distance_is_levenshteins(a: str, b: str) -> None:
    assert distance(a, b) == by_recursion(a, b) == distance(b, a)


@pytest.mark.parametrize(
    ("read", "wanted", "value", "exact"),
    [
        ("OPEN 24h", "Open 24 H", 1, 1),
        ("0PEN", "open", 3 / 4, 3 / 4),
        ("closed", "open", 0, 0),
        ("", "open", 0, 0),
        ("we are open", "open", 1, 0),
        ("opens", "open", 1, 3 / 4),
        ("open open", "open", 1, 0),
    ],
)
def test_values_by_hand(read: str, wanted: str, value: float, exact: float) -> None:
    assert similarity(read, wanted, contained=True) == pytest.approx(value)
    assert similarity(read, wanted, contained=False) == pytest.approx(exact)


def test_the_first_quoted_text_counts() -> None:
    assert quoted('a sign "No Way" beside a door "EXIT"') == "No Way"
    assert quoted("a neon sign “café”, 5'2\"") == "café"
    for prompt in ("a sign that says OPEN", 'a sign ""', 'a 5" nail', '" "'):
        with pytest.raises(InputError, match="quotes no text"):
            quoted(prompt)


def test_a_reader_that_fails_on_one_image_gives_nan_for_it_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def reader(image: np.ndarray) -> str:
        if image.max() == 0:
            raise RuntimeError("no contour")
        return "open"

    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.full((3, 4, 4), torch.nan)])
    values = OcrReward(lambda: reader, contained=True)(images, ['"open"'] * 3)
    assert values.isnan().tolist() == [True, False, True] and values[1] == 1
    assert "ocr failed on 1 of 3 images: RuntimeError: no contour" in capsys.readouterr().err


def rendered(text: str, size: int = 256) -> Tensor:
    image = Image.new("RGB", (size, size), (240, 230, 200))
    draw = ImageDraw.Draw(image)
    draw.text((20, size // 2 - 20), text, fill=(20, 20, 90), font=ImageFont.load_default(size // 8))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


def test_the_real_reader_reads_what_pillow_wrote() -> None:
    images = torch.stack([rendered("HELLO 42"), rendered("HELLO 42"), torch.ones(3, 256, 256)])
    prompts = ['a poster "Hello 42"', 'a poster "Goodbye"', 'a poster "Hello 42"']
    values = load_reward("ocr").score(images, prompts)
    assert values[0] == 1 and values[1] < 0.5 and values[2] == 0
    both = torch.stack([rendered("ONE TWO")])
    assert load_reward("ocr").score(both, ['"two"']).tolist() == [1]
    assert load_reward("ocr_exact").score(both, ['"two"']).tolist() == [0]
