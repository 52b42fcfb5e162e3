"""Finding and reading checkpoints: nothing is executed, nothing taken for something else, nothing half-written."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from beholder.errors import InputError
from beholder.rewards.zoo.files import agree, fetch, find_file, read_weights


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "bad.pt").open("wb") as file:
        pickle.dump({"state_dict": Trap(tmp_path / "sprung")}, file, protocol=2)
    torch.save({"weight": torch.ones(1), "more": Trap(tmp_path / "sprung")}, tmp_path / "worse.pt")
    for name in ("bad.pt", "worse.pt"):
        with pytest.raises(InputError, match="cannot be read as weights only"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_weights_come_out_of_whatever_wraps_them(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(3.0), "b": torch.ones(2)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "b.pt"
    )
    for name in ("a.safetensors", "a.pt", "b.pt"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], {"a": torch.ones(1), "b": "text"}])
def test_what_holds_no_state_dict_is_named(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a.pt' holds no state dict"):
        read_weights(tmp_path / "a.pt")


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:700])
    with pytest.raises(InputError, match=r"a.pt' cannot be read"):
        read_weights(tmp_path / "a.pt")
    save_file({"a": torch.ones(1000)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:700])
    with pytest.raises(InputError, match=r"a.safetensors' cannot be read"):
        read_weights(tmp_path / "a.safetensors")


def test_agreement_is_both_ways() -> None:
    agree("here", [], [])
    with pytest.raises(InputError, match=r"2 tensors missing, 1 unexpected \(first: 'a' is missing\)"):
        agree("here", ["b", "a"], ["c"])
    with pytest.raises(InputError, match="'c' is not of this model"):
        agree("here", [], ["c"])


def test_a_file_a_folder_or_the_first_name_in_it(tmp_path: Path) -> None:
    (tmp_path / "second.pt").touch()
    assert find_file(str(tmp_path / "second.pt"), "other") == tmp_path / "second.pt"
    assert find_file(str(tmp_path), "first.pt", "second.pt") == tmp_path / "second.pt"
    (tmp_path / "first.pt").touch()
    assert find_file(str(tmp_path), "first.pt", "second.pt") == tmp_path / "first.pt"
    with pytest.raises(InputError, match=r"holds no third.pt or fourth.pt"):
        find_file(str(tmp_path), "third.pt", "fourth.pt")


def test_a_download_is_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "kept"))
    source = tmp_path / "head.pth"
    source.write_bytes(b"numbers")
    digest = hashlib.sha256(b"numbers").hexdigest()
    with pytest.raises(InputError, match="sha256 differs"):
        fetch(source.as_uri(), "0" * 64)
    assert not list((tmp_path / "kept").rglob("*.pth*"))
    first = fetch(source.as_uri(), digest)
    assert first.read_bytes() == b"numbers" and [p.name for p in first.parent.iterdir()] == [first.name]
    source.unlink()
    assert fetch(source.as_uri(), digest) == first
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch((tmp_path / "gone.pth").as_uri(), "1" * 64)
