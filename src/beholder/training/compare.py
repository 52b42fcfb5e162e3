"""Runs several methods on the same budget, prompts and seeds, and writes one page about them.

A run that is done is kept, one that was interrupted goes on, one that fails is noted and the others run; what nobody
foresaw leaves its traceback as ``failure.txt`` in the run's folder.
"""

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from beholder.config import RunConfig
from beholder.config_file import read_config, to_yaml
from beholder.errors import InputError, RunError
from beholder.evaluation.distance import path_kl
from beholder.methods import METHODS, find_method
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.report.comparison import write_comparison
from beholder.rollouts.kernels import trainable_steps
from beholder.rollouts.plans import draw_plan, planned_evaluations
from beholder.training.align import Listener, align, resume
from beholder.training.validator import validate

KL_PROMPTS = 48
Say = Callable[[str], None]


def compare_methods(
    names: Sequence[str],
    seeds: Sequence[int],
    budget: int,
    output: Path,
    preset: str = "shapes",
    evaluations: int = 4,
    iterations: int | None = None,
    changes: Callable[[RunConfig], RunConfig] = lambda config: config,
    command: str = "",
    say: Say = lambda line: None,
    listener: Listener = lambda row: None,
) -> Path:
    """The page over ``output/METHOD/seed_S``, written anew after every run of ``budget`` network evaluations.

    Rows that read a set evaluate nothing to draw: they stop after ``iterations`` (None: the preset's). ``evaluations``
    of the held-out set are spread over a run, the first and last apart. ``changes`` are applied to every configuration.
    Without names all rows with the preset that need neither a set nor a learned reward run. InputError for an unknown
    method, an unknown preset, or a folder with other settings.
    """
    methods = list(dict.fromkeys(names)) or [
        n for n, m in METHODS.items() if preset in m.presets and stands_alone(n, preset)
    ]
    if not seeds or budget < 1 or evaluations < 1:
        raise InputError("compare-methods: give at least one seed, a budget and evaluations above 0")
    for name in methods:
        find_method(name).preset(preset)
    rows = {name: changes(settings(name, preset, budget, evaluations, iterations)) for name in methods}
    configs = {
        (name, seed): replace(row, seed=seed, output=str(output / name / f"seed_{seed}"))
        for seed in seeds
        for name, row in rows.items()
    }
    for config in configs.values():
        validate(config)
        _check_same(config)
    output.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    about = {"methods": methods, "seeds": list(seeds), "budget": budget, "command": command, "failed": failed}
    for number, ((name, seed), config) in enumerate(configs.items(), 1):
        say(f"{number}/{len(configs)}  {name}, seed {seed}")
        if is_done(Path(config.output)):  # the page is written anew at the end, not for every run that is kept
            continue
        try:
            run_one(config, listener)
        except Exception as error:  # whatever stops a row, the others run
            known = isinstance(error, (InputError, RunError))
            failed[f"{name}/seed_{seed}"] = reason = str(error) if known else f"{type(error).__name__}: {error}"
            say(f"failed: {reason}")
            if not known:
                Path(config.output).mkdir(parents=True, exist_ok=True)
                (Path(config.output) / "failure.txt").write_text(traceback.format_exc(), encoding="utf-8")
        _write_json(output / "comparison.json", about)
        write_comparison(output)
    _write_json(output / "comparison.json", about)
    return write_comparison(output)


def settings(name: str, preset: str, budget: int, evaluations: int, iterations: int | None = None) -> RunConfig:
    """A row's preset, stopped by the budget, evaluated at about equal distances."""
    config = find_method(name).preset(preset)
    if config.data.path:
        last = iterations or config.loop.iterations
        loop = replace(config.loop, iterations=last, budget=None, minutes=None, signal_every=0)
    else:
        last = max(1, -(-budget // evaluations_per_iteration(config)))
        loop = replace(config.loop, iterations=4 * last, budget=budget, minutes=None, signal_every=0)
    return replace(config, loop=loop, evaluation=replace(config.evaluation, every=max(1, round(last / evaluations))))


def stands_alone(name: str, preset: str) -> bool:
    """Whether a row runs with what the project brings: it reads no set and follows no learned reward."""
    config = find_method(name).preset(preset)
    return not config.data.path and config.objective.kind != "pathwise"


def evaluations_per_iteration(config: RunConfig) -> int:
    """Network evaluations of the first rollout (later windows may cost a little more or less)."""
    r = config.rollout
    if r.forward.times or config.objective.kind == "pathwise":  # the ODE of every sample, then its re-noised copies
        return r.prompts * r.group * (r.steps + r.forward.times) * (1 if r.guidance.scale == 1 else 2)
    sigmas = load_policy(config.policy).schedule(r.steps)
    plan = draw_plan(r, trainable_steps(r.kernel, sigmas), r.prompts, 0, torch.Generator().manual_seed(0))
    return planned_evaluations(plan, sigmas, r)


def _check_same(config: RunConfig) -> None:
    """A folder may hold an earlier part of this very run, nothing else."""
    path = Path(config.output) / "config.yaml"
    if path.exists() and to_yaml(replace(read_config(path), output=config.output)) != to_yaml(config):
        raise InputError(
            f"output: {config.output!r} holds a run with other settings; choose another --output, or remove it"
        )


def is_done(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("summary.json", "kl_to_base.json"))


def run_one(config: RunConfig, listener: Listener) -> None:
    """Runs or goes on with one run; then measures how far it went from its start."""
    folder = Path(config.output)
    (folder / "failure.txt").unlink(missing_ok=True)
    if not (folder / "summary.json").exists():
        resume(folder, listener) if (folder / "config.yaml").exists() else align(config, listener)
    if not (folder / "kl_to_base.json").exists():
        prompts = load_prompts(config.evaluation.prompts)
        texts = [prompts.texts[i] for i in prompts.draw(KL_PROMPTS, [0])]
        device = Accelerator().device
        aligned = load_policy(replace(config.policy, adapter=str(folder / "policy"), share=1.0), device)
        base = load_policy(config.policy, device)
        steps = config.evaluation.steps or config.rollout.steps
        guidance = config.evaluation.guidance or config.rollout.guidance.scale
        _write_json(
            folder / "kl_to_base.json", {"nats": path_kl(aligned, base, texts, steps, guidance, config.rollout.batch)}
        )


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
