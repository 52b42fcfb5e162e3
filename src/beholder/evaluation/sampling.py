"""Images and videos from a generator, on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from beholder.config import PolicyConfig
from beholder.errors import InputError
from beholder.evaluation.grids import save_grid, save_png, strips
from beholder.evaluation.heldout import draw_images
from beholder.media import to_pil
from beholder.policies import load_policy
from beholder.policies.annealed import Annealed
from beholder.prompts import load_prompts
from beholder.video import pyav, write_video

DEFAULT_PROMPTS = 6
BATCH = 64
"""Images per network call; videos are drawn one by one."""


def sample_to_folder(
    prompts: list[str],
    model: str,
    adapter: str | None,
    n: int,
    steps: int,
    guidance: float,
    seed: int,
    output: Path,
    share: float = 1.0,
    anneal: float | None = None,
    resolution: int | None = None,
    width: int | None = None,
    frames: int | None = None,
) -> list[dict[str, Any]]:
    """``n`` images of each prompt as PNG files (videos as MP4), a grid with one prompt a row, and `images.jsonl`; what
    was written.

    Without prompts, one held-out prompt of each kind of the bundled world. ``share`` of the adapter's weights applies;
    ``anneal`` is the power of `Annealed`; ``resolution``, ``width`` and ``frames`` are the policy's. InputError for
    sizes below 1, and for videos without PyAV.
    """
    sizes = {"resolution": resolution, "width": width, "frames": frames}
    for name, value in {"n": n, "steps": steps, "guidance": guidance, **sizes}.items():
        if value is not None and not value > 0:
            raise InputError(f"{name}: {value} must be greater than 0")
    if not prompts:
        heldout = load_prompts("shapes:held_out")
        prompts = [heldout.texts[i] for i in heldout.draw(DEFAULT_PROMPTS, [seed])]
    training = "full" if adapter and (Path(adapter) / "config.json").exists() else "lora"
    if adapter is None and (share != 1 or anneal is not None):
        name = "share" if share != 1 else "anneal"
        raise InputError(f"{name}: mixes trained weights with the base; name an --adapter")
    base = PolicyConfig(model=model, resolution=resolution, width=width, frames=frames)
    policy: Any = load_policy(replace(base, adapter=adapter, training=training, share=share))
    fps = policy.family.fps
    if fps:
        pyav("writing")  # before anything is drawn
    if anneal is not None:
        policy = Annealed(policy, load_policy(base), anneal)
    texts = [text for text in prompts for _ in range(n)]
    seeds = [seed * 1_000_003 + i for i in range(n)] * len(prompts)
    written, shown, batch = [], [], 1 if fps else BATCH
    for first in range(0, len(texts), batch):  # written as they come: a video in memory takes hundreds of megabytes
        some = slice(first, first + batch)
        images = draw_images(policy, texts[some], seeds[some], steps, guidance, batch)
        output.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images, start=first):
            path = output / f"{i // n:03d}_{i % n:02d}.{'mp4' if fps else 'png'}"
            if fps:
                write_video(path, image, fps)
            else:
                save_png(to_pil(image), path)
            written.append({"image": str(path), "prompt": texts[i], "seed": seeds[i]})
        shown.append(strips(images) if fps else images)
    save_grid(torch.cat(shown), output / "grid.png", columns=n)
    (output / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    return written
