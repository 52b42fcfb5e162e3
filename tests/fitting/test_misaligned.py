"""Misaligned words: which tokens spell them, how they are counted, and that they are learnt and said again."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured_sets import COLOURS, THINGS, picture, save
from hypothesis import given
from hypothesis import strategies as st

from beholder.cli import run
from beholder.errors import InputError
from beholder.fitting.batches import gather
from beholder.fitting.labels import read_labels
from beholder.fitting.misaligned import measure_words, misaligned_of, word_loss
from beholder.fitting.pictures import Pictures
from beholder.fitting.predict import Data
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.preferences.schema import Medium, Record, words
from beholder.preferences.store import open_preferences
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from beholder.rewards.learned.small import SmallBackbone
from beholder.rewards.learned.spelling import rich_hf_words, spelled, token_spans
from rewards.zoo.published import save_clip, save_image_reward
from tiny import t5_tokenizer

TEXTS = ["a red circle"]


def judged(n: int, seed: int = 0) -> list[Record]:
    """Two pictures of one colour each for a prompt of one colour; its word is misaligned where the picture has not it.

    The prompt begins and ends with things that are always there.
    """
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        wanted, other = (str(c) for c in rng.permutation(list(COLOURS))[:2])
        found.append(
            Record(
                prompt=f"a {wanted}, {THINGS[i % len(THINGS)]}!",
                media=(Medium(picture(wanted, rng)), Medium(picture(other, rng))),
                ranks=(1.0, 2.0),
                misaligned=((), (1,)),
            )
        )
    return found


# ------------------------------------------------------------------------------------------------------------ spelling


@given(st.text(alphabet=st.sampled_from(",.?!\":; \n\tab-'İé日"), max_size=30))
def test_words_are_those_of_the_labels(prompt: str) -> None:
    assert rich_hf_words(prompt) == words(prompt)
    assert len(rich_hf_words(prompt.lower())) == len(words(prompt))


def test_tokens_go_to_the_words_they_are_in() -> None:
    found = spelled(["ab, c", ""], [[(0, 0), (0, 1), (1, 2), (2, 3), (3, 5), (0, 0)], [(0, 0)]])
    assert found.tolist() == [[[0, 0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 1, 0]], [[0] * 6, [0] * 6]]
    assert spelled([""], [[(0, 0)]]).shape == (1, 0, 1)
    prompt = 'a red, circle "it\'s"'
    tokenizer = t5_tokenizer()
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"])
    share_WL = spelled([prompt], token_spans(tokenizer, [prompt], 77))[0]
    assert share_WL.shape == (4, len(pieces)) and torch.allclose(share_WL.sum(1), torch.ones(4))
    assert [pieces[int(place)] for place in share_WL[:3].argmax(1)] == ["▁a", "▁red", "▁circle"]
    cut = spelled([prompt], token_spans(tokenizer, [prompt], 3))[0]
    assert cut.sum(1).tolist() == [1, 1, 0, 0], "the closing token takes the place of the third"


def test_a_small_backbone_spells_in_its_own_words() -> None:
    backbone = SmallBackbone.new(TEXTS)
    prompts = ["A red-hot circle, now", "a"]
    numbers_NL, share_NWL = backbone.vocabulary.encode(prompts), backbone.spelled(prompts)
    assert share_NWL.shape == (2, 4, numbers_NL.shape[1])
    assert [row.nonzero()[:, 0].tolist() for row in share_NWL[0]] == [[1], [2, 3, 4], [5], [7]]
    assert share_NWL[1].sum() == 1


# ------------------------------------------------------------------------------------------------- loss and measures


def test_loss_and_measures_are_over_the_words_that_were_judged(tmp_path: Path) -> None:
    one, two, _ = judged(3)
    said = [one, two, replace(two, misaligned=None), replace(two, prompt="red", misaligned=((0,), (0,)))]
    labels = read_labels(open_preferences(save(tmp_path / "set.parquet", said)), [])
    torch.manual_seed(0)
    model = RewardModel(new_backbone("small", TEXTS), Heads(words=True)).eval()
    data, misaligned = Data(labels, Pictures(labels, model.backbone.prepare, 0)), misaligned_of(labels)
    batch = gather(labels, data.pictures, [3, 2, 1, 0], torch.device("cpu"))
    assert batch is not None
    lacks_NW = misaligned.of(batch)
    nan = math.nan
    expected = torch.tensor([[1, nan, nan]] * 2 + [[nan] * 3] * 2 + [[0, 0, 0], [0, 1, 0]] * 2)
    assert torch.equal(lacks_NW.nan_to_num(9), expected.nan_to_num(9))
    states = model.backbone.states(batch.pixels, batch.prompts)
    chance_NW = model.worded(states, batch.prompts).sigmoid()
    known = ~expected.isnan()
    right = torch.where(expected == 1, chance_NW, 1 - chance_NW)[known]
    found = word_loss(model, states, batch.prompts, lacks_NW)
    assert found.item() == pytest.approx(-right.log().mean().item(), rel=1e-5)
    assert word_loss(model, states, batch.prompts, torch.full_like(lacks_NW, nan)) == 0
    called, lacking = (chance_NW > 0.5)[known], expected[known] == 1
    measured = measure_words(model, data, misaligned, range(4))
    assert measured["words"] == 14 and measured["misaligned"] == 4
    assert called.any() or math.isnan(measured["precision"])
    assert measured["recall"] == pytest.approx((called & lacking).sum().item() / 4)


@pytest.mark.parametrize("bias", [9.0, -9.0])
def test_calling_all_or_none_misaligned(bias: float, tmp_path: Path) -> None:
    labels = read_labels(open_preferences(save(tmp_path / "set.parquet", judged(4))), [])
    model = RewardModel(new_backbone("small", TEXTS), Heads(words=True)).eval()
    assert model.word_head is not None
    model.word_head.net[-1].weight.data.zero_()  # pyright: ignore[reportCallIssue]
    model.word_head.net[-1].bias.data.fill_(bias)  # pyright: ignore[reportCallIssue]
    data = Data(labels, Pictures(labels, model.backbone.prepare, 0))
    found = measure_words(model, data, misaligned_of(labels), range(4))
    if bias > 0:
        assert (found["precision"], found["recall"]) == (pytest.approx(1 / 6), 1)
        assert found["f1"] == pytest.approx(2 / 7)
    else:
        assert math.isnan(found["precision"]) and found["recall"] == 0 and found["f1"] == 0


# ------------------------------------------------------------------------------------------------------------ learning


def test_misaligned_words_are_found_in_pictures_never_seen(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    save(tmp_path / "set.parquet", judged(100))
    config = FitConfig(epochs=8, records=4, held_out=0.3, words=True, word_weight=2.0)
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    found = report["words"]
    assert found["words"] == 6 * report["records"]["report"] and found["misaligned"] * 6 == found["words"]
    assert found["f1"] > 0.85 and found["precision"] > 0.75 and found["recall"] > 0.75
    lines = [json.loads(line) for line in (tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["words"] < lines[0]["words"] / 2
    assert "misaligned words" in (tmp_path / "fit" / "README.md").read_text()
    model = RewardModel.from_pretrained(tmp_path / "fit")
    red = torch.full((1, 3, 32, 32), 0.33)
    red[0, :, 4:16, 16:28] = torch.tensor([220.0, 20.0, 20.0]).view(3, 1, 1) / 255
    (shown,), (lacking,) = (model.words(red, [f"a {colour}, thing1!"]) for colour in ("red", "blue"))
    assert [word for word, _ in lacking] == ["a", "blue", "thing1"]
    assert shown[1][1] < 0.5 < lacking[1][1] and max(lacking[0][1], lacking[2][1]) < 0.5
    long = " ".join(["red"] * 30)
    (cut,) = model.words(red, [long])
    assert [math.isnan(chance) for _, chance in cut] == [False] * 24 + [True] * 6
    again = RewardModel.from_pretrained(tmp_path / "fit").words(red, ["a blue, thing1!"])
    assert again == [lacking]
    (tmp_path / "red.png").write_bytes(picture("red", np.random.default_rng(0)))
    line = [
        "score",
        str(tmp_path / "red.png"),
        "--prompt",
        "a blue, thing1!",
        "--reward",
        f"learned@{tmp_path / 'fit'}",
    ]
    assert run([*line, "--json"]) == 0
    row = json.loads(capfd.readouterr().out)
    said = row["parts"][f"learned@{tmp_path / 'fit'}"]["words"]
    assert [word for word, _ in said] == ["a", "blue", "thing1"] and said[1][1] > 0.5


def test_blip_learns_words_too(tmp_path: Path) -> None:
    save_image_reward(tmp_path / "blip")
    save(tmp_path / "set.parquet", judged(20))
    config = FitConfig(
        backbone=f"blip@{tmp_path / 'blip'}", epochs=2, records=4, held_out=0.4, lr=3e-3, words=True, by={"ranks": 1.0}
    )
    fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    lines = [json.loads(line) for line in (tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["words"] < lines[0]["words"]
    model = RewardModel.from_pretrained(tmp_path / "fit")
    assert {name.split(".")[0] for name in model.trained()} == {"head", "word_head"}
    (found,) = model.words(torch.rand(1, 3, 40, 48), ['a red circle, "now"'])
    assert [word for word, _ in found] == ["a", "red", "circle", "now"] and all(0 < p < 1 for _, p in found)


def test_words_that_cannot_be_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    save(tmp_path / "set.parquet", [replace(one, misaligned=None) for one in judged(30)])
    assert run(["fit", str(tmp_path / "set.parquet"), "--words", "--output", str(tmp_path / "fit")]) == 2
    err = capfd.readouterr().err
    assert "words: the set does not say which words are misaligned; leave out --words" in err and err.count("\n") == 1
    (tmp_path / "clip").mkdir()
    save_clip(tmp_path / "clip")
    with pytest.raises(InputError, match="words: clip has no words that see the picture; take small"):
        RewardModel(new_backbone(f"clip@{tmp_path / 'clip'}", TEXTS), Heads(words=True))
    with pytest.raises(InputError, match="fitted without words"):
        RewardModel(new_backbone("small", TEXTS), Heads()).words(torch.zeros(1, 3, 32, 32), TEXTS)
    with pytest.raises(InputError, match="word_weight: -1"):
        FitConfig(word_weight=-1)
