"""`beholder fit` on the terminal: a bar while it trains, then the report."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from beholder.fitting.card import rows_of
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.fitting.state import Advance

SHOWN = 10
"""Problems printed one by one; the report holds them all."""


def fit_on_terminal(data: Path, output: Path, config: FitConfig, as_json: bool) -> None:
    """Fits, and says how good it is and how it is used."""
    with _bar() as advance:
        report = fit_reward(data, output, config, advance)
    if as_json:
        print(json.dumps({"output": str(output), **report}, indent=1))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows_of(report):
        table.add_row(escape(name), escape(value))
    Console().print(table)
    for problem in report["problems"][:SHOWN]:
        print(f"  {problem}")
    print(f"use it as the reward learned@{output}, e.g. beholder align draft --reward learned@{output}")


@contextmanager
def _bar() -> Iterator[Advance]:
    """A progress bar on a terminal, nothing elsewhere; its length is heard with the first advance."""
    if not sys.stderr.isatty():
        yield lambda n, said, total=None: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("fitting", total=None)

        def advance(n: int, said: str, total: int | None = None) -> None:
            progress.update(task, total=total, advance=n, description=f"fitting {said}".strip())

        yield advance
