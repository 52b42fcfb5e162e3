"""Learning without trajectory likelihoods, from nothing to one page: what preferences, clean samples and a learned
reward's gradient achieve on the bundled world beside Flow-GRPO.

    python benchmarks/learning.py [--seeds 0 1 2] [--budget 40000] [--iterations 60] [--output runs/learning]

Makes a preference set, fits a reward to it, then runs the methods of three kinds and compares them by the verifier
(gold) and by the learned reward (proxy). What is done is kept, what was interrupted goes on.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from beholder.cli import run

METHODS = (
    *("flow-grpo", "flow-grpo-fast"),
    *("diffusion-nft", "awm"),
    *("diffusion-dpo", "diffusion-sdpo"),
    *("draft-k", "refl"),
)


@dataclass(frozen=True)
class Options:
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: int = 40_000
    """Network evaluations in rollouts of the methods that draw."""
    iterations: int = 60
    """Iterations of the methods that read preferences."""
    records: int = 2000
    """Prompts of the preference set, four images each."""
    output: Path = Path("runs/learning")


def main(options: Options) -> int:
    pairs, reward, methods = (str(options.output / name) for name in ("pairs", "reward", "methods"))
    cost = ("--budget", str(options.budget), "--iterations", str(options.iterations), "--evaluations", "5")
    seeds = ("--seeds", *map(str, options.seeds))
    given = ("--data", pairs, "--reward", f"learned@{reward}", "--output", methods)
    steps = (
        ["prefer", "--n", str(options.records), "--k", "4", "--output", pairs],
        ["fit", pairs, "--output", reward],
        ["compare-methods", *METHODS, *seeds, *cost, *given],
    )
    for arguments in steps:
        print("beholder", *arguments, flush=True)
        if code := run(arguments):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
