"""Videos written here with PyAV: which frames are looked at, and files that are none."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from beholder import video
from beholder.errors import InputError
from beholder.video import FrameConfig, by_count, by_seconds, read_frames, read_video
from small_videos import write_video


def numbers(path: Path, config: FrameConfig | None = None) -> list[int]:
    """Which frames were read, from their brightness."""
    return [round(float(np.asarray(frame).mean()) / 2) for frame in read_frames(path, config)]


GOLDEN = {
    (49, 8): [0, 8, 16, 24, 32, 40, 48],
    (144, 24): [0, 24, 48, 72, 96, 120, 143],
    (16, 8): [0, 8, 15],
    (1, 8): [0],
}
"""What VisionReward's released script takes of so many frames at so many a second (its code, run)."""


@pytest.mark.parametrize(("frames", "rate"), GOLDEN)
def test_one_frame_a_second_as_released(frames: int, rate: int) -> None:
    assert by_seconds([i / rate for i in range(frames)]) == GOLDEN[frames, rate]


@given(
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60).map(lambda steps: np.cumsum([0.0, *steps]).tolist()),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    st.integers(1, 24),
)
def test_each_frame_is_the_nearest_to_its_second(times: list[float], every: float, most: int) -> None:
    """Also where frames come at odd times."""
    found = by_seconds(times, every, most)
    assert 1 <= len(found) <= most and found == sorted(found)
    for i, frame in enumerate(found):
        assert abs(times[frame] - i * every) == min(abs(t - i * every) for t in times)
    assert len(found) == most or len(found) == round(times[-1] / every) + 1


@given(st.integers(1, 500), st.integers(1, 40))
def test_frames_by_count_are_even(total: int, count: int) -> None:
    found = by_count(total, count)
    assert len(found) == count and found[0] == 0 and (count == 1 or found[-1] == total - 1)
    steps = np.diff(found)
    assert count < 3 or steps.max() - steps.min() <= 1


@pytest.mark.parametrize(("frames", "rate"), GOLDEN)
def test_the_right_frames_are_read(tmp_path: Path, frames: int, rate: int) -> None:
    read = numbers(write_video(tmp_path / "a.mp4", frames, rate))
    assert all(abs(a - b) <= 1 for a, b in zip(read, [n % 128 for n in GOLDEN[frames, rate]], strict=True))


def test_no_more_than_asked_from_the_beginning(tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.mp4", 120, 4, (32, 32))
    assert len(read_frames(video)) == 24
    assert numbers(video, FrameConfig(most=3)) == pytest.approx([0, 4, 8], abs=1)
    assert numbers(video, FrameConfig(every=0.5, most=3)) == pytest.approx([0, 2, 4], abs=1)
    assert numbers(video, FrameConfig(count=4)) == pytest.approx([0, 39, 79, 119], abs=1)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx-vp9"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4")])
def test_other_containers(tmp_path: Path, name: str, codec: str) -> None:
    video = write_video(tmp_path / name, 17, 8, codec=codec)
    assert numbers(video) == pytest.approx([0, 8, 16], abs=1)
    assert read_frames(video)[0].size == (64, 48) and read_frames(video)[0].mode == "RGB"


def test_an_animated_picture_is_a_video(tmp_path: Path) -> None:
    from PIL import Image

    stills = [Image.new("RGB", (16, 16), (60 * i, 0, 0)) for i in range(4)]
    stills[0].save(tmp_path / "a.gif", save_all=True, append_images=stills[1:], duration=1000)
    reds = [np.asarray(frame)[:, :, 0].mean() for frame in read_frames(tmp_path / "a.gif")]
    assert reds == pytest.approx([0, 60, 120, 180], abs=4)


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    """A stream that starts at 100 seconds."""
    with av.open(str(tmp_path / "late.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(17):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * i, np.uint8), format="rgb24")
            frame.pts = 800 + i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    greys = [np.asarray(frame).mean() for frame in read_frames(tmp_path / "late.mkv")]
    assert greys == pytest.approx([0, 80, 160], abs=4)


# -------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("size", [(16, 24), (17, 25)])
def test_what_was_written_is_read_again(size: tuple[int, int], tmp_path: Path) -> None:
    """Smooth colours come back within what 4:2:0 and 8 bits lose; odd sides lose a row or a column."""
    height, width = size
    time, across = torch.linspace(0, 1, 9).view(-1, 1, 1, 1), torch.linspace(0, 1, width)
    made = torch.cat([time * across, 1 - time * across, 0.5 * time + 0 * across], 1).expand(9, 3, height, width)
    video.write_video(tmp_path / "a.mp4", made, fps=8)
    again = read_video(tmp_path / "a.mp4", FrameConfig(count=9))
    assert again.shape == (9, 3, 16, 24)
    assert (again - made[..., :16, :24]).abs().mean() < 0.02
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 8
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_writing_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"writing videos takes PyAV; pip install 'beholder\[video\]'"):
        video.write_video(tmp_path / "a.mp4", torch.zeros(1, 3, 16, 16), 8)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- mistakes


def refusal(path: Path, config: FrameConfig | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_frames(path, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    whole = write_video(tmp_path / "whole.mp4", 20, 8).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    assert "no file" in refusal(tmp_path / "nowhere.mp4")
    for name in ("text.mp4", "empty.mp4", "cut.mp4"):
        assert "not a readable video" in refusal(tmp_path / name) and name in refusal(tmp_path / name)


def test_a_file_with_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "no picture in it" in refusal(tmp_path / "sound.mp4")


@pytest.mark.parametrize("config", [FrameConfig(every=0.0), FrameConfig(most=0), FrameConfig(count=0)])
def test_settings_that_ask_for_nothing(tmp_path: Path, config: FrameConfig) -> None:
    assert "greater than 0" in refusal(tmp_path / "a.mp4", config)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'beholder[video]'" in refusal(tmp_path / "a.mp4")
