"""HPSv3 and VideoReward: their files, their pre-processing, and their numbers derived once more."""

import hashlib
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from published import State
from published_qwen import (
    CONFIG,
    MARKS,
    NORMALISATION,
    renamed,
    save_hpsv3,
    save_videoalign,
    vocabulary,
)
from safetensors.torch import save_file
from torch import Tensor

from beholder.cli import run
from beholder.errors import InputError
from beholder.rewards import load_reward, score
from beholder.rewards.zoo.parts import PartedScorer
from beholder.rewards.zoo.qwen_pixels import QwenPixels, looked_at, patches
from beholder.rewards.zoo.qwen_reward import RoundedAngles, layout
from beholder.rewards.zoo.videoalign import spread
from beholder.rewards.zoo.wordings import wording
from beholder.video import read_video
from tiny_vlms import QWEN_SPECIALS, tokenizer

PROMPTS = ["a red circle", "", "two crosses {and} a much longer sentence about them, {text_prompt}"]
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
SMALL = 4 * 28 * 28
"""Pixels of a frame in tests that need not be those of the original."""


def images(count: int = 3, height: int = 60, width: int = 90) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def parted(name: str) -> PartedScorer:
    scorer = load_reward(name).score
    assert isinstance(scorer, PartedScorer)
    return scorer


@pytest.fixture(scope="module")
def hpsv3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    folder = tmp_path_factory.mktemp("hpsv3")
    return folder, save_hpsv3(folder)


@pytest.fixture(scope="module")
def videoalign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    folder = tmp_path_factory.mktemp("videoalign")
    return folder, save_videoalign(folder)


# ------------------------------------------------------------------------------------------------ derived once more


def states(state: State, pixel_values: np.ndarray, grid: list[int], text: str, place: str, specials: tuple[str, ...]):
    """The last states of Qwen2-VL as transformers runs it whole, with the authors' positions, and the token ids."""
    words = tokenizer((*QWEN_SPECIALS, *specials))
    pixels = math.prod(grid) // 4
    whole = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + place * pixels
        + f"<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = torch.tensor(words(whole, add_special_tokens=False)["input_ids"])[None]
    said = {**json.loads(json.dumps(CONFIG)), "vocab_size": vocabulary() + len(specials), "torch_dtype": "float32"}
    config = tf.Qwen2VLConfig(**said)
    config.image_token_id, config.video_token_id = words.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    model: Any = tf.Qwen2VLForConditionalGeneration(config).eval()
    model.load_state_dict({n: v for n, v in renamed(state).items() if "rm_head" not in n})
    model.model.language_model.rotary_emb.to(torch.bfloat16)
    model.model.visual.rotary_pos_emb.forward = partial(angles, model.model.visual.rotary_pos_emb.inv_freq)
    kind = "image" if place == "<|image_pad|>" else "video"
    given = {
        "pixel_values" + ("_videos" if kind == "video" else ""): torch.from_numpy(pixel_values).float(),
        f"{kind}_grid_thw": torch.tensor([grid]),
    }
    with torch.no_grad():
        out = model(
            input_ids=ids,
            position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1),
            output_hidden_states=True,
            **given,
        )
    return out.hidden_states[-1][0], ids[0], words


def angles(inv_freq: Tensor, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    """What Qwen2-VL's tower computes after ``to(bfloat16)`` (transformers 4.45): an outer product as a table."""
    table = torch.outer(torch.arange(500, dtype=torch.bfloat16), inv_freq.to(torch.bfloat16))
    chosen = table[position_ids].flatten(1)
    return (torch.cat([chosen.cos()] * 2, -1), torch.cat([chosen.sin()] * 2, -1))


def patched(frames: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """``[T, h, w, 3]`` in 0..1 → patches as Qwen2-VL's own processor orders them, by loops."""
    frames = (frames - MEAN) / STD
    if len(frames) % 2:
        frames = np.concatenate([frames, frames[-1:]])
    t, h, w = len(frames) // 2, frames.shape[1] // 14, frames.shape[2] // 14
    rows = []
    for i in range(t):
        for top in range(0, h, 2):
            for left in range(0, w, 2):
                for y in (top, top + 1):
                    for x in (left, left + 1):
                        block = frames[2 * i : 2 * i + 2, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14]
                        rows.append(block.transpose(3, 0, 1, 2).ravel())
    return np.stack(rows), [t, h, w]


def hpsv3_by_hand(state: State, image: Tensor, prompt: str) -> tuple[float, float]:
    """μ and σ: the size by qwen-vl-utils' rule, Pillow, the whole model, and the head in float64."""
    picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    width, height = picture.size
    area = 256 * 28 * 28
    h, w = max(28, round(height / 28) * 28), max(28, round(width / 28) * 28)
    if h * w > area:
        beta = math.sqrt(height * width / area)
        h, w = math.floor(height / beta / 28) * 28, math.floor(width / beta / 28) * 28
    elif h * w < area:
        beta = math.sqrt(area / (height * width))
        h, w = math.ceil(height * beta / 28) * 28, math.ceil(width * beta / 28) * 28
    seen, grid = patched(np.asarray(picture.resize((w, h)))[None] / 255)
    text = wording("hpsv3").replace("{text_prompt}", prompt)
    hidden, ids, words = states(state, seen, grid, text, "<|image_pad|>", ("<|Reward|>",))
    (at,) = (ids == words.convert_tokens_to_ids("<|Reward|>")).nonzero()[:, 0].tolist()
    x = hidden[at].double().numpy()
    for place in (0, 3, 5):
        weight, bias = (state[f"rm_head.{place}.{kind}"].double().numpy() for kind in ("weight", "bias"))
        x = weight @ x + bias
        x = np.maximum(x, 0) if place < 5 else x
    return x[0], math.exp(x[1])


def videoalign_by_hand(state: State, video: Tensor, prompt: str) -> np.ndarray:
    """VQ, MQ, TA, normalised: torchvision's resize of 8-bit frames written out, the whole model, the vector."""
    height, width = video.shape[-2:]
    h, w = looked_at(height, width, 128 * 28 * 28, 200704)
    frames = torch.nn.functional.interpolate((video * 255).round(), (h, w), mode="bicubic", antialias=True)
    seen, grid = patched(frames.clamp(0, 255).round().permute(0, 2, 3, 1).numpy() / 255)
    text = wording("videoalign").replace("{text_prompt}", prompt)
    hidden, ids, words = states(state, seen, grid, text, "<|video_pad|>", MARKS)
    made = []
    for i, (name, mark) in enumerate(zip(("VQ", "MQ", "TA"), MARKS, strict=True)):
        (at,) = (ids == words.convert_tokens_to_ids(mark)).nonzero()[:, 0].tolist()
        vectors = state["rm_head.weight"].double().numpy()
        raw = vectors[i % len(vectors)] @ hidden[at].double().numpy()
        made.append((raw - NORMALISATION[f"{name}_mean"]) / NORMALISATION[f"{name}_std"])
    return np.array(made)


def test_hpsv3_is_the_head_on_the_state_of_its_token(hpsv3: tuple[Path, State]) -> None:
    folder, state = hpsv3
    scorer = parted(f"hpsv3@{folder}")
    given = images(2)
    table = scorer.table(scorer.prepare(given), PROMPTS[::2])
    for i, prompt in enumerate(PROMPTS[::2]):
        assert table[i].tolist() == pytest.approx(hpsv3_by_hand(state, given[i], prompt), rel=1e-4, abs=1e-5)
    assert torch.equal(scorer(given, PROMPTS[::2]), table[:, 0])
    assert table[0, 0] != table[1, 0] and (table[:, 1] > 0).all()


def test_videoalign_is_the_head_on_the_states_of_its_three_tokens(videoalign: tuple[Path, State]) -> None:
    folder, state = videoalign
    scorer = parted(f"videoalign@{folder}")
    video = images(4, 200, 160)
    table = scorer.table(scorer.prepare(video[None]), [PROMPTS[2]])
    expected = videoalign_by_hand(state, video, PROMPTS[2])
    assert table[0].tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-4)
    assert scorer(video[None], [PROMPTS[2]]).tolist() == pytest.approx([expected.sum()], rel=1e-4, abs=1e-4)


def test_a_head_of_three_outputs_gives_each_token_its_own(tmp_path: Path) -> None:
    state = save_videoalign(tmp_path, outputs=3, form="plain")
    scorer = parted(f"videoalign@{tmp_path}")
    video = images(2, 200, 160)
    table = scorer.table(scorer.prepare(video[None]), ["a"])
    assert table[0].tolist() == pytest.approx(videoalign_by_hand(state, video, "a").tolist(), rel=1e-4, abs=1e-4)


def test_the_three_parts_are_rewards_of_one_model(videoalign: tuple[Path, State]) -> None:
    folder, _ = videoalign
    video = images(2, 200, 160)[None]
    whole = parted(f"videoalign@{folder}")
    table = whole.table(whole.prepare(video), ["a"])
    for i, name in enumerate(("vq", "mq", "ta")):
        one = parted(f"videoalign_{name}@{folder}")
        assert one(video, ["a"]).tolist() == pytest.approx([table[0, i].item()])
        assert one.network is whole.network
    assert whole.named(table)[0].keys() == {"VQ", "MQ", "TA"}


# ------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [(1024, 1024, (448, 448)), (448, 448, (448, 448)), (60, 90, (392, 560)), (5, 5, (448, 448)), (1, 200, (56, 6356))],
)
def test_hpsv3_looks_at_about_256_tokens(height: int, width: int, seen: tuple[int, int]) -> None:
    """Derived by hand: floor of side / √(area / 200704) above it, the ceiling below."""
    assert looked_at(height, width, 200704, 200704) == seen


def test_patches_are_those_of_the_familys_own_processor() -> None:
    given = images(2, 56, 84)
    own = tf.Qwen2VLImageProcessorPil(min_pixels=SMALL, max_pixels=8 * 28 * 28)
    pictures = [(image * 255).round().to(torch.uint8) for image in given]
    expected = own(images=[picture.permute(1, 2, 0).numpy() for picture in pictures], return_tensors="pt")
    seen = QwenPixels(SMALL, 8 * 28 * 28)(given)
    flat, grid = patches(seen[:, None], 14, 2)
    torch.testing.assert_close(flat, expected["pixel_values"], atol=1e-5, rtol=0)
    assert grid.tolist() == expected["image_grid_thw"].tolist()


def test_the_towers_angles_are_rounded_as_in_training() -> None:
    """At the published width; the exact ones differ by far more than a rounding of float32."""
    rounded = RoundedAngles(tf.Qwen2VLVisionConfig())
    places = torch.cartesian_prod(torch.arange(32), torch.arange(32))
    got, expected = rounded(torch.zeros(1), places), angles(rounded.inv_freq, torch.zeros(1), places)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    exact = super(RoundedAngles, rounded).forward(torch.zeros(1), places)
    assert (exact[0] - got[0]).abs().max() > 0.01


def test_an_image_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="1 × 201 pixels; the longer side may be at most 200 times"):
        looked_at(1, 201, 200704, 200704)


@pytest.mark.parametrize(
    ("total", "fps", "frames"),
    [
        (49, 8, [0, 4, 9, 13, 17, 22, 26, 31, 35, 39, 44, 48]),
        (16, 8, [0, 5, 10, 15]),
        (6, 24, [0, 2, 3, 5]),
        (3, 24, [0, 2]),
        (1, 24, [0]),
        (108, 24, [0, 15, 31, 46, 61, 76, 92, 107]),
    ],
)
def test_frames_twice_a_second_and_an_even_number(total: int, fps: int, frames: list[int]) -> None:
    assert spread([i / fps for i in range(total)]) == frames


def test_gradients_reach_the_pixels_and_the_values_stay(hpsv3: tuple[Path, State]) -> None:
    scorer = parted(f"hpsv3@{hpsv3[0]}")
    given = images(1).requires_grad_()
    value = scorer(given, ["a"])
    assert value.item() == pytest.approx(scorer(images(1), ["a"]).item(), abs=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), given)
    assert gradient.isfinite().all() and gradient.norm() > 0
    moved = (given + 0.02 * gradient.sign()).clamp(0, 1).detach()
    assert (scorer(moved, ["a"]) > value).all()


def test_a_video_file_is_looked_at_as_the_checkpoint_says_and_told_with_its_parts(
    videoalign: tuple[Path, State], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("av")
    from small_videos import write_video

    path, name = write_video(tmp_path / "a.mp4", 16, 8, size=(160, 128)), f"videoalign@{videoalign[0]}"
    assert run(["score", str(path), "--prompt", "a cat", "--reward", name, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    frames = read_video(path)[None], read_video(path, choose=spread)[None]
    assert [video.shape[1] for video in frames] == [3, 4]
    scorer = parted(name)
    (expected,) = scorer.named(scorer.table(scorer.prepare(frames[1]), ["a cat"]))
    assert row["parts"][name]["parts"] == pytest.approx(expected, abs=1e-5)
    assert row[name] == pytest.approx(sum(value or 0 for value in expected.values()), abs=1e-5)
    assert row[name] != pytest.approx(scorer(frames[0], ["a cat"]).item(), abs=1e-5)


def test_a_video_file_is_to_hpsv3_the_mean_of_its_frames(
    hpsv3: tuple[Path, State], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("av")
    from small_videos import write_video

    path, name = write_video(tmp_path / "a.mp4", 16, 8, size=(160, 128)), f"hpsv3@{hpsv3[0]}"
    assert run(["score", str(path), "--prompt", "a cat", "--reward", name, "--json"]) == 0
    row, scorer, video = json.loads(capsys.readouterr().out), parted(name), read_video(path)
    table = torch.cat([scorer.table(scorer.prepare(frame[None]), ["a cat"]) for frame in video]).mean(0)
    assert scorer.table(scorer.prepare(video[None]), ["a cat"])[0, 0].item() != pytest.approx(table[0].item(), abs=1e-5)
    assert row[name] == pytest.approx(table[0].item(), abs=1e-5)
    assert row["parts"][name]["parts"] == pytest.approx({"mu": table[0].item(), "sigma": table[1].item()}, abs=1e-5)


# --------------------------------------------------------------------------------------------- company and failures


def test_scores_do_not_depend_on_company(hpsv3: tuple[Path, State], videoalign: tuple[Path, State]) -> None:
    """The prompts differ in length, so one of the two is padded."""
    prompts = PROMPTS[::2]
    for name, given in (
        (f"hpsv3@{hpsv3[0]}", images(2)),
        (f"videoalign@{videoalign[0]}", images(4).unflatten(0, (2, 2))),
    ):
        scorer = parted(name)
        whole = scorer(given, prompts)
        single = torch.cat([scorer(given[i : i + 1], prompts[i : i + 1]) for i in range(2)])
        back = scorer(given.flip(0), prompts[::-1]).flip(0)
        assert whole.dtype == torch.float32 and whole.shape == (2,)
        torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(back, whole, atol=1e-5, rtol=1e-5)


def test_a_torn_image_and_a_prompt_with_a_control_token_fail_alone(hpsv3: tuple[Path, State]) -> None:
    reward = load_reward(f"hpsv3@{hpsv3[0]}")
    torn = images()
    torn[1, 0, 3, 3] = math.nan
    prompts = [PROMPTS[0], PROMPTS[1], "a <|Reward|> cat"]
    table = score(torn, prompts, [reward])
    assert table.failed_N.tolist() == [False, True, True]
    assert table.values_NM[0, 0].item() == pytest.approx(reward.score(images()[:1], prompts[:1]).item(), abs=1e-5)


def test_a_torn_video_fails_alone(videoalign: tuple[Path, State]) -> None:
    scorer = parted(f"videoalign@{videoalign[0]}")
    videos = images(4).unflatten(0, (2, 2)).clone()
    videos[0, 1, 0, 0, 0] = math.nan
    values = scorer(videos, ["a", "b"])
    assert values.isnan().tolist() == [True, False]
    assert scorer.named(scorer.table(scorer.prepare(videos), ["a", "b"]))[0] == {"VQ": None, "MQ": None, "TA": None}
    assert scorer(images(0), []).shape == (0,)


# -------------------------------------------------------------------------------------------------------- checkpoints


def test_both_layouts_of_names_are_one_model(hpsv3: tuple[Path, State], tmp_path: Path) -> None:
    save_hpsv3(tmp_path, new_names=True)
    old, new = (parted(f"hpsv3@{folder}")(images(1), ["a"]) for folder in (hpsv3[0], tmp_path))
    assert torch.equal(old, new)


def test_names_and_shapes_are_those_of_transformers() -> None:
    """Of the published size, without its weights: every tensor of Qwen2-VL-7B finds its place."""
    with torch.device("meta"):
        model = tf.Qwen2VLModel(tf.Qwen2VLConfig(text_config={"num_hidden_layers": 2}, vision_config={"depth": 2}))
    own = set(model.state_dict())
    whole = {f"model.{name}" for name in own} | {"lm_head.weight", "rm_head.0.weight"}
    old = {name.replace("model.language_model.", "model.").replace("model.visual.", "visual.") for name in whole}
    for names in (whole, old):
        placed = [layout(name) for name in names]
        assert {new for part, new in placed if part == "body"} == own
        assert [new for part, new in placed if part == "head"] == ["0.weight"]


@pytest.mark.parametrize("form", ["plain", "adapter"])
def test_a_peft_model_its_adapter_and_a_merged_model_score_alike(
    form: str, videoalign: tuple[Path, State], tmp_path: Path
) -> None:
    state = save_videoalign(tmp_path, form=form)
    if form == "plain":
        state = videoalign[1]
        torch.save(state, tmp_path / "checkpoint-100" / "model.pth")
    video = images(2)[None]
    one, other = (parted(f"videoalign@{folder}") for folder in (videoalign[0], tmp_path))
    torch.testing.assert_close(one(video, ["a"]), other(video, ["a"]), atol=1e-4, rtol=1e-4)


def test_the_latest_checkpoint_is_taken(videoalign: tuple[Path, State], tmp_path: Path) -> None:
    save_videoalign(tmp_path, seed=1)
    (tmp_path / "checkpoint-100").rename(tmp_path / "checkpoint-20")
    early = parted(f"videoalign@{tmp_path}")(images(2)[None], ["a"])
    (tmp_path / "checkpoint-100").symlink_to(videoalign[0] / "checkpoint-100")
    del early
    late = parted(f"videoalign@{tmp_path}")(images(2)[None], ["a"])
    torch.testing.assert_close(late, parted(f"videoalign@{videoalign[0]}")(images(2)[None], ["a"]))


def test_without_normalisation_the_outputs_are_plain(tmp_path: Path) -> None:
    save_videoalign(tmp_path)
    video = images(2)[None]
    scorer = parted(f"videoalign@{tmp_path}")
    normal = scorer.table(scorer.prepare(video), ["a"])
    said = json.loads((tmp_path / "model_config.json").read_text())
    del said["inference_config"], scorer
    (tmp_path / "model_config.json").write_text(json.dumps(said))
    plain = parted(f"videoalign@{tmp_path}")
    mean, std = (torch.tensor([NORMALISATION[f"{n}_{k}"] for n in ("VQ", "MQ", "TA")]) for k in ("mean", "std"))
    torch.testing.assert_close(plain.table(plain.prepare(video), ["a"]), normal * std + mean, atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = save_hpsv3(tmp_path)
    for broken, reason in (
        ({n: v for n, v in state.items() if n != "model.layers.1.mlp.up_proj.weight"}, "1 tensors missing"),
        ({**state, "model.layers.7.mlp.up_proj.weight": torch.zeros(2)}, "1 unexpected"),
        ({n: v for n, v in state.items() if not n.startswith("rm_head.5")}, "2 tensors missing"),
        ({**state, "rm_head.5.weight": torch.zeros(3, 16)}, "does not fit"),
        ({"a": torch.zeros(1)}, "holds no Qwen2-VL"),
    ):
        save_file(broken, tmp_path / "HPSv3.safetensors")
        with pytest.raises(InputError, match=reason):
            load_reward(f"hpsv3@{tmp_path}").score(images(1), ["a"])
    save_videoalign(tmp_path / "v")
    said = json.loads((tmp_path / "v" / "model_config.json").read_text())
    for section, key, value, reason in (
        ("data_config", "prompt_template_type", "none", "without special tokens"),
        ("inference_config", "VQ_std", 0.0, "std that is not positive"),
        ("peft_lora_config", "lora_alpha", None, "does not say lora_alpha"),
    ):
        changed = {**said, section: {**said[section], key: value}}
        (tmp_path / "v" / "model_config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=reason):
            load_reward(f"videoalign@{tmp_path / 'v'}").score(images(1), ["a"])


def test_pickles_with_code_are_refused(tmp_path: Path) -> None:
    save_videoalign(tmp_path)
    torch.save({"a": Path("x")}, tmp_path / "checkpoint-100" / "model.pth")
    with pytest.raises(InputError, match="cannot be read as weights only"):
        load_reward(f"videoalign@{tmp_path}").score(images(1), ["a"])


def test_the_wordings_are_the_authors() -> None:
    """sha256 of VideoAlign's template as the facts of the original code have it."""
    assert hashlib.sha256(wording("videoalign").encode()).hexdigest().startswith("fdb6309b")
    assert hashlib.sha256(wording("hpsv3").encode()).hexdigest().startswith("f6ee5747")
    assert wording("hpsv3").count("<|Reward|>") == 1 and wording("hpsv3").endswith("<|Reward|>\n\nEND\n")
