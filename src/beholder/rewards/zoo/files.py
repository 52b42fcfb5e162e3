"""Where a checkpoint's files are, and how their tensors are read: never by running code that a file brings."""

import hashlib
import os
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from beholder.errors import InputError


def find_file(checkpoint: str, *names: str) -> Path:
    """The checkpoint itself when it is a file; else the first of ``names`` in the folder or hub repository.

    Raises InputError when there is none, or when the hub cannot be reached and the file is not in its cache.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise InputError(f"rewards: folder {checkpoint!r} holds no {' or '.join(names)}")
        return found[0]
    if checkpoint.startswith(("/", ".", "~")) or checkpoint.count("/") > 1:
        raise InputError(f"rewards: no file or folder {checkpoint!r}")
    return _from_hub(checkpoint, names)


def _from_hub(repository: str, names: Iterable[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    reason: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # offline: there may be another name in the cache
            reason = error
        except EntryNotFoundError as error:
            reason = error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = error
            break
    raise InputError(
        f"rewards: {repository!r} is no file or folder here, and the hub gave no {' or '.join(names)} "
        f"({type(reason).__name__}); download it and name its folder after the @"
    ) from reason


def fetch(url: str, sha256: str) -> Path:
    """A file of the web, once downloaded kept in torch's hub folder; InputError when it is not the one expected."""
    kept = Path(torch.hub.get_dir()) / "beholder" / f"{sha256[:16]}_{Path(url).name}"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(url, timeout=60) as source:
                data = source.read()
        except OSError as error:
            raise InputError(
                f"rewards: {url} cannot be downloaded ({error}); fetch it yourself and name it after the @"
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InputError(
                f"rewards: {url} is not the file expected (sha256 differs); name a copy you trust after the @"
            )
        unfinished = kept.with_name(f"{kept.name}.{os.getpid()}")
        unfinished.write_bytes(data)
        unfinished.replace(kept)
    return kept


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors file or of a pickle that holds nothing but tensors, without wrapping.

    A ``state_dict`` entry is taken out of a training checkpoint, and ``module.`` off the names of a parallel one.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        read = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # either library raises whatever its reader met
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"rewards: {str(path)!r} cannot be read as weights only ({reason})") from error
    if isinstance(read, Mapping) and "state_dict" in read:
        read = read["state_dict"]
    if not isinstance(read, Mapping) or not all(isinstance(value, Tensor) for value in read.values()):
        raise InputError(f"rewards: {str(path)!r} holds no state dict")
    return {str(name).removeprefix("module."): value for name, value in read.items()}


def agree(path: object, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """InputError when a state dict does not cover its model exactly; a partly filled model scores without a word."""
    missing, unexpected = sorted(missing), sorted(unexpected)
    if missing or unexpected:
        first = f"{missing[0]!r} is missing" if missing else f"{unexpected[0]!r} is not of this model"
        raise InputError(
            f"rewards: {str(path)!r} does not fit: {len(missing)} tensors missing, {len(unexpected)} unexpected "
            f"(first: {first}); is it the checkpoint of this reward?"
        )
