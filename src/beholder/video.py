"""Videos on disk: which frames of them are looked at, reading those, and writing. It takes PyAV (``beholder[video]``).

Imports nothing heavy: the command line reads the settings from here.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beholder.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Choose = Callable[[Sequence[float]], list[int]]
"""Which frames of a video are looked at, by their times in seconds; the first is at 0."""
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


def read_frames(path: Path, config: FrameConfig | None = None, choose: Choose | None = None) -> "list[Image.Image]":
    """The chosen frames as RGB pictures; InputError where the file is missing or no video, or PyAV is.

    ``choose``, where it is given, stands in the place of ``config``.
    The video is decoded twice, first for the times alone, so that only the chosen frames are ever kept in memory.
    """
    from PIL import Image

    config = config or FrameConfig()
    if config.every <= 0 or config.most < 1 or (config.count is not None and config.count < 1):
        raise InputError(f"frames: {config} asks for no frame; every, most and count must be greater than 0")
    last = None if choose is not None or config.count is not None else config.every * config.most
    times = [time for time, _ in _decode(path, last)]
    if not times:
        raise InputError(f"video: {str(path)!r} holds no frame")
    if choose is not None:
        wanted = choose([time - times[0] for time in times])
    elif config.count is None:
        wanted = by_seconds([time - times[0] for time in times], config.every, config.most)
    else:
        wanted = by_count(len(times), config.count)
    kept: dict[int, Image.Image] = {}
    for i, (_, frame) in enumerate(_decode(path, last)):
        if i in wanted:
            kept[i] = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return [kept[i] for i in wanted]


def read_video(path: Path, config: FrameConfig | None = None, choose: Choose | None = None) -> "Tensor":
    """The chosen frames as ``[F, 3, H, W]`` float32 in 0..1; InputError as `read_frames`."""
    import numpy as np
    import torch

    frames = np.stack([np.asarray(frame) for frame in read_frames(path, config, choose)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def write_video(path: Path, video: "Tensor", fps: int) -> None:
    """``[F, 3, H, W]`` in 0..1 as H.264 in an MP4, written beside and renamed; InputError where PyAV is missing.

    Close to lossless (CRF 12), but 4:2:0: colours have half the resolution. Odd sides lose their last row or column.
    """
    av = pyav("writing")
    frames = (video.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    temporary = path.with_name(path.name + ".tmp")
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "12"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(frame[:height, :width].copy(), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def pyav(doing: str) -> Any:
    """The PyAV module; InputError naming the extra where it is missing."""
    try:
        import av
    except ImportError as error:
        raise InputError(f"video: {doing} videos takes PyAV; pip install 'beholder[video]'") from error
    return av


def _decode(path: Path, last: float | None) -> Iterator[tuple[float, Any]]:
    """Times and frames in the order of showing, up to the first that is later than ``last`` seconds after the first."""
    av = pyav("reading")
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
