"""How much of an iteration is not the work it must do: iteration time over bare network, decode and reward time.

    python benchmarks/overhead.py [METHOD ...] [--preset shapes] [--iterations 5]

"Bare" calls the same network on the same shapes as often as the method must: T forward passes per rollout batch, one
forward and backward per micro-batch of trained decisions (and a reference pass with a KL term), the decoder and the
reward once per sample. Both are timed alternately in one process; the medians and their ratio are printed.
"""

import time
from dataclasses import dataclass, replace
from statistics import median

import torch
import tyro
from accelerate import Accelerator

from beholder.config import RunConfig
from beholder.methods import METHODS, find_method
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards, score
from beholder.training.loop import Learner, collect, iterate, make_learner


@dataclass
class Options:
    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """Rows to time; none means all."""
    preset: str = "shapes"
    iterations: int = 5


def bare(learner: Learner, columns: int) -> None:
    """The network, decoder and reward work of one iteration with ``columns`` trained decisions per sample."""
    config, policy = learner.config, learner.policy
    r, sigmas = config.rollout, policy.schedule(config.rollout.steps)
    n = r.prompts * r.group
    texts = [learner.prompts.texts[i] for i in learner.prompts.draw(r.prompts, [0]) for _ in range(r.group)]
    index_N = torch.arange(n)
    start = policy.start(texts, index_N, index_N, index_N, sigmas[0].item(), r.guidance.scale != 1)
    with torch.no_grad():
        for rows in index_N.split(r.batch):
            condition = start.condition.select(rows)
            unconditional = None if start.unconditional is None else start.unconditional.select(rows)
            for sigma in sigmas[:-1]:
                sigma_N = sigma.float().expand(len(rows))
                policy.velocity(start.x_Nx[rows], sigma_N, condition, unconditional, r.guidance)
    images = policy.decode(start.x_Nx, sigmas[-1].item(), r.batch)
    score(images, texts, learner.rewards)
    decisions = index_N.repeat_interleave(columns)
    for rows in decisions.split(config.loop.micro_batch):
        condition = start.condition.select(rows)
        unconditional = None if start.unconditional is None else start.unconditional.select(rows)
        sigma_M = torch.full((len(rows),), 0.5)
        policy.velocity(start.x_Nx[rows], sigma_M, condition, unconditional, r.guidance).sum().backward()
        if config.kl.beta > 0:
            with torch.no_grad(), policy.reference():
                policy.velocity(start.x_Nx[rows], sigma_M, condition, unconditional, r.guidance)
    learner.optimiser.zero_grad()


def measure(config: RunConfig, iterations: int) -> tuple[float, float]:
    """Median seconds of an iteration and of its bare work."""
    config = replace(config, loop=replace(config.loop, signal_every=0))
    policy = load_policy(config.policy)
    learner = make_learner(
        config, policy, load_prompts(config.prompts), load_rewards(list(config.rewards)), Accelerator(cpu=True)
    )
    iterate(learner)
    columns = collect(learner).trajectory.step_NK.shape[1]
    bare(learner, columns)
    whole, must = [], []
    for _ in range(iterations):
        for action, times in ((lambda: iterate(learner), whole), (lambda: bare(learner, columns), must)):
            started = time.perf_counter()
            action()
            times.append(time.perf_counter() - started)
    return median(whole), median(must)


def main() -> None:
    options = tyro.cli(Options)
    print(f"{'method':20s} {'iteration s':>12s} {'bare s':>8s} {'ratio':>6s}")
    for name in options.methods or METHODS:
        whole, must = measure(find_method(name).preset(options.preset), options.iterations)
        print(f"{name:20s} {whole:12.2f} {must:8.2f} {whole / must:6.3f}", flush=True)


if __name__ == "__main__":
    main()
