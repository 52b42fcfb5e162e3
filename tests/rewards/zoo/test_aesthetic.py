"""LAION's aesthetic predictors: the head on the unit embedding, which CLIP it needs, and where the head comes from."""

import hashlib
from pathlib import Path

import pytest
import torch
from by_hand import head
from published import head_state, noise, save_aesthetic
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards import load_reward
from beholder.rewards.zoo import aesthetic
from beholder.rewards.zoo.preprocess import Preprocess

PROMPTS = ["whatever", "", "日本"]
FILES = {"aesthetic": "sac+logos+ava1-l14-linearMSE.pth", "aesthetic_v1": "sa_0_4_vit_l_14_linear.pth"}


def images() -> Tensor:
    return torch.rand(3, 3, 45, 33, generator=torch.Generator().manual_seed(0))


def test_the_scores_by_hand(tmp_path: Path) -> None:
    model, first, second = save_aesthetic(tmp_path)
    with torch.no_grad():
        embedding = model.get_image_features(pixel_values=Preprocess(32)(images())).pooler_output
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    for name, wanted in (
        ("aesthetic", head(second, "layers", unit)),
        ("aesthetic_v1", (unit * first["weight"]).sum(1) + first["bias"]),
    ):
        for place in (tmp_path, tmp_path / FILES[name]):
            reward = load_reward(f"{name}@{place}")
            assert reward.differentiable
            assert torch.allclose(reward.score(images(), PROMPTS), wanted, atol=2e-6)
    without = load_reward(f"aesthetic@{tmp_path}").score.network.module.clip  # type: ignore[attr-defined]
    assert not any("text" in name for name, _ in without.named_parameters())


def test_the_second_head_is_one_linear_map(tmp_path: Path) -> None:
    """No activation lies between its layers: halfway between two embeddings is halfway between two ratings."""
    state = head_state(noise(0, 0.1), "layers", 48)
    from beholder.rewards.zoo.head import linear_head

    layers = linear_head(state, "layers.", tmp_path)
    a, b = noise(1)(5, 48), noise(2)(5, 48)
    with torch.no_grad():
        assert torch.allclose(layers((a + b) / 2), (layers(a) + layers(b)) / 2, atol=1e-5)


def test_the_clip_is_the_one_the_heads_file_name_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(aesthetic, "find_model", lambda name: asked.append(name) or (tmp_path, tmp_path))
    for file in ("sa_0_4_vit_b_32_linear.pth", "sa_0_4_vit_b_16_linear.pth", "sa_0_4_vit_l_14_linear.pth", "own.pth"):
        (tmp_path / file).touch()
        load_reward(f"aesthetic_v1@{tmp_path / file}")
    assert [name.removeprefix("openai/clip-vit-") for name in asked] == [
        *("base-patch32", "base-patch16", "large-patch14", "large-patch14")
    ]


def test_a_head_that_does_not_fit_is_named(tmp_path: Path) -> None:
    save_aesthetic(tmp_path)
    torch.save(head_state(noise(0), "layers", 32), tmp_path / FILES["aesthetic"])
    with pytest.raises(InputError, match=r"takes 32 numbers, the CLIP in .* gives 48"):
        load_reward(f"aesthetic@{tmp_path}").score(images(), PROMPTS)
    with_relu = {f"layers.{place}.weight": torch.zeros(2, 2) for place in (0, 3, 6, 9, 11)}
    torch.save(with_relu, tmp_path / FILES["aesthetic"])
    with pytest.raises(InputError, match="no head of five linear layers"):
        load_reward(f"aesthetic@{tmp_path}").score(images(), PROMPTS)
    torch.save(with_relu, tmp_path / FILES["aesthetic_v1"])
    with pytest.raises(InputError, match="is no linear layer"):
        load_reward(f"aesthetic_v1@{tmp_path}").score(images(), PROMPTS)


def test_without_a_name_the_authors_head_is_fetched_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_aesthetic(tmp_path)
    file = tmp_path / FILES["aesthetic"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    home = aesthetic.V2.home
    published = aesthetic.Published(home, file.as_uri(), digest, {file.name: str(tmp_path)})
    monkeypatch.setattr(aesthetic, "V2", published)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "kept"))
    named = load_reward(f"aesthetic@{tmp_path}").score(images(), PROMPTS)
    monkeypatch.setattr(aesthetic, "OTHER_CLIP", str(tmp_path))
    assert torch.equal(load_reward("aesthetic").score(images(), PROMPTS), named)
    file.unlink()
    assert torch.equal(load_reward("aesthetic").score(images(), PROMPTS), named)  # kept from the first time
