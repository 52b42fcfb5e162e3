"""Settings of `beholder prefer`; imports nothing heavy, so that ``--help`` is quick."""

from dataclasses import dataclass, field
from pathlib import Path

from beholder.errors import InputError


@dataclass(frozen=True)
class SetConfig:
    """A preference set that is to be made."""

    n: int = 1000
    """Sets of images, one for each prompt drawn; a larger number adds to a set that is there."""
    k: int = 2
    """Images in each."""
    prompts: str = "shapes:train"
    """Prompt source: `shapes:train`, `shapes:held_out`, or a UTF-8 text file with one prompt a line."""
    model: str = "shapes"
    """`shapes`, a diffusers folder or a hub name."""
    adapter: str | None = None
    """Folder of trained weights, e.g. RUN/policy."""
    rewards: dict[str, float] = field(default_factory=lambda: {"shapes": 1.0})
    """What is measured and stored as ratings, by name or `package.module:function`, with the annotators' weights."""
    annotators: int = 8
    """Simulated people; 0 stores the rewards alone and leaves the choice to whoever reads the set."""
    groups: tuple[str, ...] = ()
    """Groups of different taste instead of the rewards' weights: NAME=REWARD:WEIGHT,... or NAME*SHARE=REWARD:WEIGHT,...
    with the share of the annotators."""
    judges: int = 1
    """Annotators who judge each set of images, each in a record of their own."""
    votes: bool = False
    """Store the judges' votes and ties together in one record instead."""
    temperature: float = 0.1
    """Noise of a judgement in units of the weighted reward (Bradley–Terry); 0 makes no mistakes."""
    tie: float = 0.05
    """Perceived differences up to this are ties."""
    steps: int = 10
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is none."""
    batch: int = 64
    """Images per network call."""
    shard: int = 500
    """Sets of images in each file: what an interruption can cost."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n", "k", "judges", "steps", "guidance", "batch", "shard"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: {getattr(self, name)} must be greater than 0")
        for name in ("annotators", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)} must not be negative")


@dataclass(frozen=True)
class PreferOptions(SetConfig):
    """The options of `beholder prefer`."""

    output: Path = Path("preferences")
    """Folder of the set; what is there is kept, what was interrupted goes on."""
    json: bool = False
    """Print what the set holds as JSON."""
