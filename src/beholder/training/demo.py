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
from beholder.training.console import console, outcome_table, plan_table, print_findings, progress
from beholder.training.validator import validate

METHOD = "flow-grpo-fast"
MARK = ".demo"
"""File in a demo's folder: only a folder with it may be replaced."""


def run_demo(output: Path, seed: int, hack: bool, iterations: int | None, minutes: float, as_json: bool) -> None:
    """Aligns, writes the report(s) and `summary.json`, prints the outcome."""
    method = find_method(METHOD)
    folders = {"hack": output / "no_kl", "hack_kl": output / "kl"} if hack else {"demo": output}
    minutes = minutes / 4 if hack else minutes
    configs = [_adjusted(method.preset(name), path, seed, iterations, minutes) for name, path in folders.items()]
    for config in configs:
        validate(config)
    _clear(output)
    for config in configs:
        _run(config)
    if not hack:
        report = write_report(output)
        summary = read_summary(output)
    else:
        report = write_report(output / "no_kl", output / "kl", output=output / "report.html")
        summary = {"no_kl": read_summary(output / "no_kl"), "kl": read_summary(output / "kl")}
        (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(summary, indent=1))
    console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)


def _adjusted(config: RunConfig, output: Path, seed: int, iterations: int | None, minutes: float) -> RunConfig:
    iterations = config.loop.iterations if iterations is None else iterations
    loop = replace(config.loop, iterations=iterations, minutes=minutes)
    return replace(config, output=str(output), seed=seed, loop=loop)


def _run(config: RunConfig) -> None:
    console.print(plan_table(config))
    with progress(config) as listener:
        folder = align(config, listener)
    console.print(outcome_table(read_summary(folder)))
    print_findings(json.loads((folder / "findings.json").read_text(encoding="utf-8")))


def _clear(output: Path) -> None:
    """An empty folder marked as a demo's; only an earlier demo is removed, never anything else."""
    if output.exists() and not output.is_dir():
        raise InputError(f"output: {str(output)!r} is a file; choose another --output")
    if (output / MARK).exists():
        shutil.rmtree(output)
    elif output.exists() and any(output.iterdir()):
        raise InputError(f"output: {str(output)!r} is not empty and holds no demo; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    (output / MARK).touch()
