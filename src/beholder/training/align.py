"""``align``: one run from its configuration to its folder, resumable at any moment."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from beholder.config import RunConfig
from beholder.config_file import read_config, to_yaml
from beholder.errors import InputError, nearest
from beholder.evaluation.grids import save_grid
from beholder.evaluation.heldout import SEED, Evaluation, evaluate
from beholder.policies import Policy, load_policy
from beholder.prompts import PromptSet, load_prompts
from beholder.rewards import Reward, Scorer, load_rewards
from beholder.rewards.reward import for_videos
from beholder.rollouts.kernels import stds, trainable_steps
from beholder.training.doctor import examine, fills_the_clip
from beholder.training.learner import Learner, make_learner, restore, state_of
from beholder.training.loop import iterate, timed
from beholder.training.pathwise import check_frames
from beholder.training.read import load_comparisons
from beholder.training.run_folder import Progress, RunFolder, no_room_is_said
from beholder.training.steps import check_states
from beholder.training.validator import validate

Listener = Callable[[dict[str, Any]], None]
Scorers = Mapping[str, Scorer]
"""Rewards of one's own by the names the configuration calls them."""


def align(config: RunConfig, listener: Listener = lambda row: None, scorers: Scorers | None = None) -> Path:
    """Runs ``config`` in a new folder ``config.output``; the folder. ``listener`` sees every metrics row, and notes.

    ``scorers`` are the functions behind names in ``config.rewards`` or ``config.evaluation.rewards``.
    """
    return Run(config, listener, None, scorers or {}).go()


def resume(folder: Path, listener: Listener = lambda row: None, scorers: Scorers | None = None) -> Path:
    """Goes on with the run in ``folder`` from its newest checkpoint, with its own configuration."""
    if not (folder / "config.yaml").exists():
        raise InputError(f"resume: no run in {str(folder)!r} (no config.yaml); give the folder of a run")
    config = replace(read_config(folder / "config.yaml"), output=str(folder))
    return Run(config, listener, RunFolder(folder), scorers or {}).go()


class Run:
    """A run in progress: the learner, its folder, and what is measured on the way."""

    def __init__(self, config: RunConfig, listener: Listener, folder: RunFolder | None, scorers: Scorers) -> None:
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        validate(config, self.accelerator.num_processes)
        self.config, self.listener = config, listener
        asked = {*config.rewards, *config.evaluation.rewards}
        for name in scorers:
            if name not in asked:
                raise InputError(
                    f"scorers: {name!r} is in neither rewards nor evaluation.rewards; {nearest(name, asked)}"
                )
        self.heldout = load_prompts(config.evaluation.prompts)
        self.judges: list[Reward] = load_rewards(config.evaluation.rewards, scorers)
        prompts = self.heldout if config.data.path else load_prompts(config.prompts)
        rewards = load_rewards(list(config.rewards), scorers) if config.rewards else []
        data = load_comparisons(config.data) if config.data.path else None
        self.check_prompts(prompts, rewards)
        self.check_means(prompts, rewards)
        policy = load_policy(config.policy, self.accelerator.device, config.seed)
        check_frames(config, policy)
        frames, fps = policy.family.frames, policy.family.fps
        if frames is not None:
            rewards, self.judges = (for_videos(r, frames, fps, config.reward_frames) for r in (rewards, self.judges))
        self.learner: Learner = make_learner(config, policy, prompts, rewards, self.accelerator, data)
        self.folder = self._open(folder)
        rows = self.folder.rows("metrics.jsonl")
        self.measured: int | None = max((r["iteration"] for r in rows if r["event"] == "evaluation"), default=None)
        """Iteration of the last evaluation; kept here because another process may be writing the file."""
        self.said_of_rounding = any(row["event"] == "train" and fills_the_clip(config, row) for row in rows)
        """Whether an iteration before this process began has said so."""
        self.accelerator.wait_for_everyone()

    def check_prompts(self, prompts: PromptSet, rewards: list[Reward]) -> None:
        """The shapes world only understands its own texts; better said now than after the first rollout."""
        from beholder.worlds.shapes.prompts import parse

        for texts, judged in ((prompts.texts, rewards), (self.heldout.texts, self.judges)):
            if any(reward.name in ("shapes", "shapes_strict", "shapes_graded") for reward in judged):
                for text in texts:
                    parse(text)

    def check_means(self, prompts: PromptSet, rewards: list[Reward]) -> None:
        """What the settings ask of prompts and rewards beyond their names."""
        r = self.config.rollout
        for name, wanted in (("rollout.reset.share", r.reset.share), ("rollout.real.images", r.real.images)):
            if wanted and prompts.image is None:
                raise InputError(
                    f"{name}: prompts {self.config.prompts!r} has no images; use shapes:train, or a .jsonl file of "
                    '{"image": path, "prompt": text} lines'
                )
        judge = next((reward.name for reward in rewards if reward.pairwise and self.config.rewards[reward.name]), None)
        if r.probe.kind != "none" and judge is not None:
            raise InputError(
                f"rollout.probe: {r.probe.kind} draws further samples, but rewards {judge!r} is a judge of pairs, and "
                "they would take part in its comparisons; use a reward of single images"
            )
        if r.redraw and judge is not None:
            raise InputError(
                f"rollout.redraw: {r.redraw} replaces groups of equal rewards, but rewards {judge!r} is a judge of "
                "pairs, whose win rates always differ within a group; use redraw 0, or a reward of single images"
            )
        check_states(self.config, rewards)
        if self.config.objective.kind == "pathwise":
            for reward in rewards:
                if not reward.differentiable:
                    raise InputError(
                        f"rewards: {reward.name!r} has no gradient to follow; objective.kind pathwise needs a "
                        "differentiable reward (see `beholder rewards`; a function of one's own says so with the "
                        "attribute differentiable = True), other kinds do not"
                    )

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    def _open(self, folder: RunFolder | None) -> RunFolder:
        path = Path(self.config.output)
        if folder is None:
            created = RunFolder.create(path, to_yaml(self.config)) if self.main else RunFolder(path)
            self.accelerator.wait_for_everyone()
            return created
        found = folder.load_checkpoint()
        if found is not None:
            self._restore(*found)
        if self.main:
            folder.forget_after(self.learner.progress.iteration)
        self.accelerator.wait_for_everyone()
        return folder

    def _restore(self, progress: Progress, state: dict[str, Any]) -> None:
        try:
            restore(self.learner, progress, state)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"resume: the checkpoint in {self.config.output!r} does not fit its config.yaml ({reason}); "
                "undo the change, or start a new run"
            ) from error

    def go(self) -> Path:
        loop, progress = self.config.loop, self.learner.progress
        self._say_what_is_not_trained()
        if self.measured is None:
            self.measure()
        while progress.iteration < loop.iterations and not self._spent() and not self._out_of_time():
            row, seconds = timed(lambda: iterate(self.learner))
            progress.seconds += seconds
            self._log(row, seconds)
            self._say_when_rounding_fills_the_clip(row)
            every = self.config.evaluation.every
            if every and progress.iteration % every == 0:
                self.measure()
            if progress.iteration % loop.checkpoint_every == 0:
                self._checkpoint()
        return self._finish()

    def _say_what_is_not_trained(self) -> None:
        """Once, before anything is drawn: steps the plan may ask for that have no density worth training."""
        r, sigmas = self.config.rollout, self.learner.policy.schedule(self.config.rollout.steps)
        left_out = (~trainable_steps(r.kernel, sigmas)).nonzero().flatten().tolist()
        if left_out and self.main and not (r.forward.times or self.config.objective.kind == "pathwise"):
            deviations = ", ".join(f"{std:.2g}" for std in stds(r.kernel, sigmas)[left_out].tolist())
            message = (
                f"never trained: step {', '.join(map(str, left_out))} of 0..{r.steps - 1}, whose standard deviation "
                f"({deviations}) is below rollout.kernel.min_std {r.kernel.min_std:g}: its ratio would measure rounding"
            )
            self.listener({"event": "note", "message": message})

    def _say_when_rounding_fills_the_clip(self, row: dict[str, Any]) -> None:
        """Once: at the first iteration whose replay deviates by more than the clip allows."""
        message = None if self.said_of_rounding else fills_the_clip(self.config, row)
        if message is not None and self.main:
            self.said_of_rounding = True
            self.listener({"event": "note", "message": f"iteration {row['iteration']}: {message}"})

    def _spent(self) -> bool:
        budget = self.config.loop.budget
        return budget is not None and self.learner.progress.network_evaluations >= budget

    def _out_of_time(self) -> bool:
        """Whether any process has spent its minutes: clocks differ, and all must stop together."""
        minutes = self.config.loop.minutes
        if minutes is None:
            return False
        late = torch.tensor(float(self.learner.progress.seconds >= 60 * minutes), device=self.accelerator.device)
        return bool(self.accelerator.reduce(late))

    def _log(self, row: dict[str, Any], seconds: float | None = None) -> None:
        if not self.main:
            return
        self.folder.append("metrics.jsonl", row)
        if seconds is not None:
            self.folder.append(
                "timings.jsonl", {"iteration": row["iteration"], "seconds": round(self.learner.progress.seconds, 3)}
            )
        self.listener(row)

    def measure(self) -> None:
        """Evaluates the averaged weights on the held-out set; writes the row and the grid."""
        learner, config = self.learner, self.config
        with learner.ema.applied(learner.policy.trainable()), unwrapped(learner.policy):
            result = evaluate(
                learner.policy,
                self.heldout,
                self.judges,
                config.evaluation,
                config.rollout.steps,
                config.rollout.guidance.scale,
                config.rollout.batch,
                self.accelerator,
            )
        if self.main:
            progress = learner.progress
            position = {"iteration": progress.iteration, "network_evaluations": progress.network_evaluations}
            self._show(result)  # before the row: a kill in between must not leave an evaluation without its pictures
            self._log({"event": "evaluation", **position, **result.row()})
            self._diagnose()
        self.measured = self.learner.progress.iteration
        self.accelerator.wait_for_everyone()

    def _show(self, result: Evaluation) -> None:
        """The grid of the first images, the same prompts and seeds every time, kinds in turn."""
        n, iteration = len(result.pictures), self.learner.progress.iteration
        samples = self.folder.path / "samples"
        layout = save_grid(result.pictures, samples / f"iteration_{iteration:05d}.png")
        self.folder.write_json("samples/layout.json", layout)
        kinds = result.kinds or [None] * n
        cells = [
            {"text": t, "kind": k, "seed": SEED + i}
            for i, (t, k) in enumerate(zip(result.prompts[:n], kinds[:n], strict=True))
        ]
        self.folder.write_json("samples/prompts.json", cells)
        verdicts = [
            dict(zip(result.table.names, values, strict=True)) for values in result.table.values_NM[:n].tolist()
        ]
        self.folder.write_json(f"samples/iteration_{iteration:05d}.json", verdicts)

    def _diagnose(self) -> None:
        findings = examine(self.config, self.folder.rows("metrics.jsonl"))
        self.folder.write_json("findings.json", [finding.as_dict() for finding in findings])

    def _checkpoint(self) -> None:
        if self.main:
            self.folder.save_checkpoint(self.learner.progress, state_of(self.learner), self.config.loop.keep)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> Path:
        """The last evaluation, the last checkpoint, the aligned policy in the ecosystem's format, the summary."""
        learner = self.learner
        if self.measured != learner.progress.iteration:
            self.measure()
        self._checkpoint()
        if self.main:
            result = self.folder.path / "policy"
            with learner.ema.applied(learner.policy.trainable()), no_room_is_said(result):
                learner.policy.save(result)
            self.folder.write_json("summary.json", self.summary())
        self.accelerator.wait_for_everyone()
        return self.folder.path

    def summary(self) -> dict[str, Any]:
        rows = [row for row in self.folder.rows("metrics.jsonl") if row["event"] == "evaluation"]
        first, last, progress = rows[0], rows[-1], self.learner.progress
        name = self.config.evaluation.rewards[0]
        outcome = {
            label: {"gold": row["rewards"][name], "per_kind": row.get("per_kind", {}), "rewards": row["rewards"]}
            for label, row in (("base", first), ("aligned", last))
        }
        return {
            "method": self.config.method,
            "policy": self.config.policy.model,
            "gold_reward": name,
            **outcome,
            "diversity": {"base": first["diversity"], "aligned": last["diversity"]},
            "network_evaluations": progress.network_evaluations,
            "iterations": progress.iteration,
            "seconds": round(progress.seconds, 1),
            "seed": self.config.seed,
        }


@contextmanager
def unwrapped(policy: Policy) -> Iterator[None]:
    """The denoiser itself: one wrapped for several processes waits for all of them, even without gradient."""
    network, policy.network = policy.network, policy.module
    try:
        yield
    finally:
        policy.network = network


def read_summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
