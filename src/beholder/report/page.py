"""Puts the page together: one HTML file that needs nothing else, neither network nor scripts to be read."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from beholder.errors import InputError
from beholder.report.curves import AXES, charts_of
from beholder.report.pictures import galleries_of, turned
from beholder.report.plots import interval_strip
from beholder.report.reading import LEVELS, Finding, Number, Run, read_run
from beholder.report.results import Change, Result, result_of
from beholder.report.settings import differences
from beholder.report.words import (
    arrow,
    between,
    capital,
    count,
    duration,
    labels_of,
    printed,
    sentence,
    shown,
    signed,
    subject,
)

HERE = Path(__file__).parent
MOST_RUNS = 8
"""More lines than this cannot be told apart in one chart."""


@dataclass(frozen=True)
class Entry:
    """One run on the page; ``letter`` is empty where it is alone."""

    letter: str
    label: str
    run: Run
    result: Result
    sentence: str


@dataclass(frozen=True)
class KindRow:
    """One line of the accuracy table, with a change per run."""

    kind: str
    changes: tuple[Change, ...]
    strip: Markup


@dataclass(frozen=True)
class StepRow:
    """Mean clip fraction per trained step over some iterations of one run."""

    run: int
    span: str
    shares: tuple[Number, ...]


def write_report(run: Path, *others: Path, output: Path | None = None) -> Path:
    """Write the report of ``run``, or of several runs side by side, and return its path.

    ``output`` defaults to ``report.html`` in the first run's folder. The file appears whole or not at all.
    """
    if len(others) >= MOST_RUNS:
        raise InputError(f"others: {1 + len(others)} runs are too many for one page; give at most {MOST_RUNS}")
    folders = [Path(folder) for folder in (run, *others)]
    html = render([read_run(folder) for folder in folders])
    return write_whole(html, folders[0] / "report.html" if output is None else Path(output))


def write_whole(html: str, output: Path) -> Path:
    """Write the page at once, so that no reader sees a part of it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    part.write_text(html, "utf-8")
    return part.replace(output)


def render(runs: Sequence[Run]) -> str:
    """The page as text."""
    entries = _entries(runs)
    labels = [entry.label for entry in entries]
    galleries, pictures = galleries_of(runs, labels)
    return (
        environment()
        .get_template("page.html")
        .render(
            title=_title(entries),
            entries=entries,
            alone=len(entries) == 1,
            galleries=galleries,
            pictures=pictures,
            kinds=_kind_rows(entries),
            exact=all(entry.result.gold.exact for entry in entries),
            gold_titles=list(dict.fromkeys(entry.result.gold.title for entry in entries)),
            charts=charts_of(runs, labels),
            axes=AXES,
            steps=_step_rows(runs),
            step_names=_step_names(runs),
            settings=differences([run.config for run in runs]),
            css=Markup((HERE / "page.css").read_text("utf-8")),
            script=Markup((HERE / "page.js").read_text("utf-8")),
        )
    )


def environment() -> Environment:
    """The templates of this folder and what they may call."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        f.__name__: f for f in (shown, printed, signed, arrow, between, capital, count, duration, turned)
    }
    environment.filters |= {"tally": _tally, "json": _script_json}
    return environment


def _entries(runs: Sequence[Run]) -> list[Entry]:
    alone = len(runs) == 1
    names = [subject(runs[0]) or labels_of(runs)[0]] if alone else labels_of(runs)
    results = [result_of(run) for run in runs]
    return [
        Entry("" if alone else "ABCDEFGH"[i], names[i], run, result, sentence(result, with_rewards=not alone))
        for i, (run, result) in enumerate(zip(runs, results, strict=True))
    ]


def _title(entries: Sequence[Entry]) -> str:
    return entries[0].label if len(entries) == 1 else f"{len(entries)} runs side by side"


def _kind_rows(entries: Sequence[Entry]) -> list[KindRow]:
    """A line per kind of prompt, then one for all of them."""
    changes = {kind: [entry.result.per_kind.get(kind, Change(None, None)) for entry in entries]
               for kind in dict.fromkeys(kind for entry in entries for kind in entry.result.per_kind)}  # fmt: skip
    if changes:
        changes["all"] = [entry.result.change for entry in entries]
    return [
        KindRow(kind, tuple(row), interval_strip(row, f"accuracy of {kind} from 0 to 1"))
        for kind, row in changes.items()
    ]


def _step_names(runs: Sequence[Run]) -> list[str]:
    names = {name for run in runs for row in run.training for name in row.clip_per_step}
    return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def _step_rows(runs: Sequence[Run]) -> list[StepRow]:
    """Each run's first and last quarter of iterations."""
    names, found = _step_names(runs), []
    for i, run in enumerate(runs):
        rows = [row for row in run.training if row.clip_per_step]
        width = max(1, len(rows) // 4)
        for part in (rows[:width], rows[-width:])[: 2 if len(rows) > 1 else 1]:
            if part:
                shares = [[s for row in part if (s := row.clip_per_step.get(name)) is not None] for name in names]
                first, last = part[0].iteration, part[-1].iteration
                span = f"{first}–{last}" if first < last else str(first)
                found.append(StepRow(i, span, tuple(fmean(s) if s else None for s in shares)))
    return found


def _tally(findings: Sequence[Finding]) -> str:
    """ "1 problem, 2 warnings", or "" where there is neither."""
    counts = {level: sum(f.level == level for f in findings) for level in LEVELS[:2]}
    return ", ".join(f"{n} {level}{'s' * (n > 1)}" for level, n in counts.items() if n)


def _script_json(value: object) -> Markup:
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
