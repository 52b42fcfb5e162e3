"""What a row of the method table is."""

from dataclasses import dataclass

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
