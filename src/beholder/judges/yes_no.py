"""Yes and no as tokens: what the first generated token says.

Shapes: ``_Q`` questions, ``_V`` tokens of the vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.judges.judge import Answers
from beholder.judges.settings import JudgeConfig

SPACES = "\u0120\u2581\u010a"
"""How byte-level and SentencePiece vocabularies write a leading space (Ġ, ▁) and a line break (Ċ)."""
NEITHER = "the answer is neither yes nor no"
NOT_A_NUMBER = "the model's logits are not numbers"


@dataclass(frozen=True)
class AnswerTokens:
    """The ids of all tokens that say yes, and of all that say no, in any case and with or without a space before."""

    yes: tuple[int, ...]
    no: tuple[int, ...]


def answer_of(text: str) -> str | None:
    """``"yes"`` or ``"no"`` where the text is that word, whatever its case and the spaces around it."""
    word = text.strip(SPACES + " \t\n\r").casefold()
    return word if word in ("yes", "no") else None


def find_answer_tokens(vocabulary: Mapping[str, int]) -> AnswerTokens:
    """Those of a vocabulary ``token → id``; InputError when yes or no is no single token of it."""
    found: dict[str, list[int]] = {"yes": [], "no": []}
    for token, index in vocabulary.items():
        word = answer_of(token)
        if word:
            found[word].append(index)
    for word, ids in found.items():
        if not ids:
            raise InputError(f"model: its tokenizer has no token for {word!r}; take another model, or a server")
    return AnswerTokens(tuple(sorted(found["yes"])), tuple(sorted(found["no"])))


def read_answers(logits_QV: Tensor, tokens: AnswerTokens, tokenizer: Any, config: JudgeConfig) -> Answers:
    """What the first generated tokens with these logits say."""
    broken_Q = logits_QV.isnan().any(1)
    if config.answers == "hard":
        yes_Q = torch.tensor([hard_answer(text) for text in tokenizer.batch_decode(logits_QV.argmax(1)[:, None])])
    else:
        yes_Q = probability_of_yes(logits_QV, tokens, config.top).cpu()
    yes_Q = yes_Q.where(~broken_Q.cpu(), torch.nan)
    said = zip(yes_Q.isnan().tolist(), broken_Q.tolist(), strict=True)
    return Answers(yes_Q, tuple((NOT_A_NUMBER if broken else NEITHER) if nan else "" for nan, broken in said))


def probability_of_yes(logits_QV: Tensor, tokens: AnswerTokens, top: int) -> Tensor:
    """``P(yes) / (P(yes) + P(no))`` ``[Q]``, P summed over the tokens of a word; one softmax, in float32.

    NaN where neither a yes nor a no is among the ``top`` likeliest tokens.
    """
    logits_QV = logits_QV.float()
    yes_Q, no_Q = (logits_QV[:, list(ids)].logsumexp(1) for ids in (tokens.yes, tokens.no))
    best_Q = logits_QV[:, [*tokens.yes, *tokens.no]].amax(1)
    bar_Q = logits_QV.topk(min(top, logits_QV.shape[1]), 1).values[:, -1]
    return torch.where(best_Q >= bar_Q, (yes_Q - no_Q).sigmoid(), torch.nan)


def hard_answer(text: str) -> float:
    """1 or 0 where the text starts with the word yes or no, NaN elsewhere.

    VisionReward's released code asks for exactly ``yes`` (video) or ``yes<|end_of_text|>`` (image) and takes every
    other reply, an exception included, for no.
    """
    words = text.strip(SPACES + " \t\n\r\"'*").casefold()
    for word, value in (("yes", 1.0), ("no", 0.0)):
        if words.startswith(word) and not words[len(word) : len(word) + 1].isalpha():
            return value
    return float("nan")
