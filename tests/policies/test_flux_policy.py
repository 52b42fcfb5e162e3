"""FLUX.1 on tiny genuine pipelines: it draws what diffusers draws, replays it, learns, and is saved so that diffusers
itself loads it."""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from beholder.config import KernelConfig, PolicyConfig, RunConfig
from beholder.errors import InputError
from beholder.evaluation.heldout import draw_images
from beholder.methods.row import vary
from beholder.policies import Policy, load_policy
from beholder.policies.flux import packed, places, unpacked
from beholder.rollouts.engine import noise_for, replay
from beholder.training.validator import problems
from small_policies import KERNELS, LORA, PROMPTS, SEEDS, drawn, pipeline_output, stir, velocity
from tiny import IMAGE_SIZE, LATENT_CHANNELS, tiny_flux

TOKENS = 16
both_models = pytest.mark.parametrize("model", ["dev", "schnell"])
both_trainings = pytest.mark.parametrize("training", ["lora", "full"])


@pytest.fixture(scope="session")
def folders(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    schnell = tmp_path_factory.mktemp("schnell")
    tiny_flux(distilled=False).save_pretrained(schnell)
    return {"dev": tiny_flux_folder, "schnell": schnell}


@pytest.fixture(scope="session")
def untouched(folders: dict[str, Path]) -> Callable[[str], Policy]:
    """One policy per model for the tests that change nothing about it."""
    return cache(lambda model: load(folders[model]))


def load(folder: Path, **settings: Any) -> Policy:
    given = {"max_sequence_length": TOKENS, "resolution": IMAGE_SIZE, "lora": LORA, **settings}
    return load_policy(PolicyConfig(model=str(folder), **given))


def plain_pipeline(folder: Path) -> Any:
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pipeline_images(pipeline: Any, policy: Policy, steps: int, scale: float = 1.0, **settings: Any) -> Tensor:
    channels, h, w = policy.family.latent_shape()
    noise = noise_for(torch.tensor(SEEDS), policy.family.latent_shape(), 0)
    negative = {} if scale == 1 else {"true_cfg_scale": scale, "negative_prompt": [policy.config.negative] * 2}
    given = {"latents": FluxPipeline._pack_latents(noise, 2, channels, h, w), "max_sequence_length": TOKENS}
    return pipeline_output(pipeline, policy, steps, **given, **negative, **settings)


# ---------------------------------------------------------------------------------------------------------- drawing


@both_models
def test_draws_what_the_pipeline_draws_from_the_same_noise(
    model: str, untouched: Callable[[str], Policy], folders: dict[str, Path]
) -> None:
    policy, pipeline = untouched(model), plain_pipeline(folders[model])
    for steps, scale in ((1, 1.0), (4, 1.0), (4, 4.0)):
        want = pipeline_images(pipeline, policy, steps, scale)
        assert want.std() > 0.05
        assert (draw_images(policy, PROMPTS, SEEDS, steps, scale, batch=2) - want).abs().max() <= 1e-4


def test_true_guidance_goes_away_from_the_negative_prompt(folders: dict[str, Path]) -> None:
    policy = load(folders["dev"], negative="a blue cat")
    want = pipeline_images(plain_pipeline(folders["dev"]), policy, 3, 3.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 3.0, batch=2) - want).abs().max() <= 1e-4
    other = draw_images(load(folders["dev"]), PROMPTS, SEEDS, 3, 3.0, batch=2)
    assert (other - want).abs().max() > 1e-2


def test_the_embedded_guidance_is_the_pipelines_guidance_scale(folders: dict[str, Path]) -> None:
    pipeline, own = plain_pipeline(folders["dev"]), {}
    for value in (None, 3.5, 1.0):
        policy = load(folders["dev"], embedded_guidance=value)
        own[value] = draw_images(policy, PROMPTS, SEEDS, 3, 1.0, batch=2)
        settings = {} if value is None else {"guidance_scale": value}
        assert (own[value] - pipeline_images(pipeline, policy, 3, **settings)).abs().max() <= 1e-4
    assert torch.equal(own[None], own[3.5])
    assert (own[None] - own[1.0]).abs().max() > 1e-2


def test_embedded_guidance_is_refused_where_the_network_takes_none(
    folders: dict[str, Path], tiny_sd3_folder: Path, tiny_sd_folder: Path, tiny_text_to_video_sd_folder: Path
) -> None:
    for folder in (folders["schnell"], tiny_sd3_folder, tiny_sd_folder, tiny_text_to_video_sd_folder):
        with pytest.raises(InputError, match=r"^policy\.embedded_guidance: 3\.5 has no effect.*leave it out$"):
            load(folder, embedded_guidance=3.5)
    config = vary(RunConfig(method="dance-grpo"), "dance-grpo", {"policy.embedded_guidance": 0.0})
    assert any(problem.startswith("policy.embedded_guidance: 0.0") for problem in problems(config))


def test_other_shapes_than_square(folders: dict[str, Path]) -> None:
    policy = load(folders["dev"], resolution=16, width=40)
    assert policy.family.latent_shape() == (LATENT_CHANNELS, 8, 20)
    want = pipeline_images(plain_pipeline(folders["dev"]), policy, 3)
    assert want.shape == (2, 3, 16, 40)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 1.0, batch=2) - want).abs().max() <= 1e-4
    assert load(folders["dev"], resolution=None).family.latent_shape() == (LATENT_CHANNELS, 128, 128)


def test_sizes_off_the_grid_and_frames_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"policy\.resolution: 30 .* 4; use 32$"):
        load(folders["dev"], resolution=30)
    with pytest.raises(InputError, match=r"policy\.width: 18 .* 4; use 16$"):
        load(folders["dev"], width=18)
    with pytest.raises(InputError, match=r"policy\.frames: FluxPipeline draws images"):
        load(folders["dev"], frames=5)


def test_an_image_does_not_depend_on_its_batch(untouched: Callable[[str], Policy]) -> None:
    together = draw_images(untouched("dev"), PROMPTS * 2, [1, 2, 3, 4], 3, 2.0, batch=4)
    alone = draw_images(untouched("dev"), PROMPTS * 2, [1, 2, 3, 4], 3, 2.0, batch=1)
    assert (together - alone).abs().max() <= 1e-5
    assert (together[0] - together[2]).abs().max() > 1e-2


def test_packing_is_a_reordering_with_its_places() -> None:
    latents = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tokens = packed(latents)
    assert tokens.shape == (2, 6, 12)
    assert tokens[1, 4].tolist() == latents[1, :, 2:4, 2:4].flatten().tolist()
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, 2, 3, 4, 6))
    assert torch.equal(unpacked(tokens, 4, 6), latents)
    assert places(4, 6, torch.device("cpu"))[4].tolist() == [0, 1, 1]


# --------------------------------------------------------------------------------------------------------- schedules


@both_models
def test_the_schedule_is_the_pipelines_own(
    model: str, folders: dict[str, Path], untouched: Callable[[str], Policy]
) -> None:
    pipeline = plain_pipeline(folders[model])
    for steps in (1, 4, 12):
        pipeline_images(pipeline, untouched(model), steps)
        sigmas = untouched(model).schedule(steps)
        assert sigmas.dtype == torch.float64 and sigmas[0] == 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
        assert torch.equal(sigmas, pipeline.scheduler.sigmas.double())
    if model == "schnell":
        torch.testing.assert_close(sigmas, torch.linspace(1, 0, 13, dtype=torch.float64), rtol=0, atol=1e-6)


def test_more_pixels_stay_longer_in_the_noise(folders: dict[str, Path]) -> None:
    """exp(μ) t / (1 + (exp(μ) - 1) t), and FLUX.1-dev's own levels at 512 pixels, where there are 1024 tokens."""
    for size in (32, 64):
        mu = calculate_shift((size // 4) ** 2)
        even = torch.linspace(1, 0, 9, dtype=torch.float64)
        want = math.exp(mu) * even
        want = want / (want + 1 - even)
        torch.testing.assert_close(load(folders["dev"], resolution=size).schedule(8), want, rtol=0, atol=1e-6)
    published = torch.tensor([1, 0.903736, 0.789705, 0.652489, 0.484218, 0.273003, 0], dtype=torch.float64)
    tokens_1024 = load(folders["dev"], resolution=128).schedule(6)
    torch.testing.assert_close(tokens_1024, published, rtol=0, atol=1e-6)


def test_a_fixed_shift_in_the_folder_is_kept(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = plain_pipeline(folders["dev"])
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline.save_pretrained(tmp_path / "fixed")
    even = torch.linspace(1, 0, 17, dtype=torch.float64)
    sigmas = load(tmp_path / "fixed").schedule(16)
    torch.testing.assert_close(sigmas, 3 * even / (1 + 2 * even), rtol=0, atol=1e-6)
    policy = load(tmp_path / "fixed")
    policy.pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(InputError, match=r"policy\.model: its scheduler FlowMatchHeunDiscreteScheduler has not"):
        policy.schedule(4)


# --------------------------------------------------------------------------------------------- replaying and learning


@both_trainings
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_ratio_is_one_before_the_first_update(training: str, guidance: float, folders: dict[str, Path]) -> None:
    policy = stir(load(folders["dev"], training=training))
    found = []
    for kernel in KERNELS:
        trajectory = drawn(policy, kernel, guidance)
        assert trajectory.n_dims == torch.Size(policy.family.latent_shape()).numel()
        rows, steps = torch.tensor([[3, 0, 1, 3, 2], [0, 1, 2, 2, 0]])
        chosen = trajectory.decisions.select(trajectory.decision_NT[rows, steps])
        scored = replay(policy, trajectory, chosen)
        assert scored.logp_M.requires_grad
        assert (((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).exp() - 1).abs().max() <= 1e-6, kernel
        found.append((trajectory, chosen))
    stir(policy, seed=1)
    for trajectory, chosen in found:
        assert (replay(policy, trajectory, chosen).logp_M - chosen.logp_old_M).abs().min() > 1e-2


@both_trainings
def test_half_precision_replays_itself_and_learns_in_float32(training: str, folders: dict[str, Path]) -> None:
    policy = stir(load(folders["dev"], dtype="bfloat16", training=training))
    assert {p.dtype for p in policy.trainable().values()} == {torch.float32}
    trajectory = drawn(policy, KernelConfig())
    chosen = trajectory.decisions.select(trajectory.decision_NT[:, 1])
    scored = replay(policy, trajectory, chosen)
    assert trajectory.final_Nx.dtype == scored.logp_M.dtype == torch.float32
    assert ((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).abs().max() <= 1e-6
    scored.logp_M.sum().backward()
    assert max(p.grad.abs().max() for p in policy.trainable().values() if p.grad is not None) > 0
    assert policy.decode(trajectory.final_Nx, 0.0, 4).dtype == torch.float32


def test_the_reference_is_the_base_and_every_factor_learns(folders: dict[str, Path]) -> None:
    policy, base = load(folders["dev"]), load(folders["dev"], training="full")
    with torch.no_grad():
        assert torch.equal(velocity(policy), velocity(base))
        stir(policy)
        with policy.reference():
            assert torch.equal(velocity(policy), velocity(base))
        assert (velocity(policy) - velocity(base)).abs().max() > 1e-2
    velocity(policy).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in policy.trainable().values())
    layers = {name.rpartition(".lora_")[0] for name in policy.trainable()}
    assert {n.removeprefix("transformer_blocks.0.") for n in layers if n.startswith("tra")} == {
        *(f"attn.{n}" for n in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")),
        *(f"attn.add_{n}_proj" for n in "qkv"),
        *(f"{n}.{m}" for n in ("ff", "ff_context") for m in ("net.0.proj", "net.2")),
    }
    assert {n.rpartition(".")[2] for n in layers if n.startswith("single")} == {"to_q", "to_k", "to_v"}


# ---------------------------------------------------------------------------------------------------- save and load


@both_models
def test_a_saved_adapter_draws_the_same_in_plain_diffusers(
    model: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = stir(load(folders[model]))
    policy.save(tmp_path / "policy")
    pipeline = plain_pipeline(folders[model])
    base = pipeline_images(pipeline, policy, 3, 2.0)
    pipeline.load_lora_weights(tmp_path / "policy")
    want = pipeline_images(pipeline, policy, 3, 2.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 2.0, batch=2) - want).abs().max() <= 1e-4
    assert (base - want).abs().max() > 1e-2


def test_a_fully_trained_denoiser_loads_in_plain_diffusers(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = stir(load(folders["dev"], training="full"))
    assert set(policy.trainable()) == {name for name, _ in policy.module.named_parameters()}
    policy.save(tmp_path / "policy")
    pipeline = plain_pipeline(folders["dev"])
    base = pipeline_images(pipeline, policy, 3)
    pipeline.register_modules(transformer=FluxTransformer2DModel.from_pretrained(tmp_path / "policy"))
    want = pipeline_images(pipeline, policy, 3)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 1.0, batch=2) - want).abs().max() <= 1e-4
    assert (base - want).abs().max() > 1e-2


@both_trainings
def test_what_was_saved_is_loaded_again(training: str, folders: dict[str, Path], tmp_path: Path) -> None:
    policy = stir(load(folders["dev"], training=training))
    policy.save(tmp_path / "policy")
    again = load(folders["dev"], training=training, adapter=str(tmp_path / "policy"))
    assert torch.equal(velocity(again), velocity(policy))
    again.save(tmp_path / "again")
    files = [next((tmp_path / name).glob("*.safetensors")).read_bytes() for name in ("policy", "again")]
    assert files[0] == files[1]


def test_a_sister_pipeline_is_refused_by_name(folders: dict[str, Path], tmp_path: Path) -> None:
    DiffusionPipeline.from_pretrained(folders["dev"]).save_pretrained(tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    sister = {**index, "_class_name": "FluxImg2ImgPipeline"}
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(sister))
    with pytest.raises(InputError, match=r"FluxImg2ImgPipeline are not supported yet; supported: .*FluxPipeline"):
        load(tmp_path / "model")


def test_a_folder_without_its_denoiser_is_refused_in_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    DiffusionPipeline.from_pretrained(folders["dev"]).save_pretrained(tmp_path / "model")
    for file in (tmp_path / "model" / "transformer").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"^policy\.model: .*does not load") as refusal:
        load(tmp_path / "model")
    assert "\n" not in str(refusal.value)


# --------------------------------------------------------------------------------------------- conditions and images


def test_conditions_are_the_pipelines_embeddings(untouched: Callable[[str], Policy], folders: dict[str, Path]) -> None:
    found = untouched("dev").encode(PROMPTS).tensors
    tokens, pooled, _ = plain_pipeline(folders["dev"]).encode_prompt(PROMPTS, max_sequence_length=TOKENS)
    assert tokens.shape[1] == TOKENS and pooled.ndim == 2
    torch.testing.assert_close(found["tokens"], tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["pooled"], pooled, rtol=1e-4, atol=1e-5)
    assert load(folders["dev"], max_sequence_length=8).encode([""]).tensors["tokens"].shape[1] == 8


@torch.no_grad()
def test_images_become_latents_by_the_autoencoders_shift_and_scale(untouched: Callable[[str], Policy]) -> None:
    policy = untouched("dev")
    vae = policy.pipeline.vae
    assert (vae.config.shift_factor, vae.config.scaling_factor) == (0.1, 0.5)
    image = torch.rand(3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    mean = vae.encode(image[None] * 2 - 1).latent_dist.mean
    latents = policy.encode_images([image])
    torch.testing.assert_close(latents, (mean - 0.1) * 0.5)
    want = (vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(policy.decode(latents, 0.0, 1), want, rtol=1e-4, atol=1e-5)
