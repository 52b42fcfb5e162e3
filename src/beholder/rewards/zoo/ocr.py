"""Rendered text as a reward (Flow-GRPO, 2505.05470): how much of the prompt's quoted text can be read in the image.

With t the text between the prompt's first pair of double quotes and s all that was recognised, both in lower case and
without blanks:

    ocr        r = 1 where t is part of s, else 1 − min(d, |t|) / |t|      d: Levenshtein distance of s and t
    ocr_exact  r = 1 − min(d, |t|) / |t|                                  so that other text costs, too

0..1. The first is Flow-GRPO's: a page full of text scores 1 where t is somewhere in it. There an image that cannot be
read counts 0; here it is NaN. The reader is RapidOCR with the models of its package (PP-OCRv6), on the CPU, offline.
"""

import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards.zoo.preprocess import broken, bytes_of, checked

Reader = Callable[[np.ndarray], str]
"""``RGB uint8 [H, W, 3] → all recognised text``."""
QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”')


class OcrReward:
    """A `Scorer`; InputError for a prompt that quotes nothing, NaN where the reader fails."""

    def __init__(self, load: Callable[[], Reader], contained: bool) -> None:
        self._load, self._contained = load, contained

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        wanted = [quoted(prompt) for prompt in prompts]
        bad = broken(checked(images)).tolist() if len(images) else []
        values, failures = [], Counter[str]()
        read = self._load()
        for image, text, unreadable in zip(bytes_of(images), wanted, bad, strict=True):
            try:
                values.append(torch.nan if unreadable else similarity(read(image), text, self._contained))
            except Exception as error:  # OpenCV and the runtime raise what they like at an odd image
                failures[f"{type(error).__name__}: {error}".splitlines()[0]] += 1
                values.append(torch.nan)
        for why, count in failures.items():
            print(f"beholder: ocr failed on {count} of {len(values)} images: {why}", file=sys.stderr)
        return torch.tensor(values)


def quoted(prompt: str) -> str:
    """The text that the image should show; InputError where the prompt quotes none."""
    found = QUOTED.search(prompt)
    text = "" if found is None else found[1] or found[2] or ""
    if not bare(text):
        raise InputError(
            f'prompt: {prompt!r} quotes no text; write what to render in double quotes, e.g. a sign "OPEN"'
        )
    return text


def bare(text: str) -> str:
    """In lower case and without blanks."""
    return "".join(text.split()).lower()


def similarity(recognised: str, wanted: str, contained: bool) -> float:
    """The formula at the head of the module."""
    s, t = bare(recognised), bare(wanted)
    if contained and t in s:
        return 1.0
    return 1 - min(distance(s, t), len(t)) / len(t)


def distance(a: str, b: str) -> int:
    """Levenshtein: insertions, deletions and substitutions that turn one text into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


@cache
def _rapidocr() -> Reader:
    from rapidocr import RapidOCR

    threads = {"EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads()}
    engine: Any = RapidOCR(params=threads | {"Global.log_level": "critical"})

    def read(image: np.ndarray) -> str:
        found = engine(np.ascontiguousarray(image[:, :, ::-1]))  # OpenCV's order of channels
        return "".join(found.txts or ())

    return read


def load_ocr(checkpoint: str) -> OcrReward:
    """Flow-GRPO's form."""
    _need_extra()
    return OcrReward(_rapidocr, contained=True)


def load_ocr_exact(checkpoint: str) -> OcrReward:
    """Without credit for text that merely contains the wanted one."""
    _need_extra()
    return OcrReward(_rapidocr, contained=False)


def _need_extra() -> None:
    for module in ("rapidocr", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"rewards: ocr needs {module}; pip install 'beholder[ocr]'")
