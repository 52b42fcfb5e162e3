"""A run folder as dataclasses: what was measured, drawn and found.

A missing or null number and NaN are all ``None`` ("not known"). What a kill leaves behind (a last line cut off, a
picture half written) becomes a note for the page; anything else that cannot be read is an error naming file and line.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image

from beholder.errors import InputError

Number = float | None
Row = dict[str, object]
T = TypeVar("T")

LEVELS = ("problem", "warning", "note", "ok")


@dataclass(frozen=True)
class Training:
    """One training iteration: batch means of the rewards and the loop's own numbers by field name."""

    iteration: int
    network_evaluations: Number
    rewards: dict[str, Number]
    clip_per_step: dict[str, Number]
    numbers: dict[str, Number]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on held-out prompts; ``per_kind`` is the first of its rewards by kind of prompt."""

    iteration: int
    network_evaluations: Number
    rewards: dict[str, Number]
    per_kind: dict[str, Number]
    diversity: Number
    n_images: int | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class SamplePrompt:
    text: str
    kind: str
    seed: int | None


@dataclass(frozen=True)
class Grid:
    """The pictures of one evaluation, one cell per prompt; ``scores`` holds each cell's rewards, where written."""

    iteration: int
    path: Path
    scores: tuple[dict[str, Number], ...]


@dataclass(frozen=True)
class Samples:
    prompts: tuple[SamplePrompt, ...]
    columns: int
    height: int
    width: int
    grids: tuple[Grid, ...]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's; ``level`` is one of ``LEVELS``."""

    check: str
    level: str
    message: str


@dataclass(frozen=True)
class Endpoint:
    """The base or the aligned policy in ``summary.json``."""

    gold: Number = None
    per_kind: dict[str, Number] = field(default_factory=dict)
    diversity: Number = None


@dataclass(frozen=True)
class Summary:
    method: str | None = None
    policy: str | None = None
    gold_reward: str | None = None
    """Name of the held-out reward that is reported first."""
    seed: Number = None
    network_evaluations: Number = None
    seconds: Number = None
    base: Endpoint = Endpoint()
    aligned: Endpoint = Endpoint()


@dataclass(frozen=True)
class Run:
    folder: Path
    config: str | None
    training: tuple[Training, ...]
    evaluations: tuple[Evaluation, ...]
    seconds: dict[int, float]
    """Cumulative seconds of training by iteration."""
    samples: Samples | None
    findings: tuple[Finding, ...]
    summary: Summary
    notes: tuple[str, ...]
    """What the page says about the reading itself."""


def read_run(folder: Path) -> Run:
    """The run in ``folder``."""
    if not folder.is_dir():
        raise InputError(f"run: {str(folder)!r} is not a folder; give the run folder that `beholder align` wrote")
    if not (folder / "metrics.jsonl").is_file():
        raise InputError(f"run: {str(folder)!r} has no metrics.jsonl; give the run folder that `beholder align` wrote")
    notes: list[str] = []
    training, evaluations = _read_metrics(folder / "metrics.jsonl", notes)
    config = folder / "config.yaml"
    return Run(
        folder=folder,
        config=config.read_text("utf-8") if config.is_file() else None,
        training=training,
        evaluations=evaluations,
        seconds=_read_timings(folder / "timings.jsonl", notes),
        samples=_read_samples(folder / "samples", notes),
        findings=_read_findings(folder / "findings.json"),
        summary=_read_summary(folder / "summary.json"),
        notes=tuple(notes),
    )


def _read_metrics(path: Path, notes: list[str]) -> tuple[tuple[Training, ...], tuple[Evaluation, ...]]:
    """Rows in the order of their iterations; of two rows for one iteration (a resumed run) the later counts."""
    training: dict[int, Training] = {}
    evaluations: dict[int, Evaluation] = {}
    others = 0
    for where, row in _rows(path, notes):
        if row.get("event") == "train":
            training[_iteration(row, where)] = _training(row, where)
        elif row.get("event") == "evaluation":
            evaluations[_iteration(row, where)] = _evaluation(row, where)
        else:
            others += 1
    if others:
        notes.append(f"{path.name}: {others} rows are neither 'train' nor 'evaluation' and are not shown.")
    return tuple(training[i] for i in sorted(training)), tuple(evaluations[i] for i in sorted(evaluations))


def _read_timings(path: Path, notes: list[str]) -> dict[int, float]:
    if not path.is_file():
        return {}
    seconds = {
        _iteration(row, where): as_number(row.get("seconds"), f"{where}: seconds") for where, row in _rows(path, notes)
    }
    return {iteration: value for iteration, value in sorted(seconds.items()) if value is not None}


def _rows(path: Path, notes: list[str]) -> list[tuple[str, Row]]:
    """Each line's place ("metrics.jsonl line 7") and object; a last line that cannot be read becomes a note."""
    lines = [(n, text) for n, text in enumerate(path.read_bytes().split(b"\n"), start=1) if text.strip()]
    rows: list[tuple[str, Row]] = []
    for n, text in lines:
        where = f"{path.name} line {n}"
        try:
            rows.append((where, as_object(json.loads(text), where)))
        except ValueError as error:
            if n != lines[-1][0]:
                raise InputError(
                    f"{path} line {n}: {_start(text)} is not a JSON object; correct or remove the line"
                ) from error
            notes.append(
                f"{where} is cut off and was left out: the run was stopped while writing it, or is still writing."
            )
    return rows


def _training(row: Row, where: str) -> Training:
    known = ("event", "iteration", "network_evaluations", "reward", "clip_fraction_per_step")
    return Training(
        iteration=_iteration(row, where),
        network_evaluations=as_number(row.get("network_evaluations"), f"{where}: network_evaluations"),
        rewards=_numbers(row.get("reward"), f"{where}: reward"),
        clip_per_step=_numbers(row.get("clip_fraction_per_step"), f"{where}: clip_fraction_per_step"),
        numbers={
            k: float(v) for k, v in row.items() if k not in known and isinstance(v, int | float) and math.isfinite(v)
        },
    )


def _evaluation(row: Row, where: str) -> Evaluation:
    n_images = as_number(row.get("n_images"), f"{where}: n_images")
    return Evaluation(
        iteration=_iteration(row, where),
        network_evaluations=as_number(row.get("network_evaluations"), f"{where}: network_evaluations"),
        rewards=_numbers(row.get("rewards"), f"{where}: rewards"),
        per_kind=_numbers(row.get("per_kind"), f"{where}: per_kind"),
        diversity=as_number(row.get("diversity"), f"{where}: diversity"),
        n_images=None if n_images is None else int(n_images),
        interval=_interval(row.get("interval"), f"{where}: interval"),
    )


def _read_samples(folder: Path, notes: list[str]) -> Samples | None:
    if not (folder / "prompts.json").is_file() or not (folder / "layout.json").is_file():
        return None
    layout = read_json(folder / "layout.json", as_object)
    columns, height, width = (
        as_whole(layout.get(k), f"{folder / 'layout.json'}: {k}") for k in ("columns", "height", "width")
    )
    entries = read_json(folder / "prompts.json", _objects)
    prompts = tuple(
        SamplePrompt(str(e.get("text", "")), str(e.get("kind") or ""), _seed(e.get("seed"))) for e in entries
    )
    grids: list[Grid] = []
    for path in sorted(folder.glob("iteration_*.png")):
        if (matched := re.fullmatch(r"iteration_(\d+)", path.stem)) is None:
            continue
        if (size := _picture_size(path)) is None:
            notes.append(f"samples/{path.name} cannot be read and was left out: the run was stopped while writing it.")
            continue
        _check_size(path, size, (columns * width, math.ceil(len(prompts) / columns) * height))
        grids.append(Grid(int(matched[1]), path, _read_scores(path.with_suffix(".json"), len(prompts), notes)))
    return Samples(prompts, columns, height, width, tuple(sorted(grids, key=lambda g: g.iteration)))


def _picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture, None where it cannot be decoded."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.size
    except (OSError, SyntaxError):  # Pillow raises SyntaxError for a PNG cut off within a chunk
        return None


def _check_size(path: Path, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    if size[0] != wanted[0] or size[1] < wanted[1]:
        raise InputError(
            f"{path}: {size[0]} x {size[1]} pixels, but layout.json and prompts.json ask for {wanted[0]} x {wanted[1]}"
            "; make the three agree or remove the picture"
        )


def _read_scores(path: Path, n_prompts: int, notes: list[str]) -> tuple[dict[str, Number], ...]:
    if not path.is_file():
        return ()
    try:
        entries = read_json(path, _objects)
    except ValueError:
        notes.append(f"samples/{path.name} cannot be read and was left out: the run was stopped while writing it.")
        return ()
    if len(entries) != n_prompts:
        raise InputError(
            f"{path}: {len(entries)} cells for {n_prompts} prompts; write one per prompt or remove the file"
        )
    return tuple(_numbers(entry, f"{path} [{i}]") for i, entry in enumerate(entries))


def _read_findings(path: Path) -> tuple[Finding, ...]:
    """The findings, gravest first."""
    if not path.is_file():
        return ()
    findings = [
        Finding(str(e.get("check", "")), str(e.get("level", "")), str(e.get("message", "")))
        for e in read_json(path, _objects)
    ]
    for finding in findings:
        if finding.level not in LEVELS:
            raise InputError(f"{path}: level {finding.level!r} of {finding.check!r} is not one of {', '.join(LEVELS)}")
    return tuple(sorted(findings, key=lambda f: LEVELS.index(f.level)))


def _read_summary(path: Path) -> Summary:
    if not path.is_file():
        return Summary()
    entry = read_json(path, as_object)
    diversity = _numbers(entry.get("diversity"), f"{path}: diversity")
    return Summary(
        method=_name(entry.get("method")),
        policy=_name(entry.get("policy")),
        gold_reward=_name(entry.get("gold_reward")),
        seed=as_number(entry.get("seed"), f"{path}: seed"),
        network_evaluations=as_number(entry.get("network_evaluations"), f"{path}: network_evaluations"),
        seconds=as_number(entry.get("seconds"), f"{path}: seconds"),
        base=_endpoint(entry.get("base"), diversity.get("base"), f"{path}: base"),
        aligned=_endpoint(entry.get("aligned"), diversity.get("aligned"), f"{path}: aligned"),
    )


def _endpoint(value: object, diversity: Number, where: str) -> Endpoint:
    entry = {} if value is None else as_object(value, where)
    return Endpoint(
        as_number(entry.get("gold"), f"{where}.gold"), _numbers(entry.get("per_kind"), f"{where}.per_kind"), diversity
    )


# Values ------------------------------------------------------------------------------------------------------------


def read_json(path: Path, convert: Callable[[object, str], T]) -> T:
    try:
        return convert(json.loads(path.read_bytes()), str(path))
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); write it again or remove it") from error


def as_object(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {_start(value)} is not an object")
    return {str(k): v for k, v in value.items()}


def _objects(value: object, where: str) -> list[Row]:
    if not isinstance(value, list):
        raise InputError(f"{where}: {_start(value)} is not a list")
    return [as_object(v, f"{where} [{i}]") for i, v in enumerate(value)]


def as_number(value: object, where: str) -> Number:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise InputError(f"{where}: {_start(value)} is not a number; write a number or null")
    return float(value) if math.isfinite(value) else None


def _numbers(value: object, where: str) -> dict[str, Number]:
    entry = {} if value is None else as_object(value, where)
    return {k: as_number(v, f"{where}.{k}") for k, v in entry.items()}


def as_whole(value: object, where: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{where}: {_start(value)} is not a whole number above 0")
    return value


def _iteration(row: Row, where: str) -> int:
    value = row.get("iteration")
    if not isinstance(value, int) or value < 0:
        raise InputError(f"{where}: iteration: {_start(value)} is not a whole number; every row names its iteration")
    return value


def _interval(value: object, where: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where}: {_start(value)} is not a pair [low, high]")
    low, high = as_number(value[0], where), as_number(value[1], where)
    return None if low is None or high is None else (low, high)


def _seed(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _name(value: object) -> str | None:
    return None if value is None else str(value)


def _start(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return repr(text if len(text) <= 60 else text[:60] + "…")
