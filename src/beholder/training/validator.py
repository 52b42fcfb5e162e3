"""Refuses settings that cannot work before any work is done: the setting, the reason, the nearest valid choice."""

import math
from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any

from beholder.config import LoraConfig, PathwiseConfig, PreferenceConfig, RelabelConfig, RunConfig
from beholder.errors import InputError
from beholder.objectives.policy_gradient import NEEDS_FORWARD, NEEDS_MEANS, scope
from beholder.rollouts.plans import WINDOWS, samples_per_start, window_places

POSITIVE = {
    "objective.preference.desirable": lambda c: c.objective.preference.desirable,
    "objective.preference.undesirable": lambda c: c.objective.preference.undesirable,
    "objective.preference.weight": lambda c: c.objective.preference.weight,
    "rollout.pathwise.steps": lambda c: c.rollout.pathwise.steps,
    "reward_frames": lambda c: c.reward_frames,
    "rollout.steps": lambda c: c.rollout.steps,
    "rollout.prompts": lambda c: c.rollout.prompts,
    "rollout.group": lambda c: c.rollout.group,
    "rollout.batch": lambda c: c.rollout.batch,
    "rollout.plan.size": lambda c: c.rollout.plan.size,
    "rollout.plan.every": lambda c: c.rollout.plan.every,
    "rollout.branch.width": lambda c: c.rollout.branch.width,
    "rollout.reset.step": lambda c: c.rollout.reset.step,
    "rollout.probe.samples": lambda c: c.rollout.probe.samples,
    "rollout.guidance.scale": lambda c: c.rollout.guidance.scale,
    "credit.clip": lambda c: c.credit.clip,
    "credit.history": lambda c: c.credit.history,
    "credit.history_min": lambda c: c.credit.history_min,
    "credit.critic.lr": lambda c: c.credit.critic.lr,
    "credit.critic.width": lambda c: c.credit.critic.width,
    "credit.critic.steps": lambda c: c.credit.critic.steps,
    "objective.clip_low": lambda c: c.objective.clip_low,
    "objective.clip_high": lambda c: c.objective.clip_high,
    "objective.temperature": lambda c: c.objective.temperature,
    "objective.preference.discount": lambda c: c.objective.preference.discount,
    "kl.horizon": lambda c: c.kl.horizon,
    "objective.advantage_limit": lambda c: c.objective.advantage_limit,
    "loop.epochs": lambda c: c.loop.epochs,
    "optimiser.lr": lambda c: c.optimiser.lr,
    "optimiser.max_grad_norm": lambda c: c.optimiser.max_grad_norm,
    "ema.every": lambda c: c.ema.every,
    "loop.iterations": lambda c: c.loop.iterations,
    "loop.updates": lambda c: c.loop.updates,
    "loop.micro_batch": lambda c: c.loop.micro_batch,
    "loop.checkpoint_every": lambda c: c.loop.checkpoint_every,
    "loop.keep": lambda c: c.loop.keep,
    "evaluation.images": lambda c: c.evaluation.images,
    "evaluation.grid": lambda c: c.evaluation.grid,
    "policy.lora.rank": lambda c: c.policy.lora.rank,
    "policy.lora.alpha": lambda c: c.policy.lora.alpha,
}
NOT_NEGATIVE = {
    "objective.preference.smoothing": lambda c: c.objective.preference.smoothing,
    "rollout.real.value": lambda c: c.rollout.real.value,
    "objective.preference.margin": lambda c: c.objective.preference.margin,
    "objective.preference.sft": lambda c: c.objective.preference.sft,
    "objective.preference.down": lambda c: c.objective.preference.down,
    "rollout.forward.inversion": lambda c: c.rollout.forward.inversion,
    "objective.preference.min_gap": lambda c: c.objective.preference.min_gap,
    "policy.share": lambda c: c.policy.share,
    "rollout.real.images": lambda c: c.rollout.real.images,
    "rollout.pathwise.renoised": lambda c: c.rollout.pathwise.renoised,
    "data.margin": lambda c: c.data.margin,
    "data.temperature": lambda c: c.data.temperature,
    "kl.refresh": lambda c: c.kl.refresh,
    "rollout.forward.times": lambda c: c.rollout.forward.times,
    "credit.temperature": lambda c: c.credit.temperature,
    "ema.rise": lambda c: c.ema.rise,
    "ema.delay": lambda c: c.ema.delay,
    "seed": lambda c: c.seed,
    "kl.beta": lambda c: c.kl.beta,
    "rollout.kernel.level": lambda c: c.rollout.kernel.level,
    "rollout.kernel.min_std": lambda c: c.rollout.kernel.min_std,
    "rollout.plan.start": lambda c: c.rollout.plan.start,
    "rollout.plan.stride": lambda c: c.rollout.plan.stride,
    "rollout.redraw": lambda c: c.rollout.redraw,
    "credit.eps": lambda c: c.credit.eps,
    "credit.keep_best": lambda c: c.credit.keep_best,
    "credit.keep_worst": lambda c: c.credit.keep_worst,
    "credit.threshold": lambda c: c.credit.threshold,
    "credit.critic.clip": lambda c: c.credit.critic.clip,
    "credit.critic.reset_every": lambda c: c.credit.critic.reset_every,
    "credit.ddof": lambda c: c.credit.ddof,
    "optimiser.weight_decay": lambda c: c.optimiser.weight_decay,
    "optimiser.warmup": lambda c: c.optimiser.warmup,
    "optimiser.eps": lambda c: c.optimiser.eps,
    "evaluation.every": lambda c: c.evaluation.every,
    "loop.signal_every": lambda c: c.loop.signal_every,
}
OPTIONAL_POSITIVE = {
    "policy.resolution": lambda c: c.policy.resolution,
    "policy.width": lambda c: c.policy.width,
    "policy.frames": lambda c: c.policy.frames,
    "rollout.pathwise.frames": lambda c: c.rollout.pathwise.frames,
    "policy.max_sequence_length": lambda c: c.policy.max_sequence_length,
    "policy.embedded_guidance": lambda c: c.policy.embedded_guidance,
    "rollout.plan.stop": lambda c: c.rollout.plan.stop,
    "kl.target": lambda c: c.kl.target,
    "loop.minutes": lambda c: c.loop.minutes,
    "loop.budget": lambda c: c.loop.budget,
    "loop.max_kl": lambda c: c.loop.max_kl,
    "evaluation.steps": lambda c: c.evaluation.steps,
    "evaluation.guidance": lambda c: c.evaluation.guidance,
}
BELOW_ONE = {
    "optimiser.beta1": lambda c: c.optimiser.beta1,
    "optimiser.beta2": lambda c: c.optimiser.beta2,
    "ema.decay": lambda c: c.ema.decay,
    "credit.trim": lambda c: c.credit.trim,
}
SHARES = {
    "rollout.forward.fraction": lambda c: c.rollout.forward.fraction,
    "rollout.pathwise.first": lambda c: c.rollout.pathwise.first,
    "rollout.plan.fraction": lambda c: c.rollout.plan.fraction,
    "rollout.plan.decay": lambda c: c.rollout.plan.decay,
    "rollout.tail": lambda c: c.rollout.tail,
    "credit.discount": lambda c: c.credit.discount,
    "kl.gate": lambda c: c.kl.gate,
}
FROM_0_TO_1 = {
    "rollout.forward.eta": lambda c: c.rollout.forward.eta,
    "data.drop_prompt": lambda c: c.data.drop_prompt,
    "rollout.reset.share": lambda c: c.rollout.reset.share,
    "credit.redistribute": lambda c: c.credit.redistribute,
    "credit.critic.lam": lambda c: c.credit.critic.lam,
}
USUAL_LEVEL = {"flow_sde": 0.7, "dance_sde": 0.3, "cps": 0.8, "ddim": 1}
"""Noise levels of the kernels that have one, as in their papers."""
# Not here: guidance without an unconditional branch, and a Gaussian KL of token policies. Every family that loads
# (`beholder.policies`) has an unconditional branch, and none draws tokens.


def validate(config: RunConfig, processes: int = 1) -> None:
    """InputError with the first problem found."""
    for problem in problems(config, processes):
        raise InputError(problem)


def problems(config: RunConfig, processes: int = 1) -> Iterable[str]:
    yield from _not_finite(vars(config))
    yield from _ranges(config)
    yield from _combinations(config)
    yield from _shares(config, processes)
    if config.rollout.prompts % processes:
        yield (
            f"rollout.prompts: {config.rollout.prompts} prompts do not divide over {processes} processes; "
            f"use {-(-config.rollout.prompts // processes) * processes}"
        )


def _not_finite(settings: dict[str, Any], prefix: str = "") -> Iterable[str]:
    """Every float, whatever its range, that is infinite or no number."""
    for name, value in settings.items():
        if is_dataclass(value) or isinstance(value, dict):
            yield from _not_finite(value if isinstance(value, dict) else vars(value), f"{prefix}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{prefix}{name}: {value} is not a finite number"


def _ranges(config: RunConfig) -> Iterable[str]:
    for name, read in POSITIVE.items():
        if not read(config) > 0:
            yield f"{name}: {read(config)} must be greater than 0"
    for name, read in NOT_NEGATIVE.items():
        if not read(config) >= 0:
            yield f"{name}: {read(config)} must not be negative"
    for name, read in OPTIONAL_POSITIVE.items():
        if read(config) is not None and not read(config) > 0:
            yield f"{name}: {read(config)} must be greater than 0, or left out"
    for name, read in BELOW_ONE.items():
        if not 0 <= read(config) < 1:
            yield f"{name}: {read(config)} is not in [0, 1); 0 turns it off"
    for name, read in SHARES.items():
        if not 0 < read(config) <= 1:
            yield f"{name}: {read(config)} is not in (0, 1]"
    for name, read in FROM_0_TO_1.items():
        if not 0 <= read(config) <= 1:
            yield f"{name}: {read(config)} is not in [0, 1]"
    if not config.rewards and not config.data.path and not config.rollout.real.images:
        yield "rewards: none given; name one, e.g. --rewards shapes 1.0 or --rewards mymodule:score 1.0"
    if not config.evaluation.rewards:
        yield "evaluation.rewards: none given; name what is measured, e.g. --evaluation.rewards shapes_strict"


def _combinations(config: RunConfig) -> Iterable[str]:
    kernel, rollout = config.rollout.kernel, config.rollout
    if rollout.forward.times:
        yield from _forward(config)
    elif config.objective.kind == "pathwise":
        pass
    elif kernel.kind == "euler":
        yield (
            "rollout.kernel.kind: 'euler' is deterministic, so its decisions have no density for objective.kind "
            f"'{config.objective.kind}'; use flow_sde, dance_sde, cps or ddim"
        )
    elif kernel.level == 0:
        yield (
            f"rollout.kernel.level: 0 makes {kernel.kind} deterministic: no density for objective.kind "
            f"'{config.objective.kind}'; use {USUAL_LEVEL[kernel.kind]}"
        )
    if kernel.kind in ("cps", "ddim") and kernel.level > 1:
        good = USUAL_LEVEL[kernel.kind]
        yield f"rollout.kernel.level: {kernel.kind} takes a share in (0, 1], got {kernel.level}; use {good}"
    if kernel.log_prob == "unweighted" and kernel.kind != "cps":
        yield f"rollout.kernel.log_prob: 'unweighted' belongs to kernel cps, not {kernel.kind}; use gaussian"
    if kernel.log_prob == "unweighted" and config.objective.kind == "guard":
        yield (
            "objective.kind: 'guard' takes out the bias of a Gaussian log-ratio, which rollout.kernel.log_prob "
            "'unweighted' has not; use log_prob gaussian, or objective.kind ppo_clip"
        )
    yield from _peers(config)
    yield from _sources(config)
    yield from _branches(config)
    yield from _credit(config)
    yield from _objective(config)
    yield from _kl(config)
    yield from _plan(config)
    if config.policy.adapter is None and config.policy.share != 1:
        yield "policy.share: there is no policy.adapter to apply a share of; name one, or leave share out"
    if config.policy.adapter is not None and config.policy.lora != LoraConfig():
        yield "policy.lora: policy.adapter brings its own rank, alpha and targets; leave policy.lora out"
    if config.policy.training == "full" and config.policy.dtype != "float32":
        yield f"policy.dtype: policy.training full learns in float32, not {config.policy.dtype}; use float32 or lora"


def _peers(config: RunConfig) -> Iterable[str]:
    """Who is compared with nobody."""
    credit, rollout = config.credit, config.rollout
    peers, name = peers_of_a_decision(config)
    if credit.peers != "samples":
        name += f" (credit.peers '{credit.peers}')"
    if peers == 1 and credit.baseline in ("group", "leave_one_out"):
        yield (
            f"{name}: a group of 1 has no spread for credit.baseline '{credit.baseline}'; "
            "use 2 or more, or baseline none"
        )
    elif peers == 1 and credit.scale == "group":
        yield f"{name}: a group of 1 has no spread for credit.scale 'group'; use 2 or more, or scale batch"
    elif credit.scale == "group" and credit.ddof >= peers:
        yield f"credit.ddof: {credit.ddof} leaves nothing of a group of {peers}; use a larger {name}, or ddof 0"
    if credit.scale == "running" and credit.ddof >= credit.history:
        yield f"credit.ddof: {credit.ddof} leaves nothing of credit.history {credit.history}; use ddof 0"
    if rollout.redraw and not config.data.path and rollout.group * samples_per_start(rollout, 1) == 1:
        yield (
            f"rollout.redraw: {rollout.redraw} replaces groups whose rewards are equal, as a rollout.group of 1 always "
            "is; use redraw 0, or group 2 or more"
        )


def peers_of_a_decision(config: RunConfig) -> tuple[int, str]:
    """The most that a decision (or sample) is compared with, itself included, and the setting that decides it."""
    r = config.rollout
    if config.credit.peers == "samples" or config.data.path:
        return samples_of_a_prompt(config) - r.real.images, "rollout.group"  # credit is not of real images
    if config.credit.peers == "depth":
        together = r.branch.width ** len(r.branch.steps) if r.branch.kind == "tree" else r.branch.width
        return r.group * (1 if r.branch.kind == "none" else together), "rollout.group"
    if r.branch.kind == "none":  # with shared noise: without, `_credit` says that there are no siblings
        return r.group, "rollout.group"
    starts = r.group if r.shared_noise else 1  # starts of one noise are one state
    return starts * r.branch.width, "rollout.branch.width"


def _sources(config: RunConfig) -> Iterable[str]:
    """Where samples come from: data, real images, the reward's gradient."""
    r, p, kind = config.rollout, config.rollout.pathwise, config.objective.kind
    if config.data.path:
        if not r.forward.times:
            yield "rollout.forward.times: data has no path to learn from, only clean images; set it, e.g. 1"
        if config.loop.budget is not None:
            yield "loop.budget: counts evaluations of rollouts, and data.path draws none; use loop.iterations"
        if r.redraw or r.branch.kind != "none" or r.probe.kind != "none" or r.reset.share or r.real.images:
            yield "data.path: nothing is drawn, so redraw, branch, probe, reset and real do not apply; leave them out"
    if config.data.mask and config.data.view != "pairs":
        yield f"data.mask: maps are read with pairs, not {config.data.view}; use data.view pairs"
    if r.real.images and not r.forward.times and kind != "pathwise":
        yield "rollout.real.images: real images teach by re-noising; set rollout.forward.times, e.g. 1"
    if not config.rewards and r.real.images and config.credit.baseline != "none":
        yield f"credit.baseline: '{config.credit.baseline}' of samples without rewards is nothing; use none"
    if config.relabel != RelabelConfig() and not r.forward.times:
        yield "relabel: only re-noised samples can be learnt under another text; set rollout.forward.times, e.g. 1"
    if len(config.relabel.labels) == 1:
        yield "relabel.labels: one label says nothing; give two or more, from worst to best"
    if kind == "pathwise":
        if r.forward.times or r.branch.kind != "none" or r.probe.kind != "none" or config.data.path or r.redraw:
            yield "objective.kind: pathwise follows the ODE; leave forward, branch, probe, redraw, data out"
        if config.kl.beta > 0 and (config.kl.form != "velocity" or config.kl.place != "loss" or p.inputs == "live"):
            yield "kl.form: pathwise has velocities of given steps only; form velocity, place loss, inputs given"
        if r.real.images and p.inputs == "live":
            yield "rollout.real.images: live steps have no replay to add them to; use pathwise.inputs given, or 0"
        if config.loop.updates > 1 and p.inputs == "given":
            yield "loop.updates: the reward's gradient holds for the weights it was taken at; use 1"
        if config.loop.max_kl is not None or config.objective.anchor != "old":
            yield "objective.kind: pathwise has no ratios; leave loop.max_kl and objective.anchor out"
    elif p != PathwiseConfig():
        yield f"rollout.pathwise: belongs to objective.kind pathwise, not {kind}; leave it out"


def _plan(config: RunConfig) -> Iterable[str]:
    plan, steps = config.rollout.plan, config.rollout.steps
    shared = steps - 1 if plan.kind == "random" and plan.last == "ode" else steps
    if plan.kind in ("prefix", "random") and int(plan.fraction * shared) < 1:
        of = f"rollout.steps {steps}" if shared == steps else f"the {shared} stochastic ones of rollout.steps {steps}"
        yield f"rollout.plan.fraction: {plan.fraction} of {of} is no step; use a larger one"
    if plan.kind == "suffix" and plan.size > steps:
        yield f"rollout.plan.size: the last {plan.size} of rollout.steps {steps}; use at most {steps}"
    if plan.pace != "constant" and plan.kind != "moving_window":
        yield f"rollout.plan.pace: '{plan.pace}' belongs to plan moving_window, not {plan.kind}; use constant"
    if plan.kind in WINDOWS:
        try:
            window_places(plan, steps)
        except InputError as error:
            yield str(error)
    if (config.rollout.tail < 1 or config.rollout.tail_solver != "euler") and not (
        plan.kind in WINDOWS and plan.outside == "ode"
    ):
        name = "tail" if config.rollout.tail < 1 else "tail_solver"
        yield f"rollout.{name}: plan {plan.kind} has no ODE steps after it to change; use a window, or the default"


def _branches(config: RunConfig) -> Iterable[str]:
    r, branch, plan = config.rollout, config.rollout.branch, config.rollout.plan
    if branch.kind == "tree":
        if not branch.steps or sorted(set(branch.steps)) != list(branch.steps):
            yield f"rollout.branch.steps: {branch.steps} is not an increasing list of steps; use e.g. 0 3 6 9"
        elif branch.steps[0] < 0 or branch.steps[-1] >= r.steps:
            yield f"rollout.branch.steps: {branch.steps} are not all in 0..{r.steps - 1} (rollout.steps {r.steps})"
        elif plan.last == "ode" and branch.steps[-1] == r.steps - 1:
            yield f"rollout.branch.steps: {branch.steps[-1]} is the last step, not drawn with rollout.plan.last ode"
        if plan.kind in WINDOWS and plan.outside == "ode":
            yield f"rollout.branch.kind: a tree splits stochastic steps, plan {plan.kind} has ODE ones; use outside sde"
    elif branch.steps:
        yield f"rollout.branch.steps: belongs to branch tree, not {branch.kind}; leave it out"
    if branch.kind in ("fan", "spurs", "ladder") and plan.kind in ("random", "geometric"):
        yield f"rollout.branch.kind: {branch.kind} needs the same trained steps of all samples; use plan prefix or all"
    if r.probe.kind != "none" and branch.kind != "none":
        yield f"rollout.probe.kind: {r.probe.kind} measures unbranched samples, not branch {branch.kind}; use none"
    if (r.probe.kind != "none") != (config.credit.baseline == "probe"):
        yield (
            f"credit.baseline: '{config.credit.baseline}' and rollout.probe.kind '{r.probe.kind}' do not go together; "
            "use baseline probe with probe greedy or vine"
        )
    if r.reset.share and (plan.kind in WINDOWS or branch.kind == "tree" or r.reset.step >= r.steps):
        yield (
            f"rollout.reset: starting {r.reset.step} steps later needs a plan without windows, no tree and more than "
            f"{r.reset.step} rollout.steps; use plan prefix or all"
        )
    drawn = not r.forward.times and config.objective.kind != "pathwise"
    if drawn and r.reset.share and plan.kind == "prefix" and int(plan.fraction * r.steps) <= r.reset.step < r.steps:
        yield (
            f"rollout.reset.step: {r.reset.step} is where the trained steps of rollout.plan.fraction {plan.fraction} "
            f"have ended; start earlier, or train more than {r.reset.step} of {r.steps} steps"
        )
    if r.redraw and config.credit.win_rate:
        yield "rollout.redraw: win rates (credit.win_rate) always differ within a group; use redraw 0"


def _credit(config: RunConfig) -> Iterable[str]:
    c, branch = config.credit, config.rollout.branch.kind
    if c.peers == "siblings" and branch == "none" and not config.rollout.shared_noise:
        yield "credit.peers: 'siblings' are branches of one state, but rollout.branch.kind is none; use spurs"
    if c.threshold and branch == "none":
        yield "credit.threshold: chooses among the branches of a start, but rollout.branch.kind is none; use fan, or 0"
    samples = samples_of_a_prompt(config)
    if c.keep_best + c.keep_worst > samples:
        yield f"credit.keep_best: {c.keep_best} best and {c.keep_worst} worst of {samples} samples; keep fewer"
    if c.baseline == "critic" and branch != "none":
        yield f"credit.baseline: 'critic' needs one sample per decision, not branch {branch}; use baseline group"
    if c.baseline in ("critic", "probe") and c.combine != "rewards":
        yield f"credit.combine: '{c.combine}' has no meaning for baseline {c.baseline}; use rewards"
    if c.baseline == "running" and c.peers != "samples" and c.dense == "none":
        yield f"credit.baseline: 'running' compares samples, not {c.peers}; use peers samples"
    if c.dense != "none" and (c.baseline == "running") != (c.scale == "running"):
        said = f"baseline '{c.baseline}' and credit.scale '{c.scale}'"
        yield f"credit.{said} do not go together with credit.dense {c.dense}; use running for both, or group"
    if c.baseline == "critic" and c.scale == "group":
        yield "credit.scale: 'group' would hide from the critic which prompts do well; use running, batch or none"
    if c.nodes != "mean" and (branch != "tree" or c.peers == "samples"):
        said = f"not of branch {branch} and credit.peers {c.peers}"
        yield f"credit.nodes: '{c.nodes}' is of the nodes of rollout.branch.kind tree, {said}; use mean, or peers depth"
    if config.kl.place == "reward" and c.dense != "none":
        yield "kl.place: 'reward' would not reach the step rewards of credit.dense; use loss"
    if c.baseline == "probe" and c.scale not in ("none", "batch"):
        yield f"credit.scale: '{c.scale}' has no peers with baseline probe; use batch or none"
    if c.scale == "running" and c.peers != "samples" and c.dense == "none":
        yield f"credit.scale: 'running' is of samples, not of peers {c.peers}; use group"
    if c.trim and c.baseline == "leave_one_out":
        yield "credit.trim: leave_one_out compares with every other sample; use trim 0, or baseline group"
    if c.novelty and (config.data.path or config.objective.kind == "pathwise"):
        yield "credit.novelty: compares samples drawn for a prompt with one another; leave it out here"
    if c.novelty and (c.peers != "samples" or c.baseline in ("critic", "probe") or c.dense != "none"):
        said = f"not of peers {c.peers}, baseline {c.baseline}, dense {c.dense}"
        yield f"credit.novelty: shapes the credit of samples, {said}; leave it out"
    if c.win_rate and samples < 2:
        yield "credit.win_rate: one sample of a prompt has no other to be compared with; raise rollout.group"
    if c.win_rate and config.rollout.probe.kind != "none":
        yield "credit.win_rate: probes (rollout.probe) would take part in the comparison; use win_rate false"
    if c.dense != "none" and (branch != "none" or c.combine != "rewards" or c.peers != "depth"):
        yield "credit.dense: step rewards need branch none, credit.combine rewards and credit.peers depth"
    shaped = c.redistribute > 0 or (c.discount < 1 and c.dense == "none" and c.baseline != "critic")
    if shaped and (c.peers != "samples" or c.baseline in ("critic", "probe")):
        name = "redistribute" if c.redistribute else "discount"
        yield f"credit.{name}: shapes the credit of samples, not of peers {c.peers}, baseline {c.baseline}"


def _objective(config: RunConfig) -> Iterable[str]:
    o, branch, plan = config.objective, config.rollout.branch.kind, config.rollout.plan.kind
    together, p = scope(o), o.preference
    name = f"{o.kind} ({p.contrast})" if o.kind == "preference" else o.kind
    alone = branch in ("spurs", "ladder") and config.rollout.group == 1 and config.loop.order == "samples"
    if together != "decision" and branch != "none" and not (alone and o.kind == "preference" and p.over == "decision"):
        yield f"objective.kind: {name} needs one sample per decision, not branch {branch}; use ppo_clip"
    if together == "group" and plan == "random":
        yield f"objective.kind: {name} compares samples at the same steps, plan random gives each its own; use prefix"
    if together == "group" and samples_of_a_prompt(config) < 2:
        yield f"objective.kind: {name} compares samples of a prompt; use rollout.group 2 or more"
    if o.kind in ("preference", "dspo") and o.weighting != "uniform":
        yield f"objective.weighting: '{o.weighting}' weighs decisions, {name} compares samples; use uniform"
    if (o.kind == "gspo" or p.over == "sample") and config.loop.order == "steps":
        yield f"loop.order: 'steps' takes {name}'s samples apart; use samples"
    if o.kind != "preference" and p != PreferenceConfig():
        yield f"objective.preference: belongs to objective.kind preference, not {o.kind}; leave it out"
    else:
        yield from _preference(config)
    if o.kind in NEEDS_FORWARD and not config.rollout.forward.times:
        yield f"objective.kind: {o.kind} works on re-noised clean samples; set rollout.forward.times, e.g. 2"
    if config.rollout.policy == "ema" and config.ema.decay == 0:
        yield "rollout.policy: 'ema' needs a running average; set ema.decay, e.g. 0.5"
    if config.credit.weights != "advantage" and config.credit.combine == "losses":
        yield f"credit.weights: '{config.credit.weights}' is one weight per sample; use credit.combine rewards"
    if o.anchor == "reference" and o.kind in NEEDS_MEANS:
        yield f"objective.anchor: {o.kind} compares with the policy that drew the samples; use old"


def samples_of_a_prompt(config: RunConfig) -> int:
    if config.data.path:
        return 2 if config.data.view == "pairs" else max(2, config.rollout.group)
    return config.rollout.real.images + config.rollout.group * samples_per_start(config.rollout, 1)


def _preference(config: RunConfig) -> Iterable[str]:
    o, p = config.objective, config.objective.preference
    if p.utility in ("odds", "mapo") and o.anchor != "none":
        yield f"objective.anchor: preference.utility {p.utility} is of evidence itself, not of log-ratios; use none"
    if p.utility in ("odds", "mapo") and not config.rollout.forward.times:
        yield f"objective.preference.utility: {p.utility} is of denoising errors; set rollout.forward.times, e.g. 2"
    if p.smoothing >= 0.5:
        yield f"objective.preference.smoothing: {p.smoothing} is not below 0.5; 0 turns it off"
    if p.link == "reverse_kl" and p.smoothing == 0:
        yield "objective.preference.smoothing: link reverse_kl needs one above 0, e.g. 0.01"
    if p.link == "hinge" and p.margin == 0 and o.anchor != "none":
        yield "objective.preference.margin: a hinge of log-ratios, which start at 0, has no gradient; use 1"
    if p.contrast == "centred" and p.link != "regress":
        yield f"objective.preference.link: contrast centred regresses onto values, {p.link} ignores them; use regress"
    if p.contrast == "list" and (p.link != "logistic" or p.label == "bradley_terry"):
        name, value = ("link", p.link) if p.link != "logistic" else ("label", p.label)
        yield f"objective.preference.{name}: lists have their own, not {value}; use link logistic, label hard or soft"
    if p.contrast in ("point", "group", "centred") and p.label != "hard":
        yield f"objective.preference.label: contrast {p.contrast} takes values as they are, not {p.label}; use hard"
    if p.contrast != "pair" and (p.pairs != "all" or p.min_gap):
        yield f"objective.preference.pairs: chooses pairs, contrast is {p.contrast}; leave pairs and min_gap out"
    if p.safeguard is not None and p.contrast == "point":
        yield "objective.preference.safeguard: holds losers against winners, contrast point has neither; use pair"
    if p.baseline != "none" and p.contrast != "point":
        yield f"objective.preference.baseline: {p.baseline!r} belongs to contrast point, not {p.contrast}; use none"
    if (p.sft or p.down) and p.contrast == "point":
        yield "objective.preference.sft: the anchors are of a comparison's best sample; use contrast pair or list"
    if p.safeguard is not None and (samples_of_a_prompt(config) != 2 or not config.rollout.forward.times):
        yield "objective.preference.safeguard: needs pairs of re-noised samples; use rollout.group 2 and forward.times"
    if p.safeguard is not None and not 0 <= p.safeguard <= 1:
        yield f"objective.preference.safeguard: {p.safeguard} is not in [0, 1]"
    if p.pessimistic and p.utility not in ("clip", "clip_ratio"):
        yield "objective.preference.pessimistic: there is no clip to compare with; use utility clip"


def _forward(config: RunConfig) -> Iterable[str]:
    r, kind = config.rollout, config.objective.kind
    if kind in NEEDS_MEANS or config.loop.max_kl is not None:
        name = f"objective.kind: {kind}" if kind in NEEDS_MEANS else "loop.max_kl"
        yield f"{name} measures transitions, but rollout.forward.times re-noises clean samples; use 0 times"
    if config.kl.beta > 0 and config.kl.form not in ("velocity", "k2", "k3"):
        yield f"kl.form: '{config.kl.form}' needs transitions, but rollout.forward.times has none; use velocity"
    if r.branch.kind != "none" or r.probe.kind != "none" or config.credit.dense != "none" or config.credit.redistribute:
        yield "rollout.forward.times: clean samples have no path to branch, probe or redistribute along; use 0 times"


def _kl(config: RunConfig) -> Iterable[str]:
    kl = config.kl
    if kl.reference == "ema" and config.ema.decay == 0:
        yield "kl.reference: 'ema' needs a running average; set ema.decay, e.g. 0.9"
    if kl.place == "reward" and (kl.beta == 0 or config.credit.combine != "rewards"):
        yield "kl.place: 'reward' needs kl.beta above 0 and credit.combine rewards; use loss otherwise"
    if kl.target is not None and kl.beta == 0:
        yield "kl.target: there is no kl.beta to adapt; set it above 0"
    if kl.gate < 1 and (len(config.rewards) < 2 or kl.beta == 0):
        yield "kl.gate: needs kl.beta above 0 and at least two rewards (weight 0 for those that only judge the first)"


def _shares(config: RunConfig, processes: int) -> Iterable[str]:
    samples = config.rollout.prompts * config.rollout.group // processes
    if scope(config.objective) == "group":
        samples = config.rollout.prompts // processes
    if config.loop.updates > samples:
        yield (
            f"loop.updates: {config.loop.updates} updates share the {samples} samples of a process "
            "(rollout.prompts x rollout.group / processes); use fewer updates"
        )
