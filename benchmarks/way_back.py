"""A run's policy part of the way back to its base, and under guidance: ``python benchmarks/way_back.py RUN``.

Strict accuracy and diversity of 384 images each, 10 steps. ``share`` is `policy.share`, ``anneal`` the power with which
the base draws the beginning (`beholder.policies.annealed`).
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from beholder.config import EvaluationConfig
from beholder.config_file import read_config
from beholder.evaluation.heldout import evaluate
from beholder.policies import load_policy
from beholder.policies.annealed import Annealed
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards

CASES = (
    *(("shapes:held_out", 1.0, None, 1.0), ("shapes:train", 1.0, None, 1.0), ("shapes:held_out", 1.0, None, 2.0)),
    *(("shapes:held_out", 0.8, None, 1.0), ("shapes:held_out", 0.8, None, 2.0), ("shapes:held_out", 0.6, None, 2.0)),
    *(("shapes:held_out", 1.0, 0.3, 1.0), ("shapes:held_out", 1.0, 0.3, 2.0)),
)
"""Prompts, share, anneal, guidance."""


def main() -> None:
    run = Path(sys.argv[1])
    config = read_config(run / "config.yaml").policy
    for source, share, power, guidance in CASES:
        policy: Any = load_policy(replace(config, adapter=str(run / "policy"), share=share))
        if power is not None:
            policy = Annealed(policy, load_policy(config), power)
        setting = EvaluationConfig(images=384)
        found = evaluate(policy, load_prompts(source), load_rewards(["shapes_strict"]), setting, 10, guidance, 64)
        row = found.row()
        kinds = "  ".join(f"{kind} {value:.2f}" for kind, value in row["per_kind"].items())
        said = f"share {share:g}  anneal {'-' if power is None else f'{power:g}'}  guidance {guidance:g}"
        strict = row["rewards"]["shapes_strict"]
        print(f"{source:16s} {said}  {strict:.3f}  diversity {row['diversity']:.3f}  {kinds}", flush=True)


if __name__ == "__main__":
    main()
