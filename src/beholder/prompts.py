"""Where prompts come from: the bundled world's splits, a text file, or a JSONL file of images with their prompts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beholder.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 64 * 2**20
SPLITS = {"shapes:train": "train", "shapes:held_out": "held_out"}


@dataclass(frozen=True)
class PromptSet:
    texts: tuple[str, ...]
    kinds: tuple[str, ...] | None = None
    """One label per text where the source knows kinds of prompts; they are then drawn in equal shares."""
    image: "Callable[[int, int], Tensor] | None" = None
    """``(index, seed) → [3, H, W]`` in 0..1: a real image of the prompt, where the source has some."""

    def draw(self, n: int, key: list[int]) -> list[int]:
        """Indices of ``n`` prompts, a function of ``key`` alone: equal shares of the kinds, else without repetition
        until the set is used up."""
        rng = np.random.default_rng(key)
        if self.kinds is None:
            rounds = -(-n // len(self.texts))
            return np.concatenate([rng.permutation(len(self.texts)) for _ in range(rounds)])[:n].tolist()
        names = list(dict.fromkeys(self.kinds))
        pools = [[i for i, kind in enumerate(self.kinds) if kind == name] for name in names]
        first = int(rng.integers(len(names)))
        chosen = (pools[(first + j) % len(names)] for j in range(n))
        return [pool[int(rng.integers(len(pool)))] for pool in chosen]


def load_prompts(source: str) -> PromptSet:
    """``shapes:train``, ``shapes:held_out``, a UTF-8 file with one prompt a line (blank lines are skipped), or a
    ``.jsonl`` file of ``{"image": path, "prompt": text}`` lines, or of lines without images, as GenEval's metadata:
    their ``tag`` is then the kind of the prompt."""
    if source in SPLITS:
        from beholder.worlds.shapes.prompts import split

        prompts = split(SPLITS[source])
        texts, kinds = tuple(p.text for p in prompts), tuple(p.kind for p in prompts)
        return PromptSet(texts, kinds, lambda index, seed: _scene(prompts[index], seed))
    path = Path(source)
    if path.suffix == ".jsonl" and not _has_images(path):
        return _read_records(path)
    if path.suffix == ".jsonl":
        from beholder.media import read_image, read_pairs

        pairs = read_pairs(path)
        return PromptSet(tuple(text for _, text in pairs), image=lambda index, seed: read_image(pairs[index][0]))
    if not path.is_file():
        hint = nearest(source, SPLITS) if source.startswith("shapes") else "give a text file with one prompt a line"
        raise InputError(f"prompts: no file {source!r}; {hint}")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"prompts: {source!r} has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}; split it")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"prompts: {source!r} is not UTF-8 (byte {error.start}); convert it with iconv") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise InputError(f"prompts: {source!r} holds no prompt; write one a line")
    return PromptSet(texts)


def _has_images(path: Path) -> bool:
    """Whether the first line names an image; also where there is none, and who reads on will say so."""
    try:
        with path.open(encoding="utf-8") as lines:
            row = json.loads(next((line for line in lines if line.strip()), ""))
    except (OSError, ValueError):
        return True
    return not isinstance(row, dict) or "image" in row or "prompt" not in row


def _read_records(path: Path) -> PromptSet:
    """Texts of ``{"prompt": text, "tag": kind, …}`` lines; InputError with the line for any other."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"prompts: {str(path)!r} is not UTF-8 (byte {error.start}); convert it with iconv") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = []
        if row is not None and not (isinstance(row, dict) and isinstance(row.get("prompt"), str)):
            raise InputError(f'{path}, line {number}: expected {{"prompt": ..., "tag": ...}}, got {line!r}')
        rows += [row] if row else []
    tags = tuple(str(row["tag"]) for row in rows if "tag" in row)
    return PromptSet(tuple(row["prompt"] for row in rows), tags if len(tags) == len(rows) else None)


def _scene(prompt: Any, seed: int) -> "Tensor":
    """A freshly rendered scene of the bundled world that shows the prompt."""
    import torch

    from beholder.worlds.shapes.prompts import scene_for
    from beholder.worlds.shapes.scenes import render

    rng = np.random.default_rng(seed)
    return torch.from_numpy(render(scene_for(prompt, rng), rng))
