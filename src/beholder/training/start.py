"""Runs started from the command line: the table before, progress during, the outcome and the report after."""

import json
from glob import glob
from pathlib import Path

from beholder.config import RunConfig
from beholder.config_file import read_config
from beholder.errors import InputError
from beholder.prompts import SPLITS
from beholder.report import write_report
from beholder.training.align import align, read_summary, resume
from beholder.training.console import console, is_first, outcome_table, plan_table, print_findings, progress
from beholder.training.validator import validate


def start_run(config: RunConfig) -> None:
    missing = left_to_you(config)
    if len(missing) > 1:  # one alone is said better where it is read
        raise InputError(f"align {config.method}: still to be given: {', '.join(missing)}")
    validate(config)
    if is_first():
        console.print(plan_table(config))
    with progress(config) as listener:
        folder = align(config, listener)
    finish(folder)


def left_to_you(config: RunConfig) -> list[str]:
    """What a published preset cannot know: prompts and rewards, as the options that give them."""
    prompts = {"--prompts": config.prompts, "--evaluation.prompts": config.evaluation.prompts}
    if config.data.path:
        del prompts["--prompts"]
    missing = [
        f"{option} FILE (no file {source!r})"
        for option, source in prompts.items()
        if source not in SPLITS and not Path(source).is_file()
    ]
    if config.data.path and not (glob(config.data.path) or Path(config.data.path).exists()):
        missing.append(
            f"--data SET (no file {config.data.path!r}; `beholder prefer --output {config.data.path}` makes one)"
        )
    if not config.rewards and not config.data.path and not config.rollout.real.images:
        missing.append("--rewards NAME WEIGHT ...")
    if not config.evaluation.rewards:
        missing.append("--evaluation.rewards NAME ...")
    return missing


def resume_run(folder: Path, method: str | None) -> None:
    """Goes on with the run in ``folder``; ``method``, where one is named, must be the run's."""
    if not (folder / "config.yaml").exists():
        raise InputError(f"--resume: no run in {str(folder)!r} (no config.yaml); give the folder of a run")
    config = read_config(folder / "config.yaml")
    if method not in (None, config.method):
        raise InputError(f"--resume: {str(folder)!r} is a run of {config.method!r}, not of {method!r}")
    with progress(config) as listener:
        finish(resume(folder, listener))


def finish(folder: Path) -> None:
    """The outcome on the terminal and the report beside the run."""
    if not is_first():
        return
    report = write_report(folder)
    console.print(outcome_table(read_summary(folder)))
    print_findings(json.loads((folder / "findings.json").read_text(encoding="utf-8")))
    console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
