"""The folder of a run: complete checkpoints only, and writes that leave the old file when interrupted."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from beholder.errors import RunError
from beholder.training import run_folder
from beholder.training.run_folder import Progress, RunFolder


def test_only_complete_checkpoints_count_and_old_ones_go(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "method: m\n")
    assert folder.load_checkpoint() is None
    for iteration in range(1, 5):
        folder.save_checkpoint(Progress(iteration), {"value": torch.tensor(iteration)}, keep=2)
    (folder.checkpoints / "iteration_00009").mkdir()
    found = folder.load_checkpoint()
    assert found is not None and found[0] == Progress(4) and found[1]["value"].item() == 4
    assert sorted(p.name for p in folder.checkpoints.iterdir()) == [
        *("iteration_00003", "iteration_00004", "iteration_00009")
    ]


def test_saving_a_checkpoint_again_leaves_no_moment_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run saves the checkpoint that the loop may just have saved, perhaps the only one."""
    folder = RunFolder.create(tmp_path / "run", "method: m\n")
    folder.save_checkpoint(Progress(1), {"value": torch.tensor(1)}, keep=1)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.os, "replace", killed)
    with contextlib.suppress(KeyboardInterrupt):
        folder.save_checkpoint(Progress(1), {"value": torch.tensor(1)}, keep=1)
    assert folder.load_checkpoint() is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")], ids=["Ctrl-C", "full"])
def test_an_interrupted_write_leaves_the_old_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(tmp_path / "run", "method: m\n")
    folder.write_text("a.txt", "old")
    save = torch.save

    def half(value: object, path: Path) -> None:
        save(value, path)
        raise error

    monkeypatch.setattr(run_folder.torch, "save", half)
    monkeypatch.setattr(run_folder.os, "replace", lambda *_: (_ for _ in ()).throw(error))
    for action in (
        lambda: folder.write_text("a.txt", "new"),
        lambda: folder.save_checkpoint(Progress(1), {"value": torch.tensor(1)}, keep=1),
    ):
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else RunError) as caught:
            action()
        assert error is KeyboardInterrupt or "no room to write" in str(caught.value)
    assert (tmp_path / "run" / "a.txt").read_text() == "old"
    assert folder.load_checkpoint() is None and not list((tmp_path / "run").rglob("*.tmp"))
