"""Prompts as tokens, cleaned the way the original code does it."""

import html
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def clip_clean(text: str) -> str:
    """What OpenAI's and open_clip's tokenizers do first: mend broken encodings and curly quotes, HTML entities, blanks.

    transformers' tokenizer leaves these as they are, and so gives other tokens for them.
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip()


def once(prompts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The different prompts, and for each prompt its place among them."""
    texts = list(dict.fromkeys(prompts))
    place = {text: i for i, text in enumerate(texts)}
    return texts, torch.tensor([place[text] for text in prompts])


def tokens(tokenizer: Any, texts: Sequence[str], length: int, device: torch.device) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` [N, ≤ length]: cut after ``length`` tokens, the closing one kept."""
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}
