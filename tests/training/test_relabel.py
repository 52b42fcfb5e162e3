"""Feedback as text: quantiles by hand, captions in hindsight, and what a relabelled sample is conditioned on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learners import TEXTS, first_batch, learner_of, reward_of, tiny_config
from torch import Tensor

from beholder.config import RelabelConfig
from beholder.errors import InputError
from beholder.training.loop import iterate
from beholder.training.relabel import load_captioner, quantiles
from beholder.worlds.shapes.describe import describe
from beholder.worlds.shapes.prompts import misdescribe, parse, random_prompts, scene_for, split
from beholder.worlds.shapes.scenes import render
from beholder.worlds.shapes.verifier import verify

RELABEL = {
    "objective__kind": "reinforce",
    "objective__anchor": "none",
    "credit__baseline": "none",
    "credit__scale": "none",
    "credit__weights": "one",
    "rollout__forward__times": 1,
    "kl__form": "velocity",
}


def test_quantiles_are_equal_shares_of_the_sorted_values() -> None:
    value = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7])
    assert quantiles(value, value, 5).tolist() == [2, 0, 4, 1, 3]
    assert quantiles(value, value, 2).tolist() == [1, 0, 1, 0, 1]
    assert quantiles(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0]), 4).tolist() == [2, 2, 2]
    assert quantiles(torch.tensor([0.2, torch.nan]), torch.tensor([0.1, 0.2, torch.nan, 0.3]), 3).tolist() == [1, 0]


@given(values=st.lists(st.floats(-9, 9, allow_nan=False), min_size=1, max_size=30), count=st.integers(2, 6))
def test_quantiles_keep_the_order_and_do_not_depend_on_the_sharding(values: list[float], count: int) -> None:
    value = torch.tensor(values)
    found = quantiles(value, value, count)
    assert (found[value.argsort()].diff() >= 0).all() and int(found.min()) >= 0 and int(found.max()) < count
    parts = [quantiles(value[:3], value, count), quantiles(value[3:], value, count)]
    assert torch.equal(torch.cat(parts), found)


def test_labels_stand_before_the_prompts_they_are_learnt_under(tiny_sd3_folder: Path) -> None:
    def graded(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.arange(len(prompts)).float()

    made = learner_of(tiny_config(tiny_sd3_folder, relabel__labels=("bad ", "good "), **RELABEL), [reward_of(graded)])
    seen: list[list[str]] = []
    encode = made.policy.encode
    made.policy.encode = lambda prompts: (seen.append(prompts), encode(prompts))[1]
    batch = first_batch(made)
    labelled = seen[-1]
    assert labelled == [("bad " if i < 6 else "good ") + p for i, p in enumerate(batch.trajectory.prompts)]
    assert batch.trajectory.prompts[0] in TEXTS and batch.advantage_MR.eq(1).all()
    assert torch.equal(batch.trajectory.condition.tensors["pooled"], encode(labelled).tensors["pooled"])


def test_a_prefix_and_a_negative_are_drawn_with_and_not_scored(tiny_sd3_folder: Path) -> None:
    asked: list[str] = []

    def heard(images: Tensor, prompts: Sequence[str]) -> Tensor:
        asked.extend(prompts)
        return images[:, 0].mean((1, 2))

    settings = {"policy__prefix": "best ", "policy__negative": "worst", "rollout__guidance__scale": 2.0}
    made = learner_of(tiny_config(tiny_sd3_folder, **settings), [reward_of(heard)])
    trajectory = first_batch(made).trajectory
    assert set(asked) <= set(TEXTS)
    pooled = made.policy.encode(["best " + p for p in trajectory.prompts]).tensors["pooled"]
    assert torch.equal(trajectory.condition.tensors["pooled"], pooled)
    assert trajectory.unconditional is not None
    worst = made.policy.encode(["worst"]).tensors["pooled"]
    assert torch.equal(trajectory.unconditional.tensors["pooled"], worst.expand(12, -1))


def test_captions_replace_prompts_and_samples_without_one_are_left_out(
    tiny_sd3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def say(images, prompts):\n    return [None if 'cat' in p else 'two red cats' for p in prompts]\n"
    (tmp_path / "captions_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    texts = ("a red circle", "a cat", "a blue cross", "a dog")
    made = learner_of(tiny_config(tiny_sd3_folder, relabel__caption="captions_of_mine:say", **RELABEL), texts=texts)
    batch = first_batch(made)
    cats = torch.tensor(["cat" in p for p in batch.trajectory.prompts])
    assert 0 < cats.sum() < 12
    assert torch.equal(batch.advantage_MR[:, 0].isnan(), cats[batch.trajectory.decisions.sample_M])
    new = made.policy.encode(["two red cats"]).tensors["pooled"]
    assert torch.equal(batch.trajectory.condition.tensors["pooled"][~cats], new.expand(int((~cats).sum()), -1))
    assert iterate(made)["grad_norm"] > 0


def test_a_captioner_that_cannot_be_found_or_counts_wrongly_is_said(
    tiny_sd3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"relabel.caption: 'nowhere:f' cannot be imported"):
        load_captioner(RelabelConfig(caption="nowhere:f"))
    (tmp_path / "too_few.py").write_text("def say(images, prompts):\n    return ['one']\n")
    monkeypatch.chdir(tmp_path)
    made = learner_of(tiny_config(tiny_sd3_folder, relabel__caption="too_few:say", **RELABEL))
    with pytest.raises(InputError, match="1 texts for 12 images"):
        first_batch(made)


def test_hindsight_finds_a_true_training_prompt_for_wrongly_described_scenes() -> None:
    rng = np.random.default_rng(0)
    shown = random_prompts(120, rng)
    images = np.stack([render(scene_for(p, rng), rng) for p in shown])
    wrong = [misdescribe(p, rng) for p in shown]
    found = describe(images, [p.text for p in wrong])
    said = [text for text in found if text is not None]
    assert len(said) >= 115
    verdicts = verify(images[[text is not None for text in found]], [parse(text) for text in said])
    assert verdicts.strict.all()
    train = {p.text for p in split("train")}
    assert all(text in train and parse(text).kind == p.kind for text, p in zip(found, wrong, strict=True) if text)


def test_hindsight_keeps_what_is_right_and_gives_up_on_what_no_prompt_says() -> None:
    rng = np.random.default_rng(1)
    shown = random_prompts(24, rng, "held_out")
    images = np.stack([render(scene_for(p, rng), rng) for p in shown])
    assert describe(images, [p.text for p in shown]) == [p.text for p in shown]  # asked for, so nothing is given away
    blank = np.full((2, 3, 32, 32), 0.5, np.float32)
    blank[1] = np.nan
    assert describe(blank, ["a circle", "a red circle"]) == [None, None]
    two = np.stack([render(scene_for(parse("a circle and a square"), rng), rng)])
    assert describe(two, ["a circle"]) == [None]
