"""Settings of `beholder annotate`, `weigh`, `bias` and `teach`; imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from beholder.errors import InputError
from beholder.judges.settings import JudgeConfig


@dataclass(frozen=True)
class WeighConfig:
    """How weights are fitted to preferences."""

    by: str | None = None
    """Who decides: votes, ranks or a rating of the set. None: the votes, else the ranks, else the only rating."""
    solver: Literal["exact", "sgd"] = "exact"
    """exact: the minimum (L-BFGS-B with bounds); sgd: the paper's passes of projected gradient descent."""
    mask: bool = True
    """No weight below 0: every question is phrased so that yes is good. --no-mask is for comparison."""
    ridge: float = 0.001
    """Weight of |w|²/2 beside the mean loss of a pair; 0 is the paper's."""
    ties: Literal["keep", "drop"] = "keep"
    """keep: a tie is won by either with probability one half."""
    temperature: float = 0.0
    """Pairs from ratings are won with probability sigmoid(gap / temperature); 0 makes every gap certain."""
    held_out: float = 0.2
    """Share of the pairs whose prompts take no part in the fit, for the accuracy; 0 fits on all of them."""
    bootstrap: int = 200
    """Sets drawn with replacement for the intervals of the weights; 0 gives none."""
    rate: float = 0.01
    """sgd: step size."""
    tolerance: float = 0.001
    """sgd: it ends when a pass moves the weights by no more."""
    passes: int = 500
    """sgd: at most."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("ridge", "temperature", "tolerance", "bootstrap", "seed"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: {getattr(self, name)} must not be negative")
        for name in ("rate", "passes"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: {getattr(self, name)} must be greater than 0")
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out: {self.held_out} must be in 0..1, below 1")


@dataclass(frozen=True)
class WeighOptions(WeighConfig):
    """The options of `beholder weigh`."""

    checklist: str = "shapes-details"
    """Whose questions the set has answers to: a bundled checklist, or a YAML or JSON file."""
    output: Path = Path("checklist.yaml")
    """The checklist with its weights; `report.json` of the same name beside it says how good they are."""
    json: bool = False
    """Print the report as JSON."""


@dataclass(frozen=True)
class BiasOptions:
    checklist: str = "shapes-details"
    """Whose questions the set has answers to: a bundled checklist, or a YAML or JSON file."""
    by: str | None = None
    """Who decides: votes, ranks or a rating of the set. None: the votes, else the ranks, else the only rating."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class AnnotateOptions:
    checklist: str = "shapes-details"
    """What is asked: a bundled checklist, or a YAML or JSON file."""
    model: str = "shapes"
    """Who answers: a vision-language model, a chat server, a folder of `beholder teach`, or shapes."""
    output: Path = Path("runs/annotated")
    """Folder of the set with answers; the same command goes on with what is there."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    json: bool = False
    """Print what was done as JSON."""


@dataclass(frozen=True)
class TeachConfig:
    """A judge that is to be taught a checklist."""

    model: str = "small"
    """small, a network from scratch for pictures like the bundled world's, or a vision-language model (LoRA)."""
    checklist: str = "shapes-details"
    """Whose questions the set has answers to: a bundled checklist, or a YAML or JSON file."""
    lr: float | None = None
    """None: 3e-3 for small, 1e-4 for LoRA."""
    pictures: int | None = None
    """Pictures in each step, with all questions drawn about them. None: 32 for small, 4 for LoRA."""
    epochs: int = 10
    patience: int = 3
    """Epochs without a better held-out accuracy before it stops."""
    held_out: float = 0.1
    """Share of the records whose prompts never train."""
    most: int | None = None
    """Yes and no answers drawn for a question in an epoch, each at most; none takes all of the rarer."""
    rank: int = 16
    """LoRA: rank of the adapters, on every linear layer but the last."""
    alpha: int = 32
    weight_decay: float = 0.01
    seed: int = 0
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """How questions are put; the same settings when it is asked."""

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "rank"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} must be 1 or more")
        for name in ("lr", "alpha", "pictures", "most"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise InputError(f"{name}: {getattr(self, name)} must be greater than 0")
        for name in ("weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: {getattr(self, name)} must not be negative")
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out: {self.held_out} must be between 0 and 1")


@dataclass(frozen=True)
class TeachOptions(TeachConfig):
    """The options of `beholder teach`."""

    output: Path = Path("runs/judge")
    """Folder of the judge; the same command goes on with what is there."""
    json: bool = False
    """Print the report as JSON."""
