"""RichHF's model: a T5 encoder over a ViT's patches and the prompt; scores, maps and words from its tokens."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as tf
from coloured_sets import records, save
from safetensors.torch import load_file, save_file
from test_maps import marked

from beholder.cli import run
from beholder.errors import InputError
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.media import to_pil
from beholder.preferences.schema import Record, words
from beholder.rewards import load_reward
from beholder.rewards.learned import Heads, RewardModel, new_backbone
from tiny import t5_tokenizer

PROMPTS = ["a red circle", "two squares, now", "a blue thing"]
SCORES = ("plausibility", "alignment", "aesthetics", "overall")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bases")
    return "+".join([str(save_vit(folder / "vit")), str(save_t5(folder / "t5"))])


def save_vit(folder: Path) -> Path:
    """With a classifier, which is left over."""
    config = tf.ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tf.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """A whole T5, decoder and all, of another width than the ViT."""
    tokenizer = t5_tokenizer()
    config = tf.T5Config(
        vocab_size=len(tokenizer) + 3,
        d_model=40,
        d_kv=10,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tf.T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def images(n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 40, 48), generator=torch.Generator().manual_seed(0)).float() / 255


def annotated(n: int) -> list[Record]:
    """As RichHF-18k: a picture with four scores in 0..1, a map, and words that are misaligned."""
    found = []
    for i, one in enumerate(marked(one) for one in records(n)):
        k = i % 2
        right = one.ratings["shapes"][k]
        ratings = {name: (right if name == "alignment" else 0.25 + right / 2,) for name in SCORES}
        maps = tuple(replace(heat_map, medium=0) for heat_map in one.maps if heat_map.medium == k)
        misaligned = ((),) if right else ((1,),)
        found.append(
            replace(one, media=one.media[k : k + 1], ranks=None, ratings=ratings, maps=maps, misaligned=misaligned)
        )
    return found


def test_patches_and_words_are_read_together_as_transformers_reads_them(base: str) -> None:
    backbone = new_backbone(f"richhf@{base}", PROMPTS).eval()  # pyright: ignore[reportAttributeAccessIssue]
    see, read = base.split("+")
    shown = [to_pil(image) for image in images()]
    pixels = tf.ViTImageProcessorPil(size={"height": 32, "width": 32})(shown, return_tensors="pt")["pixel_values"]
    assert torch.allclose(backbone.prepare(images()), pixels, atol=1e-6)
    vision = tf.ViTModel.from_pretrained(see, add_pooling_layer=False).eval()
    text = tf.T5EncoderModel.from_pretrained(read).eval()
    with torch.no_grad():
        states = backbone.states(pixels, PROMPTS)
        for i, prompt in enumerate(PROMPTS):  # one by one: padding must not matter
            said = torch.tensor(t5_tokenizer()(prompt)["input_ids"])[None]
            seen = backbone.join(vision(pixel_values=pixels[i : i + 1]).last_hidden_state[:, 1:])
            both = text(inputs_embeds=torch.cat([seen, text.shared(said)], 1)).last_hidden_state[0]
            assert torch.allclose(states.patch_NCHW[i].flatten(1).T, both[:16], atol=1e-5)
            assert torch.allclose(states.token_NLC[i, : said.shape[1]], both[16:], atol=1e-5)
            alone = backbone(pixels[i : i + 1], [prompt])
            assert torch.allclose(alone[0], states.feature_NF[i], atol=1e-5)
        other = backbone(pixels, PROMPTS[::-1])
    assert states.patch_NCHW.shape == (3, 40, 4, 4) and states.feature_NF.shape == (3, 256)
    assert (other[0] - states.feature_NF[0]).abs().amax() > 1e-3, "the features know the prompt"


def test_it_learns_scores_maps_and_words_of_a_handful_of_pictures(
    base: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    save(tmp_path / "set.parquet", annotated(24))
    config = FitConfig(
        backbone=f"richhf@{base}",
        loss="regression",
        by=dict.fromkeys(SCORES, 1.0),
        maps=("block",),
        words=True,
        **{"epochs": 12, "patience": 12, "records": 4, "lr": 3e-3, "weight_decay": 0.01, "held_out": 0.4},
    )
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    lines = [json.loads(line) for line in (tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "maps", "words"):
        assert lines[-1][name] < 0.8 * lines[0][name], name
    assert set(report["ratings"]) == set(SCORES) and report["words"]["misaligned"] > 0 and "block" in report["maps"]
    model = RewardModel.from_pretrained(tmp_path / "fit")
    assert {name.split(".")[1] for name in model.trained() if name.startswith("backbone.")} == {
        *("vision", "text", "join", "first", "second", "norms")
    }, "all of it is trained"
    parts = model.parts(images(), PROMPTS)
    assert set(parts) == {"reward", *SCORES, "strangeness"}
    assert torch.allclose(parts["reward"], torch.stack([parts[name] for name in SCORES]).sum(0), atol=1e-5)
    assert model.maps(images(), PROMPTS)["block"].shape == (3, 16, 16)
    assert [[word for word, _ in one] for one in model.words(images(), PROMPTS)] == [words(p) for p in PROMPTS]

    again = RewardModel.from_pretrained(tmp_path / "fit")
    for name, value in again.parts(images(), PROMPTS).items():
        assert torch.equal(value, parts[name])
    assert torch.equal(again.maps(images(), PROMPTS)["block"], model.maps(images(), PROMPTS)["block"])
    assert again.words(images(), PROMPTS) == model.words(images(), PROMPTS)

    name = f"learned@{tmp_path / 'fit'}"
    given = images().requires_grad_()
    reward = load_reward(name).score(given, PROMPTS)
    assert torch.allclose(reward, parts["reward"], atol=1e-4)
    (gradient,) = torch.autograd.grad(reward.sum(), given)
    assert gradient.abs().sum() > 0
    to_pil(images(1)[0]).save(tmp_path / "a.png")
    capfd.readouterr()
    line = ["score", str(tmp_path / "a.png"), "--prompt", PROMPTS[0], "--reward", name, "--json"]
    assert run(line) == 0
    out, err = capfd.readouterr()
    row = json.loads(out)
    said = row["parts"][name]
    assert err == "" and set(said) == {"parts", "words"} and set(said["parts"]) == set(SCORES)
    assert row[name] == pytest.approx(sum(said["parts"].values()), abs=1e-4)
    assert [word for word, _ in said["words"]] == words(PROMPTS[0])


def test_with_lora_only_adapters_and_what_is_new_are_trained(base: str) -> None:
    model = RewardModel(new_backbone(f"richhf@{base}", PROMPTS, 2), Heads(words=True, maps=("artifact",)))
    names = {name.removeprefix("backbone.") for name in model.trained()}
    adapters = {name for name in names if ".lora_" in name}
    assert {name.split(".")[0] for name in adapters} == {"vision", "text"}
    assert len(adapters) == 2 * (2 * 4 + 2 * 4), "A and B of query, key, value and output, two layers in each"
    new = ("join", "first", "second", "norms", "head", "map_head", "word_head")
    assert {name.split(".")[0] for name in names - adapters} == set(new)


def test_bases_that_do_not_fit_are_refused_in_one_line(base: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    see, read = base.split("+")
    for name, says in (
        ("richhf", "richhf needs a base"),
        (f"richhf@{see}", "write richhf@VIT\\+T5"),
        (f"richhf@{read}+{see}", "is of type 't5', not a vit"),
        (f"richhf@{see}+{see}", "is of type 'vit', not a t5"),
        (f"richhf@{see}+./nowhere", "no file or folder './nowhere'"),
    ):
        with pytest.raises(InputError, match=says):
            new_backbone(name, PROMPTS)
    torn = save_vit(tmp_path / "torn")
    state = load_file(torn / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if name != "vit.layernorm.weight"}, torn / "model.safetensors"
    )
    with pytest.raises(InputError, match=r"1 tensors missing.*'layernorm.weight'"):
        new_backbone(f"richhf@{torn}+{read}", PROMPTS)
    save(tmp_path / "set.parquet", records(20))
    line = ["fit", str(tmp_path / "set.parquet"), "--output", str(tmp_path / "fit"), "--held-out", "0.4"]
    capfd.readouterr()
    assert run([*line, "--backbone", f"richhf@{see}"]) == 2
    err = capfd.readouterr().err
    assert "does not name two models" in err and err.count("\n") == 1
