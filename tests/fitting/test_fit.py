"""The loop on small sets: it learns what people like, always the same, and goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coloured_sets import records, save
from safetensors.torch import load_file

from beholder.cli import run
from beholder.errors import InputError
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.fitting.state import Advance
from beholder.rewards.learned import RewardModel

QUICK = FitConfig(epochs=2, records=8, held_out=0.4, lr=3e-3)
LEARN = replace(QUICK, epochs=6)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sets") / "small.parquet", records(60, k=3, noise=0.2, annotator="anna-1"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A model of which colour was asked for."""
    folder = tmp_path_factory.mktemp("fitted")
    found = save(folder / "set.parquet", records(240, k=3))
    return folder / "reward", fit_reward(found, folder / "reward", LEARN)


def test_it_learns_what_the_prompt_asks_for(fitted: tuple[Path, dict]) -> None:
    folder, report = fitted
    assert report["people"]["accuracy"] > 0.85 and report["truth"]["accuracy"] > 0.85
    assert report["contrast"]["another prompt"]["falls"] > 0.5
    curve = report["truth"]["best_of_n"]
    assert curve["1"]["reward"] == pytest.approx(1 / 3) and curve["3"]["reward"] > 0.8 and curve["3"]["truth"] == 1
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "README.md", "report.json"}
    assert not (folder / "checkpoints").exists()
    card = (folder / "README.md").read_text()
    assert "accuracy without ties" in card and "learned@" in card
    assert (folder / "model.safetensors").stat().st_size < 2 * 2**20


def test_a_fit_that_is_done_is_only_read(fitted: tuple[Path, dict]) -> None:
    folder, report = fitted
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert fit_reward(folder.parent / "set.parquet", folder, LEARN) == json.loads(json.dumps(report))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def same(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    lines = (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    return lines and first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_seed_decides_everything(small: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    first = fit_reward(small, tmp_path / "a", QUICK)
    torch.manual_seed(6)
    torch.rand(3)
    again = fit_reward(small, tmp_path / "b", QUICK)
    fit_reward(small, tmp_path / "c", replace(QUICK, seed=1))
    assert same(tmp_path / "a", tmp_path / "b") and not same(tmp_path / "a", tmp_path / "c")
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


class Stop(Exception):
    pass


def stopping_after(steps: int) -> Advance:
    """Ends the process's part after so many steps."""
    done = 0

    def advance(n: int, said: str, total: int | None = None) -> None:
        nonlocal done
        done += total is None
        if done > steps:
            raise Stop

    return advance


@pytest.mark.parametrize(
    "config", [QUICK, replace(QUICK, members=2, loss="davidson"), replace(QUICK, loss="ordinal", by={"grade": 1.0})]
)
def test_an_interrupted_fit_gives_the_same_model(
    small: Path, tmp_path: Path, config: FitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beholder.fitting.fit.SAVE_EVERY", 0.0)  # a checkpoint at every step
    fit_reward(small, tmp_path / "whole", config)
    for stop in (3, 4):  # in the first epoch, and in the second
        with pytest.raises(Stop):
            fit_reward(small, tmp_path / "parts", config, stopping_after(stop))
        assert not (tmp_path / "parts" / "model.safetensors").exists()
    fit_reward(small, tmp_path / "parts", config)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_the_best_epoch_is_kept_and_patience_ends(small: Path, tmp_path: Path) -> None:
    report = fit_reward(small, tmp_path / "fit", replace(QUICK, epochs=30, patience=1, lr=1e-5))
    lines = [json.loads(line) for line in (tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda row: (row["accuracy"], -row["epoch"]))
    assert report["best_epoch"] == best["epoch"] and report["epochs"] == len(lines) < 30
    assert len(lines) - best["epoch"] == 2


def test_a_second_set_is_reported_on(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(60))
    save(tmp_path / "test.parquet", records(12, seed=9, annotator="bob-2"))
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(QUICK, test=str(tmp_path / "test.parquet")))
    assert report["records"] == {"train": 36, "stop": 24, "report": 12}
    assert report["people"]["annotators"]["bob"]["pairs"] == 12


@pytest.mark.parametrize("loss", ["rao_kupper", "gaussian_marginal", "plackett_luce", "group_softmax"])
def test_every_loss_over_people_learns(loss: str, tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(160, k=3))
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(LEARN, loss=loss))
    assert report["truth"]["accuracy"] > 0.75


@pytest.mark.parametrize("loss", ["regression", "ordinal"])
def test_every_loss_over_ratings_learns(loss: str, tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(160, k=3))
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(LEARN, loss=loss, by={"grade": 1.0}))
    assert report["truth"]["accuracy"] > 0.75
    if loss != "ordinal":
        model = RewardModel.from_pretrained(tmp_path / "fit")
        values = model.heads.rewards(model.heads.values(torch.zeros(1, 1, 1, model.heads.outputs)))
        assert 1 <= values.item() <= 5, "in units of the ratings"


def test_several_dimensions_have_a_head_each(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(60, k=3))
    config = replace(QUICK, loss="regression", by={"grade": 2.0, "shapes": -1.0})
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    assert set(report["people"]["dimensions"]) == {"grade", "shapes"}
    model = RewardModel.from_pretrained(tmp_path / "fit")
    parts = model.parts(torch.rand(2, 3, 32, 32), ["a red thing1"] * 2)
    assert torch.allclose(parts["reward"], 2 * parts["grade"] - parts["shapes"])


def test_an_ensemble_disagrees_and_is_reduced(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(60))
    fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(QUICK, members=3, reduce="cautious", penalty=2.0))
    model = RewardModel.from_pretrained(tmp_path / "fit")
    images, prompts = torch.rand(4, 3, 32, 32), ["a red thing1"] * 4
    parts = model.parts(images, prompts)
    value_NE = model.values(images, prompts)[:, 0]
    assert torch.allclose(parts["reward"], value_NE.mean(1) - 2 * value_NE.var(1), atol=1e-5)
    assert torch.allclose(parts["spread"], value_NE.std(1), atol=1e-5) and (parts["spread"] > 0).all()


def test_groups_need_names(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(30))
    with pytest.raises(InputError, match="record 0 names no annotator"):
        fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(QUICK, groups=2))


def test_a_loss_that_is_no_number_ends_the_fit(small: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    line = ["fit", str(small), "--output", str(tmp_path / "fit"), "--epochs", "2", "--held-out", "0.4", "--lr", "1e30"]
    assert run(line) == 1
    assert "the loss is" in capfd.readouterr().err


# --------------------------------------------------------------------------------------------------------- command line


def test_fit_says_what_it_found(small: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    line = ["fit", str(small), "--output", str(tmp_path / "fit"), "--epochs", "1", "--held-out", "0.4"]
    assert run([*line, "--json"]) == 0
    out, err = capfd.readouterr()
    said = json.loads(out)
    assert err == "" and said["output"] == str(tmp_path / "fit") and said["people"]["pairs"] > 0
    assert run(line) == 0
    out, _ = capfd.readouterr()
    assert "accuracy without ties" in out and f"learned@{tmp_path / 'fit'}" in out.replace("\n", "")
    assert run([*line, "--seed", "3"]) == 2
    assert "holds a fit with seed 0, not 3" in capfd.readouterr().err


def test_an_interruption_says_how_to_go_on(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("beholder.fitting.fit.step_once", interrupted)
    assert run(["fit", str(small), "--output", str(tmp_path / "fit"), "--held-out", "0.4"]) == 130
    assert "the same command goes on with the fit" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ([], "give a preference set"),
        (["nowhere"], "no file 'nowhere'"),
        (["SET", "--loss", "bradley_tery"], "did you mean 'bradley_terry'"),
        (["SET", "--backbone", "smal"], "did you mean 'small'"),
        (["SET", "--backbone", "clip"], "clip needs a base"),
        (["SET", "--lora", "4"], "leave out lora"),
        (["SET", "--reduce", "cautious"], "needs the variance of several copies"),
        (["SET", "--by", "ranc", "1.0"], "did you mean 'ranks'"),
        (["SET", "--members", "2", "--groups", "2"], "use one of them"),
        (["SET", "--held-out", "1.5"], "held_out: 1.5 must be between 0 and 1"),
    ],
)
def test_bad_input_is_one_line(
    line: list[str], says: str, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    words = [str(small) if word == "SET" else word for word in line]
    assert run(["fit", *words, "--output", str(tmp_path / "fit")]) == 2
    err = capfd.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_folder_of_something_else_is_left_alone(small: Path, tmp_path: Path) -> None:
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something else"):
        fit_reward(small, tmp_path / "fit", QUICK)
