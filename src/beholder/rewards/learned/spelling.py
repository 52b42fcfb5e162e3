"""Which tokens spell each word of a prompt. Shapes: ``_N`` prompts, ``_W`` words, ``_L`` tokens."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from beholder.errors import InputError

Spans = Sequence[tuple[int, int]]
"""Where each begins and ends in the text."""
RICH_HF_WORD = re.compile(r'[^,.?!":; ]+')
"""What RichHF-18k takes for a word; `beholder.preferences.schema.words` are the same."""


def no_words(backbone: str) -> InputError:
    """What to say of a backbone whose tokens do not look at the picture one by one."""
    return InputError(f"words: {backbone} has no words that see the picture; take small, blip or richhf")


def rich_hf_words(prompt: str) -> list[str]:
    return RICH_HF_WORD.findall(prompt)


def spelled(prompts: Sequence[str], token_NL: Sequence[Spans]) -> Tensor:
    """``[N, W, L]``: the tokens that overlap each word, in shares of 1; all 0 for a word that was cut off."""
    word_NW2 = _padded([[found.span() for found in RICH_HF_WORD.finditer(prompt)] for prompt in prompts])
    token_NL2 = _padded(token_NL)
    begins_before = word_NW2[:, :, None, 0] < token_NL2[:, None, :, 1]
    overlap_NWL = (begins_before & (token_NL2[:, None, :, 0] < word_NW2[:, :, None, 1])).float()
    return overlap_NWL / overlap_NWL.sum(2, keepdim=True).clamp_min(1)


def token_spans(tokenizer: Any, texts: Sequence[str], length: int) -> list[Spans]:
    """Of each token that `zoo.texts.tokens` gives for these texts; nothing at (0, 0)."""
    return tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_offsets_mapping=True)[
        "offset_mapping"
    ]


def _padded(rows: Sequence[Spans]) -> Tensor:
    """``[N, longest, 2]`` with (0, 0) behind the last of each, which overlaps nothing."""
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[(0, 0)] * (longest - len(row))] for row in rows]).view(len(rows), longest, 2)
