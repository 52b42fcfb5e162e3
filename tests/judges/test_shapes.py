"""The bundled world's judge against scenes whose truth is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.errors import InputError
from beholder.judges.medium import Medium, as_medium
from beholder.judges.shapes import ShapesJudge
from beholder.worlds.shapes.prompts import all_prompts, misdescribe, parse, random_prompts, scene_for
from beholder.worlds.shapes.quality import quality
from beholder.worlds.shapes.scenes import COLOURS, SHAPES, render

JUDGE = ShapesJudge()


def drawn(text: str, seed: int = 0) -> Medium:
    rng = np.random.default_rng(seed)
    made = as_medium(torch.from_numpy(render(scene_for(parse(text), rng), rng)))
    assert made is not None
    return made


def test_every_prompt_is_understood_as_what_is_shown() -> None:
    rng = np.random.default_rng(3)
    for prompt in random_prompts(36, rng):
        wrong = misdescribe(prompt, rng)
        asked = [f'Does the image show "{text}"?' for text in (prompt.text, wrong.text)]
        assert JUDGE.ask(drawn(prompt.text), asked).yes_Q.tolist() == [1.0, 0.0], prompt.text


@pytest.mark.parametrize("text", ["a red circle and a blue square", "three green crosses"])
def test_what_is_there_whatever_else_is(text: str) -> None:
    """Every kind and colour asked for one by one."""
    wanted = {(w.colour, w.shape) for w in parse(text).wanted}
    named = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    asked = [f"Is there {'an' if c[0] == 'o' else 'a'} {c} {s}?" for c, s in named]
    answers = JUDGE.ask(drawn(text), asked).yes_Q.tolist()
    assert answers == [float(name in wanted) for name in named]


def test_numbers_are_exact() -> None:
    asked = [f"Are there {n} crosses in the image?" for n in ("two", "three", "four")]
    assert JUDGE.ask(drawn("three crosses"), asked).yes_Q.tolist() == [0.0, 1.0, 0.0]


def test_quality_is_the_measure_itself() -> None:
    shown = drawn("a red circle")
    pixels = np.asarray(shown.stills[0], np.float32).transpose(2, 0, 1)[None] / 255
    measured = quality(pixels)
    answers = JUDGE.ask(shown, ["Is the image sharp?", "is the picture clean?", "Is the image complete?"]).yes_Q
    expected = [measured[name][0] for name in ("sharpness", "cleanliness", "completeness")]
    assert answers.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("question", ["", "Is it nice?", "Is there a pink circle?", "Is the image loud?", "x" * 5000])
def test_what_it_does_not_understand_is_invalid(question: str) -> None:
    answers = JUDGE.ask(drawn("a red circle"), [question, "Is there a red circle?"])
    assert answers.yes_Q.isnan().tolist() == [True, False]
    assert "understands" in answers.why_Q[0]


def test_pictures_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="32×32 pixels; this has 64×32"):
        JUDGE.ask(Medium((Image.new("RGB", (64, 32)),)), ["Is the image sharp?"])
    with pytest.raises(InputError, match="not videos"):
        JUDGE.ask(Medium((Image.new("RGB", (32, 32)),) * 2, "video"), ["Is the image sharp?"])


def test_no_prompt_of_the_world_is_left_out() -> None:
    """Every text that the generator may be given can stand in the checklist's question."""
    shown = drawn("a red circle")
    answers = JUDGE.ask(shown, [f'Does the image show "{p.text}"?' for p in all_prompts()])
    assert answers.yes_Q.sum() == 2  # a circle, a red circle
    assert not any(answers.why_Q)
