"""SDXL on tiny genuine pipelines: it draws what diffusers draws, replays it, learns, and is saved so that diffusers
itself loads it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from beholder.config import GuidanceConfig, KernelConfig, PolicyConfig
from beholder.errors import InputError
from beholder.evaluation.heldout import draw_images
from beholder.policies import Policy, load_policy
from beholder.rollouts.engine import noise_for, replay
from small_policies import LORA, PROMPTS, SEEDS, drawn, pipeline_output, stir, velocity
from tiny import IMAGE_SIZE, LATENT_CHANNELS, tiny_sdxl

both_predictions = pytest.mark.parametrize("kind", ["ε", "v"])
both_trainings = pytest.mark.parametrize("training", ["lora", "full"])


@pytest.fixture(scope="session")
def folders(tiny_sdxl_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ε with zeros for the empty text, as SDXL base; v with the embedding of the empty text."""
    other = tmp_path_factory.mktemp("sdxl_v")
    tiny_sdxl(prediction_type="v_prediction", zeros=False).save_pretrained(other)
    return {"ε": tiny_sdxl_folder, "v": other}


@pytest.fixture(scope="session")
def untouched(folders: dict[str, Path]) -> Callable[[str], Policy]:
    """One policy per kind for the tests that change nothing about it."""
    return cache(lambda kind: load(folders[kind]))


def load(folder: Path, **settings: Any) -> Policy:
    return load_policy(PolicyConfig(model=str(folder), **{"lora": LORA, **settings}))


def plain_pipeline(folder: Path) -> Any:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pipeline_images(pipeline: Any, policy: Policy, steps: int, guidance: float) -> Tensor:
    negative = [policy.config.negative] * 2 if policy.config.negative else None
    return pipeline_output(pipeline, policy, steps, guidance_scale=guidance, negative_prompt=negative)


@both_predictions
def test_draws_what_the_pipeline_draws_from_the_same_noise(
    kind: str, untouched: Callable[[str], Policy], folders: dict[str, Path]
) -> None:
    policy, pipeline = untouched(kind), plain_pipeline(folders[kind])
    for steps, guidance in ((1, 1.0), (5, 1.0), (5, 4.0)):
        want = pipeline_images(pipeline, policy, steps, guidance)
        assert want.std() > 0.05
        assert (draw_images(policy, PROMPTS, SEEDS, steps, guidance, batch=2) - want).abs().max() <= 2e-4


def test_other_shapes_than_square_are_told_to_the_network(folders: dict[str, Path]) -> None:
    policy = load(folders["ε"], resolution=16, width=40, negative="a blue cat")
    assert policy.family.latent_shape() == (LATENT_CHANNELS, 8, 20)
    want = pipeline_images(plain_pipeline(folders["ε"]), policy, 4, 3.0)
    assert want.shape == (2, 3, 16, 40)
    assert (draw_images(policy, PROMPTS, SEEDS, 4, 3.0, batch=2) - want).abs().max() <= 2e-4
    x = noise_for(torch.tensor([1, 2]), policy.family.latent_shape(), 0)
    with torch.no_grad():
        here = policy.velocity(x, torch.tensor([0.7, 0.4]), policy.encode(PROMPTS), None, GuidanceConfig())
        policy.family.size = (IMAGE_SIZE, IMAGE_SIZE)
        there = policy.velocity(x, torch.tensor([0.7, 0.4]), policy.encode(PROMPTS), None, GuidanceConfig())
    assert (here - there).abs().max() > 1e-3
    with pytest.raises(InputError, match=r"policy\.resolution: 17 .*; use 16$"):
        load(folders["ε"], resolution=17)


@both_predictions
def test_the_schedule_is_the_pipelines_own(
    kind: str, untouched: Callable[[str], Policy], folders: dict[str, Path], tmp_path: Path
) -> None:
    """Of Euler: σ = s / (1 + s) of its signal-to-noise scale s, down to 0; of DDIM its own last level."""
    policy, pipeline = untouched(kind), plain_pipeline(folders[kind])
    for steps in (1, 5, 30):
        pipeline.scheduler.set_timesteps(steps)
        s = pipeline.scheduler.sigmas.double()
        sigmas = policy.schedule(steps)
        assert sigmas.dtype == torch.float64 and sigmas[-1] == 0
        torch.testing.assert_close(sigmas, s / (1 + s), rtol=0, atol=1e-6)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, set_alpha_to_one=False)
    pipeline.save_pretrained(tmp_path / "ddim")
    assert 0 < load(tmp_path / "ddim").schedule(5)[-1] < 0.05


@both_trainings
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_ratio_is_one_before_the_first_update(training: str, guidance: float, folders: dict[str, Path]) -> None:
    policy = stir(load(folders["ε"], training=training))
    found = []
    for kernel in (KernelConfig(kind="ddim", level=1.0), KernelConfig(kind="flow_sde", level=0.7)):
        trajectory = drawn(policy, kernel, guidance)
        rows, steps = torch.tensor([[3, 0, 1, 3, 2], [0, 1, 2, 2, 0]])
        chosen = trajectory.decisions.select(trajectory.decision_NT[rows, steps])
        scored = replay(policy, trajectory, chosen)
        assert scored.logp_M.requires_grad
        assert (((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).exp() - 1).abs().max() <= 1e-6
        found.append((trajectory, chosen))
    stir(policy, seed=1)
    for trajectory, chosen in found:
        assert (replay(policy, trajectory, chosen).logp_M - chosen.logp_old_M).abs().min() > 1e-2


def test_half_precision_replays_itself_and_decodes_in_float32(folders: dict[str, Path]) -> None:
    policy = stir(load(folders["ε"], dtype="float16"))
    assert policy.pipeline.vae.dtype == torch.float32 and policy.pipeline.unet.dtype == torch.float16
    trajectory = drawn(policy, KernelConfig(kind="ddim", level=1.0), steps=3)
    chosen = trajectory.decisions.select(trajectory.decision_NT[:, 1])
    scored = replay(policy, trajectory, chosen)
    assert ((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).abs().max() <= 1e-6
    scored.logp_M.sum().backward()
    assert max(p.grad.abs().max() for p in policy.trainable().values() if p.grad is not None) > 0
    assert policy.decode(trajectory.final_Nx, 0.0, 4).isfinite().all()


def test_the_empty_text_is_zeros_where_the_pipeline_wants_it(untouched: Callable[[str], Policy]) -> None:
    for kind, zeros in (("ε", True), ("v", False)):
        empty = untouched(kind).encode(["", PROMPTS[0]]).tensors
        for value in empty.values():
            assert value[0].eq(0).all() == zeros and value[1].ne(0).any()


@both_predictions
def test_a_saved_adapter_draws_the_same_in_plain_diffusers(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    policy = stir(load(folders[kind]))
    policy.save(tmp_path / "policy")
    pipeline = plain_pipeline(folders[kind])
    base = pipeline_images(pipeline, policy, 3, 2.0)
    pipeline.load_lora_weights(tmp_path / "policy")
    want = pipeline_images(pipeline, policy, 3, 2.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 2.0, batch=2) - want).abs().max() <= 2e-4
    assert (base - want).abs().max() > 1e-2


def test_a_fully_trained_denoiser_loads_in_plain_diffusers(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = stir(load(folders["ε"], training="full"))
    policy.save(tmp_path / "policy")
    pipeline = plain_pipeline(folders["ε"])
    base = pipeline_images(pipeline, policy, 3, 1.0)
    pipeline.register_modules(unet=UNet2DConditionModel.from_pretrained(tmp_path / "policy"))
    want = pipeline_images(pipeline, policy, 3, 1.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 1.0, batch=2) - want).abs().max() <= 2e-4
    assert (base - want).abs().max() > 1e-2


@both_trainings
def test_what_was_saved_is_loaded_again(training: str, folders: dict[str, Path], tmp_path: Path) -> None:
    policy = stir(load(folders["ε"], training=training))
    policy.save(tmp_path / "policy")
    again = load(folders["ε"], training=training, adapter=str(tmp_path / "policy"))
    assert torch.equal(velocity(again), velocity(policy))


def test_the_reference_is_the_base_and_every_factor_learns(folders: dict[str, Path]) -> None:
    policy, base = load(folders["ε"]), load(folders["ε"], training="full")
    with torch.no_grad():
        stir(policy)
        with policy.reference():
            assert torch.equal(velocity(policy), velocity(base))
    velocity(policy).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in policy.trainable().values())
