"""What `beholder prefer` and `beholder preferences` say: a bar while they work, then what the set holds."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from beholder.errors import InputError
from beholder.preferences.convert import convert
from beholder.preferences.make import make_preferences
from beholder.preferences.settings import SetConfig
from beholder.preferences.store import open_preferences
from beholder.preferences.summary import summarise

SHOWN = 10
"""Problems printed one by one; `--json` holds them all."""


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere; advanced by the number it is called with."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda n: progress.advance(task, n)


def prefer(output: Path, config: SetConfig, as_json: bool) -> None:
    """Makes a set and says what it holds."""
    with bar(f"drawing {config.k} images a prompt", config.n) as advance:
        make_preferences(output, config, advance)
    _say({"set": str(output), **summarise(open_preferences(output), media=False)}, as_json)


def look(path: Path, media: bool, as_json: bool) -> None:
    """Checks a set and says what it holds; InputError where something cannot be used."""
    source = open_preferences(path)
    with bar("checking", len(source)) as advance:
        summary = {"set": str(path), **summarise(source, media, advance)}
    _say(summary, as_json)
    problems = summary["problems"]
    if problems:
        raise InputError(f"preferences: {len(problems)} of {len(source)} records cannot be used; first {problems[0]}")


def bring_in(
    path: Path, name: str, output: Path | None, join: Path | None, embed: bool, media: bool, as_json: bool
) -> None:
    """Converts a public data set and says what the result holds, and what was left out and why."""
    if output is None:
        raise InputError("preferences: --from needs --output, a .parquet file or a folder for several")
    with bar(f"reading {name}", None) as advance:
        left_out = convert(path, name, output, join, embed, media, advance)
    summary = summarise(open_preferences(output), media=False)
    _say({"set": str(output), **summary, "problems": [str(problem) for problem in left_out]}, as_json)


def _say(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in summary.items():
        if name == "problems":
            table.add_row("left out or unusable", str(len(value)))
        elif value not in (None, {}):
            table.add_row(name.replace("_", " "), escape(_cell(value)))
    console = Console()
    console.print(table)
    for problem in summary["problems"][:SHOWN]:
        console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
    if len(summary["problems"]) > SHOWN:
        console.print(f"  and {len(summary['problems']) - SHOWN} more; --json lists them")


def _cell(value: Any) -> str:
    return ", ".join(f"{key}: {n:,}" for key, n in value.items()) if isinstance(value, dict) else str(value)
