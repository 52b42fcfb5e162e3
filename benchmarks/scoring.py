"""What share of `beholder score` is the network, with a scorer of CLIP ViT-B/32's size on this machine's processor.

    python benchmarks/scoring.py [--images 256] [--side 512] [--suffix png] [--batch 16] [--threads 2]

Reading files (decoding, resizing, normalising) happens in threads while the network works; what it fails to hide is the
rest. The weights are random: time does not depend on them. Both are wall time of the scoring thread, so what the
reading threads take from the processor counts as the network's; ``--ahead none`` shows the two apart.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from beholder.evaluation import scoring
from beholder.rewards import Reward, load_reward
from beholder.rewards.zoo.scorer import StagedScorer

PROMPTS = ("a red circle left of a blue square", "three green triangles", "a painting of the sea at night")


@dataclass
class Options:
    images: int = 256
    side: int = 512
    """Pixels of an image's side."""
    suffix: Literal["png", "jpg", "webp"] = "png"
    batch: int = 16
    threads: int = 2
    """Of the network."""
    ahead: Literal["threads", "none"] = "threads"
    """Read files while the network works, or only between batches."""


class Clocked(StagedScorer):
    """The scorer, with the seconds its network takes."""

    seconds = 0.0

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        started = time.perf_counter()
        value = super().score(pixels, prompts)
        self.seconds += time.perf_counter() - started
        return value


def save_scorer(folder: Path) -> None:
    """CLIP ViT-B/32 with random weights, and a tokenizer of single letters."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)
    CLIPModel(CLIPConfig()).save_pretrained(folder)


def save_images(folder: Path, options: Options) -> list[tuple[Path, str]]:
    """Smooth pictures with some noise, about as large on disk as photographs."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[0 : options.side, 0 : options.side] / options.side
    pairs = []
    for i in range(options.images):
        wave = np.stack([np.sin(9 * x + i), np.cos(7 * y + i), np.sin(5 * (x + y) + i)], 2)
        pixels = 127 + 100 * wave + noise.normal(0, 4, wave.shape)
        path = folder / f"{i:05d}.{options.suffix}"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        pairs.append((path, PROMPTS[i % len(PROMPTS)]))
    return pairs


def measure(pairs: list[tuple[Path, str]], scorer: Clocked, batch: int, ahead: bool) -> tuple[float, float]:
    """Seconds of the whole and of its network."""
    reward = Reward("clip", scorer)
    step = len(pairs) if ahead else batch  # batch by batch, nothing is read meanwhile
    scorer.seconds, started = 0.0, time.perf_counter()
    for i in range(0, len(pairs), step):
        for _ in scoring.score_files(pairs[i : i + step], [reward], batch):
            pass
    return time.perf_counter() - started, scorer.seconds


def main() -> None:
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        save_scorer(Path(folder))
        pairs = save_images(Path(folder), options)
        staged = load_reward(f"clip@{folder}").score
        assert isinstance(staged, StagedScorer)
        network = staged.network
        scorer = Clocked(lambda: network)
        measure(pairs[: options.batch], scorer, options.batch, True)
        whole, inside = measure(pairs, scorer, options.batch, options.ahead == "threads")
    print(f"{options.images} {options.suffix} images of {options.side}², batches of {options.batch}")
    print(f"{whole:.1f} s, {len(pairs) / whole:.1f} images/s; network {inside:.1f} s: {inside / whole:.1%}")


if __name__ == "__main__":
    main()
