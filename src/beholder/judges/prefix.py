"""The logits of the first answered token, for many questions about one medium.

Shapes: ``_Q`` questions, ``_V`` vocabulary, ``P`` tokens that all questions share, ``S`` tokens of the longest rest.

All questions about a medium begin with the same tokens: the system's, the picture's, often more. Their keys and values
are computed once and repeated over the questions; the rests follow in one batch, padded on the right, where a causal
model never looks. The logits are those of one whole pass per question (tests/judges/test_prefix.py: ≤ 1e-5).
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

SHARING = ("idefics3", "internvl", "llava", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "smolvlm")
"""The families (model_type) of which tests show that a shared prefix changes nothing."""


@dataclass(frozen=True)
class Encoded:
    """Questions about one medium as a model takes them."""

    inputs: dict[str, Tensor]
    """Of the first question: ids ``[1, P + S]``, pixels, and whatever else the processor makes of it."""
    ids_Q: tuple[tuple[int, ...], ...]
    """All token ids of every question, with the picture's placeholders."""

    def shared(self) -> int:
        """P: how many tokens at the beginning are the same for all; at least one is left for each question."""
        most = min(map(len, self.ids_Q)) - 1
        same = takewhile(lambda column: len(set(column)) == 1, zip(*self.ids_Q, strict=False))
        return min(most, sum(1 for _ in same))


def encode(processor: Any, stills: Sequence[Any], texts: Sequence[str], image_token: int) -> Encoded | None:
    """Encodes the stills once: the first text by the processor, the others by its tokenizer.

    The processor turns each picture's placeholder in the text into many tokens. What follows the last placeholder is
    tokenised alike in both, so the other questions are the first one's tokens with another end. None where that does
    not hold: a question stands before a picture, or the family writes something after the pictures that depends on it.
    """
    inputs = whole(processor, stills, texts[0])
    words = processor.tokenizer
    plain = [words(text, add_special_tokens=adds_specials(words, text))["input_ids"] for text in texts]
    heads, tails = zip(*(_cut(ids, image_token) for ids in plain), strict=True)
    first = tuple(inputs["input_ids"][0].tolist())
    end = len(first) - len(tails[0])
    if len(set(heads)) > 1 or not heads[0] or not tails[0] or first[end:] != tails[0]:
        return None
    return Encoded(inputs, tuple(first[:end] + tail for tail in tails))


def whole(processor: Any, stills: Sequence[Any], text: str) -> dict[str, Tensor]:
    """One question as its processor encodes it."""
    made = processor(
        text=[text],
        images=list(stills),
        return_tensors="pt",
        add_special_tokens=adds_specials(processor.tokenizer, text),
    )
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def adds_specials(words: Any, text: str) -> bool:
    """Whether the tokenizer should still add its specials: not where the chat template has written the first one."""
    return words.bos_token is None or not text.startswith(words.bos_token)


def _cut(ids: Sequence[int], image_token: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids up to the last placeholder, and those behind it."""
    last = max((i for i, token in enumerate(ids) if token == image_token), default=-1)
    return tuple(ids[: last + 1]), tuple(ids[last + 1 :])


def shared_logits(model: Any, encoded: Encoded, batch: int) -> Iterator[Tensor]:
    """Logits ``[≤ batch, V]`` of the token after each question, by chunks, after one pass over what they share."""
    shared = encoded.shared()
    length = encoded.inputs["input_ids"].shape
    prefix = {
        name: value[:, :shared] if value.shape == length else value
        for name, value in encoded.inputs.items()
        if name != "attention_mask"  # all ones; without it, positions follow from the cache
    }
    cache = model(**prefix, use_cache=True, logits_to_keep=1).past_key_values
    tails = [ids[shared:] for ids in encoded.ids_Q]
    for start in range(0, len(tails), batch):
        chunk = tails[start : start + batch]
        longest, device = max(map(len, chunk)), encoded.inputs["input_ids"].device
        ids_QS = torch.tensor([[*tail, *[tail[-1]] * (longest - len(tail))] for tail in chunk], device=device)
        last_Q = torch.tensor([len(tail) - 1 for tail in chunk], device=device)
        kept, place_Q = last_Q.unique(return_inverse=True)
        repeated = copy.deepcopy(cache)
        repeated.batch_repeat_interleave(len(chunk))
        logits = model(input_ids=ids_QS, past_key_values=repeated, use_cache=True, logits_to_keep=kept).logits
        yield logits[torch.arange(len(chunk), device=device), place_Q]


def whole_logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Logits ``[1, V]`` of the token after one question, from one whole pass."""
    return model(**inputs, use_cache=False).logits[:, -1]
