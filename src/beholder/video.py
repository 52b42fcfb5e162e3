"""Videos on disk: which frames of them are looked at, and reading those. Decoding takes PyAV (``beholder[video]``).

Imports nothing heavy: the command line reads the settings from here.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beholder.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif")


@dataclass(frozen=True)
class FrameConfig:
    """Which frames of a video are looked at."""

    every: float = 1.0
    """Seconds between frames; the published VisionReward looks at one a second, though it was trained on four."""
    most: int = 24
    """No more frames than this, from the beginning."""
    count: int | None = None
    """Instead: this many frames spread evenly over the whole video."""


def by_seconds(times: Sequence[float], every: float = 1.0, most: int = 24) -> list[int]:
    """The frames nearest to 0, ``every``, 2·``every`` … seconds, the earlier one of two as near; at most ``most``.

    ``times`` are the frames' starts in seconds, ascending. At one second this is VisionReward's released rule: as many
    frames as ``round(last start) + 1``, so that a video of 49 frames at 8 per second gives 0, 8, … 48. A short video
    may give the same frame twice.
    """
    number = min(round(max(times) / every) + 1, most)
    return [min(range(len(times)), key=lambda frame: abs(times[frame] - every * i)) for i in range(number)]


def by_count(total: int, count: int) -> list[int]:
    """``count`` frames from the first to the last of ``total``, evenly spread, rounded down."""
    import numpy as np

    return np.linspace(0, total - 1, count).astype(int).tolist()


def read_frames(path: Path, config: FrameConfig | None = None) -> "list[Image.Image]":
    """The chosen frames as RGB pictures; InputError where the file is missing or no video, or PyAV is.

    The video is decoded twice, first for the times alone, so that only the chosen frames are ever kept in memory.
    """
    from PIL import Image

    config = config or FrameConfig()
    if config.every <= 0 or config.most < 1 or (config.count is not None and config.count < 1):
        raise InputError(f"frames: {config} asks for no frame; every, most and count must be greater than 0")
    last = None if config.count is not None else config.every * config.most
    times = [time for time, _ in _decode(path, last)]
    if not times:
        raise InputError(f"video: {str(path)!r} holds no frame")
    if config.count is None:
        wanted = by_seconds([time - times[0] for time in times], config.every, config.most)
    else:
        wanted = by_count(len(times), config.count)
    kept: dict[int, Image.Image] = {}
    for i, (_, frame) in enumerate(_decode(path, last)):
        if i in wanted:
            kept[i] = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return [kept[i] for i in wanted]


def read_video(path: Path, config: FrameConfig | None = None) -> "Tensor":
    """The chosen frames as ``[F, 3, H, W]`` float32 in 0..1; InputError as `read_frames`."""
    import numpy as np
    import torch

    frames = np.stack([np.asarray(frame) for frame in read_frames(path, config)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def _decode(path: Path, last: float | None) -> Iterator[tuple[float, Any]]:
    """Times and frames in the order of showing, up to the first that is later than ``last`` seconds after the first."""
    try:
        import av
    except ImportError as error:
        raise InputError("video: reading videos takes PyAV; pip install 'beholder[video]'") from error
    if not path.is_file():
        raise InputError(f"video: no file {str(path)!r}")
    try:
        with contextlib.closing(av.open(str(path))) as container:
            if not container.streams.video:
                raise InputError(f"video: {str(path)!r} has no picture in it")
            stream, first = container.streams.video[0], None
            for i, frame in enumerate(container.decode(stream)):
                time = i / float(stream.average_rate or 24) if frame.time is None else float(frame.time)
                first = time if first is None else first
                yield time, frame
                if last is not None and time - first > last:
                    return
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"video: {str(path)!r} is not a readable video ({' '.join(str(error).split())})") from error
