"""How many preferred pairs the weights of a checklist need, and what the mask w ≥ 0 costs.

    python benchmarks/checklist_pairs.py runs/people [--judge runs/judge] [--seeds 5]

The set is made if it is not there (1,500 prompts of the bundled world with 4 flawed pictures each, exact answers,
simulated people; `beholder.checklists.simulate`). With ``--judge`` that judge answers too. Prints Markdown tables of
the accuracy on held-out prompts, without ties: mean ± standard deviation over draws of the pairs.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from beholder.checklists.annotate import annotate
from beholder.checklists.answers import Answered, read_answered
from beholder.checklists.simulate import TASTE, simulate
from beholder.checklists.weigh import weighed
from beholder.checklists.weights import Pairs, descend, solve
from beholder.fitting.split import split_by_prompt
from beholder.judges.checklist import Checklist
from beholder.judges.checklist_file import load_checklist
from beholder.preferences.selection import Selection, choose
from beholder.preferences.store import open_preferences
from beholder.rewards.small_judge import load_any_judge

SIZES = (20, 50, 100, 200, 500, 1000, 2000, 5000)
RIDGE = 1e-3
HELD_OUT = 0.3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    said = parser.parse_args()
    checklist, exact = load_checklist("shapes-details"), said.folder / "people.parquet"
    if not exact.exists():
        simulate(exact, n=1500, k=4, seed=1)
    print(f"people against their own taste: {100 * ceiling(exact):.1f} %")
    table("exact answers", read(exact, checklist), said.seeds)
    if said.judge is not None:
        judged = said.folder / "judged"
        print(annotate(exact, checklist, load_any_judge(str(said.judge)), judged))
        table(f"answers of {said.judge.name}", read(judged, checklist), said.seeds)
        probable = replace(checklist, coding="probability")
        table(f"probabilities of {said.judge.name}", read(judged, probable), said.seeds)


def read(path: Path, checklist: Checklist) -> Answered:
    return read_answered(open_preferences(path), checklist, Selection(by=("ranks",)))


def ceiling(path: Path) -> float:
    """How often the better one by what people care for, without their mistakes, is the one that they preferred."""
    right = []
    for record in open_preferences(path):
        value_K = np.sum([weight * np.array(record.ratings[name]) for name, weight in TASTE.items()], axis=0)
        right += [value_K[c.winner] > value_K[c.loser] for c in choose(record, Selection(by=("ranks",), ties="drop"))]
    return float(np.mean(right))


def table(title: str, answered: Answered, seeds: int) -> None:
    pairs, whole_P = answered.counted()
    pairs = Pairs(pairs.gap_PQ[:, weighed(answered.checklist)], pairs.p_P, pairs.weight_P, pairs.cluster_P)
    prompts = [p for p, whole in zip(answered.prompts, whole_P, strict=True) if whole]
    split = split_by_prompt(prompts, HELD_OUT, seed=0, report=False)
    train, held = np.array(split.train), pairs.rows(np.array(split.stop))
    print(f"\n{title}: {len(train)} pairs to draw from, {len(held)} held out, {pairs.gap_PQ.shape[1]} questions\n")
    print("| pairs | w ≥ 0 | free | w ≥ 0, the paper's SGD | weights above 0 |\n|---|---|---|---|---|")
    for size in (n for n in SIZES if n <= len(train)):
        found: dict[str, list[float]] = {"masked": [], "free": [], "sgd": [], "above": []}
        for seed in range(seeds):
            drawn = pairs.rows(np.random.default_rng([seed, size]).choice(train, size, replace=False))
            masked = solve(drawn, RIDGE)
            found["masked"].append(accuracy(masked, held))
            found["free"].append(accuracy(solve(drawn, RIDGE, masked=False), held))
            found["sgd"].append(accuracy(descend(drawn, RIDGE, rate=0.02, tolerance=0.01, most=100).weight_Q, held))
            found["above"].append(float((masked > 0).sum()))
        cells = [f"{100 * np.mean(v):.1f} ± {100 * np.std(v):.1f}" for v in list(found.values())[:3]]
        print(f"| {size} | {' | '.join(cells)} | {np.mean(found['above']):.0f} |", flush=True)
    equal = np.ones(pairs.gap_PQ.shape[1])
    print(f"| none: equal weights | {100 * accuracy(equal, held):.1f} | | | |")
    first = np.eye(len(equal))[0]
    print(f"| none: the first question alone | {100 * accuracy(first, held, half=True):.1f} (ties half) | | | |")


def accuracy(weight_Q: np.ndarray, pairs: Pairs, half: bool = False) -> float:
    """Of pairs that people decided; equal totals are wrong, or half right."""
    decided = pairs.p_P != 0.5
    gap_P = np.round(pairs.gap_PQ @ weight_Q, 12)[decided] * np.sign(pairs.p_P[decided] - 0.5)
    return float((gap_P > 0).mean() + (0.5 if half else 0.0) * (gap_P == 0).mean())


if __name__ == "__main__":
    main()
