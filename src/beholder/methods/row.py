"""What a row of the method table is."""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from beholder.config import RunConfig
from beholder.errors import InputError, nearest


@dataclass(frozen=True)
class Method:
    name: str
    title: str
    paper: str
    """Short name of the paper and its arXiv id."""
    idea: str
    presets: dict[str, RunConfig]
    """`published`: the paper's settings; `shapes` and others: the same method at the size of the bundled world."""
    differences: tuple[str, ...] = ()
    """Where the released code differs from the paper, or this row from the released code."""

    def preset(self, name: str) -> RunConfig:
        if name not in self.presets:
            raise InputError(f"preset: {self.name} has no {name!r}; {nearest(name, self.presets)}")
        return self.presets[name]


def vary(config: RunConfig, method: str, changes: dict[str, Any]) -> RunConfig:
    """``config`` under another name with some settings changed, by their dotted names (``rollout.kernel.level``)."""
    for name, value in changes.items():
        config = _changed(config, name.split("."), value)
    return replace(config, method=method)


def _changed(section: Any, path: list[str], value: Any) -> Any:
    known = [f.name for f in fields(section)]
    if path[0] not in known:
        raise KeyError(f"{path[0]} is no setting of {type(section).__name__}: {', '.join(known)}")
    if len(path) > 1:
        value = _changed(getattr(section, path[0]), path[1:], value)
    elif is_dataclass(getattr(section, path[0])):
        raise KeyError(f"{path[0]} is a section; change its settings one by one")
    return replace(section, **{path[0]: value})
