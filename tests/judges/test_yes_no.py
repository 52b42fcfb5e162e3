"""What the first token says: token sets of real vocabularies, closed forms, and when an answer is none."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from beholder.errors import InputError
from beholder.judges.settings import JudgeConfig
from beholder.judges.yes_no import (
    NEITHER,
    NOT_A_NUMBER,
    AnswerTokens,
    find_answer_tokens,
    hard_answer,
    probability_of_yes,
    read_answers,
)
from tiny_vlms import tokenizer

SETS = AnswerTokens((0, 1), (2,))
logits = st.lists(st.floats(-30, 30), min_size=6, max_size=6)


def test_token_sets_hold_every_case_and_space_and_nothing_else() -> None:
    vocabulary = {"yes": 0, "Yes": 1, "YES": 2, "▁yes": 3, "ĠYes": 4, "no": 5, "▁No": 6, "Ċno": 7}
    vocabulary |= {"yesterday": 8, "nothing": 9, "ye": 10, "n": 11, "not": 12, "oui": 13, "": 14}
    assert find_answer_tokens(vocabulary) == AnswerTokens((0, 1, 2, 3, 4), (5, 6, 7))


def test_token_sets_of_a_real_tokenizer_decode_to_the_words() -> None:
    words = tokenizer(("<image>",))
    found = find_answer_tokens(words.get_vocab())
    assert sorted(words.batch_decode([[i] for i in found.yes])) == [" Yes", " yes", "Yes", "yes"]
    assert sorted(words.batch_decode([[i] for i in found.no])) == [" No", " no", "No", "no"]


def test_a_vocabulary_without_no_is_refused() -> None:
    with pytest.raises(InputError, match="no token for 'no'"):
        find_answer_tokens({"yes": 0, "n": 1, "o": 2})


def test_probability_by_hand() -> None:
    """P(yes) = .2 + .1, P(no) = .1, whatever the rest: .75; one softmax, not VisionReward's two."""
    logits_QV = torch.tensor([[0.2, 0.1, 0.1, 0.6]]).log()
    assert probability_of_yes(logits_QV, SETS, 4).item() == pytest.approx(0.75, abs=1e-6)


@given(logits, st.floats(-50, 50))
def test_probability_does_not_depend_on_the_scale_of_the_softmax(row: list[float], shift: float) -> None:
    a, b = (probability_of_yes(torch.tensor([row]) + s, SETS, 6) for s in (0.0, shift))
    assert torch.allclose(a, b, atol=1e-4)


@given(logits)
def test_probability_of_the_opposite_is_the_rest(row: list[float]) -> None:
    yes = probability_of_yes(torch.tensor([row]), SETS, 6)
    no = probability_of_yes(torch.tensor([row]), AnswerTokens(SETS.no, SETS.yes), 6)
    assert 0 <= yes.item() <= 1
    assert yes.item() + no.item() == pytest.approx(1, abs=1e-6)


def test_neither_among_the_likeliest_is_no_answer() -> None:
    row = torch.tensor([[1.0, 0.0, 0.0, 3.0, 2.0, -1.0]])
    assert probability_of_yes(row, SETS, 2).isnan().item()
    assert not probability_of_yes(row, SETS, 3).isnan().item()
    assert not probability_of_yes(row, SETS, 100).isnan().item()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("yes", 1.0),
            ("Yes", 1.0),
            (" YES.", 1.0),
            ("yes<|end_of_text|>", 1.0),
            ('"Yes, it is"', 1.0),
            ("▁yes", 1.0),
        ),
        *(("no", 0.0), ("No,", 0.0), ("\nno", 0.0)),
        *(("yesterday", math.nan), ("nothing", math.nan), ("none", math.nan), ("", math.nan), ("maybe yes", math.nan)),
    ],
)
def test_hard_answers(text: str, value: float) -> None:
    assert hard_answer(text) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("answers", ["probability", "hard"])
def test_logits_that_are_no_numbers_are_no_answer(answers: str) -> None:
    words = tokenizer(())
    tokens = find_answer_tokens(words.get_vocab())
    logits_QV = torch.zeros(3, len(words))
    logits_QV[0, tokens.yes[0]] = 9.0
    logits_QV[1] = torch.nan
    logits_QV[2, words.convert_tokens_to_ids("a")] = 9.0
    config = JudgeConfig(answers="hard" if answers == "hard" else "probability", top=1)
    said = read_answers(logits_QV, tokens, words, config)
    assert said.yes_Q[0] > 0.9
    assert said.yes_Q[1:].isnan().all()
    assert said.why_Q == ("", NOT_A_NUMBER, NEITHER)
