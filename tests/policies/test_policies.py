"""Policies on tiny genuine pipelines: they draw what diffusers draws, replay what they drew, learn, and are saved so
that diffusers itself loads them."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from beholder.config import GuidanceConfig, KernelConfig, LoraConfig, PolicyConfig
from beholder.errors import InputError
from beholder.evaluation.heldout import draw_images
from beholder.policies import Policy, load_policy
from beholder.rollouts.engine import replay
from beholder.rollouts.kernels import euler_step
from beholder.rollouts.trajectory import Condition, Decisions, Trajectory
from small_policies import FLOW_SDE, KERNELS, LORA, PROMPTS, SEEDS, drawn, pipeline_output, somewhere, stir, velocity
from tiny import tiny_sd, tiny_sd3

every_family = pytest.mark.parametrize("family", ["sd3", "sd3 without T5", "sd ε", "sd v"])
both_architectures = pytest.mark.parametrize("family", ["sd3", "sd ε"])
both_trainings = pytest.mark.parametrize("training", ["lora", "full"])
FURTHER = (KernelConfig(kind="cps", level=0.8, log_prob="unweighted"), KernelConfig(kind="ddim", level=1.0))


@pytest.fixture(scope="session")
def folders(tiny_sd3_folder: Path, tiny_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A diffusers folder of each kind; not to be written to."""
    made = tmp_path_factory.mktemp("folders")
    tiny_sd3(t5=False).save_pretrained(made / "sd3_without_t5")
    tiny_sd(prediction_type="v_prediction").save_pretrained(made / "sd_v")
    return {
        "sd3": tiny_sd3_folder,
        "sd3 without T5": made / "sd3_without_t5",
        "sd ε": tiny_sd_folder,
        "sd v": made / "sd_v",
    }


@pytest.fixture(scope="session")
def untouched(folders: dict[str, Path]) -> Callable[[str], Policy]:
    """One policy per family for the tests that change nothing about it."""
    return cache(lambda family: load(folders[family]))


def load(folder: Path, **settings: Any) -> Policy:
    return load_policy(PolicyConfig(model=str(folder), max_sequence_length=16, **{"lora": LORA, **settings}))


def plain_pipeline(folder: Path) -> Any:
    """The folder as diffusers alone loads it."""
    index = json.loads((folder / "model_index.json").read_text())
    pipeline = DiffusionPipeline.from_pretrained(
        folder, **{name: None for name, value in index.items() if value == [None, None]}
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pipeline_images(pipeline: Any, policy: Policy, steps: int, guidance: float) -> Tensor:
    limit = {"max_sequence_length": 16} if policy.family.network_name == "transformer" else {}
    return pipeline_output(pipeline, policy, steps, guidance_scale=guidance, **limit)


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    names = list(policy.trainable())
    found = torch.autograd.grad(loss, list(policy.trainable().values()), allow_unused=True)
    return {n: torch.zeros(()) if g is None else g for n, g in zip(names, found, strict=True)}


def assert_gradients_close(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    """Equal up to rounding, which is measured against the largest gradient."""
    size = max(g.abs().max().item() for g in want.values())
    assert size > 0
    for name, gradient in want.items():
        assert (got[name] - gradient).abs().max() <= 1e-4 * size, name


# ---------------------------------------------------------------------------------------------------------- drawing


@every_family
def test_draws_what_the_pipeline_draws_from_the_same_noise(
    family: str, untouched: Callable[[str], Policy], folders: dict[str, Path]
) -> None:
    policy, pipeline = untouched(family), plain_pipeline(folders[family])
    for steps, guidance in ((1, 1.0), (4, 1.0), (7, 1.0), (1, 4.0), (4, 4.0), (7, 4.0)):
        want = pipeline_images(pipeline, policy, steps, guidance)
        assert want.std() > 0.05
        assert (draw_images(policy, PROMPTS, SEEDS, steps, guidance, batch=2) - want).abs().max() <= 1e-4


@both_architectures
def test_an_image_does_not_depend_on_its_batch(family: str, untouched: Callable[[str], Policy]) -> None:
    policy = untouched(family)
    together = draw_images(policy, PROMPTS * 2, [1, 2, 3, 4], 3, 2.0, batch=4)
    alone = draw_images(policy, PROMPTS * 2, [1, 2, 3, 4], 3, 2.0, batch=1)
    assert (together - alone).abs().max() <= 1e-5
    assert (together[0] - together[2]).abs().max() > 1e-2


@both_architectures
def test_draws_at_another_resolution(family: str, folders: dict[str, Path]) -> None:
    policy = load(folders[family], resolution=16)
    assert policy.family.latent_shape() == (4, 8, 8)
    assert draw_images(policy, PROMPTS, SEEDS, 2, 1.0, batch=2).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("family, wanted, nearest", [("sd3", 18, 16), ("sd3", 1, 4), ("sd ε", 17, 16)])
def test_a_resolution_off_the_grid_is_refused_with_the_nearest(
    family: str, wanted: int, nearest: int, folders: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match=rf"policy\.resolution: {wanted} .*; use {nearest}$"):
        load(folders[family], resolution=wanted)


@every_family
def test_schedule_descends_from_the_noise_the_policy_starts_at(family: str, untouched: Callable[[str], Policy]) -> None:
    policy = untouched(family)
    sigmas = policy.schedule(6)
    assert sigmas.shape == (7,) and sigmas.dtype == torch.float64
    assert (sigmas.diff() < 0).all()
    assert 0.8 < sigmas[0] <= 1 and 0 <= sigmas[-1] < 0.05


@both_architectures
def test_start_seeds_noise_and_steps_apart(family: str, untouched: Callable[[str], Policy]) -> None:
    policy = untouched(family)
    seed_N, noise_seed_N = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 1, 2, 2])
    start = policy.start(PROMPTS * 2, seed_N // 2, seed_N, noise_seed_N, 1.0, True)
    assert torch.equal(start.x_Nx[0], start.x_Nx[1]) and not torch.equal(start.x_Nx[1], start.x_Nx[2])
    assert torch.equal(start.seed_N, seed_N)
    assert start.unconditional is not None
    assert policy.start(PROMPTS, seed_N[:2], seed_N[:2], seed_N[:2], 1.0, False).unconditional is None


# --------------------------------------------------------------------------------------------------------- replaying


@both_architectures
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(
    "training, kernels",
    [
        pytest.param("lora", KERNELS + FURTHER, id="lora"),
        pytest.param("full", KERNELS, id="full"),
        pytest.param("full", FURTHER, id="full, further", marks=pytest.mark.slow),
    ],
)
def test_the_ratio_is_one_before_the_first_update(
    family: str, training: str, kernels: tuple[KernelConfig, ...], guidance: float, folders: dict[str, Path]
) -> None:
    policy = stir(load(folders[family], training=training))
    found: list[tuple[Trajectory, Decisions]] = []
    for kernel in kernels:
        trajectory = drawn(policy, kernel, guidance)
        rows, steps = torch.tensor([[3, 0, 1, 3, 2], [0, 1, 2, 2, 0]])
        chosen = trajectory.decisions.select(trajectory.decision_NT[rows, steps])
        scored = replay(policy, trajectory, chosen)
        ratio = ((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).exp()
        assert scored.logp_M.requires_grad
        assert (ratio - 1).abs().max() <= 1e-6, kernel
        found.append((trajectory, chosen))
    stir(policy, seed=1)
    for trajectory, chosen in found:
        moved = replay(policy, trajectory, chosen).logp_M
        assert (moved - chosen.logp_old_M).abs().min() > 1e-2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@both_architectures
def test_half_precision_replays_itself_and_learns_in_float32(family: str, dtype: str, folders: dict[str, Path]) -> None:
    policy = stir(load(folders[family], dtype=dtype))
    assert {p.dtype for p in policy.trainable().values()} == {torch.float32}
    trajectory = drawn(policy, FLOW_SDE)
    chosen = trajectory.decisions.select(trajectory.decision_NT[:, 1])
    scored = replay(policy, trajectory, chosen)
    assert trajectory.final_Nx.dtype == scored.logp_M.dtype == torch.float32
    assert ((scored.logp_M - chosen.logp_old_M) / trajectory.n_dims).abs().max() <= 1e-6
    assert any(g.abs().max() > 0 for g in gradients(policy, scored.logp_M.sum()).values())


# ---------------------------------------------------------------------------------------------------------- guidance


@both_architectures
@both_trainings
def test_detaching_the_unconditional_branch_keeps_the_value_and_only_its_own_gradient(
    family: str, training: str, folders: dict[str, Path]
) -> None:
    policy, scale = stir(load(folders[family], training=training)), 4.0
    x, sigma_N, condition, unconditional = somewhere(policy)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    values, found = {}, {}
    for detach in (True, False):
        v = policy.velocity(x, sigma_N, condition, unconditional, GuidanceConfig(scale, detach))
        values[detach], found[detach] = v.detach(), gradients(policy, (v * direction).sum())
    v_c, v_u = (policy.family.velocity(policy.network, x, sigma_N, c) for c in (condition, unconditional))
    of_conditional = gradients(policy, scale * (v_c * direction).sum())
    of_unconditional = gradients(policy, (1 - scale) * (v_u * direction).sum())
    torch.testing.assert_close(values[True], values[False], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values[True], (v_u + scale * (v_c - v_u)).detach(), rtol=1e-4, atol=1e-4)
    assert_gradients_close(found[True], of_conditional)
    assert_gradients_close(found[False], {n: of_conditional[n] + of_unconditional[n] for n in of_conditional})
    assert max(g.abs().max() for g in of_unconditional.values()) > 1e-3


@both_architectures
def test_scale_one_and_zero_are_the_two_branches(family: str, untouched: Callable[[str], Policy]) -> None:
    policy = untouched(family)
    x, sigma_N, condition, unconditional = somewhere(policy)
    with torch.no_grad():
        for scale, branch in ((1.0, condition), (0.0, unconditional)):
            got = policy.velocity(x, sigma_N, condition, unconditional, GuidanceConfig(scale))
            want = policy.family.velocity(policy.network, x, sigma_N, branch)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- reference


@both_architectures
def test_reference_of_an_adapter_is_the_base(family: str, folders: dict[str, Path]) -> None:
    policy, base = load(folders[family]), load(folders[family], training="full")
    assert torch.equal(velocity(policy), velocity(base))
    aligned = velocity(stir(policy))
    with policy.reference():
        assert torch.equal(velocity(policy), velocity(base))
    assert torch.equal(velocity(policy), aligned)
    assert (aligned - velocity(base)).abs().max() > 1e-2


@both_architectures
def test_reference_returns_to_the_policy_after_an_error(family: str, folders: dict[str, Path]) -> None:
    policy = stir(load(folders[family]))
    before = velocity(policy)
    with pytest.raises(KeyError), policy.reference():
        raise KeyError
    assert torch.equal(velocity(policy), before)


@both_architectures
def test_reference_of_a_fully_trained_policy_is_its_copy(family: str, folders: dict[str, Path]) -> None:
    policy = load(folders[family], training="full")
    with pytest.raises(InputError, match="keep_reference"), policy.reference():
        pass
    before, trainable = velocity(policy), list(policy.trainable())
    policy.keep_reference()
    stir(policy)
    with policy.reference():
        assert torch.equal(velocity(policy), before)
    assert (velocity(policy) - before).abs().max() > 1e-2
    assert list(policy.trainable()) == trainable


def test_reference_of_a_loaded_adapter_is_that_adapter(folders: dict[str, Path], tmp_path: Path) -> None:
    stir(load(folders["sd3"])).save(tmp_path / "policy")
    policy = load(folders["sd3"], adapter=str(tmp_path / "policy"))
    before = velocity(policy)
    policy.keep_reference()
    stir(policy, seed=1)
    with policy.reference():
        assert torch.equal(velocity(policy), before)
    assert not torch.equal(velocity(policy), before)


# ---------------------------------------------------------------------------------------------------------- learning


@both_architectures
def test_a_new_adapter_changes_nothing_and_learns_its_second_factor_first(
    family: str, folders: dict[str, Path]
) -> None:
    policy = load(folders[family])
    found = gradients(policy, velocity(policy).square().sum())
    assert all(".lora_" in name for name in found)
    assert all(g.abs().max() == 0 for name, g in found.items() if ".lora_A." in name)
    assert any(g.abs().max() > 0 for name, g in found.items() if ".lora_B." in name)


@both_architectures
def test_every_factor_learns_once_the_adapter_has_moved(family: str, folders: dict[str, Path]) -> None:
    policy = stir(load(folders[family]))
    found = gradients(policy, velocity(policy).square().sum())
    # The last block of an MMDiT throws its text stream away, and with it what the text asks.
    idle = {name for name in found if "transformer_blocks.1.attn.add_q_proj" in name} if family == "sd3" else set()
    assert {name for name, g in found.items() if g.abs().max() == 0} == idle
    assert len(found) > 8


@both_architectures
def test_full_training_learns_the_denoiser_and_nothing_else(family: str, folders: dict[str, Path]) -> None:
    policy = load(folders[family], training="full")
    assert set(policy.trainable()) == {name for name, _ in policy.module.named_parameters()}
    others = [part for name, part in policy.pipeline.components.items() if name != policy.family.network_name]
    assert not any(p.requires_grad for part in others if isinstance(part, nn.Module) for p in part.parameters())


def test_adapters_are_drawn_from_the_seed_and_leave_the_global_one_alone(folders: dict[str, Path]) -> None:
    before = torch.random.get_rng_state()
    config = PolicyConfig(model=str(folders["sd3"]), lora=LORA)
    first, again, other = (list(load_policy(config, seed=s).trainable().values()) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_targets_of_the_adapter_may_be_chosen(folders: dict[str, Path]) -> None:
    chosen = load(folders["sd3"], lora=LoraConfig(rank=2, alpha=2, targets=("proj_out",))).trainable()
    assert {tuple(p.shape)[::-1][0] for name, p in chosen.items() if ".lora_B." in name} == {2}
    assert all("proj_out" in name for name in chosen)
    with pytest.raises(InputError, match=r"policy\.lora\.targets"):
        load(folders["sd3"], lora=LoraConfig(targets=("nowhere",)))


# ---------------------------------------------------------------------------------------------------- save and load


@both_architectures
@pytest.mark.parametrize("alpha", [2, 4, 12])
def test_a_saved_adapter_draws_the_same_in_plain_diffusers(
    family: str, alpha: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = stir(load(folders[family], lora=LoraConfig(rank=4, alpha=alpha)))
    policy.save(tmp_path / "policy")
    pipeline = plain_pipeline(folders[family])
    base = pipeline_images(pipeline, policy, 3, 2.0)
    pipeline.load_lora_weights(tmp_path / "policy")
    want = pipeline_images(pipeline, policy, 3, 2.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 2.0, batch=2) - want).abs().max() <= 1e-4
    assert (base - want).abs().max() > 1e-2


@both_architectures
def test_a_saved_adapter_is_loaded_whatever_the_configured_rank(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = stir(load(folders[family]))
    policy.save(tmp_path / "policy")
    again = load(folders[family], adapter=str(tmp_path / "policy"), lora=LoraConfig(rank=2, alpha=64))
    assert torch.equal(velocity(again), velocity(policy))
    assert {n: p.shape for n, p in again.trainable().items()} == {n: p.shape for n, p in policy.trainable().items()}
    again.save(tmp_path / "again")
    third = load(folders[family], adapter=str(tmp_path / "again"))
    assert torch.equal(velocity(third), velocity(policy))


@both_architectures
def test_a_fully_trained_denoiser_loads_in_plain_diffusers(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = stir(load(folders[family], training="full"))
    policy.save(tmp_path / "policy")
    pipeline = plain_pipeline(folders[family])
    base = pipeline_images(pipeline, policy, 3, 2.0)
    denoiser = type(policy.module).from_pretrained(tmp_path / "policy")
    pipeline.register_modules(**{policy.family.network_name: denoiser})
    want = pipeline_images(pipeline, policy, 3, 2.0)
    assert (draw_images(policy, PROMPTS, SEEDS, 3, 2.0, batch=2) - want).abs().max() <= 1e-4
    assert (base - want).abs().max() > 1e-2
    again = load(folders[family], training="full", adapter=str(tmp_path / "policy"))
    assert torch.equal(velocity(again), velocity(policy))


def test_the_same_adapter_is_the_same_file(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = load(folders["sd3"])
    for i in range(6):
        policy.save(tmp_path / str(i))
    assert len({file.read_bytes() for file in tmp_path.glob("*/*.safetensors")}) == 1


def test_saving_replaces_what_was_saved_before(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = load(folders["sd3"])
    policy.save(tmp_path / "policy")
    (tmp_path / "policy" / "leftover").touch()
    stir(policy).save(tmp_path / "policy")
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]
    assert not (tmp_path / "policy" / "leftover").exists()
    assert torch.equal(velocity(load(folders["sd3"], adapter=str(tmp_path / "policy"))), velocity(policy))


# ---------------------------------------------------------------------------------------------------------- encoding


@contextmanager
def counted(policy: Policy) -> Iterator[list[str]]:
    """The texts that reach the text encoders."""
    texts: list[str] = []
    encode = policy.family.encode

    def remember(prompts: list[str]) -> Condition:
        texts.extend(prompts)
        return encode(prompts)

    policy.family.encode = remember  # pyright: ignore[reportAttributeAccessIssue]
    yield texts


@both_architectures
def test_each_text_is_encoded_once(family: str, folders: dict[str, Path]) -> None:
    policy = load(folders[family])
    with counted(policy) as texts:
        first = policy.encode([*PROMPTS, *PROMPTS, ""])
        second = policy.encode([PROMPTS[1], "", "three yellow triangles"])
    assert texts == [*PROMPTS, "", "three yellow triangles"]
    for name, rows in first.tensors.items():
        assert len(rows) == 5 and len(second.tensors[name]) == 3
        assert torch.equal(rows[0], rows[2]) and torch.equal(rows[1], second.tensors[name][0])
        assert not torch.equal(rows[0], rows[1])
        assert not rows.requires_grad


@both_architectures
def test_a_condition_does_not_depend_on_its_batch(family: str, untouched: Callable[[str], Policy]) -> None:
    many = untouched(family).encode([f"{word} circle" for word in ("red", "blue", "green")] * 30)
    one = untouched(family).encode(["blue circle"])
    for name, rows in one.tensors.items():
        torch.testing.assert_close(many.tensors[name][1:2], rows, rtol=1e-4, atol=1e-5)


def test_the_model_folder_may_say_how_many_text_tokens_it_wants(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["sd3"], tmp_path / "model")
    (tmp_path / "model" / "beholder.json").write_text('{"max_sequence_length": 12}')
    lengths = [
        load_policy(PolicyConfig(model=str(folder), max_sequence_length=length)).encode([""]).tensors["tokens"].shape[1]
        for folder, length in ((tmp_path / "model", None), (tmp_path / "model", 16), (folders["sd3"], 12))
    ]
    assert lengths[0] == lengths[2] == lengths[1] - 4


# -------------------------------------------------------------------------------------- Stable Diffusion's own path


@pytest.mark.parametrize("family", ["sd ε", "sd v"])
def test_noise_levels_of_the_table_are_whole_timesteps(family: str, untouched: Callable[[str], Policy]) -> None:
    sd: Any = untouched(family).family
    for sigma in (sd.sigma_table, sd.sigma_table.float()):
        assert torch.equal(sd.time(sigma), torch.arange(1000).float())
    between = sd.time((sd.sigma_table[:-1] + sd.sigma_table[1:]) / 2)
    assert ((between > torch.arange(999)) & (between < torch.arange(1, 1000))).all()


@pytest.mark.parametrize("family", ["sd ε", "sd v"])
def test_path_and_variance_preserving_coordinates_are_one_change_of_scale(
    family: str, untouched: Callable[[str], Policy]
) -> None:
    sd: Any = untouched(family).family
    alpha = sd.pipeline.scheduler.alphas_cumprod.double().sqrt()
    s, sigma = (1 - alpha**2).sqrt(), sd.sigma_table
    clean, noise = torch.randn(2, 1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = (1 - sigma)[:, None] * clean + sigma[:, None] * noise
    torch.testing.assert_close(sd.to_path(alpha[:, None] * clean + s[:, None] * noise, sigma), path)


@pytest.mark.parametrize("family", ["sd ε", "sd v"])
@torch.no_grad()
def test_ddim_without_noise_is_the_euler_step_of_the_path(family: str, untouched: Callable[[str], Policy]) -> None:
    policy = untouched(family)
    sd, scheduler, x0 = policy.family, policy.pipeline.scheduler, somewhere(policy)[0]
    scheduler.set_timesteps(8)
    sigmas, condition = policy.schedule(8), policy.encode(PROMPTS)
    for i, t in enumerate(scheduler.timesteps):
        here, there = (sigmas[j].float().expand(2) for j in (i, i + 1))
        x = sd.to_path(x0, here)
        predicted = policy.module(x0, t, encoder_hidden_states=condition.tensors["tokens"]).sample
        want = scheduler.step(predicted, t, x0, eta=0.0).prev_sample
        got = euler_step(x, sd.velocity(policy.module, x, here, condition), here, there)
        torch.testing.assert_close(got, sd.to_path(want, there), rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------------------------------- bad folders


def cut_in_half(pattern: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = next(folder.glob(pattern))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def rename_class(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated denoiser": (cut_in_half("transformer/*.safetensors"), "transformer"),
    "truncated VAE": (cut_in_half("vae/*.safetensors"), "vae"),
    "truncated text encoder": (cut_in_half("text_encoder/*.safetensors"), "damaged"),
    "empty weights": (write("transformer/diffusion_pytorch_model.safetensors", ""), "transformer"),
    "no denoiser": (lambda folder: shutil.rmtree(folder / "transformer"), "config.json"),
    "broken index": (write("model_index.json", "{nope"), "model"),
    "index that is a list": (write("model_index.json", "[]"), "model"),
    "broken denoiser settings": (write("transformer/config.json", "{"), "JSON"),
    "broken wishes": (write("beholder.json", "{"), r"beholder\.json"),
    "unknown class": (rename_class("NoSuchPipeline"), "NoSuchPipeline"),
    "unsupported class": (rename_class("StableDiffusion3Img2ImgPipeline"), "StableDiffusion3Pipeline"),
}


@pytest.mark.parametrize("damage, said", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_folder_is_refused_in_one_line(
    damage: Callable[[Path], None], said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["sd3"], tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(InputError, match=said) as refusal:
        load(tmp_path / "model")
    assert str(refusal.value).startswith("policy.model: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere", "/nowhere", "nowhere"])
def test_a_missing_folder_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"policy\.model: no folder") as refusal:
        load_policy(PolicyConfig(model=name))
    assert "\n" not in str(refusal.value)


def test_an_empty_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"policy\.model: .*model_index.json"):
        load(tmp_path)


def test_adapters_that_do_not_fit_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    load(folders["sd3"]).save(tmp_path / "lora")
    load(folders["sd3"], training="full").save(tmp_path / "full")
    shutil.copytree(tmp_path / "lora", tmp_path / "cut")
    cut_in_half("*.safetensors")(tmp_path / "cut")
    refused = (
        ("sd3", "lora", "nowhere", "no folder"),
        ("sd3", "lora", "full", "--policy.training full"),
        ("sd3", "full", "lora", "--policy.training lora"),
        ("sd3", "lora", "cut", "does not load"),
        ("sd ε", "lora", "lora", "adapts no layer"),
    )
    for family, training, adapter, said in refused:
        with pytest.raises(InputError, match=said) as refusal:
            load(folders[family], training=training, adapter=str(tmp_path / adapter))
        assert str(refusal.value).startswith("policy.adapter: ")


def refused(folder: Path, adapter: Path, training: str = "lora") -> str:
    with pytest.raises(InputError) as refusal:
        load(folder, training=training, adapter=str(adapter))
    said = str(refusal.value)
    assert said.startswith(f"policy.adapter: {str(adapter)!r}") and "\n" not in said
    return said


def test_weights_that_are_cut_or_of_another_size_are_refused_in_one_line(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    load(folders["sd3"], training="full").save(tmp_path / "full")
    load(folders["sd3"]).save(tmp_path / "lora")
    for name in ("full", "lora"):
        shutil.copytree(tmp_path / name, tmp_path / f"{name} empty")
        (file,) = (tmp_path / f"{name} empty").glob("*.safetensors")
        file.write_bytes(b"")
        training = "full" if name == "full" else "lora"
        assert "does not load" in refused(folders["sd3"], tmp_path / f"{name} empty", training)
    cut_in_half("*.safetensors")(tmp_path / "full")
    assert "does not load" in refused(folders["sd3"], tmp_path / "full", "full")
    (file,) = (tmp_path / "lora").glob("*.safetensors")
    layers = load_file(file)
    save_file({name: value.repeat(2, 2) for name, value in layers.items()}, file)
    assert "size mismatch" in refused(folders["sd3"], tmp_path / "lora")


def test_pickles_are_never_read(folders: dict[str, Path], tmp_path: Path) -> None:
    """A pickle may run anything; where only one is there, the message says what to do."""
    load(folders["sd3"]).save(tmp_path / "lora")
    load(folders["sd3"], training="full").save(tmp_path / "full")
    shutil.copytree(folders["sd3"], tmp_path / "model")
    for folder in (tmp_path / "lora", tmp_path / "full", tmp_path / "model" / "vae"):
        (file,) = folder.glob("*.safetensors")
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
    assert "save_pretrained" in refused(folders["sd3"], tmp_path / "lora")
    assert "save_pretrained" in refused(folders["sd3"], tmp_path / "full", "full")
    with pytest.raises(InputError, match=r"policy\.model: .*save_pretrained"):
        load(tmp_path / "model")


def test_an_adapter_of_the_text_encoder_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """It would be used and then left out when the result is saved."""
    load(folders["sd3"]).save(tmp_path / "lora")
    (file,) = (tmp_path / "lora").glob("*.safetensors")
    width = load(folders["sd3"]).pipeline.text_encoder.config.hidden_size
    layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_"
    extra = {f"{layer}A.weight": torch.ones(2, width), f"{layer}B.weight": torch.ones(width, 2)}
    save_file({**load_file(file), **extra}, file)
    said = refused(folders["sd3"], tmp_path / "lora")
    assert "text_encoder" in said and "transformer alone" in said
