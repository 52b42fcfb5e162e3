"""Scores of image files."""

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from beholder.errors import InputError
from beholder.media import read_image, read_pairs
from beholder.rewards import load_rewards, score

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def score_files(
    images: list[Path], prompt: str | None, prompts: Path | None, rewards: list[str]
) -> list[dict[str, Any]]:
    """One row per image: its path, its prompt and each reward (None where it failed)."""
    pairs = read_pairs(prompts) if prompts is not None else _from_arguments(images, prompt)
    if prompts is not None and images:
        raise InputError("score: give images on the command line or a --prompts file, not both")
    scorers, rows = load_rewards(rewards), []
    for path, text in pairs:  # one by one: files may differ in size
        table = score(read_image(path)[None], [text], scorers)
        values = {
            name: None if math.isnan(v) else v for name, v in zip(table.names, table.values_NM[0].tolist(), strict=True)
        }
        rows.append({"image": str(path), "prompt": text, **values})
    return rows


def _from_arguments(images: list[Path], prompt: str | None) -> list[tuple[Path, str]]:
    if not images:
        raise InputError("score: no image given; name files or folders, or a --prompts file")
    if prompt is None:
        raise InputError('score: no prompt given; add --prompt "a red circle" or use a --prompts file')
    files: list[Path] = []
    for path in images:
        files += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise InputError(f"score: no image in {', '.join(map(str, images))}")
    return [(path, prompt) for path in files]


def print_scores(rows: list[dict[str, Any]], as_json: bool) -> None:
    """A table, or one JSON object a line."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in rows[0]:
        table.add_column(escape(name))
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "failed"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
