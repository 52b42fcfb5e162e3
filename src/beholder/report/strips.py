"""A few of each method's last pictures beside the base's, same prompts and same seeds, one strip per method."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from beholder.report.gathering import Attempt, Comparison
from beholder.report.pictures import PIXEL_ART, encoded, mark_of, same_start
from beholder.report.reading import Grid, SamplePrompt, Samples
from beholder.report.results import gold_of

MOST_CELLS = 12
SHOWN_PIXEL_ART, SHOWN_LARGE = 64, 96


@dataclass(frozen=True)
class Strip:
    """Some cells of one grid; ``method`` is empty for the base."""

    method: str
    seed: int
    css: str
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Wall:
    """Strips of the same prompts, seeds and base, the base's first."""

    prompts: tuple[SamplePrompt, ...]
    size: int
    aspect: float
    crisp: bool
    strips: tuple[Strip, ...]


def walls_of(comparison: Comparison) -> tuple[list[Wall], dict[str, str]]:
    """The walls, more than one where runs started differently, and the data URI of every strip by css class.

    Of each method the first counted run with pictures of before and after is shown.
    """
    groups: list[list[tuple[Attempt, Samples]]] = []
    for shown in filter(None, map(_shown, [entrant.counted for entrant in comparison.entrants])):
        group = next((g for g in groups if same_start(g[0][1], shown[1])), None)
        if group is None:
            groups.append(group := [])
        group.append(shown)
    pictures: dict[str, str] = {}
    return [_wall(group, pictures) for group in groups], pictures


def chosen(prompts: Sequence[SamplePrompt], most: int = MOST_CELLS) -> list[int]:
    """Which cells: the first of every kind, then the second, …, until there are ``most``; kinds stand together."""
    kinds: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        kinds.setdefault(prompt.kind, []).append(i)
    order = sorted((rank, k, i) for k, cells in enumerate(kinds.values()) for rank, i in enumerate(cells))[:most]
    return [i for _, _, i in sorted((k, rank, i) for rank, k, i in order)]


def _shown(attempts: Sequence[Attempt]) -> tuple[Attempt, Samples] | None:
    for attempt in attempts:
        if attempt.run and attempt.run.samples and len(attempt.run.samples.grids) > 1:
            return attempt, attempt.run.samples
    return None


def _wall(group: Sequence[tuple[Attempt, Samples]], pictures: dict[str, str]) -> Wall:
    first = group[0][1]
    cells = chosen(first.prompts)
    strips = [_strip("", *group[0], first.grids[0], cells, pictures)]
    strips += [_strip(attempt.method, attempt, s, s.grids[-1], cells, pictures) for attempt, s in group]
    crisp = max(first.width, first.height) <= PIXEL_ART
    scale = max(1, SHOWN_PIXEL_ART // max(first.width, first.height))
    return Wall(
        prompts=tuple(first.prompts[i] for i in cells),
        size=first.width * scale if crisp else SHOWN_LARGE,
        aspect=first.width / first.height,
        crisp=crisp,
        strips=tuple(strips),
    )


def _strip(
    method: str, attempt: Attempt, samples: Samples, grid: Grid, cells: Sequence[int], pictures: dict[str, str]
) -> Strip:
    css = f"s{len(pictures)}"
    pictures[css] = encoded(_cropped(grid, samples, cells), samples, 2 * SHOWN_LARGE)
    gold = gold_of(attempt.run) if attempt.run else None
    marks = [mark_of(grid.scores[i].get(gold.name), gold) if gold and grid.scores else "" for i in cells]
    return Strip(method, attempt.seed, css, tuple(marks))


def _cropped(grid: Grid, samples: Samples, cells: Sequence[int]) -> Image.Image:
    """The cells side by side."""
    width, height = samples.width, samples.height
    strip = Image.new("RGB", (len(cells) * width, height))
    with Image.open(grid.path) as opened:
        picture = opened.convert("RGB")
        for i, cell in enumerate(cells):
            left, top = cell % samples.columns * width, cell // samples.columns * height
            strip.paste(picture.crop((left, top, left + width, top + height)), (i * width, 0))
    return strip
