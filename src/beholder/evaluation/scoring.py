"""Scores of image files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards import load_rewards, score

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def score_files(
    images: list[Path], prompt: str | None, prompts: Path | None, rewards: list[str]
) -> list[dict[str, Any]]:
    """One row per image: its path, its prompt and each reward (None where it failed)."""
    pairs = _from_jsonl(prompts) if prompts is not None else _from_arguments(images, prompt)
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


def _from_jsonl(path: Path) -> list[tuple[Path, str]]:
    if not path.is_file():
        raise InputError(f"prompts: no file {str(path)!r}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"prompts: {str(path)!r} is not UTF-8 (byte {error.start}); convert it with iconv") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pairs.append((Path(row["image"]), str(row["prompt"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f'{path}, line {number}: expected {{"image": ..., "prompt": ...}}, got {line!r}'
            ) from error
    if not pairs:
        raise InputError(f"prompts: {str(path)!r} holds no line")
    return pairs


def read_image(path: Path) -> Tensor:
    """An image file as ``[3, H, W]`` float32 in 0..1."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    except FileNotFoundError as error:
        raise InputError(f"score: no file {str(path)!r}") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f"score: {str(path)!r} is not a readable image ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


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
