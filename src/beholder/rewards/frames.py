"""Which frames of a drawn video a reward sees, and how a reward of images scores a video."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from beholder.video import by_count, by_seconds


def frames_seen(total: int, fps: int, video: bool, seconds: float | None, most: int) -> tuple[int, ...] | None:
    """A reward of images sees ``most`` frames of ``total`` or fewer, from the first to the last, evenly; one of videos
    a frame every so many ``seconds``, or, where it says nothing, all of them (None)."""
    if not video:
        return tuple(by_count(total, min(most, total)))
    if seconds is None:
        return None
    return tuple(dict.fromkeys(by_seconds([frame / fps for frame in range(total)], seconds, total)))


def chosen(videos: Tensor, frames: Sequence[int] | None) -> Tensor:
    """``[N, F, 3, H, W]`` with these frames alone."""
    return videos if frames is None else videos[:, list(frames)]


def mean_over_frames(score: Callable[[Tensor], Tensor], videos: Tensor) -> Tensor:
    """``[N, …]``: the mean of ``score`` over the frames of ``[N, F, 3, H, W]``, each for itself; NaN if one failed."""
    return torch.stack([score(frame) for frame in videos.unbind(1)]).mean(0)
