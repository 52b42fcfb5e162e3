"""How much of an iteration is not the work it must do: the share outside network, decoder and reward.

    python benchmarks/overhead.py [METHOD ...] [--preset shapes] [--iterations 3]

The calls of the denoiser (trunks, branches, probes and the reference included), of the decoder and of the rewards, and
the backward passes, are timed while an iteration runs. What it takes beyond them is outside: noise, kernels, credit,
critics, objectives, optimiser. Times are of this process's processor, which a busy neighbour lengthens less; the median
iteration is printed. The backward pass of kernel and objective is part of the network's here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import tyro
from accelerate import Accelerator

from beholder.config import RunConfig
from beholder.methods import METHODS, find_method
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards
from beholder.training.compare import stands_alone
from beholder.training.learner import make_learner
from beholder.training.loop import iterate


@dataclass
class Options:
    methods: tyro.conf.Positional[tuple[str, ...]] = ()
    """Rows to time; none means all that draw samples and need neither a set nor a learned reward."""
    preset: str = "shapes"
    iterations: int = 3


@dataclass
class Clock:
    """Seconds of processor time inside the functions that it was put around."""

    seconds: float = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **more: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments, **more)
            finally:
                self.seconds += time.process_time() - started

        return timed


def measure(config: RunConfig, iterations: int) -> tuple[float, float]:
    """Seconds of the median iteration and the share of it that is outside; the first one is not counted."""
    config = replace(config, loop=replace(config.loop, signal_every=0))
    policy, prompts = load_policy(config.policy), load_prompts(config.prompts)
    accelerator, clock = Accelerator(cpu=True), Clock()
    loaded = load_rewards(list(config.rewards)) if config.rewards else []
    rewards = [replace(reward, score=clock.around(reward.score)) for reward in loaded]
    policy.encode(["", *prompts.texts])  # once a run, not once an iteration
    family: Any = policy.family
    family.velocity, family.decode = clock.around(family.velocity), clock.around(family.decode)
    accelerator.backward = clock.around(accelerator.backward)
    learner = make_learner(config, policy, prompts, rewards, accelerator)
    found = []
    for _ in range(1 + iterations):
        clock.seconds, started = 0.0, time.process_time()
        iterate(learner)
        whole = time.process_time() - started
        found.append((whole, 1 - clock.seconds / whole))
    return median(whole for whole, _ in found[1:]), median(share for _, share in found[1:])


def main() -> None:
    options = tyro.cli(Options)
    named = options.methods or [
        name for name, row in METHODS.items() if options.preset in row.presets and stands_alone(name, options.preset)
    ]
    print(f"{'method':20s} {'iteration s':>12s} {'outside':>8s}")
    for name in named:
        seconds, outside = measure(find_method(name).preset(options.preset), options.iterations)
        print(f"{name:20s} {seconds:12.2f} {outside:8.1%}", flush=True)


if __name__ == "__main__":
    main()
