"""Remembered scores: asked once for the same content, never for a failure, kept on disk."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards import Reward, score
from beholder.rewards.cache import cached, content_key

IMAGES = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))


class Counted:
    """Brightness plus the length of the prompt; it counts what it is asked, and fails on the prompt "bad"."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.asked += len(images)
        value = images.mean((1, 2, 3)) + torch.tensor([len(text) for text in prompts])
        return torch.where(torch.tensor([text == "bad" for text in prompts]), math.nan, value)


def test_the_same_content_is_asked_once() -> None:
    scorer = Counted()
    reward = cached(Reward("counted", scorer, differentiable=True))
    prompts = ["a", "bb", "a", "ccc"]
    first = reward.score(IMAGES, prompts)
    assert torch.equal(first, scorer(IMAGES, prompts)) and scorer.asked == 8
    again = reward.score(IMAGES[[2, 0, 1, 3]].clone(), ["a", "a", "bb", "ccc"])
    assert torch.equal(again, first[[2, 0, 1, 3]]) and scorer.asked == 8
    reward.score(IMAGES[:2], ["bb", "a"])  # the same images and prompts, but not together
    assert scorer.asked == 10
    twice = reward.score(IMAGES[:1].expand(3, -1, -1, -1), ["new"] * 3)
    assert scorer.asked == 11 and len(set(twice.tolist())) == 1
    assert not reward.differentiable


def test_a_failure_is_asked_again() -> None:
    scorer = Counted()
    reward = cached(Reward("counted", scorer))
    for asked in (2, 3, 4):
        table = score(IMAGES[:2], ["bad", "good"], [reward])
        assert table.failed_N.tolist() == [True, False] and scorer.asked == asked


def test_it_is_kept_on_disk_by_name(tmp_path: Path) -> None:
    file = tmp_path / "scores.sqlite"
    first = cached(Reward("model@one", Counted()), file).score(IMAGES, ["a"] * 4)
    scorer = Counted()
    assert torch.equal(cached(Reward("model@one", scorer), file).score(IMAGES, ["a"] * 4), first)
    assert scorer.asked == 0
    cached(Reward("model@two", scorer), file).score(IMAGES, ["a"] * 4)
    assert scorer.asked == 4


def test_what_makes_a_key() -> None:
    image = IMAGES[0]
    keys = {
        content_key("r", image, "a"),
        content_key("r", image, "b"),
        content_key("s", image, "a"),
        content_key("ra", image, ""),
        content_key("", image, "ra"),
        content_key("r", image.transpose(1, 2), "a"),
        content_key("r", image.reshape(3, 6, 5), "a"),
        content_key("r", image + torch.eye(6)[:5] * 1e-6, "a"),
        content_key("r", image, "日本"),
    }
    assert len(keys) == 9
    assert content_key("r", image.double(), "a") in keys
    assert content_key("r", image.transpose(1, 2).contiguous().transpose(1, 2), "a") in keys


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, and long enough to have a head of its own" * 20)
    with pytest.raises(InputError, match=r"notes.txt' is no store of scores"):
        cached(Reward("r", Counted()), tmp_path / "notes.txt")
    with pytest.raises(InputError, match="is a judge of pairs"):
        cached(Reward("r", Counted(), pairwise=True))
