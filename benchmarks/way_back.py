"""A run's policy part of the way back to its base, and under guidance: ``python benchmarks/way_back.py RUN``.

Weights are base + share (aligned - base); strict accuracy and diversity of 384 images each, 10 steps.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from beholder.config import EvaluationConfig
from beholder.config_file import read_config
from beholder.evaluation.heldout import evaluate
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards

CASES = (
    *(("shapes:held_out", 1.0, 1.0), ("shapes:train", 1.0, 1.0), ("shapes:held_out", 1.0, 2.0)),
    *(("shapes:held_out", 0.8, 1.0), ("shapes:held_out", 0.8, 2.0), ("shapes:held_out", 0.6, 2.0)),
)
"""Prompts, share, guidance."""


def main() -> None:
    run = Path(sys.argv[1])
    policy_config = read_config(run / "config.yaml").policy
    policy = load_policy(policy_config)
    aligned = load_policy(replace(policy_config, adapter=str(run / "policy"))).trainable()
    base = {name: p.detach().clone() for name, p in policy.trainable().items()}
    for source, share, guidance in CASES:
        with torch.no_grad():
            for name, p in policy.trainable().items():
                p.copy_(torch.lerp(base[name], aligned[name], share))
        setting = EvaluationConfig(images=384)
        found = evaluate(policy, load_prompts(source), load_rewards(["shapes_strict"]), setting, 10, guidance, 64)
        row = found.row()
        kinds = "  ".join(f"{kind} {value:.2f}" for kind, value in row["per_kind"].items())
        strict = row["rewards"]["shapes_strict"]
        print(
            f"{source:16s} {share:g} {guidance:g}  {strict:.3f}  diversity {row['diversity']:.3f}  {kinds}", flush=True
        )


if __name__ == "__main__":
    main()
