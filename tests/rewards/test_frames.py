"""Rewards of images and of videos on videos: which frames they see, and what their values become."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from beholder.rewards import Reward, RewardTable, load_reward, load_rewards, score
from beholder.rewards.frames import frames_seen
from beholder.rewards.reward import for_videos, frames_needed, own_reward

LEVELS = torch.tensor([[0.0, 0.2, 0.4, 0.9], [0.5, 0.1, 0.1, 0.1], [1.0, 1.0, 0.0, 0.6]])
VIDEOS = LEVELS.view(3, 4, 1, 1, 1).expand(3, 4, 3, 2, 2)
PROMPTS = ["one", "one", "one"]


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    assert images.ndim == 4 and len(images) == len(prompts)
    return images.mean((1, 2, 3))


def change(videos: Tensor, prompts: Sequence[str]) -> Tensor:
    """How much the brightness moves from frame to frame."""
    return videos.mean((2, 3, 4)).diff(dim=1).abs().mean(1)


change.video = True


def values(reward: Reward, videos: Tensor = VIDEOS, group_N: Tensor | None = None) -> list[float]:
    return score(videos, PROMPTS, [reward], group_N).values_NM[:, 0].tolist()


def test_a_reward_of_images_is_its_mean_over_the_frames() -> None:
    assert values(Reward("brightness", brightness)) == pytest.approx(LEVELS.mean(1).tolist())
    some = Reward("brightness", brightness, frames=(0, 3))
    assert values(some) == pytest.approx(LEVELS[:, [0, 3]].mean(1).tolist())
    assert values(load_reward("brightness"), VIDEOS) == pytest.approx(LEVELS.mean(1).tolist())


def test_one_failed_frame_fails_the_video() -> None:
    def broken(images: Tensor, prompts: Sequence[str]) -> Tensor:
        level = images.mean((1, 2, 3))
        return torch.where(level > 0.8, torch.nan, level)

    table: RewardTable = score(VIDEOS, PROMPTS, [Reward("broken", broken)])
    assert table.failed_N.tolist() == [True, False, True]
    assert table.values_NM[1, 0].item() == pytest.approx(0.2)


def test_a_reward_of_videos_gets_the_video() -> None:
    reward = own_reward("change", change)
    assert reward.video
    assert values(reward) == pytest.approx(LEVELS.diff(dim=1).abs().mean(1).tolist())
    (loaded,) = load_rewards(["change"], {"change": change})
    assert loaded.video and not own_reward("brightness", brightness).video


def test_judges_of_pairs_compare_frame_by_frame() -> None:
    def judge(first: Tensor, second: Tensor, prompts: Sequence[str]) -> Tensor:
        return (brightness(first, prompts) - brightness(second, prompts)).sign() / 2 + 0.5

    won = values(Reward("judge", judge, pairwise=True), VIDEOS, torch.zeros(3, dtype=torch.int64))
    by_hand = [
        [sum((level > other) + (level == other) / 2 for other in column) - 0.5 for level in column]
        for column in LEVELS.T.tolist()
    ]
    assert won == pytest.approx([sum(frame[i] for frame in by_hand) / 4 / 2 for i in range(3)])


def test_gradients_reach_the_chosen_frames_alone() -> None:
    videos = VIDEOS.clone().requires_grad_()
    from beholder.rewards.reward import answered

    answered(Reward("brightness", brightness, frames=(1, 2)), videos, PROMPTS).sum().backward()
    assert videos.grad is not None
    assert videos.grad[:, [1, 2]].eq(1 / 24).all() and videos.grad[:, [0, 3]].eq(0).all()


@pytest.mark.parametrize(
    ("total", "fps", "video", "seconds", "most", "want"),
    [
        (81, 16, False, None, 4, (0, 26, 53, 80)),
        (3, 8, False, None, 4, (0, 1, 2)),
        (16, 8, False, None, 1, (0,)),
        (81, 16, True, 1.0, 4, (0, 16, 32, 48, 64, 80)),
        (81, 16, True, None, 4, None),
        (4, 8, True, 2.0, 4, (0,)),
        (241, 16, True, 0.25, 4, tuple(range(0, 241, 4))),
    ],
)
def test_frames_seen(
    total: int, fps: int, video: bool, seconds: float | None, most: int, want: tuple[int, ...] | None
) -> None:
    assert frames_seen(total, fps, video, seconds, most) == want


def test_only_frames_that_some_reward_sees_are_needed() -> None:
    pair = [Reward("one", brightness, frames=(3, 1)), Reward("other", brightness, frames=(0, 3))]
    frames, remapped = frames_needed(pair)
    assert frames == [0, 1, 3]
    for reward, before in zip(remapped, pair, strict=True):
        assert values(reward, VIDEOS[:, frames]) == values(before)
    assert frames_needed([*pair, own_reward("change", change)]) == (None, [*pair, own_reward("change", change)])
    assert frames_needed([]) == (None, [])


def test_for_videos_leaves_the_rest_of_a_reward_alone() -> None:
    given = [Reward("brightness", brightness, differentiable=True), own_reward("change", change)]
    still, moving = for_videos(given, 81, 16, 2)
    assert (still.frames, still.differentiable, still.score) == ((0, 80), True, brightness)
    assert moving.frames is None and moving.score is change
    assert load_reward("jpeg_compressibility").video is False
