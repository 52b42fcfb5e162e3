"""The command line as a person meets it: exit codes, one line per mistake, and what each verb leaves on disk."""

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from beholder import __version__
from beholder.arguments import parse
from beholder.cli import VERBS, run
from beholder.config import RolloutConfig, RunConfig
from beholder.methods import METHODS
from small_runs import TEXT_TOKENS, small_options

RUN_FILES = {
    *("config.yaml", "metrics.jsonl", "timings.jsonl", "findings.json", "summary.json", "report.html"),
    *("checkpoints", "samples", "policy"),
}
HEAVY = {"torch", "numpy", "diffusers", "transformers", "accelerate", "peft", "matplotlib", "scipy", "PIL"}
LEFT_OF_EVALUATION = {f"iteration_{i:05d}.{suffix}" for i in (0, 2) for suffix in ("png", "json")}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def fast_run(tiny_sd3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two iterations of Flow-GRPO-Fast on the tiny SD3; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "fast"
    assert run(["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, folder)]) == 0
    return folder


@pytest.fixture
def own_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory with a module `liked` of rewards of one's own."""
    (tmp_path / "liked.py").write_text(
        "import torch\n"
        "def green(images, prompts): return images[:, 1].mean((1, 2))\n"
        "def every_third(images, prompts):\n"
        "    values = images.mean((1, 2, 3)); values[::3] = float('nan'); return values\n"
        "def nothing(images, prompts): return torch.full((len(images),), float('inf'))\n"
        "def broken(images, prompts): raise KeyError('no such\\ncolour')\n"
        "def silent(images, prompts): pass\n"
        "def flat(images, prompts): return images.mean((2, 3))\n"
        "LIMIT = 3\n"
    )
    (tmp_path / "torn.py").write_text("def half(:\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("liked", None)


# ------------------------------------------------------------------------------------------------ help and mistakes


def test_help_of_every_verb_is_quick() -> None:
    """`--help` shows the options of every verb without importing torch or anything as slow."""
    lines = [["--help"], [], ["--version"], ["align", "--help"], ["align", "flow-grpo", "--help"]]
    lines += [[verb, "--help"] for verb in VERBS]
    code = (
        "import sys, json; from beholder.cli import run\n"
        "codes = [run(line) for line in json.loads(sys.argv[1])]\n"
        "print('END', codes, sorted({m.split('.')[0] for m in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, timeout=120, check=True
    )
    said, end = result.stdout.rsplit("END", 1)
    assert f"{[0] * len(lines)}" in end
    assert not [name for name in HEAVY if f"'{name}'" in end]
    assert result.stderr == ""
    for wanted in ("beholder VERB", __version__, "--resume RUN", "--rollout.kernel.level", "--adapter", "--hack"):
        assert wanted in said
    assert "--rewards NAME WEIGHT" in said and "(default: shapes 1)" in said


MISTAKES = {
    "aling": ["unknown verb 'aling'", "'align'"],
    "align flow-gpro": ["'flow-gpro'", "'flow-grpo'"],
    "align flow-grpo --preset shape": ["'shape'", "'shapes'"],
    "align flow-grpo --rollout.stps 3": ["--rollout.stps", "'--rollout.steps'"],
    "align flow-grpo --rollout.kernel.levle=3": ["--rollout.kernel.levle", "'--rollout.kernel.level'"],
    "align flow-grpo --seed one": ["--seed", "'one'"],
    "align flow-grpo --seed": ["--seed"],
    "align flow-grpo --seed 1 more": ["more"],
    "align flow-grpo --rollout.kernel.kind flow": ["--rollout.kernel.kind", "'flow'", "flow_sde"],
    "align flow-grpo --rewards shapes": ["--rewards", "NAME WEIGHT", "'shapes'"],
    "align flow-grpo --rewards shapes much": ["--rewards", "'shapes much'"],
    "align flow-grpo --method flow-grpo-fast": ["--method", "align flow-grpo-fast"],
    "align --seed 1": ["name a method first"],
    "align flow-grpo --preset shapes --rollout.group 1": ["rollout.group", "2 or more"],
    "align flow-grpo --preset shapes --evaluation.rewards": ["evaluation.rewards", "none given"],
    "align flow-grpo --config nowhere.yaml": ["no file 'nowhere.yaml'"],
    "align flow-grpo --config .": ["'.'"],
    "align flow-grpo --config a.yaml --preset shapes": ["--preset", "--config"],
    "align --resume nowhere": ["no run in 'nowhere'"],
    "align --resume": ["--resume", "no value"],
    "align --resume nowhere --seed 1": ["--seed", "leave out"],
    "align flow-grpo --policy.model ./nowhere": [
        *("--prompts FILE", "prompts.txt", "--evaluation.prompts FILE", "--rewards NAME", "--evaluation.rewards NAME")
    ],
    "align flow-grpo other --resume nowhere": ["flow-grpo other"],
    "methods flow-grpo-fas": ["'flow-grpo-fas'", "'flow-grpo-fast'"],
    "methods --jsn": ["--jsn", "'--json'"],
    "sample -n 3": ["-n", "'--n'"],
    "score": ["no image given"],
    "score a.png": ["no prompt given"],
    "score a.png --prompt x --reward rednes": ["'rednes'", "'redness'"],
    "score a.png --prompt x --prompts b.jsonl": ["b.jsonl"],
    "report": ["give the folder of a run"],
    "report nowhere": ["'nowhere'"],
    "demo --iterations none": ["--iterations"],
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(
    line: str, capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(line.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("beholder: ") and err.count("\n") == 1, err
    for wanted in MISTAKES[line]:
        assert wanted in err
    assert not list(tmp_path.iterdir())


def test_an_option_of_many_values_may_be_given_several_times() -> None:
    """One that is named again would replace the first without a word; a single value is replaced, as everywhere."""
    words = [
        "--method",
        "mine",
        "--rewards",
        "shapes",
        "1",
        "--seed",
        "1",
        "--rewards",
        "redness",
        "-0.5",
        "--seed",
        "2",
    ]
    config = parse(RunConfig, [*words, "--evaluation.rewards", "a", "--evaluation.rewards=b", "c"], "align", "")
    assert config.rewards == {"shapes": 1.0, "redness": -0.5} and config.seed == 2
    assert config.evaluation.rewards == ("a", "b", "c")


def test_negative_numbers_are_values(capsys: pytest.CaptureFixture) -> None:
    assert run(["align", "flow-grpo", "--preset", "shapes", "--seed", "-1"]) == 2
    assert "seed: -1 must not be negative" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    """`beholder methods | head -1` ends quietly."""
    command = f"{sys.executable} -m beholder.cli methods flow-grpo | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=False)
    assert result.stderr == "" and result.stdout.startswith("Flow-GRPO")


def test_what_the_system_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert run(["align", "flow-grpo", "--preset", "shapes", "--output", str(tmp_path / "file" / "run")]) in (1, 2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("beholder: ")


# ------------------------------------------------------------------------------------------------ methods


def test_methods_table_and_rows(capsys: pytest.CaptureFixture) -> None:
    assert run(["methods"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in METHODS)
    assert run(["methods", "flow-grpo-fast"]) == 0
    row = capsys.readouterr().out
    assert "2505.05470" in row and "kind: cps" in row and "--preset published" in row
    assert run(["methods", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(METHODS)
    assert run(["methods", "flow-grpo", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["presets"]["published"]["rollout"]["group"] == 24


# ------------------------------------------------------------------------------------------------ align


def test_align_leaves_a_complete_run(fast_run: Path) -> None:
    assert {p.name for p in fast_run.iterdir()} == RUN_FILES
    metrics = rows(fast_run / "metrics.jsonl")
    assert [(r["event"], r["iteration"]) for r in metrics] == [
        *(("evaluation", 0), ("train", 1), ("train", 2), ("evaluation", 2))
    ]
    assert [r["iteration"] for r in rows(fast_run / "timings.jsonl")] == [1, 2]
    assert sorted(p.name for p in (fast_run / "checkpoints").iterdir()) == ["iteration_00001", "iteration_00002"]
    assert {p.name for p in (fast_run / "samples").iterdir()} == {*LEFT_OF_EVALUATION, "layout.json", "prompts.json"}
    assert {f["level"] for f in json.loads((fast_run / "findings.json").read_text())} <= {"ok", "note", "warning"}
    summary = json.loads((fast_run / "summary.json").read_text())
    assert summary["iterations"] == 2 and summary["network_evaluations"] == 2 * 2 * 4 * 4
    assert summary["base"]["gold"] == metrics[0]["rewards"]["redness"]
    assert summary["aligned"]["gold"] == metrics[-1]["rewards"]["redness"] != summary["base"]["gold"]
    assert (fast_run / "policy" / "pytorch_lora_weights.safetensors").is_file()
    assert "redness" in (fast_run / "report.html").read_text(encoding="utf-8")
    config = yaml.safe_load((fast_run / "config.yaml").read_text())
    assert config["rewards"] == {"redness": 1.0} and config["evaluation"]["rewards"] == ["redness"]


def test_the_first_update_is_on_policy_and_decisions_are_counted(fast_run: Path) -> None:
    train = [r for r in rows(fast_run / "metrics.jsonl") if r["event"] == "train"]
    assert all(r["ratio_deviation"] < 1e-6 < r["ratio_max_deviation"] for r in train)
    assert [(r["optimiser_steps"], r["samples"], r["network_evaluations"]) for r in train] == [(2, 8, 32), (4, 16, 64)]
    assert all(r["failed_rewards"] == 0 and len(r["clip_fraction_per_step"]) == 1 for r in train)


def test_a_config_file_replays_the_run(fast_run: Path, tmp_path: Path) -> None:
    again = ["align", "flow-grpo-fast", "--config", str(fast_run / "config.yaml"), "--output", str(tmp_path / "again")]
    assert run(again) == 0
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (fast_run / "metrics.jsonl").read_bytes()


def test_a_config_file_of_another_method_is_refused(fast_run: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["align", "flow-grpo", "--config", str(fast_run / "config.yaml")]) == 2
    assert "'flow-grpo-fast'" in capsys.readouterr().err


def test_a_folder_with_a_run_is_not_overwritten(fast_run: Path, capfd: pytest.CaptureFixture) -> None:
    before = {p: p.stat().st_mtime_ns for p in fast_run.rglob("*") if p.is_file()}
    assert run(["align", "flow-grpo-fast", "--config", str(fast_run / "config.yaml")]) == 2
    assert "already holds a run" in capfd.readouterr().err.splitlines()[-1]
    assert before == {p: p.stat().st_mtime_ns for p in fast_run.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("method", "pipeline"), [("flow-grpo", "tiny_sd3_folder"), ("flow-grpo", "tiny_sd_folder")], ids=["SD3", "SD"]
)
def test_flow_grpo_with_kl(method: str, pipeline: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The SDE over all steps with a reference, on a flow model and on an ε-predicting one."""
    options = small_options(request.getfixturevalue(pipeline), tmp_path / "run", "--optimiser.lr", "0.003")
    assert run(["align", method, *options]) == 0
    train = [r for r in rows(tmp_path / "run" / "metrics.jsonl") if r["event"] == "train"]
    assert len(train) == 2 and all(r["ratio_deviation"] < 1e-5 for r in train)
    assert train[1]["kl"] > train[0]["kl"] > 0
    assert {p.name for p in (tmp_path / "run").iterdir()} == RUN_FILES


def test_full_training_and_going_on_from_its_result(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """A second run starts where the first one ended: its first evaluation is the other's last."""
    full = ("--policy.training", "full", "--optimiser.lr", "1e-4")
    assert run(["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, tmp_path / "a", *full)]) == 0
    more = ("--policy.adapter", str(tmp_path / "a" / "policy"), *full)
    assert run(["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, tmp_path / "b", *more, iterations=1)]) == 0
    last, first = rows(tmp_path / "a" / "metrics.jsonl")[-1], rows(tmp_path / "b" / "metrics.jsonl")[0]
    assert last["rewards"] == first["rewards"] != rows(tmp_path / "a" / "metrics.jsonl")[0]["rewards"]


def test_resuming_a_finished_run_changes_nothing(fast_run: Path) -> None:
    kept = ("metrics.jsonl", "timings.jsonl", "config.yaml", "summary.json", "policy/pytorch_lora_weights.safetensors")
    before = {name: (fast_run / name).read_bytes() for name in kept}
    assert run(["align", "--resume", str(fast_run)]) == 0
    assert before == {name: (fast_run / name).read_bytes() for name in kept}


def test_resuming_under_another_method_is_refused(fast_run: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["align", "flow-grpo", "--resume", str(fast_run)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "'flow-grpo-fast', not of 'flow-grpo'" in err


@pytest.mark.parametrize("verb, advised", [("align", True), ("sample", False), ("score", False)])
def test_only_a_run_is_advised_to_go_on(
    verb: str, advised: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, verb, interrupted)
    assert run([verb]) == 130
    assert ("--resume" in capsys.readouterr().err) is advised


def test_what_the_doctor_warns_of_is_printed(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from beholder.training import console

    monkeypatch.setattr(console, "console", console.Console(stderr=True))
    levels = ("ok", "note", "warning", "problem")
    console.print_findings([{"level": level, "check": "a [b]", "message": f"said {level}"} for level in levels])
    assert capsys.readouterr().err.splitlines() == ["warning: a [b]: said warning", "problem: a [b]: said problem"]


def test_network_evaluations_are_fewer_where_a_trunk_is_shared() -> None:
    from beholder.training.console import plan_table

    apart = RunConfig(method="flow-grpo", rollout=RolloutConfig(steps=10, prompts=24, group=8))
    together = replace(apart, rollout=replace(apart.rollout, shared_noise=True))
    said = [list(plan_table(config).columns[1].cells) for config in (apart, together)]
    assert "about 1,920 per iteration, 10 steps each" in said[0]
    assert "about 1,752 per iteration, 10 steps each" in said[1]  # 24 x (1 + 9 x 8)


def test_reports_of_one_run_and_of_two(fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "page.html"
    assert run(["report", str(fast_run), str(fast_run), "--output", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page) and page.is_file()


def test_brackets_in_a_path_are_not_markup(tiny_sd3_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = tmp_path / "[red] [" / "run]"
    assert run(["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, folder, iterations=1)]) == 0
    assert "[red] [/run]" in capfd.readouterr().err.replace("\n", "")


# ------------------------------------------------------------------------------------------------ rewards of one's own


def test_a_reward_from_the_working_directory(tiny_sd3_folder: Path, own_reward: Path) -> None:
    options = small_options(tiny_sd3_folder, own_reward / "run", "--rewards", "liked:green", "1.0", iterations=1)
    assert run(["align", "flow-grpo-fast", *options]) == 0
    assert 0 < rows(own_reward / "run" / "metrics.jsonl")[1]["reward"]["liked:green"] < 1


def test_failed_samples_are_left_out_and_counted(tiny_sd3_folder: Path, own_reward: Path) -> None:
    options = small_options(tiny_sd3_folder, own_reward / "run", "--rewards", "liked:every_third", "1.0")
    assert run(["align", "flow-grpo-fast", *options, "--evaluation.rewards", "liked:every_third"]) == 0
    evaluation, *train, _ = rows(own_reward / "run" / "metrics.jsonl")
    assert [r["failed_rewards"] for r in train] == [3, 3] and evaluation["failed_rewards"] == 2
    assert all(0 < r["reward"]["liked:every_third"] < 1 and r["grad_norm"] > 0 for r in train)
    findings = json.loads((own_reward / "run" / "findings.json").read_text())
    assert [f["message"] for f in findings if f["level"] == "problem"] == [
        "6 of 16 samples had a failed reward; they were left out."
    ]


@pytest.mark.parametrize(
    ("reward", "code", "wanted"),
    [
        ("liked:nothing", 1, ["every reward of iteration 1 failed (8 samples)"]),
        ("liked:broken", 1, ["'liked:broken'", "KeyError", "no such"]),
        ("liked:silent", 1, ["'liked:silent'", "NoneType"]),
        ("liked:flat", 2, ["'liked:flat'", "(8, 3)", "(8,)"]),
        ("liked:absent", 2, ["'liked:absent'", "absent"]),
        ("liked:LIMIT", 2, ["'liked:LIMIT'", "int"]),
        ("torn:half", 2, ["'torn:half'", "SyntaxError"]),
        ("nowhere:half", 2, ["'nowhere:half'", "nowhere"]),
        (":half", 2, ["':half'"]),
    ],
)
def test_a_reward_that_does_not_work_is_one_line(
    reward: str,
    code: int,
    wanted: list[str],
    tiny_sd3_folder: Path,
    own_reward: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    options = small_options(tiny_sd3_folder, own_reward / "run", "--rewards", reward, "1.0")
    assert run(["align", "flow-grpo-fast", *options]) == code
    err = capfd.readouterr().err
    assert "Traceback" not in err
    message = [line for line in err.splitlines() if line.startswith("beholder: ")]
    assert err.splitlines()[-1:] == message
    assert all(word in message[0] for word in wanted)


def test_a_failing_reward_in_the_evaluation_alone_does_not_stop_the_run(
    tiny_sd3_folder: Path, own_reward: Path
) -> None:
    options = small_options(tiny_sd3_folder, own_reward / "run", "--evaluation.rewards", "liked:nothing", iterations=1)
    assert run(["align", "flow-grpo-fast", *options]) == 0
    assert rows(own_reward / "run" / "metrics.jsonl")[0]["failed_rewards"] == 6


# ------------------------------------------------------------------------------------------------ sample and score


def test_sample_writes_pictures_a_grid_and_a_list(
    tiny_sd3_folder: Path, fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    prompts = ("--prompt", "a red circle", "two squares", "--n", "3", "--steps", "2", "--seed", "5")
    base = ["sample", "--model", str(tiny_sd3_folder), *prompts]
    assert run([*base, "--output", str(tmp_path / "base")]) == 0
    assert "6 images" in capsys.readouterr().out
    assert run([*base, "--output", str(tmp_path / "again"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    names = {f"{prompt:03d}_{member:02d}.png" for prompt in range(2) for member in range(3)}
    assert {p.name for p in (tmp_path / "base").iterdir()} == {*names, "grid.png", "images.jsonl"}
    assert Image.open(tmp_path / "base" / "grid.png").size == (3 * 32, 2 * 32)
    assert rows(tmp_path / "again" / "images.jsonl") == written
    assert [(r["prompt"], r["seed"]) for r in written[2:4]] == [("a red circle", 5000017), ("two squares", 5000015)]
    same = [(tmp_path / folder / "000_00.png").read_bytes() for folder in ("base", "again")]
    assert same[0] == same[1] != (tmp_path / "base" / "000_01.png").read_bytes()
    assert run([*base, "--output", str(tmp_path / "aligned"), "--adapter", str(fast_run / "policy")]) == 0
    assert any((tmp_path / "aligned" / n).read_bytes() != (tmp_path / "base" / n).read_bytes() for n in names)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--n", "0"], "n: 0"),
        (["--steps", "0"], "steps: 0"),
        (["--model", "shapes", "--steps", "1"], "no schedule of 1 step"),
        (["--adapter", "nowhere"], "'nowhere'"),
        (["--model", "nowhere"], "'nowhere'"),
    ],
)
def test_sample_refuses(
    options: list[str], wanted: str, tiny_sd3_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = ["--model", str(tiny_sd3_folder), "--prompt", "a circle", "--output", str(tmp_path / "out")]
    assert run(["sample", *model, *options]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and wanted in err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    Image.new("RGB", (32, 32), (255, 0, 0)).save(folder / "red.png")
    Image.new("RGB", (48, 16), (0, 0, 255)).save(folder / "deeper" / "blue.jpg", quality=100)
    Image.new("L", (8, 8), 255).save(folder / "white.webp")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def scores(out: str) -> dict[str, float | None]:
    return {Path(r["image"]).name: r["redness"] for r in map(json.loads, out.splitlines())}


def test_score_files_folders_and_lists(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--prompt", "a red circle", "--reward", "redness", "--json"]
    assert run(["score", str(pictures / "red.png"), *options]) == 0
    assert json.loads(capsys.readouterr().out) == {
        **{"image": str(pictures / "red.png"), "prompt": "a red circle", "redness": 1.0}
    }
    assert run(["score", str(pictures), *options]) == 0
    found = scores(capsys.readouterr().out)
    assert found == {"red.png": 1.0, "blue.jpg": pytest.approx(-0.5, abs=0.01), "white.webp": pytest.approx(0.0)}
    lines = [{"image": str(pictures / name), "prompt": f"prompt of {name}"} for name in ("white.webp", "red.png")]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert run(["score", "--prompts", str(listed), "--reward", "redness", "brightness", "--json"]) == 0
    assert [(r["prompt"], r["brightness"]) for r in map(json.loads, capsys.readouterr().out.splitlines())] == [
        ("prompt of white.webp", 1.0),
        ("prompt of red.png", pytest.approx(1 / 3)),
    ]


def test_score_prints_a_table(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["score", str(pictures / "red.png"), "--prompt", "a [red] circle", "--reward", "redness"]) == 0
    assert "1.000" in capsys.readouterr().out


def test_score_says_failed(pictures: Path, own_reward: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["score", str(pictures / "red.png"), "--prompt", "x", "--reward", "redness", "liked:nothing"]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["liked:nothing"] is None
    assert run(command) == 0
    assert "failed" in capsys.readouterr().out
    assert run([*command[:-1], "liked:broken"]) == 1
    assert "'liked:broken' raised KeyError" in capsys.readouterr().err


def broken_pictures(folder: Path) -> Iterator[tuple[Path, str]]:
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.png"
    Image.effect_noise((64, 64), 80).save(whole)
    for name, data in {
        "empty.png": b"",
        "text.png": b"hello",
        "cut.png": whole.read_bytes()[:1500],
        "header.png": whole.read_bytes()[:40],
    }.items():
        (folder / name).write_bytes(data)
        yield folder / name, name
    yield folder / "missing.png", "no file"
    yield folder / "empty_folder", "no image"


def test_score_names_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "broken" / "empty_folder").mkdir(parents=True)
    for path, wanted in broken_pictures(tmp_path / "broken"):
        assert run(["score", str(path), "--prompt", "a circle", "--reward", "redness"]) == 2, path
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and wanted in err and str(path) in err


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('{"image": "a.png"}', id="no prompt"),
        pytest.param('["a.png", "a circle"]', id="a list"),
        pytest.param("a.png: a circle", id="no JSON"),
        pytest.param('{"prompt": "x"}', id="no image"),
        pytest.param("\udcff", id="no UTF-8"),
    ],
)
def test_score_names_the_line_it_cannot_read(line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    listed = tmp_path / "list.jsonl"
    listed.write_bytes(b"\n" + line.encode("utf-8", "surrogateescape") + b"\n")
    assert run(["score", "--prompts", str(listed), "--reward", "redness"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "list.jsonl" in err


def test_score_takes_brackets_in_a_prompt_for_text(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["score", str(pictures / "red.png"), "--prompt", "a [/red] circle", "--reward", "redness"]) == 0
    assert "a [/red] circle" in " ".join(capsys.readouterr().out.split())


def test_score_refuses_a_picture_that_would_fill_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A header that asks for 100,000 × 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert run(["score", str(tmp_path / "bomb.png"), "--prompt", "a circle", "--reward", "redness"]) == 2
    assert "bomb.png" in capsys.readouterr().err


def test_the_shapes_rewards_name_a_prompt_they_do_not_know(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["score", str(pictures / "red.png"), "--prompt", "a zebra"]) == 2
    assert "'a zebra'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ as a process


def test_as_a_process_it_says_nothing_but_its_line(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """Libraries' hints and warnings do not bury the message, also where they are imported before the mistake shows."""
    options = ["--model", str(tiny_sd3_folder), "--prompt", "a circle", "--adapter", "nowhere"]
    quiet = {name: value for name, value in os.environ.items() if name != "TRANSFORMERS_VERBOSITY"}
    command = [sys.executable, "-m", "beholder.cli", "sample", *options]
    result = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("beholder: policy.adapter") and result.stderr.count("\n") == 1, result.stderr


def test_text_tokens_reach_the_encoder(fast_run: Path) -> None:
    assert yaml.safe_load((fast_run / "config.yaml").read_text())["policy"]["max_sequence_length"] == TEXT_TOKENS


# ------------------------------------------------------------------------------------------------ demo


@pytest.mark.parametrize("name", ["config.yaml", "notes.txt", "no_kl/config.yaml"])
def test_the_demo_deletes_nothing_but_a_demo(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A folder with a file that a run also has may be anything: a run of days, or a project."""
    file = tmp_path / "work" / name
    file.parent.mkdir(parents=True)
    file.write_text("kept")
    assert run(["demo", "--output", str(tmp_path / "work")]) == 2
    assert "holds no demo" in capsys.readouterr().err and file.read_text() == "kept"


def test_a_mistake_does_not_cost_the_earlier_demo(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / ".demo").touch()
    (tmp_path / "report.html").touch()
    for mistake in (["--iterations", "0"], ["--minutes", "-1"], ["--seed", "-1"]):
        assert run(["demo", "--output", str(tmp_path), *mistake]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "report.html").exists()
    (tmp_path / "file").touch()
    assert run(["demo", "--output", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
