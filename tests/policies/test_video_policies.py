"""Video families on tiny genuine pipelines: they draw what diffusers draws, replay it, learn, are loaded by others, and
decode no more frames than are asked for."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, UniPCMultistepScheduler
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from beholder.config import (
    ForwardConfig,
    PolicyConfig,
)
from beholder.errors import InputError
from beholder.evaluation.heldout import draw_images
from beholder.policies import Policy, load_policy
from beholder.rollouts.engine import denoising_error, noise_for, replay
from beholder.rollouts.forward import with_forward_decisions
from beholder.rollouts.trajectory import Trajectory
from small_policies import CPS, FLOW_SDE, LORA, PROMPTS, SEEDS, drawn, pipeline_output, stir, velocity
from tiny import VIDEO_SIZE

FRAMES = {"wan": 5, "modelscope": 3}
LATENTS = {"wan": (4, 2, 4, 4), "modelscope": (4, 3, 8, 8)}
both_families = pytest.mark.parametrize("family", FRAMES)


@pytest.fixture(scope="session")
def folders(tiny_wan_folder: Path, tiny_text_to_video_sd_folder: Path) -> dict[str, Path]:
    return {"wan": tiny_wan_folder, "modelscope": tiny_text_to_video_sd_folder}


@pytest.fixture(scope="session")
def untouched(folders: dict[str, Path]) -> Callable[[str], Policy]:
    """One policy per family for the tests that change nothing about it."""
    return cache(lambda family: load(folders[family], FRAMES[family]))


def load(folder: Path, frames: int | None, **settings: Any) -> Policy:
    given = {"max_sequence_length": 16, "resolution": VIDEO_SIZE, "lora": LORA, **settings}
    return load_policy(PolicyConfig(model=str(folder), frames=frames, **given))


def pipeline_videos(pipeline: Any, policy: Policy, steps: int, guidance: float) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    limit = {"max_sequence_length": 16} if policy.family.network_name == "transformer" else {}
    frames = policy.family.frames
    return pipeline_output(pipeline, policy, steps, guidance_scale=guidance, num_frames=frames, **limit)


# ---------------------------------------------------------------------------------------------------------- drawing


@both_families
def test_draws_what_the_pipeline_draws_from_the_same_noise(
    family: str, untouched: Callable[[str], Policy], folders: dict[str, Path]
) -> None:
    policy, pipeline = untouched(family), DiffusionPipeline.from_pretrained(folders[family])
    assert policy.family.latent_shape() == LATENTS[family]
    for steps, guidance in ((1, 1.0), (3, 1.0), (3, 4.0)):
        want = pipeline_videos(pipeline, policy, steps, guidance)
        got = draw_images(policy, PROMPTS, SEEDS, steps, guidance, batch=2)
        assert got.shape == (2, FRAMES[family], 3, VIDEO_SIZE, VIDEO_SIZE)
        assert want.std() > 0.05 and (want[:, 0] - want[:, -1]).abs().mean() > 1e-3
        assert (got - want).abs().max() <= 1e-4


@both_families
def test_a_video_does_not_depend_on_its_batch(family: str, untouched: Callable[[str], Policy]) -> None:
    policy = untouched(family)
    together = draw_images(policy, PROMPTS, [1, 2], 2, 2.0, batch=2)
    alone = draw_images(policy, PROMPTS, [1, 2], 2, 2.0, batch=1)
    assert (together - alone).abs().max() <= 1e-5


def test_wide_videos_and_long_ones(folders: dict[str, Path]) -> None:
    policy = load(folders["modelscope"], 2, width=24)
    assert policy.family.latent_shape() == (4, 2, 8, 12)
    assert draw_images(policy, PROMPTS, SEEDS, 1, 1.0, batch=2).shape == (2, 2, 3, 16, 24)
    assert load(folders["wan"], 13, width=24).family.latent_shape() == (4, 4, 4, 6)
    # what the pipelines draw by themselves
    assert load(folders["wan"], None, resolution=None).family.latent_shape() == (4, 21, 120, 208)
    assert load(folders["modelscope"], None, resolution=None).family.latent_shape() == (4, 16, 8, 8)


def test_sizes_off_the_grid_are_refused_with_the_nearest(folders: dict[str, Path], tiny_sd3_folder: Path) -> None:
    with pytest.raises(InputError, match=r"policy\.frames: 7 is not one more than a multiple of .* 4; use 9$"):
        load(folders["wan"], 7)
    with pytest.raises(InputError, match=r"policy\.width: 20 .* 8; use 16$"):
        load(folders["wan"], 5, width=20)
    with pytest.raises(InputError, match=r"policy\.frames: StableDiffusion3Pipeline draws images"):
        load(tiny_sd3_folder, 5)


def test_wan_of_two_denoisers_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    DiffusionPipeline.from_pretrained(folders["wan"]).save_pretrained(tmp_path / "two")
    index = json.loads((tmp_path / "two" / "model_index.json").read_text())
    (tmp_path / "two" / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": 0.875}))
    with pytest.raises(InputError, match=r"policy\.model: this WanPipeline has two denoisers"):
        load(tmp_path / "two", 5)


def test_a_scheduler_of_higher_order_lends_its_levels(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders["wan"])
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    pipeline.scheduler = UniPCMultistepScheduler(**flow)
    pipeline.save_pretrained(tmp_path / "unipc")
    sigmas = load(tmp_path / "unipc", 5).schedule(10)
    pipeline.scheduler.set_timesteps(10)
    assert sigmas[0] == 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
    assert (sigmas - pipeline.scheduler.sigmas).abs().max() < 3e-3
    pipeline.scheduler = UniPCMultistepScheduler()
    pipeline.save_pretrained(tmp_path / "noise")
    with pytest.raises(InputError, match="UniPCMultistepScheduler has no flow levels"):
        load(tmp_path / "noise", 5).schedule(10)


# --------------------------------------------------------------------------------------------- replaying and learning


@both_families
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_ratio_is_one_before_the_first_update(family: str, guidance: float, folders: dict[str, Path]) -> None:
    policy = stir(load(folders[family], FRAMES[family]))
    trajectory = drawn(policy, FLOW_SDE, guidance, steps=3)
    assert trajectory.n_dims == torch.Size(LATENTS[family]).numel()
    rows, steps = torch.tensor([[3, 0, 1, 2], [0, 1, 1, 0]])
    chosen = trajectory.decisions.select(trajectory.decision_NT[rows, steps])
    scored = replay(policy, trajectory, chosen)
    assert scored.logp_M.shape == (4,) and scored.logp_M.requires_grad
    assert (((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).exp() - 1).abs().max() <= 1e-6
    stir(policy, seed=1)
    assert (replay(policy, trajectory, chosen).logp_M - chosen.logp_old_M).abs().min() > 1e-3


@both_families
def test_half_precision_replays_itself_and_learns_in_float32(family: str, folders: dict[str, Path]) -> None:
    policy = stir(load(folders[family], FRAMES[family], dtype="bfloat16"))
    assert {p.dtype for p in policy.trainable().values()} == {torch.float32}
    trajectory = drawn(policy, FLOW_SDE, steps=3)
    chosen = trajectory.decisions.select(trajectory.decision_NT[:, 1])
    scored = replay(policy, trajectory, chosen)
    assert trajectory.final_Nx.dtype == scored.logp_M.dtype == torch.float32
    assert ((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).abs().max() <= 1e-6
    scored.logp_M.sum().backward()
    assert max(p.grad.abs().max() for p in policy.trainable().values() if p.grad is not None) > 0
    assert policy.decode(trajectory.final_Nx, 0.0, 4).dtype == torch.float32


@both_families
def test_the_reference_is_the_base_and_every_factor_learns(family: str, folders: dict[str, Path]) -> None:
    policy, base = load(folders[family], FRAMES[family]), load(folders[family], FRAMES[family], training="full")
    with torch.no_grad():
        assert torch.equal(velocity(policy), velocity(base))
        stir(policy)
        with policy.reference():
            assert torch.equal(velocity(policy), velocity(base))
        assert (velocity(policy) - velocity(base)).abs().max() > 1e-2
    velocity(policy).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in policy.trainable().values())
    assert {n.rpartition(".lora_")[0].rpartition(".")[2] for n in policy.trainable()} == {"to_q", "to_k", "to_v", "0"}


@both_families
def test_errors_of_renoised_videos_are_their_mean_over_all_dimensions(
    family: str, untouched: Callable[[str], Policy]
) -> None:
    policy = untouched(family)
    trajectory, config = drawn(policy, CPS, steps=3), ForwardConfig(times=2)
    forward = with_forward_decisions(policy, trajectory, config, policy.schedule(3), 2, trajectory.seed_N)
    d = forward.decisions
    error = (d.mean_old_Mx - d.next_Mx).square().flatten(1).mean(1)
    torch.testing.assert_close(d.logp_old_M / forward.n_dims, -error / 2, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        again = replay(policy, forward, d)
    torch.testing.assert_close(again.logp_M, d.logp_old_M, rtol=1e-5, atol=1e-4)


def test_a_mask_weighs_places_in_all_frames(untouched: Callable[[str], Policy]) -> None:
    policy = untouched("modelscope")
    trajectory = drawn(policy, CPS, steps=3)
    half = torch.zeros(4, 1, 8, 8)
    half[..., :4] = 1
    v, u = torch.randn(2, 4, *LATENTS["modelscope"], generator=torch.Generator().manual_seed(0))
    masked = Trajectory(**{**vars(trajectory), "mask_Nx": half})
    want = (v - u).square()[..., :4].flatten(1).sum(1) / trajectory.n_dims
    torch.testing.assert_close(denoising_error(masked, torch.arange(4), v, u), want)


# ---------------------------------------------------------------------------------------------------- save and load


def test_a_saved_adapter_draws_the_same_in_plain_diffusers(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = stir(load(folders["wan"], 5))
    policy.save(tmp_path / "policy")
    pipeline: Any = DiffusionPipeline.from_pretrained(folders["wan"])
    base = pipeline_videos(pipeline, policy, 2, 2.0)
    pipeline.load_lora_weights(tmp_path / "policy")
    want = pipeline_videos(pipeline, policy, 2, 2.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 2, 2.0, batch=2) - want).abs().max() <= 1e-4
    assert (base - want).abs().max() > 1e-2


def test_a_saved_modelscope_adapter_draws_the_same_through_peft(folders: dict[str, Path], tmp_path: Path) -> None:
    """diffusers' own UNet3DConditionModel takes no adapters, so plain diffusers needs peft's own calls."""
    policy = stir(load(folders["modelscope"], 3))
    policy.save(tmp_path / "policy")
    pipeline: Any = DiffusionPipeline.from_pretrained(folders["modelscope"])
    base = pipeline_videos(pipeline, policy, 2, 2.0)
    (file,) = (tmp_path / "policy").glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        settings = json.loads(opened.metadata()["lora_adapter_metadata"])
    settings = {name.removeprefix("unet."): value for name, value in settings.items()}
    inject_adapter_in_model(PeftLoraConfig(**settings), pipeline.unet)
    set_peft_model_state_dict(pipeline.unet, {n.removeprefix("unet."): w for n, w in load_file(file).items()})
    want = pipeline_videos(pipeline, policy, 2, 2.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 2, 2.0, batch=2) - want).abs().max() <= 1e-4
    assert (base - want).abs().max() > 1e-2


@both_families
def test_what_was_saved_is_loaded_again(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    for training in ("lora", "full"):
        policy = stir(load(folders[family], FRAMES[family], training=training))
        policy.save(tmp_path / training)
        again = load(folders[family], FRAMES[family], training=training, adapter=str(tmp_path / training))
        assert torch.equal(velocity(again), velocity(policy))
    kind = json.loads((tmp_path / "full" / "config.json").read_text())["_class_name"]
    plain: Any = DiffusionPipeline.from_pretrained(folders[family])
    assert kind == type(getattr(plain, policy.family.network_name)).__name__
    denoiser = type(getattr(plain, policy.family.network_name)).from_pretrained(tmp_path / "full")
    plain.register_modules(**{policy.family.network_name: denoiser})
    want = pipeline_videos(plain, policy, 1, 1.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 1, 1.0, batch=2) - want).abs().max() <= 1e-4


# -------------------------------------------------------------------------------------------------- frames and videos


@both_families
@torch.no_grad()
def test_chosen_frames_are_those_of_the_whole_video(family: str, untouched: Callable[[str], Policy]) -> None:
    policy = untouched(family)
    x = noise_for(torch.tensor([1, 2, 3]), LATENTS[family], 0)
    whole = policy.decode(x, 0.0, 3)
    for frame_NK in (torch.tensor([[0], [1], [0]]), torch.tensor([[1, 2], [0, 2], [0, 1]])):
        some = policy.decode(x, 0.0, 2, frame_NK)
        want = whole[torch.arange(3)[:, None], frame_NK]
        torch.testing.assert_close(some, want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_no_frame_is_decoded_that_is_not_asked_for(
    untouched: Callable[[str], Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ModelScope's VAE sees pictures, Wan's the latent frames up to the last one asked for."""
    seen: list[tuple[int, ...]] = []

    def count(policy: Policy, frame_NK: Tensor | None) -> list[tuple[int, ...]]:
        decode = policy.pipeline.vae.decode
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(policy.pipeline.vae, "decode", lambda z, **more: seen.append(z.shape) or decode(z, **more))
            policy.decode(noise_for(torch.tensor([1, 2]), policy.family.latent_shape(), 0), 0.0, 2, frame_NK)
        return list(seen)

    one, last = torch.tensor([[0], [2]]), torch.tensor([[0], [1]])
    assert count(untouched("modelscope"), None) == [(2, 4, 8, 8)] * 3
    assert count(untouched("modelscope"), one) == [(2, 4, 8, 8)]
    assert count(untouched("wan"), None) == [(2, 4, 2, 4, 4)]
    assert count(untouched("wan"), last) == [(2, 4, 2, 4, 4)]
    assert count(untouched("wan"), torch.zeros(2, 1, dtype=torch.int64)) == [(2, 4, 1, 4, 4)]


def test_images_have_no_frames(tiny_sd3_folder: Path) -> None:
    policy = load(tiny_sd3_folder, None, resolution=None)
    x = torch.zeros(1, *policy.family.latent_shape())
    with pytest.raises(InputError, match="draws images, which have none"):
        policy.decode(x, 0.0, 1, torch.zeros(1, 1, dtype=torch.int64))


@both_families
@torch.no_grad()
def test_videos_of_other_sizes_become_latents(family: str, untouched: Callable[[str], Policy]) -> None:
    policy, frames = untouched(family), FRAMES[family]
    ramp = torch.linspace(0, 1, 2 * frames - 1)[:, None, None, None].expand(-1, 3, 40, 32)
    fitted = policy.fitted([ramp, ramp[:1].expand(frames, -1, -1, -1)])
    assert fitted.shape == (2, frames, 3, VIDEO_SIZE, VIDEO_SIZE)
    torch.testing.assert_close(fitted[0, :, 0, 3, 3], torch.linspace(0, 1, frames))
    latents = policy.encode_images([ramp])
    assert latents.shape == (1, *LATENTS[family]) and latents.dtype == torch.float32
    vae, video = policy.pipeline.vae, fitted[:1] * 2 - 1
    if family == "wan":
        raw = vae.encode(video.transpose(1, 2)).latent_dist.mean
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        want = (raw - mean) / std
    else:
        want = vae.encode(video[0]).latent_dist.mean.transpose(0, 1)[None]
    torch.testing.assert_close(latents, want, rtol=1e-4, atol=1e-4)


@both_families
def test_a_video_policy_does_not_learn_from_images(
    family: str, untouched: Callable[[str], Policy], tiny_sd3_folder: Path
) -> None:
    with pytest.raises(InputError, match="draws videos, so it can only start and learn from videos"):
        untouched(family).encode_images([torch.zeros(3, 16, 16)])
    with pytest.raises(InputError, match="draws images, so it can only start and learn from images"):
        load(tiny_sd3_folder, None, resolution=None).encode_images([torch.zeros(5, 3, 32, 32)])


def test_wan_cleans_prompts_as_its_pipeline_does(untouched: Callable[[str], Policy]) -> None:
    policy = untouched("wan")
    plain, dirty = (
        policy.encode([text]).tensors["tokens"] for text in (PROMPTS[0], "  a photo   of a red&#32;circle\n")
    )
    assert torch.equal(plain, dirty)
    words = policy.encode(["a red circle"]).tensors["tokens"][0]
    assert words.shape[0] == 16 and words[-1].eq(0).all() and words[0].ne(0).any()
