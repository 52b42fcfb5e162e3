"""Words of prompts that pictures do not show, as targets for a head that names them (RichHF, 2312.10240).

Shapes: ``_N`` images, ``_W`` words of their prompts as `beholder.preferences.schema.words` counts them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from beholder.errors import InputError
from beholder.fitting.batches import Batch
from beholder.fitting.labels import Labels
from beholder.fitting.predict import Data
from beholder.preferences.schema import Record, words
from beholder.rewards.learned import RewardModel
from beholder.rewards.learned.states import States

READ = ("prompt", "kind", "texts", "misaligned")
Places = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Misaligned:
    labels: Labels
    places: dict[int, Places]
    """For each image of a record, which words; records where nobody said so are absent."""

    def of(self, batch: Batch) -> Tensor:
        """``[N, W]``: 1 for a word that the picture lacks, 0 for one that it shows, NaN where nobody said."""
        longest = max((len(words(prompt)) for prompt in batch.prompts), default=0)
        found_NW = torch.full((len(batch.prompts), longest), torch.nan)
        seen = 0
        for r in batch.record_R:
            images = len(self.labels.images(r))
            for k, places in enumerate(self.places.get(r, ())):
                found_NW[seen + k, : len(words(self.labels.prompts[r]))] = 0
                found_NW[seen + k, list(places)] = 1
            seen += images
        return found_NW


def misaligned_of(labels: Labels) -> Misaligned:
    """One pass over the set."""
    of_row = {int(row): r for r, row in enumerate(labels.row_R)}
    found: dict[int, Places] = {}
    for row, record in enumerate(labels.source.scan(READ)):
        if row in of_row and isinstance(record, Record) and record.misaligned is not None:
            found[of_row[row]] = record.misaligned
    return Misaligned(labels, found)


def new_misaligned(labels: Labels, train: Sequence[int]) -> Misaligned:
    """InputError where no record that trains says which words are misaligned."""
    found = misaligned_of(labels)
    if not any(r in found.places for r in train):
        raise InputError("words: the set does not say which words are misaligned; leave out --words")
    return found


def word_loss(model: RewardModel, states: States, prompts: Sequence[str], lacks_NW: Tensor) -> Tensor:
    """Binary cross entropy over all words that somebody judged; 0 where there is none."""
    logit_NW = model.worded(states, prompts)
    lacks_NW = lacks_NW.to(logit_NW)
    known = ~(lacks_NW.isnan() | logit_NW.isnan())
    if not known.any():
        return logit_NW.new_zeros(())
    return binary_cross_entropy_with_logits(logit_NW[known], lacks_NW[known])


def measure_words(
    model: RewardModel, data: Data, misaligned: Misaligned, records: Sequence[int]
) -> dict[str, float | int]:
    """Precision, recall and F1 of what is called misaligned above 0.5, over all judged words; NaN without any.

    Words that the backbone cuts off count as called shown.
    """
    logit_J, lacks_J = _said_and_judged(model, data, misaligned, records)
    called_J = logit_J > 0
    hit, called, lacking = (int(x.sum()) for x in (called_J & (lacks_J == 1), called_J, lacks_J == 1))
    return {
        "precision": hit / called if called else math.nan,
        "recall": hit / lacking if lacking else math.nan,
        "f1": 2 * hit / (called + lacking) if called + lacking else math.nan,
        "words": len(lacks_J),
        "misaligned": lacking,
        "cut_off": int(logit_J.isnan().sum()),
    }


def explained_words(model: RewardModel, data: Data, misaligned: Misaligned, records: Sequence[int]) -> float:
    """1 − cross entropy / that of the share of misaligned words; 0 where all words are alike."""
    logit_J, lacks_J = _said_and_judged(model, data, misaligned, records)
    known = ~logit_J.isnan()
    logit_J, lacks_J = logit_J[known], lacks_J[known]
    if len(lacks_J.unique()) < 2:
        return 0.0
    constant = binary_cross_entropy(lacks_J.mean().expand_as(lacks_J), lacks_J)
    return 1 - (binary_cross_entropy_with_logits(logit_J, lacks_J) / constant).item()


@torch.no_grad()
def _said_and_judged(
    model: RewardModel, data: Data, misaligned: Misaligned, records: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Logits and labels ``[J]`` of all words that somebody judged."""
    found = [(torch.zeros(0), torch.zeros(0))]
    for batch, states in data.outputs(model, records):
        logit_NW, lacks_NW = model.worded(states, batch.prompts).cpu(), misaligned.of(batch)
        judged = ~lacks_NW.isnan()
        found.append((logit_NW[judged], lacks_NW[judged]))
    return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])
