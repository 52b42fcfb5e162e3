"""A run that was interrupted, by any means and at any moment, ends with the numbers of the run that was not."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from same_runs import assert_same_run, stop_after

from beholder.cli import run
from beholder.config import EMAConfig, KLConfig, RunConfig
from beholder.errors import InputError
from beholder.training.align import align, resume
from beholder.training.run_folder import RunFolder
from small_runs import small_options, small_run


def variants(folder: Path, output: Path) -> dict[str, RunConfig]:
    """Four iterations with everything that has a memory: optimiser, average, window, reference, warm-up."""
    base = small_run(folder, output, iterations=4)
    full = replace(base.policy, training="full")
    warm = replace(base.optimiser, warmup=5)
    moving = replace(base.rollout.plan, kind="moving_window", size=1, stop=2, every=1)
    return {
        "LoRA, average": replace(base, ema=EMAConfig(decay=0.9, every=2)),
        "LoRA, no average, checkpoints at 2 and 4": replace(
            base, ema=EMAConfig(), loop=replace(base.loop, checkpoint_every=2)
        ),
        "all weights, average, reference": replace(base, policy=full, kl=KLConfig(beta=0.1)),
        "moving window, warm-up": replace(base, optimiser=warm, rollout=replace(base.rollout, plan=moving)),
    }


VARIANTS = tuple(variants(Path(), Path()))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_run_repeats_the_numbers(name: str, tiny_sd3_folder: Path, tmp_path: Path) -> None:
    whole = variants(tiny_sd3_folder, tmp_path / "whole")[name]
    align(whole)
    parts = replace(whole, output=str(tmp_path / "parts"))
    with pytest.raises(KeyboardInterrupt):
        align(parts, stop_after(3))
    assert not (tmp_path / "parts" / "policy").exists()
    with pytest.raises(KeyboardInterrupt):  # before its first checkpoint
        resume(tmp_path / "parts", stop_after(3))
    resume(tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_prompts_of_ones_own_and_guidance(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """The text encoder meets the prompts in other company after a restart; the numbers do not notice."""
    texts = [f"a {colour} {shape}" for colour in ("red", "green", "blue", "white") for shape in ("circle", "cross")]
    (tmp_path / "prompts.txt").write_text("\n".join(texts))
    base = small_run(tiny_sd3_folder, tmp_path / "whole", iterations=4)
    guided = replace(base.rollout, guidance=replace(base.rollout.guidance, scale=3.0), prompts=3)
    evaluation = replace(base.evaluation, prompts=str(tmp_path / "prompts.txt"), images=2)
    config = replace(base, prompts=str(tmp_path / "prompts.txt"), rollout=guided, evaluation=evaluation)
    align(config)
    with pytest.raises(KeyboardInterrupt):
        align(replace(config, output=str(tmp_path / "parts")), stop_after(3))
    resume(tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_interrupted_before_the_first_checkpoint(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    config = small_run(tiny_sd3_folder, tmp_path / "whole")
    align(config)
    with pytest.raises(KeyboardInterrupt):
        align(replace(config, output=str(tmp_path / "parts")), stop_after(1))
    resume(tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture(scope="module")
def finished(tiny_sd3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three iterations with a checkpoint each; not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return align(small_run(tiny_sd3_folder, folder, iterations=3))


@pytest.fixture
def cut(finished: Path, tmp_path: Path) -> Path:
    """`finished` as a kill after the second iteration would have left it."""
    folder = tmp_path / "cut"
    shutil.copytree(finished, folder)
    for name in ("policy", "checkpoints/iteration_00003"):
        shutil.rmtree(folder / name)
    for name in ("summary.json", "samples/iteration_00003.png", "samples/iteration_00003.json"):
        (folder / name).unlink()
    return folder


def test_a_torn_last_line_is_forgotten(cut: Path, finished: Path) -> None:
    for name in ("metrics.jsonl", "timings.jsonl"):
        lines = (cut / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["iteration"] < 3]
        (cut / name).write_text("".join(kept) + lines[-1][:17])
    resume(cut)
    assert_same_run(finished, cut)


def test_lines_after_the_checkpoint_are_written_again_once(cut: Path, finished: Path) -> None:
    resume(cut)
    assert_same_run(finished, cut)


def test_what_a_kill_left_half_written_is_ignored(cut: Path, finished: Path) -> None:
    (cut / "checkpoints" / "writing.tmp").mkdir()
    (cut / "checkpoints" / "writing.tmp" / "state.pt").write_bytes(b"half")
    (cut / "checkpoints" / "iteration_00003").mkdir()
    (cut / "policy.tmp").mkdir()
    resume(cut)
    assert_same_run(finished, cut)
    assert not list(cut.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other", "flipped"])
def test_a_damaged_checkpoint_is_named(damage: str, cut: Path, capfd: pytest.CaptureFixture) -> None:
    path = cut / "checkpoints" / "iteration_00002" / "state.pt"
    data = path.read_bytes()
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        half = len(data) // 2
        path.write_bytes({"cut": data[:half], "empty": b"", "text": b"hello", "flipped": data[:200]}[damage])
    with pytest.raises(InputError, match="iteration_00002") as caught:
        resume(cut)
    assert "damaged" in str(caught.value) and "\n" not in str(caught.value)
    assert run(["align", "--resume", str(cut)]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_without_the_damaged_checkpoint_it_goes_on_from_the_one_before(finished: Path, tmp_path: Path) -> None:
    """As the message advises."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoints" / "iteration_00003")
    resume(folder)
    assert_same_run(finished, folder)


def test_a_checkpoint_that_does_not_fit_its_configuration_is_named(cut: Path) -> None:
    settings = yaml.safe_load((cut / "config.yaml").read_text())
    settings["policy"]["lora"]["rank"] = 4
    (cut / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match=r"does not fit its config\.yaml") as caught:
        resume(cut)
    assert "\n" not in str(caught.value)


def test_it_goes_on_where_it_lies(cut: Path, finished: Path, tmp_path: Path) -> None:
    """A run that was moved goes on in its new place, whatever its configuration calls its folder."""
    shutil.copytree(cut, tmp_path / "moved")
    before = sorted(p for p in finished.rglob("*"))
    resume(tmp_path / "moved")
    assert_same_run(finished, tmp_path / "moved")
    assert sorted(p for p in finished.rglob("*")) == before


# ------------------------------------------------------------------------------------------------ real processes


def listen() -> None:
    """A job in a shell's background ignores Ctrl-C, and so would its children; these must hear it wherever they run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(arguments: list[str], **options: Any) -> "subprocess.Popen[str]":
    options.setdefault("preexec_fn", listen)
    return subprocess.Popen(
        [sys.executable, "-m", "beholder.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C of the test's own terminal does not reach it
        **options,
    )


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 250.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.01)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stamp(folder: Path) -> int:
    """When the run last wrote a line of metrics."""
    path = folder / "metrics.jsonl"
    return path.stat().st_mtime_ns if path.exists() else 0


def test_ctrl_c_is_one_line_and_exit_130(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, folder, iterations=10_000)])
    wait_for(lambda: lines(folder / "metrics.jsonl") >= 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 130 and out == ""
    assert err.splitlines()[-1].startswith("beholder: interrupted") and "--resume" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.tmp")) and not (folder / "policy").exists()
    assert RunFolder(folder).load_checkpoint() is not None


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """Files cannot grow past 60 kB: the first checkpoint does not fit, metrics do."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    process = start(["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, folder)], preexec_fn=limited)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 1 and out == "", err
    assert err.splitlines()[-1].startswith("beholder: no room to write ") and "Traceback" not in err
    assert str(folder / "checkpoints" / "iteration_00001") in err.splitlines()[-1]
    assert not list((folder / "checkpoints").iterdir()) and not list(folder.rglob("*.tmp"))
    assert run(["align", "--resume", str(folder)]) == 0
    assert run(["align", "flow-grpo-fast", *small_options(tiny_sd3_folder, whole)]) == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize("training", ["lora", "full"])
def test_no_room_for_the_result_is_one_line(training: str, tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """The writer of safetensors reports it in its own way."""
    folder = tmp_path / "run"
    code = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from beholder.config import PolicyConfig\n"
        "from beholder.policies import load_policy\n"
        "from beholder.training.run_folder import no_room_is_said\n"
        f"policy = load_policy(PolicyConfig(model={str(tiny_sd3_folder)!r}, training={training!r}))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))\n"
        f"path = Path({str(folder)!r})\n"
        "with no_room_is_said(path): policy.save(path)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "RunError: no room to write " in last and str(folder) in last, result.stderr
    assert not list(tmp_path.iterdir())


def test_scorers_of_ones_own_by_name(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """`align(config, scorers={"my": f})`, gone on with by giving the function again."""
    config = small_run(tiny_sd3_folder, tmp_path / "whole", rewards="my")
    scorers = {"my": lambda images, prompts: images[:, 1].mean((1, 2))}
    align(config, scorers=scorers)
    with pytest.raises(KeyboardInterrupt):
        align(replace(config, output=str(tmp_path / "parts")), stop_after(2), scorers)
    with pytest.raises(InputError, match="unknown reward 'my'"):
        resume(tmp_path / "parts")
    resume(tmp_path / "parts", scorers=scorers)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    with pytest.raises(InputError, match=r"scorers: 'mine' .*my"):
        align(replace(config, output=str(tmp_path / "other")), scorers={**scorers, "mine": scorers["my"]})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    """SIGKILL a random moment after the next line of metrics, so also while pictures or checkpoints are written."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    options = small_options(tiny_sd3_folder, whole, "--ema.decay", "0.9", iterations=12)
    assert run(["align", "flow-grpo-fast", *options]) == 0
    dice, kills = random.Random(int(os.environ.get("KILL_SEED", "0"))), 0
    arguments = ["align", "flow-grpo-fast", *options[: options.index("--output")], "--output", str(folder)]
    arguments += ["--ema.decay", "0.9"]
    while True:
        seen, process = stamp(folder), start(arguments)
        wait_for(lambda seen=seen, process=process: process.poll() is not None or stamp(folder) > seen, process, 600)
        time.sleep(dice.uniform(0, 3.0))
        if process.poll() is None and kills < 8:  # then it may finish, however slow the machine
            process.kill()
            kills += 1
        _, err = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        arguments = ["align", "--resume", str(folder)]
    assert kills >= 1
    assert_same_run(whole, folder)
