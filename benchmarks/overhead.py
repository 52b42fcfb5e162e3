"""How much of an iteration is not the work it must do: iteration time over bare network, decode and reward time.

    python benchmarks/overhead.py [METHOD ...] [--preset shapes] [--iterations 5]

"Bare" repeats the very network calls of an iteration (same shapes, same gradients), the decoder and the reward, and
nothing else. Both are timed alternately in one process; the medians and their ratio are printed.
"""

import time
from dataclasses import dataclass, replace
from statistics import median

import torch
import tyro
from accelerate import Accelerator
from torch import Tensor, nn

from beholder.config import RunConfig
from beholder.methods import METHODS, find_method
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards, score
from beholder.rollouts.trajectory import Condition
from beholder.training.loop import Learner, iterate, make_learner


@dataclass
class Options:
    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """Rows to time; none means all."""
    preset: str = "shapes"
    iterations: int = 5


@dataclass(frozen=True)
class Call:
    x: Tensor
    sigma_N: Tensor
    condition: Condition
    gradient: bool


def calls_of(learner: Learner) -> list[Call]:
    """The network calls of one iteration."""
    calls: list[Call] = []
    family = learner.policy.family
    original = family.velocity

    def recorded(network: nn.Module, x: Tensor, sigma_N: Tensor, condition: Condition) -> Tensor:
        calls.append(Call(x, sigma_N, condition, torch.is_grad_enabled()))
        return original(network, x, sigma_N, condition)

    family.velocity = recorded
    try:
        iterate(learner)
    finally:
        family.velocity = original
    return calls


def bare(learner: Learner, calls: list[Call]) -> None:
    """The network, decoder and reward work of one iteration."""
    policy, r = learner.policy, learner.config.rollout
    for call in calls:
        with torch.set_grad_enabled(call.gradient):
            v = policy.family.velocity(policy.network, call.x, call.sigma_N, call.condition)
            if call.gradient:
                v.sum().backward()
    learner.optimiser.zero_grad()
    texts = [learner.prompts.texts[i] for i in learner.prompts.draw(r.prompts, [0]) for _ in range(r.group)]
    latents = torch.randn(len(texts), *policy.family.latent_shape())
    score(policy.decode(latents, policy.schedule(r.steps)[-1].item(), r.batch), texts, learner.rewards)


def measure(config: RunConfig, iterations: int) -> tuple[float, float]:
    """Median seconds of an iteration and of its bare work."""
    config = replace(config, loop=replace(config.loop, signal_every=0))
    policy = load_policy(config.policy)
    learner = make_learner(
        config, policy, load_prompts(config.prompts), load_rewards(list(config.rewards)), Accelerator(cpu=True)
    )
    calls = calls_of(learner)
    bare(learner, calls)
    whole, must = [], []
    for _ in range(iterations):
        for action, times in ((lambda: iterate(learner), whole), (lambda: bare(learner, calls), must)):
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
