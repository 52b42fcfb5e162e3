"""Videos written with PyAV, a fraction of a second each."""

from pathlib import Path

import av
import numpy as np


def write_video(path: Path, frames: int, rate: int, size: tuple[int, int] = (64, 48), codec: str = "libx264") -> Path:
    """Grey frames, each a little brighter than the one before: 2 · i of 255 in frame i."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            grey = np.full((height, width, 3), (2 * i) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path
