"""What `beholder ask` and `beholder compare` take; imports nothing heavy. The line under a field is its help text."""

from dataclasses import dataclass, field
from pathlib import Path

from beholder.judges.settings import JudgeConfig
from beholder.video import FrameConfig


@dataclass
class AskOptions:
    question: tuple[str, ...] = ()
    """A yes-no question, with [[prompt]] in it where the prompt goes; may be given several times."""
    model: str | None = None
    """Who answers: a vision-language model on the hub or in a folder, a chat server as http://HOST:PORT/v1 (#MODEL
    where it serves several), or shapes for pictures of the bundled world. None takes the published VisionReward."""
    prompt: str | None = None
    """What the pictures were drawn for."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    frames: FrameConfig = field(default_factory=FrameConfig)
    json: bool = False
    """Print one JSON object an answer."""


@dataclass
class CompareOptions:
    prompt: str | None = None
    """What both were drawn for."""
    pairs: Path | None = None
    """A JSONL file of {"first": path, "second": path, "prompt": text} lines, instead of two files or folders."""
    model: str | None = None
    """Who answers: a vision-language model on the hub or in a folder, a chat server as http://HOST:PORT/v1 (#MODEL
    where it serves several), or shapes for pictures of the bundled world. None takes the published VisionReward."""
    checklist: str | None = None
    """What is asked: visionreward-image, visionreward-video, shapes, or a YAML or JSON file. None takes the one for the
    kind of medium."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    frames: FrameConfig = field(default_factory=FrameConfig)
    json: bool = False
    """Print one JSON object a pair."""
