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
    data: str | None,
    iterations: int | None,
    reward: str | None,
    as_json: bool,
) -> None:
    def changed(config: RunConfig) -> RunConfig:
        judged = config.evaluation.rewards
        if reward is not None:
            judged = (*(name for name in judged if "@" not in name), reward)
            if config.objective.kind == "pathwise":
                config = replace(config, rewards={reward: 1.0})
        if data is not None and config.data.path:
            config = replace(config, data=replace(config.data, path=data))
        return replace(config, evaluation=replace(config.evaluation, images=images, rewards=judged))

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def listener(row: dict) -> None:
        if row["event"] == "evaluation":
            say("  " + describe(row))

    page = compare_methods(
        names, seeds, budget, output, preset, evaluations, iterations, changed, command, say, listener
    )
    if as_json:
        done = [path.parent for path in sorted(output.glob("*/*/summary.json"))]
        summaries = {str(folder.relative_to(output)): read_summary(folder) for folder in done}
        print(json.dumps(summaries, indent=1))
    say(f"page: {page}")
