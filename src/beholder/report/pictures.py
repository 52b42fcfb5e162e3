"""The before/after pictures: each evaluation's grid embedded once, its cells shown through the style sheet.

A cell is a box whose background is the whole grid, shifted; moving the slider exchanges the background. Cells of up
to ``PIXEL_ART`` pixels are embedded without loss and shown as crisp pixels, larger ones are scaled down.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageStat

from beholder.report.reading import Grid, Number, Run, SamplePrompt, Samples
from beholder.report.results import Gold, gold_of
from beholder.report.words import shown

PIXEL_ART, SHOWN_PIXEL_ART, SHOWN_LARGE = 64, 96, 168
VERDICTS = ("right", "wrong")
BUDGET = 800_000
"""Characters of embedded pictures in one page; intermediate evaluations are left out to stay below."""
SAME_START = 2.0
"""Largest mean difference, of 255, between two runs' first pictures that still counts as the same base."""


@dataclass(frozen=True)
class Frame:
    """One evaluation's pictures: the css class that shows them, and per cell what gold says of it.

    A mark is ``right`` or ``wrong`` where gold is exact, else its value in print, "" where it is not known.
    """

    iteration: int
    css: str
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """One picture of each figure; a panel of one frame stays while the slider moves the others."""

    label: str
    run: int
    frames: tuple[Frame, ...]
    base: bool


@dataclass(frozen=True)
class Turned:
    """How many prompts changed their verdict, of those with one before and after."""

    known: int
    gained: int
    lost: int


@dataclass(frozen=True)
class Gallery:
    """The same prompts and seeds side by side in every panel."""

    prompts: tuple[SamplePrompt, ...]
    columns: int
    rows: int
    size: int
    """Width on the page in CSS pixels."""
    aspect: float
    crisp: bool
    panels: tuple[Panel, ...]
    iterations: tuple[int, ...]
    """Stops of the slider."""
    left_out: int
    """Evaluations whose pictures are not embedded."""

    @property
    def judged(self) -> bool:
        """Whether any cell has an exact verdict."""
        return any(mark in VERDICTS for panel in self.panels for frame in panel.frames for mark in frame.marks)

    def script_data(self) -> dict[str, object]:
        """What the slider needs; numbers and class names only, no text from the run folder."""
        moving = [
            {"css": [f.css for f in p.frames], "marks": [f.marks for f in p.frames], "at": self._positions(p)}
            for p in self.panels
        ]
        return {"iterations": self.iterations, "panels": moving}

    def _positions(self, panel: Panel) -> list[int]:
        """For each stop, the panel's latest frame up to that iteration."""
        return [max(0, sum(f.iteration <= stop for f in panel.frames) - 1) for stop in self.iterations]


def galleries_of(runs: Sequence[Run], labels: Sequence[str]) -> tuple[list[Gallery], dict[str, str]]:
    """The galleries and the data URI of every embedded picture by css class.

    Runs that share prompts, seeds and first pictures share a gallery: base, then one panel per run. Otherwise each
    run has its own.
    """
    drawn = [i for i, run in enumerate(runs) if run.samples and run.samples.grids]
    shared = len(drawn) > 1 and all(same_start(runs[drawn[0]].samples, runs[i].samples) for i in drawn[1:])
    pictures: dict[str, str] = {}
    galleries: list[Gallery] = []
    for members in [drawn] if shared else [[i] for i in drawn]:
        samples = {i: s for i in members if (s := runs[i].samples)}
        golds = {i: gold_of(runs[i]) for i in members}
        galleries.append(_gallery(samples, golds, labels, BUDGET // len(drawn), pictures))
    return galleries, pictures


def _gallery(
    samples: dict[int, Samples], golds: dict[int, Gold], labels: Sequence[str], budget: int, pictures: dict[str, str]
) -> Gallery:
    first = next(iter(samples.values()))
    kept = {i: _kept_grids(s, budget) for i, s in samples.items()}
    frames = {i: [_frame(i, grid, samples[i], golds[i], pictures) for grid in grids] for i, grids in kept.items()}
    start = next(iter(frames.values()))[0]
    panels = [Panel("before" if len(samples) == 1 else "base", -1, (start,), base=True)]
    for i, run_frames in frames.items():
        if len(run_frames) > 1:
            panels.append(Panel("after" if len(samples) == 1 else labels[i], i, tuple(run_frames), base=False))
    crisp = max(first.width, first.height) <= PIXEL_ART
    scale = max(1, SHOWN_PIXEL_ART // max(first.width, first.height))
    return Gallery(
        prompts=first.prompts,
        columns=first.columns,
        rows=-(-len(first.prompts) // first.columns),
        size=first.width * scale if crisp else SHOWN_LARGE,
        aspect=first.width / first.height,
        crisp=crisp,
        panels=tuple(panels),
        iterations=tuple(sorted({f.iteration for p in panels if not p.base for f in p.frames})),
        left_out=sum(len(s.grids) - len(kept[i]) for i, s in samples.items()),
    )


def turned(panel: Panel, base: Panel) -> Turned | None:
    """The change from the base to the panel's last frame; None without verdicts."""
    pairs = list(zip(base.frames[0].marks, panel.frames[-1].marks, strict=True))
    pairs = [pair for pair in pairs if pair[0] in VERDICTS and pair[1] in VERDICTS]
    return Turned(len(pairs), pairs.count(("wrong", "right")), pairs.count(("right", "wrong"))) if pairs else None


def _kept_grids(samples: Samples, budget: int) -> list[Grid]:
    """First, last and as many evenly spaced grids between as the budget allows."""
    grids = samples.grids
    size = max(len(_data_uri(grid, samples)) for grid in (grids[0], grids[-1]))
    kept = np.linspace(0, len(grids) - 1, num=min(len(grids), max(2, budget // size)))
    return [grids[i] for i in dict.fromkeys(round(k) for k in kept.tolist())]


def _frame(run: int, grid: Grid, samples: Samples, gold: Gold, pictures: dict[str, str]) -> Frame:
    css = f"g{run}-{grid.iteration}"
    pictures[css] = _data_uri(grid, samples)
    marks = tuple(mark_of(scores.get(gold.name), gold) for scores in grid.scores) or ("",) * len(samples.prompts)
    return Frame(grid.iteration, css, marks)


def mark_of(score: Number, gold: Gold) -> str:
    if score is None:
        return ""
    return shown(score) if not gold.exact else "right" if score >= 0.5 else "wrong"


def _data_uri(grid: Grid, samples: Samples) -> str:
    """The cells of a grid as WebP: without loss for small cells, else scaled down to twice their size on the page."""
    rows = -(-len(samples.prompts) // samples.columns)
    with Image.open(grid.path) as opened:
        picture = opened.convert("RGB").crop((0, 0, samples.columns * samples.width, rows * samples.height))
    return encoded(picture, samples, 2 * SHOWN_LARGE)


def encoded(picture: Image.Image, samples: Samples, width: int) -> str:
    """A picture of whole cells as a data URI; cells that are no pixel art become at most ``width`` wide."""
    data = io.BytesIO()
    if max(samples.width, samples.height) <= PIXEL_ART:
        picture.save(data, "WEBP", lossless=True, quality=60, method=4)
    else:
        ratio = min(1.0, width / samples.width)
        size = tuple(
            round(cell * ratio) * (whole // cell)
            for cell, whole in zip((samples.width, samples.height), picture.size, strict=True)
        )
        picture.resize((size[0], size[1]), Image.Resampling.LANCZOS).save(data, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def same_start(one: Samples | None, other: Samples | None) -> bool:
    if one is None or other is None or one.prompts != other.prompts:
        return False
    if (one.columns, one.height, one.width) != (other.columns, other.height, other.width):
        return False
    with Image.open(one.grids[0].path) as a, Image.open(other.grids[0].path) as b:
        if one.grids[0].iteration != other.grids[0].iteration or a.size != b.size:
            return False
        return max(ImageStat.Stat(ImageChops.difference(a.convert("RGB"), b.convert("RGB"))).mean) <= SAME_START
