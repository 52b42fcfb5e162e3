"""Images with their prompts: the pairs of a JSONL file, as prompts and as starting points."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.errors import InputError
from beholder.media import read_image, read_pairs
from beholder.policies import load_policy
from beholder.prompts import load_prompts
from beholder.worlds.shapes.prompts import split
from beholder.worlds.shapes.verifier import verify


def pairs_file(folder: Path, rows: list[dict]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    return path


def test_a_jsonl_file_gives_prompts_and_their_images(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    path = pairs_file(tmp_path, [{"image": str(tmp_path / "a.png"), "prompt": "ein Kreis"}])
    prompts = load_prompts(str(path))
    assert prompts.texts == ("ein Kreis",)
    assert prompts.image is not None
    assert torch.equal(prompts.image(0, 7), torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, [{"image": "a.png", "prompt": "x"}, {"image": "b.png"}])
    with pytest.raises(InputError, match=r"pairs.jsonl, line 2: expected .*prompt"):
        read_pairs(path)
    with pytest.raises(InputError, match="no file"):
        read_image(tmp_path / "missing.png")


def test_the_world_renders_images_that_show_their_prompts() -> None:
    prompts, texts = load_prompts("shapes:train"), split("train")
    assert prompts.image is not None
    chosen = range(0, len(texts), 60)
    images = torch.stack([prompts.image(i, i) for i in chosen])
    assert verify(images.numpy(), [texts[i] for i in chosen]).strict.mean() == 1
    assert torch.equal(prompts.image(3, 5), prompts.image(3, 5))
    assert not torch.equal(prompts.image(3, 5), prompts.image(3, 6))


def test_images_become_the_latents_that_decode_to_them() -> None:
    prompts, policy = load_prompts("shapes:train"), load_policy()
    assert prompts.image is not None
    images = [prompts.image(i, i) for i in range(0, 64, 8)]
    latents = policy.encode_images(images)
    assert latents.shape == (8, *policy.family.latent_shape())
    assert 0.5 < latents.std() < 2
    error = (policy.decode(latents, 0.0, 8) - torch.stack(images)).abs().mean()
    assert error < 0.03
    large = [torch.nn.functional.interpolate(image[None], scale_factor=2)[0] for image in images]
    assert torch.allclose(policy.encode_images(large), latents, atol=1e-4)
