"""``beholder compare-methods`` on the terminal."""

import json
from dataclasses import replace
from pathlib import Path

from beholder.config import RunConfig
from beholder.training.align import read_summary
from beholder.training.compare import compare_methods
from beholder.training.console import console, describe


def compare_on_terminal(
    names: list[str],
    command: str,
    seeds: tuple[int, ...],
    budget: int,
    evaluations: int,
    images: int,
    preset: str,
    output: Path,
    as_json: bool,
) -> None:
    def smaller(config: RunConfig) -> RunConfig:
        return replace(config, evaluation=replace(config.evaluation, images=images))

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def listener(row: dict) -> None:
        if row["event"] == "evaluation":
            say("  " + describe(row))

    page = compare_methods(names, seeds, budget, output, preset, evaluations, smaller, command, say, listener)
    if as_json:
        done = [path.parent for path in sorted(output.glob("*/*/summary.json"))]
        summaries = {str(folder.relative_to(output)): read_summary(folder) for folder in done}
        print(json.dumps(summaries, indent=1))
    say(f"page: {page}")
