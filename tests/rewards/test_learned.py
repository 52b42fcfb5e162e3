"""Reward models in a folder: what is saved is what is loaded, and it judges every picture for itself."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards import load_reward, score
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from beholder.rewards.learned.heads import first_weights
from beholder.rewards.learned.model import Familiar
from beholder.rewards.learned.small import SmallBackbone
from beholder.rewards.learned.words import END, PAD, START, UNKNOWN, Vocabulary, known_words, split_words
from beholder.rewards.show import rows

TEXTS = ["a red circle", "two blue squares, please", "a cat: 猫"]
PROMPTS = ["a red circle", "two blue squares", "a cat", "a circle", "blue"]


def model_of(heads: Heads | None = None, seed: int = 0) -> RewardModel:
    torch.manual_seed(seed)
    model = RewardModel(new_backbone("small", TEXTS), heads or Heads()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


def images(n: int = 5, seed: int = 0, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = model_of()
    model.familiar = Familiar.of(torch.randn(50, model.backbone.features))
    model.fitted = {"data": "pairs"}
    model.save_pretrained(tmp_path / "reward", "# card\n")
    return tmp_path / "reward"


# ------------------------------------------------------------------------------------------------------------- folder


def test_what_is_saved_is_what_is_loaded(folder: Path) -> None:
    model = RewardModel.from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(model.rewards(images(), PROMPTS), model_of().rewards(images(), PROMPTS))
    assert model.fitted == {"data": "pairs"} and (folder / "README.md").read_text() == "# card\n"
    assert "strangeness" in model.parts(images(), PROMPTS)
    reward = load_reward(f"learned@{folder}")
    assert reward.differentiable
    table = score(images(), PROMPTS, [reward])
    assert torch.allclose(table.values_NM[:, 0], model.rewards(images(), PROMPTS).detach(), atol=1e-6)


def test_heads_of_every_kind_come_back(tmp_path: Path) -> None:
    heads = Heads(
        dimensions=("a", "b"),
        weights=(0.5, 2.0),
        copies=3,
        outputs=4,
        grades=(1.0, 2.0, 3.0, 5.0),
        offset=(0.1, 0.2),
        scale=(1.0, 3.0),
        reduce="worst",
    )
    model = model_of(heads)
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    assert again.heads == heads
    assert torch.equal(again.rewards(images(), PROMPTS), model.rewards(images(), PROMPTS))


def test_a_missing_model_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("learned", "learned@runs/reward"):
        with pytest.raises(
            InputError, match=r"'runs/reward' is not there.*beholder fit runs/pairs --output runs/reward"
        ):
            load_reward(name)
    Path("runs/reward").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no config\.json yet"):
        load_reward("learned")
    assert any(row.name == "learned" and row.differentiable for row in rows())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["backbone"].update(name="smal"), "did you mean 'small'"),
        (lambda c: c["backbone"].update(widht=3), "unknown setting 'widht'; did you mean 'width'"),
        (lambda c: c["heads"].update(reduce="best"), "reduce: 'best'"),
        (lambda c: c["heads"].update(weights=[1.0, 2.0]), "weights: 2 numbers for 1 dimensions"),
        (lambda c: c["heads"].update(copies=2), "head.weight is"),
        (lambda c: c["backbone"].update(layers=3), "tensors missing"),
        (lambda c: c.update(beholder_reward_model=99), "not of a reward model of this version"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(folder: Path, change, says: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=says):
        RewardModel.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        RewardModel.from_pretrained(folder)


def test_a_failed_write_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "model.safetensors").read_bytes()

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("beholder.rewards.learned.model.save_file", full)
    with pytest.raises(OSError, match="No space"):
        model_of(seed=1).save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob("*.tmp"))


# ------------------------------------------------------------------------------------------------------------- judging


def test_a_score_depends_on_its_own_picture_and_prompt_alone() -> None:
    model = model_of()
    with torch.no_grad():
        together = model.rewards(images(), PROMPTS)
        alone = torch.cat([model.rewards(images()[i : i + 1], [PROMPTS[i]]) for i in range(5)])
        backwards = model.rewards(images().flip(0), PROMPTS[::-1]).flip(0)
        padded = model.rewards(images(6), [*PROMPTS, "a " * 20])[:5]
    for other in (alone, backwards, padded):
        assert torch.allclose(together, other, atol=1e-5)
    assert together.std() > 1e-3
    other = model.rewards(images(), PROMPTS[1:] + PROMPTS[:1])
    assert (together - other).abs().min() > 1e-5, "the prompt counts"


def test_a_broken_picture_fails_alone(folder: Path) -> None:
    given = images()
    given[2, 0, 5, 5] = torch.nan
    values = score(given, PROMPTS, [load_reward(f"learned@{folder}")]).values_NM[:, 0]
    assert values.isnan().tolist() == [False, False, True, False, False]
    rest = [0, 1, 3, 4]
    whole = score(images(), PROMPTS, [load_reward(f"learned@{folder}")]).values_NM[:, 0]
    assert torch.allclose(values[rest], whole[rest], atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 32, 300])
def test_pictures_of_any_size_are_judged(size: int) -> None:
    assert model_of().parts(images(2, size=size), ["a red circle"] * 2)["reward"].isfinite().all()


@pytest.mark.parametrize("prompt", ["", "猫が二匹", "word " * 5000, "\ud800", "!?", "ЖЩ"])
def test_prompts_of_any_kind_are_judged(prompt: str) -> None:
    assert model_of().parts(images(1), [prompt])["reward"].isfinite().all()


def test_gradients_reach_the_pictures_and_are_right(folder: Path) -> None:
    reward = load_reward(f"learned@{folder}")
    given = images(2).requires_grad_()
    (gradient,) = torch.autograd.grad(reward.score(given, PROMPTS[:2]).sum(), given)
    model = model_of().double()
    direction = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()

    def along(step: float) -> float:
        pixels = images(2).double() + step * direction
        return model.rewards(pixels, PROMPTS[:2]).sum().item()

    slope = (along(1e-5) - along(-1e-5)) / 2e-5
    assert (gradient.double() * direction).sum().item() == pytest.approx(slope, rel=1e-3)
    large = images(1, size=50).requires_grad_()
    (gradient,) = torch.autograd.grad(reward.score(large, PROMPTS[:1]).sum(), large)
    assert gradient.abs().amax() > 0


def test_pictures_on_another_scale_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"expected 0\.\.1"):
        load_reward(f"learned@{folder}").score(255 * images(), PROMPTS)


def test_strangeness_is_about_one_on_what_was_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(8, 8, generator=generator)
    seen, more = (torch.randn(4000, 8, generator=generator) @ mix + 3 for _ in range(2))
    familiar = Familiar.of(seen, shrinkage=0.0)
    assert familiar.strangeness(more).square().mean().item() == pytest.approx(1, abs=0.03)
    assert familiar.strangeness(more + 10 * mix[0]).amin() > familiar.strangeness(more).quantile(0.99)
    assert Familiar.of(seen[:3]).strangeness(more).isfinite().all(), "fewer pictures than features"


# --------------------------------------------------------------------------------------------------------------- heads


def test_one_reward_of_many_outputs() -> None:
    heads = Heads(dimensions=("a", "b"), weights=(2.0, -1.0), copies=2, outputs=2, offset=(1.0, 0.0), scale=(1.0, 0.5))
    output = torch.arange(8.0).view(1, 8)
    values = heads.values(heads.split(output))
    assert values.tolist() == [[[1.0, 3.0], [2.0, 3.0]]], "the first number of each, scaled and moved"
    assert heads.rewards(values).tolist() == [1.5], "mean of 2·1 − 2 and 2·3 − 3"


def test_grades_are_expected() -> None:
    heads = Heads(outputs=3, grades=(1.0, 2.0, 6.0))
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log()
    assert heads.values(heads.split(logits)).item() == pytest.approx(0.2 + 0.6 + 3.0)


def test_centring_moves_the_reward_and_nothing_else() -> None:
    for heads in (
        Heads(),
        Heads(("a", "b"), (2.0, -3.0), offset=(0.0, 1.0), scale=(1.0, 2.0)),
        Heads(copies=3, reduce="worst"),
    ):
        model = model_of(heads)
        before = model.rewards(images(), PROMPTS)
        model.centred(before.mean().item())
        after = model.rewards(images(), PROMPTS)
        assert after.mean().item() == pytest.approx(0, abs=1e-5)
        assert torch.allclose(before - after, before.mean().expand(5), atol=1e-5)


def test_a_head_begins_with_the_first_guess() -> None:
    start = torch.tensor([0.0, 0.0, 1.0])
    assert first_weights(start, Heads(outputs=2)).tolist() == [[0, 0, 1], [0, 0, 0]]
    assert first_weights(start, Heads(outputs=3, grades=(1.0, 2.0, 3.0)))[:, 2].tolist() == [-1, 0, 1]
    copies = first_weights(start, Heads(copies=2))
    assert not torch.equal(copies[0], copies[1])


# --------------------------------------------------------------------------------------------------------------- words


def test_words_become_numbers() -> None:
    assert split_words("A Red-circle, 猫犬!") == ["a", "red", "-", "circle", ",", "猫", "犬", "!"]
    vocabulary = Vocabulary(known_words(["a red circle", "a blue one"]), longest=3)
    numbers = vocabulary.encode(["a red circle here", "a", ""])
    assert numbers.shape == (3, 5)
    assert numbers[1].tolist() == [START, numbers[0, 1].item(), END, PAD, PAD] and numbers[2, :2].tolist() == [
        START,
        END,
    ]
    assert numbers[0, -1] == END and UNKNOWN not in numbers[0], "cut before the word it does not know"
    assert vocabulary.encode(["dog"])[0, 1] == UNKNOWN
    assert known_words(["b b a", "c c c"], most=2) == ("b", "c")


def test_the_last_feature_is_the_likelihood_of_the_prompt() -> None:
    """Over all next words, the probabilities of the continuations of a prefix sum to the prefix's own."""
    backbone = model_of().backbone
    picture = images(1)

    def log_likelihood(prompts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return backbone(picture.expand(len(prompts), -1, -1, -1), list(prompts))[:, -1]

    # P("red") as a whole prompt is P(red) P(end | red); summing P(w) P(end | w) over words w is below 1 − P(end).
    every = list(backbone.config.words)
    empty = log_likelihood([""]).exp().item()
    total = log_likelihood(every).exp().sum().item()
    assert 0 < empty < 1 and 0 < total < 1 - empty
    loss = backbone.grounded(picture, ["a red circle"], torch.tensor([0]))[1]
    assert loss.item() == pytest.approx(-log_likelihood(["a red circle"]).item(), rel=1e-5)


def test_a_captioner_in_training_forgets_words_and_a_judge_does_not() -> None:
    backbone = SmallBackbone.new(TEXTS, dropout=0.0)
    pixels, rows = images(), torch.tensor([1, 3])
    torch.manual_seed(0)
    backbone.eval()
    states, loss = backbone.grounded(pixels, PROMPTS, rows)
    assert torch.allclose(loss, -states.feature_NF[rows, -1]) and torch.allclose(
        states.feature_NF, backbone(pixels, PROMPTS)
    )
    backbone.train()
    states, loss = backbone.grounded(pixels, PROMPTS, rows)
    assert loss.shape == (2,) and (loss + states.feature_NF[rows, -1]).abs().amax() > 1e-4, "some words were not seen"
    assert torch.allclose(states.feature_NF, backbone(pixels, PROMPTS)), "the reward reads all of them"
    with pytest.raises(InputError, match="forget: 1"):
        SmallBackbone.new(TEXTS, forget=1)
