"""The curve of a long run: ``python benchmarks/curves.py RUN docs/images/long_curves.png``; needs ``.[docs]``."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

BLOCK = 20
"""Iterations a point of the training reward is the mean of."""


def main() -> None:
    run, target = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open(encoding="utf-8")]
    seconds = [json.loads(line)["seconds"] for line in (run / "timings.jsonl").open(encoding="utf-8")]
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    train = [row for row in rows if row["event"] == "train"]
    (reward,) = train[0]["reward"]
    blocks = [train[i : i + BLOCK] for i in range(0, len(train) - BLOCK + 1, BLOCK)]
    minutes = [0.0, *(value / 60 for value in seconds)]
    at = [minutes[row["iteration"]] for row in evaluations]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot(at, [row["rewards"]["shapes_strict"] for row in evaluations], "o-", label="held-out strict")
    means = [sum(row["reward"][reward] for row in block) / BLOCK for block in blocks]
    left.plot([minutes[block[-1]["iteration"]] for block in blocks], means, ".-", label=f"training reward ({reward})")
    left.plot(
        at, [row["diversity"] / evaluations[0]["diversity"] for row in evaluations], ":", label="diversity / base"
    )
    for kind in evaluations[0]["per_kind"]:
        right.plot(at, [row["per_kind"][kind] for row in evaluations], ".-", label=kind)
    for axes, title in ((left, "all"), (right, "held-out strict by kind")):
        axes.set(xlabel="training minutes", ylim=(0, 1.15 if axes is left else 1.02), title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower right")
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
