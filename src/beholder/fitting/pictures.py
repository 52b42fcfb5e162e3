"""The images of records as the backbone takes them, kept in memory as far as there is room."""

from collections.abc import Callable

import torch
from torch import Tensor

from beholder.fitting.labels import Labels
from beholder.preferences.decoding import decode
from beholder.preferences.schema import RowError

SEEN = ("prompt", "media", "kind")


class Pictures:
    """Prepared images by record; a damaged one is noted in ``labels.problems``, and its record has none.

    What a record gives is a function of the set alone, whatever was read before it.
    """

    def __init__(self, labels: Labels, prepare: Callable[[Tensor], Tensor], mebibytes: int) -> None:
        self.labels, self._prepare, self._room = labels, prepare, mebibytes * 2**20
        self._kept: dict[int, Tensor | None] = {}

    def read(self, r: int) -> Tensor | None:
        """``[K, ...]`` of record ``r``; None where one cannot be decoded."""
        if r in self._kept:
            return self._kept[r]
        pixels = self._decoded(r)
        size = 0 if pixels is None else pixels.numel() * pixels.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[r] = pixels
        return pixels

    def _decoded(self, r: int) -> Tensor | None:
        row = int(self.labels.row_R[r])
        record, place = self.labels.source.read(row, SEEN), self.labels.source.where(row)
        try:
            images = [decode(medium, *place, f"media[{k}]") for k, medium in enumerate(record.media)]
        except RowError as error:
            self.labels.problems[str(error)] = error.problem
            return None
        with torch.no_grad():
            return torch.cat([self._prepare(image[None]) for image in images])


def shifted(pixels: Tensor, by: int, generator: torch.Generator) -> Tensor:
    """Each image ``[N, C, H, W]`` moved by up to ``by`` pixels either way; its edge is repeated."""
    if by == 0:
        return pixels
    n, _, height, width = pixels.shape
    moves_N2 = torch.randint(-by, by + 1, (n, 2), generator=generator)
    y_NH = (torch.arange(height) + moves_N2[:, :1]).clamp(0, height - 1).to(pixels.device)
    x_NW = (torch.arange(width) + moves_N2[:, 1:]).clamp(0, width - 1).to(pixels.device)
    rows = torch.arange(n, device=pixels.device)[:, None, None]
    return pixels.permute(0, 2, 3, 1)[rows, y_NH[:, :, None], x_NW[:, None]].permute(0, 3, 1, 2)
