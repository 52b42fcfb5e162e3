"""Prompts as the numbers of their words: the vocabulary of a small reward model."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PAD, START, UNKNOWN, END = range(4)
WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+|[^\w\s]")
"""A run of letters and digits, one sign of a script without spaces, or one punctuation mark."""
MOST_WORDS = 8192


def split_words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def known_words(texts: Iterable[str], most: int = MOST_WORDS) -> tuple[str, ...]:
    """The commonest words of the texts, in alphabetical order."""
    counts = Counter(word for text in texts for word in split_words(text))
    return tuple(sorted(word for word, _ in counts.most_common(most)))


class Vocabulary:
    """Words to numbers; a word it does not know is `UNKNOWN`, and what goes beyond ``longest`` words is cut."""

    def __init__(self, words: Sequence[str], longest: int) -> None:
        self.words, self.longest = tuple(words), longest
        self._number = {word: i for i, word in enumerate(self.words, END + 1)}

    def __len__(self) -> int:
        return len(self.words) + END + 1

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Where the words of each lower-case text are that `encode` takes, behind (0, 0) for the start."""
        rows = [[found.span() for found in WORD.finditer(text.lower())][: self.longest] for text in texts]
        length = max(map(len, rows), default=0)
        return [[(0, 0), *row, *[(0, 0)] * (length - len(row) + 1)] for row in rows]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """``[N, L]``: start, the words, end, then padding to the longest of the texts."""
        rows = [
            [START, *(self._number.get(word, UNKNOWN) for word in split_words(text)[: self.longest]), END]
            for text in texts
        ]
        length = max((len(row) for row in rows), default=2)
        return torch.tensor([row + [PAD] * (length - len(row)) for row in rows]).view(len(rows), length)
