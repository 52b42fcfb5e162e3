"""Scores of images and videos on disk: read ahead, scored in batches, and written down as they come."""

import json
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from beholder.errors import InputError
from beholder.evaluation.heat_maps import map_makers, write_maps
from beholder.evaluation.media_files import find_media, kind_of
from beholder.evaluation.prefetch import AHEAD, prefetched
from beholder.evaluation.score_log import ScoreLog
from beholder.media import read_image, read_pairs
from beholder.rewards import Reward, load_rewards, score
from beholder.rewards.frames import mean_over_frames
from beholder.rewards.zoo.parts import PartedScorer
from beholder.rewards.zoo.scorer import StagedScorer
from beholder.rewards.zoo.unified_reward import WordedReward
from beholder.rewards.zoo.visionreward import ChecklistReward
from beholder.video import Choose, read_video

NAMED = 3
"""Failed files whose reason is printed; the others are counted."""

Row = dict[str, Any]


def score_on_terminal(
    images: list[Path],
    rewards: list[str],
    prompt: str | None = None,
    prompts: Path | None = None,
    output: Path | None = None,
    batch: int = 16,
    as_json: bool = False,
    maps: Path | None = None,
) -> None:
    """Scores, and prints the rows, or with ``output`` a summary; a bar and what failed go to stderr.

    ``maps`` is a folder for the heat maps of rewards that make some.
    """
    if batch < 1:
        raise InputError(f"batch: {batch} must be 1 or more")
    pairs = read_pairs(prompts) if prompts is not None else None
    if prompts is not None and images:
        raise InputError("score: give images on the command line or a --prompts file, not both")
    scorers = load_rewards(rewards)
    pairs = pairs if pairs is not None else _from_arguments(images, prompt)
    makers = map_makers(scorers) if maps is not None else {}
    log = ScoreLog(output, [reward.name for reward in scorers])
    left = log.left(pairs)
    rows = list(log.kept)
    with warnings.catch_warnings(), _bar(len(left)) as bar:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are welcome here
        task = bar.add_task("scoring", total=len(left))
        for scored in score_files(left, scorers, batch):
            if maps is not None:
                write_maps(scored, makers, maps)
            log.write(scored)
            rows += scored
            bar.advance(task, len(scored))
    _say_failures(rows, [reward.name for reward in scorers])
    if output is None:
        print_scores(rows, as_json)
    else:
        _print_summary(output, rows, len(log.kept), [reward.name for reward in scorers], as_json)


def score_files(pairs: Sequence[tuple[Path, str]], rewards: Sequence[Reward], batch: int = 16) -> Iterator[list[Row]]:
    """Rows of one batch after another: the path, the prompt and each reward, None where it failed.

    A file that cannot be read, or that a reward refuses, is None there and says why under ``error``; the others do not
    mind.
    """
    loaded = prefetched([path for path, _ in pairs], lambda path: _load(path, rewards), 2 * batch)
    waiting: list[Prepared] = []
    held = done = 0
    for item in loaded:
        waiting.append(item)
        held += item.pixels
        if len(waiting) == batch or held > AHEAD:
            yield _rows(pairs[done : done + len(waiting)], waiting, rewards)
            done, waiting, held = done + len(waiting), [], 0
    if waiting:
        yield _rows(pairs[done:], waiting, rewards)


@dataclass(frozen=True)
class Prepared:
    """A file as the rewards take it."""

    inputs: dict[str, Tensor]
    """By reward: prepared pixels for those in two stages, the image for the others; nothing where it failed."""
    error: str = ""

    @property
    def pixels(self) -> int:
        return max((value.numel() // 3 for value in self.inputs.values()), default=0)


def _load(path: Path, rewards: Sequence[Reward]) -> Prepared:
    try:
        if kind_of(path) == "image":
            prepared = prepare(read_image(path), rewards)
        else:
            looks: dict[Choose | None, list[Reward]] = {}
            for reward in rewards:
                looks.setdefault(_frames(reward), []).append(reward)
            seen = [prepare(read_video(path, choose=choose), some) for choose, some in looks.items()]
            inputs = {name: value for one in seen for name, value in one.inputs.items()}
            prepared = Prepared(inputs, "; ".join(one.error for one in seen if one.error))
    except InputError as error:
        return Prepared({}, str(error))
    return replace(prepared, error=f"{path}: {prepared.error}") if prepared.error else prepared


def _frames(reward: Reward) -> Choose | None:
    """Which frames of a video the reward looks at, where it has a rule of its own."""
    if isinstance(reward.score, PartedScorer):
        return reward.score.parts.frames
    return reward.score.frames if isinstance(reward.score, WordedReward) else None


def prepare(image: Tensor, rewards: Sequence[Reward]) -> Prepared:
    """An image or a video as each reward takes it; ``error`` says which one refuses it."""
    inputs: dict[str, Tensor] = {}
    error = ""
    for reward in rewards:
        scorer = reward.score
        if not isinstance(scorer, StagedScorer):
            inputs[reward.name] = image
            continue
        network = scorer.network  # outside the try: weights that cannot be read are no image's fault
        try:
            by_frames = image.ndim == 4 and not reward.video
            inputs[reward.name] = network.prepare(image) if by_frames else network.prepare(image[None])[0]
        except InputError as refused:
            error = str(refused)
    return Prepared(inputs, error)


def _rows(pairs: Sequence[tuple[Path, str]], items: Sequence[Prepared], rewards: Sequence[Reward]) -> list[Row]:
    texts = [text for _, text in pairs]
    columns: dict[str, list[float | None]] = {}
    parts: list[dict[str, Row]] = [{} for _ in items]
    for reward in rewards:
        if isinstance(reward.score, ChecklistReward | WordedReward) and not reward.pairwise:
            columns[reward.name] = _described(reward.name, reward.score, items, texts, parts)
        elif isinstance(reward.score, PartedScorer):
            columns[reward.name] = _parted(reward, reward.score, items, texts, parts)
        else:
            columns[reward.name] = column(reward, items, texts)
    rows: list[Row] = []
    for i, ((path, text), item) in enumerate(zip(pairs, items, strict=True)):
        row: Row = {"image": str(path), "prompt": text, **{name: column[i] for name, column in columns.items()}}
        row |= {"parts": parts[i]} if parts[i] else {}
        rows.append(row | ({"error": item.error} if item.error else {}))
    return rows


def _described(
    name: str,
    scorer: ChecklistReward | WordedReward,
    items: Sequence[Prepared],
    texts: Sequence[str],
    parts: list[dict[str, Row]],
) -> list[float | None]:
    """The totals of a judge; what they are made of goes into ``parts`` under the reward's name."""
    column: list[float | None] = [None] * len(items)
    for i, (item, text) in enumerate(zip(items, texts, strict=True)):
        if name in item.inputs:
            said = asdict(scorer.describe(item.inputs[name][None], [text])[0])
            column[i] = said.pop("total")
            parts[i][name] = said
    return column


def _parted(
    reward: Reward, scorer: PartedScorer, items: Sequence[Prepared], texts: Sequence[str], parts: list[dict[str, Row]]
) -> list[float | None]:
    """The values of a network with several outputs; the outputs go into ``parts`` under the reward's name."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    column: list[float | None] = [None] * len(items)
    for members, given in _by_size(reward.name, items):
        prompts = [texts[i] for i in members]
        with torch.no_grad():
            if given.ndim == 5 and not reward.video:  # frames of a video, for a reward of images
                table = mean_over_frames(lambda frame, prompts=prompts: scorer.table(frame, prompts), given.to(device))
            else:
                table = scorer.table(given.to(device), prompts)
        table = table.cpu()
        totals = scorer.parts.total(table).tolist()
        for i, total, named in zip(members, totals, scorer.named(table), strict=True):
            column[i] = None if math.isnan(total) else total
            parts[i][reward.name] = {"parts": named}
        if scorer.parts.more is not None and given.ndim == 4:
            for i, said in zip(members, scorer.parts.more(given.to(device), prompts), strict=True):
                parts[i][reward.name] |= said
    return column


def _by_size(name: str, items: Sequence[Prepared]) -> Iterator[tuple[list[int], Tensor]]:
    """The items that the reward called ``name`` scores, those of equal size together."""
    groups: dict[torch.Size, list[int]] = {}
    for i, item in enumerate(items):
        if name in item.inputs:
            groups.setdefault(item.inputs[name].shape, []).append(i)
    for members in groups.values():
        yield members, torch.stack([items[i].inputs[name] for i in members])


def column(reward: Reward, items: Sequence[Prepared], texts: Sequence[str]) -> list[float | None]:
    """One reward of every item, those of equal size together; None where it failed."""
    network, device = reward, torch.device("cpu")
    if isinstance(reward.score, StagedScorer):
        network = Reward(reward.name, reward.score.score, video=reward.video)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    column: list[float | None] = [None] * len(items)
    for members, given in _by_size(reward.name, items):
        with torch.no_grad():
            values = score(given.to(device), [texts[i] for i in members], [network]).values_NM[:, 0].tolist()
        for i, value in zip(members, values, strict=True):
            column[i] = None if math.isnan(value) else value
    return column


def _from_arguments(images: list[Path], prompt: str | None) -> list[tuple[Path, str]]:
    if not images:
        raise InputError("score: no image given; name files, folders or globs, or a --prompts file")
    if prompt is None:
        raise InputError('score: no prompt given; add --prompt "a red circle" or use a --prompts file')
    return [(path, prompt) for path in find_media("score", images)]


# ---------------------------------------------------------------------------------------------------- terminal


def _bar(total: int) -> Progress:
    return Progress(console=Console(stderr=True), disable=total < 2 or not sys.stderr.isatty(), transient=True)


def _say_failures(rows: list[Row], names: list[str]) -> None:
    """Lines on stderr for what failed; InputError when no file could be scored at all."""
    errors = [row["error"] for row in rows if "error" in row]
    if errors and all("error" in row and all(row[name] is None for name in names) for row in rows):
        first = errors[0]
        raise InputError(first if len(rows) == 1 else f"none of {len(rows)} images could be scored; first: {first}")
    if errors:
        more = f" and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        reasons = "; ".join(" ".join(reason.split()) for reason in errors[:NAMED])
        print(f"beholder: {len(errors)} of {len(rows)} images could not be scored: {reasons}{more}", file=sys.stderr)
    for name in names:
        failed = sum(row[name] is None for row in rows if "error" not in row)
        if failed:
            counted: Counter[str] = Counter()
            for row in rows:
                counted.update(row.get("parts", {}).get(name, {}).get("failed", {}))
            why = "".join(f"; {count} × {reason}" for reason, count in counted.most_common(NAMED))
            print(f"beholder: {name} failed on {failed} of {len(rows) - len(errors)} images{why}", file=sys.stderr)


def _print_summary(output: Path, rows: list[Row], kept: int, names: list[str], as_json: bool) -> None:
    valid = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    means = {name: sum(values) / len(values) if values else None for name, values in valid.items()}
    failed = {name: len(rows) - len(values) for name, values in valid.items()}
    if as_json:
        print(json.dumps({"output": str(output), "rows": len(rows), "kept": kept, "means": means, "failed": failed}))
        return
    print(f"{len(rows)} rows in {output}" + (f", {kept} of them from before" if kept else ""))
    for name in names:
        print(f"  {name}: mean {_cell(means[name])}" + (f", {failed[name]} failed" if failed[name] else ""))


def print_scores(rows: list[Row], as_json: bool) -> None:
    """A table, or one JSON object a line."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    names = [name for name in rows[0] if name not in ("parts", "error")]
    for name in names:
        table.add_column(escape(name))
    for row in rows:
        table.add_row(*(escape(_cell(row[name])) for name in names))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "failed"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
