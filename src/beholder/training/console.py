"""What a run says on the terminal: the table before it starts, progress, the outcome."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from beholder.config import RunConfig
from beholder.rollouts.plans import draw_plan, planned_evaluations
from beholder.training.align import Listener

console = Console(stderr=True)


def is_first() -> bool:
    """Whether this is the first of the processes `torchrun` or `accelerate launch` started: the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def plan_table(config: RunConfig) -> Table:
    """What the settings amount to, before anything is drawn."""
    r, loop = config.rollout, config.loop
    samples, source = samples_and_cost(config)
    updates = loop.updates * loop.epochs
    rows = {
        "method": config.method,
        "policy": f"{config.policy.model}, {config.policy.training}",
        "rewards": ", ".join(f"{weight:g} x {name}" for name, weight in config.rewards.items()) or "none",
        **source,
        "optimiser steps per iteration": f"{updates} of {samples // loop.updates} samples",
        "objective": _objective(config),
        "KL to the reference": f"{config.kl.beta:g} x {config.kl.form}" if config.kl.beta else "none",
        "iterations": str(loop.iterations) + (f", at most {loop.minutes:g} min" if loop.minutes else ""),
        "output": config.output,
    }
    if r.real.images:
        rows["real images"] = f"{r.real.images} for each prompt"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(f"[dim]{name}", escape(value))
    return table


def samples_and_cost(config: RunConfig) -> tuple[int, dict[str, str]]:
    """Samples of an iteration, and where they come from."""
    r = config.rollout
    if config.data.path:
        each = 2 if config.data.view == "pairs" else r.group
        said = f"{r.prompts} {config.data.view} = {r.prompts * each} images"
        return r.prompts * each, {"data": config.data.path, "images per iteration": said}
    if config.objective.kind == "pathwise" or r.forward.times:
        samples, evaluations = r.prompts * r.group, r.prompts * r.group * r.steps
    else:
        sigmas = torch.linspace(1, 0, r.steps + 1)  # the model's own are not known yet; only their number matters here
        plan = draw_plan(r, torch.ones(r.steps, dtype=torch.bool), r.prompts, 0, torch.Generator().manual_seed(0))
        samples, evaluations = len(plan), planned_evaluations(plan, sigmas, r)
    return samples, {
        "samples per iteration": f"{r.prompts} prompts x {samples // r.prompts} = {samples}",
        "network evaluations": f"about {evaluations:,} per iteration, {r.steps} steps each",
    }


def _objective(config: RunConfig) -> str:
    o, p = config.objective, config.objective.preference
    if o.kind == "preference":
        return f"{p.link} of {p.contrast}, β {o.temperature:g}, against {o.anchor}"
    if o.kind == "pathwise":
        return f"the reward's gradient, inputs {config.rollout.pathwise.inputs}"
    if o.kind in ("dspo", "nft"):
        return f"{o.kind}, β {o.temperature:g}"
    if o.kind == "reinforce":
        return "reinforce"
    return f"{o.kind}, -{o.clip_low:g} / +{o.clip_high:g}, {o.trust_region}"


def describe(row: dict[str, Any]) -> str:
    """One line for a metrics row, or for a note."""
    if row["event"] == "note":
        return row["message"]
    if row["event"] == "evaluation":
        rewards = "  ".join(f"{name} {value:.3f}" for name, value in row["rewards"].items())
        return f"iteration {row['iteration']:4d}  held-out {rewards}  diversity {row['diversity']:.3f}"
    rewards = "  ".join(f"{name} {value:.3f}" for name, value in row["reward"].items())
    rewards += "" if row["clip_fraction"] is None else f"  clipped {row['clip_fraction']:.0%}"
    if row.get("implicit_accuracy") is not None:
        rewards += f"  pairs told apart {row['implicit_accuracy']:.0%}"
    return f"iteration {row['iteration']:4d}  {rewards.strip()}  |grad| {row['grad_norm']:.2g}"


@contextmanager
def progress(config: RunConfig) -> Iterator[Listener]:
    """A listener that shows a bar on a terminal, and a line per evaluation and tenth iteration elsewhere."""
    if not sys.stderr.isatty() or not is_first():
        yield _plain
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(config.method, total=config.loop.iterations)

        def listener(row: dict[str, Any]) -> None:
            if row["event"] != "train":
                bar.console.print(describe(row), highlight=False)
            else:
                bar.update(task, completed=row["iteration"], description=_short(row))

        yield listener


def _short(row: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in row["reward"].items())


def _plain(row: dict[str, Any]) -> None:
    if row["event"] != "train" or row["iteration"] % 10 == 0:
        print(describe(row), file=sys.stderr, flush=True)


def outcome_table(summary: dict[str, Any]) -> Table:
    """Before and after, per kind."""
    table = Table(title=escape(f"{summary['method']} on {summary['policy']}: held-out {summary['gold_reward']}"))
    for name in ("", "base", "aligned", "difference"):
        table.add_column(name, justify="left" if not name else "right")
    base, aligned = summary["base"], summary["aligned"]
    rows = [(kind, base["per_kind"][kind], aligned["per_kind"][kind]) for kind in base["per_kind"]]
    extra = [name for name in base["rewards"] if name != summary["gold_reward"]]
    rows.append(("all", base["gold"], aligned["gold"]))
    rows += [(name, base["rewards"][name], aligned["rewards"][name]) for name in extra]
    rows.append(("diversity", summary["diversity"]["base"], summary["diversity"]["aligned"]))
    for name, before, after in rows:
        table.add_row(escape(name), f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    return table


def print_findings(findings: list[dict[str, str]]) -> None:
    """What the doctor warns of; the rest is in the report."""
    for finding in findings:
        if finding["level"] in ("warning", "problem"):
            line = f"{finding['level']}: {finding['check']}: {finding['message']}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
