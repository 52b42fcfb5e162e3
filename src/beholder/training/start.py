"""Runs started from the command line: the table before, progress during, the outcome and the report after."""

from pathlib import Path

from beholder.config import RunConfig
from beholder.config_file import read_config
from beholder.errors import InputError
from beholder.report import write_report
from beholder.training.align import align, read_summary, resume
from beholder.training.console import console, is_first, outcome_table, plan_table, progress
from beholder.training.validator import validate


def start_run(config: RunConfig) -> None:
    validate(config)
    if is_first():
        console.print(plan_table(config))
    with progress(config) as listener:
        folder = align(config, listener)
    finish(folder)


def resume_run(folder: Path) -> None:
    if not (folder / "config.yaml").exists():
        raise InputError(f"--resume: no run in {str(folder)!r} (no config.yaml); give the folder of a run")
    with progress(read_config(folder / "config.yaml")) as listener:
        finish(resume(folder, listener))


def finish(folder: Path) -> None:
    """The outcome on the terminal and the report beside the run."""
    if not is_first():
        return
    report = write_report(folder)
    console.print(outcome_table(read_summary(folder)))
    console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
