"""Whether two runs are the same run: their lines, weights, states and pictures, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def stop_after(iteration: int) -> Callable[[dict[str, Any]], None]:
    def listener(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["iteration"] == iteration:
            raise KeyboardInterrupt

    return listener


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (run_folder / "policy").glob("*.safetensors")
    return load_file(file)


def state(run_folder: Path) -> dict[str, Any]:
    return torch.load(sorted((run_folder / "checkpoints").glob("iteration_*"))[-1] / "state.pt", weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert_same(state(one), state(other), ("seconds",))
    timed = [[json.loads(line)["iteration"] for line in (p / "timings.jsonl").open()] for p in (one, other)]
    assert timed[0] == timed[1]
    for name in ("samples", "findings.json"):
        files = sorted(p.relative_to(one) for p in (one / name).rglob("*")) or [Path(name)]
        assert all((one / f).read_bytes() == (other / f).read_bytes() for f in files)


def assert_same(one: Any, other: Any, apart: tuple[str, ...] = ()) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - set(apart):
            assert_same(one[key], other[key], apart)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right, apart)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
