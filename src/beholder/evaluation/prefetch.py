"""Image files read by threads ahead of the one who needs them, a bounded number of pixels at a time."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from beholder.media import UNREADABLE

AHEAD = 2**26
"""Pixels of files under way: 0.8 GB as float32. One file that is larger goes alone."""

Loaded = TypeVar("Loaded")


def prefetched(paths: Sequence[Path], load: Callable[[Path], Loaded], count: int) -> Iterator[Loaded]:
    """``load(path)`` of each file in order, up to ``count`` of them under way while the caller works."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="read")
    waiting: deque[tuple[int, Future[Loaded]]] = deque()
    ahead = 0
    try:
        for path in paths:
            pixels = pixels_of(path)
            while waiting and (len(waiting) >= count or ahead + pixels > AHEAD):
                done, future = waiting.popleft()
                ahead -= done
                yield future.result()
            waiting.append((pixels, pool.submit(load, path)))
            ahead += pixels
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def pixels_of(path: Path) -> int:
    """Height times width as the file's head says; 0 where it cannot be read, and whoever loads it will say why."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except UNREADABLE:
        return 0
