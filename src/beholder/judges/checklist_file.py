"""Checklists on disk: YAML or JSON, the fields of `Checklist`, read strictly."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from beholder.config_file import build
from beholder.errors import InputError, nearest
from beholder.judges.checklist import Checklist
from beholder.judges.settings import Kind

BUNDLED = Path(__file__).parent / "checklists"
DEFAULT: dict[Kind, str] = {"image": "visionreward-image", "video": "visionreward-video"}
"""The checklist for a kind of medium where none is named."""
WIDE = 10_000
"""No line of YAML is folded."""


def bundled_checklists() -> list[str]:
    """The names of the checklists in the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def load_checklist(name: str | Path) -> Checklist:
    """A bundled checklist by name, or a YAML or JSON file; InputError names what is wrong and where."""
    path = Path(name)
    if isinstance(name, str) and name in bundled_checklists():
        path = BUNDLED / f"{name}.yaml"
    elif not path.is_file():
        raise InputError(
            f"checklist: no file {str(name)!r}, and none bundled; {nearest(str(name), bundled_checklists())}"
        )
    return checklist_from(read_data(path), str(path))


def read_data(path: Path) -> Any:
    """The content of a YAML or JSON file (JSON is YAML)."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"checklist: {str(path)!r} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"checklist: {str(path)!r} is not UTF-8 (byte {error.start})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"checklist: {str(path)!r} is not YAML or JSON ({' '.join(str(error).split())})") from error


def checklist_from(data: Any, where: str) -> Checklist:
    """The checklist in plain data; an unknown key is an error that names the nearest one."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected the fields of a checklist, got {type(data).__name__}")
    return build(Checklist, data, where)


def save_checklist(checklist: Checklist, path: Path) -> None:
    """Writes YAML, one question a line, without fields that have their defaults; `load_checklist` reads it back."""
    fields = asdict(checklist)
    questions = [_shown(question) for question in fields.pop("questions")]
    head = yaml.safe_dump(_shown(fields), sort_keys=False, allow_unicode=True, width=WIDE)
    body = "".join(
        f"  - {yaml.safe_dump(q, sort_keys=False, allow_unicode=True, width=WIDE, default_flow_style=True)}"
        for q in questions
    )
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(f"{head}questions:\n{body}", encoding="utf-8")
    os.replace(temporary, path)


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in ("", None, 0.0)}
