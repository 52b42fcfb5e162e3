"""Which judge it is, beyond its name: what a command that goes on with old answers must find unchanged."""

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any

from beholder.judges.settings import JudgeConfig

NOT_ABOUT_ANSWERS = {
    *("batch", "share_prefix", "device", "trust_remote_code"),
    *("concurrency", "timeout", "retries", "backoff"),
}
"""Settings that change how fast, where or how patiently a judge is asked, not what it is asked."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
WRITTEN_BESIDE = {"teach.json", "report.json"}
"""What `beholder teach` says about a judge; the judge is the same without."""


def identity(name: str, config: JudgeConfig) -> dict[str, Any]:
    """The judge's name, the settings that its answers depend on, and the content of its weights, as JSON.

    Of a server, its address and model are all that can be known.
    """
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in NOT_ABOUT_ANSWERS}
    return {"judge": name, "judge.weights": content(name), **{f"judge.{key}": value for key, value in settings.items()}}


def content(name: str) -> str | None:
    """A fingerprint of a model folder's weights, settings and words; of a hub name, the revision that is read here.

    None for what is neither, and for a hub name where the hub cannot be reached and holds no copy here.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        digest = hashlib.blake2b(digest_size=8)
        for file in sorted(file for file in folder.iterdir() if _belongs(file)):
            with file.open("rb") as opened:
                digest.update(f"{file.name}\n{hashlib.file_digest(opened, 'blake2b').hexdigest()}\n".encode())
        return digest.hexdigest()
    return _revision(name) if name.count("/") == 1 else None


def _belongs(file: Path) -> bool:
    kind = file.suffix in (*WEIGHTS, ".json", ".yaml", ".jinja", ".txt", ".model", ".py")
    return file.is_file() and kind and file.name not in WRITTEN_BESIDE


def _revision(repository: str) -> str | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:  # the one that is about to be read, not the one that an earlier run left
        return Path(hf_hub_download(repository, "config.json")).parent.name
    except (HFValidationError, HfHubHTTPError, OSError):
        return None
