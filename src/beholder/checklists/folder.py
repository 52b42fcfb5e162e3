"""A folder that the same command goes on with: it holds the settings it was begun with."""

import json
from pathlib import Path
from typing import Any

from beholder.errors import InputError
from beholder.training.run_folder import RunFolder


def settle(path: Path, name: str, settings: dict[str, Any]) -> RunFolder:
    """The folder, with the file ``name`` in it; InputError where it was begun with others, or holds something else."""
    folder, file = RunFolder(path), path / name
    settings = json.loads(json.dumps(settings))
    if file.exists():
        there = json.loads(file.read_text(encoding="utf-8"))
        for key, value in settings.items():
            if there.get(key) != value:
                raise InputError(
                    f"output: {str(path)!r} was begun with {key} {_short(there.get(key))}, not {_short(value)}; use "
                    "the same settings, delete the folder, or choose another --output"
                )
        return folder
    if path.is_file() or (path.exists() and any(path.iterdir())):
        raise InputError(f"output: {str(path)!r} holds something else; choose another --output")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output: cannot make {str(path)!r}: {error.strerror}; choose another --output") from error
    folder.write_json(name, settings)
    return folder


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else "another one"
