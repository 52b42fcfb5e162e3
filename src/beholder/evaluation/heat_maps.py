"""Heat maps of rewards that make some, as grey PNGs beside the scores."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from beholder.errors import InputError
from beholder.evaluation.media_files import kind_of
from beholder.media import read_image
from beholder.rewards import Reward
from beholder.rewards.zoo.parts import PartedScorer

Row = dict[str, Any]
Maker = Callable[[Tensor, str], dict[str, Tensor]]


def map_makers(rewards: Sequence[Reward]) -> dict[str, Maker]:
    """By reward, ``(image [3, H, W], prompt) → maps by name [S, S]`` in 0..1; InputError where none makes maps."""
    found = {r.name: _maker(r.score) for r in rewards if isinstance(r.score, PartedScorer) and r.score.parts.maps}
    if not found:
        names = ", ".join(reward.name for reward in rewards)
        raise InputError(f"maps: none of {names} makes any; name a learned@FOLDER fitted with --maps")
    return found


def write_maps(rows: Sequence[Row], makers: dict[str, Maker], folder: Path) -> None:
    """Writes the maps of every image that was scored, and where they are into its row's parts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"maps: cannot make the folder {str(folder)!r}: {error.strerror}; name another one") from error
    for row in rows:
        path = Path(row["image"])
        scored = [name for name in makers if row[name] is not None]
        if not scored or kind_of(path) != "image":
            continue
        image = read_image(path)
        for name in scored:
            digest = blake2b(f"{path}\0{row['prompt']}\0{name}".encode("utf-8", "surrogatepass"), digest_size=4)
            files = {}
            for kind, heat_SS in makers[name](image, row["prompt"]).items():
                files[kind] = str(folder / f"{path.stem}-{digest.hexdigest()}-{kind}.png")
                _save(heat_SS, Path(files[kind]))
            row["parts"][name]["maps"] = files


def _maker(scorer: PartedScorer) -> Maker:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def made(image: Tensor, prompt: str) -> dict[str, Tensor]:
        assert scorer.parts.maps is not None
        pixels = scorer.prepare(image[None]).to(device)
        scorer.network.module.to(device)
        found = scorer.parts.maps(pixels, [prompt])
        side = pixels.shape[-2:]
        return {name: interpolate(heat[None], size=side, mode="bilinear")[0, 0] for name, heat in found.items()}

    return made


def _save(heat_SS: Tensor, path: Path) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    grey = (255 * heat_SS).round().byte().cpu().numpy()
    try:
        Image.fromarray(grey).save(unfinished, format="PNG")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
