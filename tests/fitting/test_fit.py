"""The loop on small sets: it learns what people like, always the same, and goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coloured_sets import crowds, damaged, records, save, singles, two_tastes
from safetensors.torch import load_file

from beholder.cli import run
from beholder.errors import InputError
from beholder.fitting.criteria import CRITERIA
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import LOSSES, FitConfig
from beholder.fitting.state import Advance
from beholder.preferences.store import write_preferences
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
    found = save(folder / "set.parquet", records(200, k=3))
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


def test_a_damaged_picture_costs_its_record_and_is_named(tmp_path: Path) -> None:
    found = records(40, k=2)
    save(tmp_path / "set.parquet", [damaged(one) if i % 10 == 0 else one for i, one in enumerate(found)])
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", QUICK)
    assert len(report["problems"]) == 4 and "row 0, media[0]" in report["problems"][0]
    assert report["people"]["accuracy"] is not None


def test_a_set_without_one_good_picture_is_refused(tmp_path: Path) -> None:
    write_preferences(tmp_path / "none.parquet", [damaged(one) for one in records(40)])
    with pytest.raises(InputError, match="not one has two images that can be decoded"):
        fit_reward(tmp_path / "none.parquet", tmp_path / "fit", QUICK)


def test_a_test_set_of_damaged_pictures_leaves_nothing_to_measure(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(30))
    write_preferences(tmp_path / "test.parquet", [damaged(one) for one in records(4, seed=3)])
    config = replace(QUICK, epochs=1, test=str(tmp_path / "test.parquet"))
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    assert report["people"]["pairs"] == 0 and report["people"]["accuracy"] is None and report["truth"] is None
    assert len(report["problems"]) == 4
    assert "unknown of 0 pairs" in (tmp_path / "fit" / "README.md").read_text()


def test_pairs_that_are_all_ties_cannot_say_when_to_stop(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", [replace(one, ranks=(1.0, 1.0)) for one in records(30)])
    with pytest.raises(InputError, match=r"held_out: of the \d+ records that say when to stop"):
        fit_reward(tmp_path / "set.parquet", tmp_path / "fit", QUICK)


def test_ratings_of_single_pictures_are_compared_across_records(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", singles(60))
    config = replace(QUICK, loss="regression", by={"grade": 1.0})
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    lines = [json.loads(line) for line in (tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["accuracy"] <= 1 for line in lines)
    assert report["people"]["pairs"] == 0 and report["ratings"]["grade"]["images"] == report["records"]["report"]
    with pytest.raises(InputError, match="records that say when to stop"):
        fit_reward(tmp_path / "set.parquet", tmp_path / "pairs", replace(config, loss="bradley_terry"))


def test_a_second_set_is_reported_on(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(60))
    save(tmp_path / "test.parquet", records(12, seed=9, annotator="bob-2"))
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(QUICK, test=str(tmp_path / "test.parquet")))
    assert report["records"] == {"train": 36, "stop": 24, "report": 12}
    assert report["people"]["annotators"]["bob"]["pairs"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns(loss: str, tmp_path: Path) -> None:
    """Under a minute each; distributions from several people, as of single grades they learn the median."""
    over_people = loss in ("wasserstein", "cramer")
    save(tmp_path / "set.parquet", crowds(120) if over_people else records(300, k=3))
    by = {"grade": 1.0} if CRITERIA[loss].over == "images" else {}
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(LEARN, epochs=8, loss=loss, by=by))
    assert report["truth"]["accuracy"] > 0.8
    if by:
        assert report["ratings"]["grade"]["spearman"] > 0.5


@pytest.mark.parametrize("loss", ["regression", "wasserstein"])
def test_rewards_of_ratings_are_in_their_units(loss: str, tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", records(40))
    fit_reward(tmp_path / "set.parquet", tmp_path / "fit", replace(QUICK, loss=loss, by={"grade": 1.0}))
    heads = RewardModel.from_pretrained(tmp_path / "fit").heads
    middle = heads.rewards(heads.values(torch.zeros(1, 1, 1, heads.outputs))).item()
    assert middle == pytest.approx(3, abs=0.01), "half of the grades are 1, half of them 5"


def test_ratings_want_ratings(small: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"regression wants ratings, and ranks are none; name a rating.*or take a loss over pairs"
    ):
        fit_reward(small, tmp_path / "fit", replace(QUICK, loss="regression"))


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


def test_groups_of_annotators_are_found(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", two_tastes(160))
    one = fit_reward(tmp_path / "set.parquet", tmp_path / "one", LEARN)
    two = fit_reward(tmp_path / "set.parquet", tmp_path / "two", replace(LEARN, groups=2))
    assert sorted(two["groups"]) == [[f"{who}-{i}" for i in range(3)] for who in ("cold", "warm")]
    assert one["people"]["accuracy"] < 0.7, "half of them want the opposite"
    assert two["people"]["accuracy"] > 0.9 and set(two["people"]["annotators"]) == {"cold", "warm"}
    heads = RewardModel.from_pretrained(tmp_path / "two").heads
    assert heads.copies == 2 and heads.reduce == "worst"


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
    assert "was begun with seed 0, not 3" in capfd.readouterr().err


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
