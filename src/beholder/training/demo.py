"""``beholder demo``: the bundled generator gets better at what it is asked; with ``--hack``, at something else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from beholder.config import RunConfig
from beholder.errors import InputError
from beholder.methods import find_method
from beholder.report import write_report
from beholder.training.align import align, read_summary
from beholder.training.console import console, outcome_table, plan_table, progress

METHOD = "flow-grpo-fast"


def run_demo(output: Path, seed: int, hack: bool, iterations: int | None, minutes: float, as_json: bool) -> None:
    """Aligns, writes the report(s) and `summary.json`, prints the outcome."""
    _clear(output)
    method = find_method(METHOD)
    if not hack:
        _run(_adjusted(method.preset("demo"), output, seed, iterations, minutes))
        report = write_report(output)
        summary = read_summary(output)
    else:
        free = _adjusted(method.preset("hack"), output / "free", seed, iterations, minutes)
        tied = replace(_adjusted(method.preset("hack_kl"), output / "tied", seed, iterations, minutes))
        for config in (free, tied):
            _run(config)
        report = write_report(output / "free", output / "tied", output=output / "report.html")
        summary = {"free": read_summary(output / "free"), "tied": read_summary(output / "tied")}
        (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(summary, indent=1))
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


def _adjusted(config: RunConfig, output: Path, seed: int, iterations: int | None, minutes: float) -> RunConfig:
    loop = replace(config.loop, iterations=iterations or config.loop.iterations, minutes=minutes)
    return replace(config, output=str(output), seed=seed, loop=loop)


def _run(config: RunConfig) -> None:
    console.print(plan_table(config))
    with progress(config) as listener:
        folder = align(config, listener)
    console.print(outcome_table(read_summary(folder)))


def _clear(output: Path) -> None:
    """Removes an earlier demo; refuses any other folder with something in it."""
    if not output.exists() or not any(output.iterdir()):
        return
    if not any((output / name / "config.yaml").exists() for name in (".", "free", "tied")):
        raise InputError(f"output: {str(output)!r} is not empty and holds no demo; choose another --output")
    shutil.rmtree(output)
