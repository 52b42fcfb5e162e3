"""The method table on the terminal."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from beholder.config_file import to_yaml
from beholder.methods import METHODS, Method, find_method


def show_methods(name: str | None, as_json: bool) -> None:
    """All rows, or one with its presets, as text or JSON."""
    rows = list(METHODS.values()) if name is None else [find_method(name)]
    if as_json:
        print(json.dumps([_as_dict(row) for row in rows], indent=1))
    elif name is None:
        Console().print(_table(rows))
    else:
        _print_one(rows[0])


def _as_dict(row: Method) -> dict[str, Any]:
    return asdict(row)


def _table(rows: list[Method]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("method", "paper", "kernel", "trained steps", "idea"):
        table.add_column(column)
    for row in rows:
        rollout = row.presets["published"].rollout
        table.add_row(row.name, row.paper, rollout.kernel.kind, rollout.plan.kind, row.idea)
    return table


def _print_one(row: Method) -> None:
    print(f"{row.title} ({row.paper})\n{row.idea}\n")
    for difference in row.differences:
        print(f"- {difference}")
    for name, preset in row.presets.items():
        print(f"\n# preset {name}: beholder align {row.name} --preset {name}\n{to_yaml(preset)}", end="")
