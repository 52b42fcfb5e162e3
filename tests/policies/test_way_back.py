"""Between the base and the trained weights: a share of them, and the base for the beginning."""

from pathlib import Path

import pytest
import torch

from beholder.config import GuidanceConfig, PolicyConfig
from beholder.errors import InputError
from beholder.evaluation.heldout import draw_images
from beholder.evaluation.sampling import sample_to_folder
from beholder.policies import Policy, load_policy
from beholder.policies.annealed import Annealed

PROMPTS, SEEDS = ["a red circle", "two blue squares"], [3, 4]


def trained(folder: Path, output: Path, training: str) -> Path:
    """A policy with clearly other weights, saved as a run saves its own."""
    policy = load_policy(PolicyConfig(model=str(folder), training=training, max_sequence_length=16))  # pyright: ignore
    with torch.no_grad():
        for i, p in enumerate(policy.trainable().values()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    policy.save(output / "policy")
    return output / "policy"


def loaded(folder: Path, adapter: Path | None, training: str, share: float = 1.0) -> Policy:
    setting = PolicyConfig(model=str(folder), adapter=None if adapter is None else str(adapter), share=share)
    return load_policy(PolicyConfig(**{**vars(setting), "training": training, "max_sequence_length": 16}))


def images(policy: Policy) -> torch.Tensor:
    return draw_images(policy, PROMPTS, SEEDS, 4, 1.0, 2)


@pytest.mark.parametrize("training", ["lora", "full"])
def test_a_share_lies_on_the_line_between_base_and_trained_weights(
    training: str, tiny_sd3_folder: Path, tmp_path: Path
) -> None:
    adapter = trained(tiny_sd3_folder, tmp_path, training)
    base, all_of_it = (
        images(loaded(tiny_sd3_folder, None, training)),
        images(loaded(tiny_sd3_folder, adapter, training)),
    )
    assert (base - all_of_it).abs().max() > 1e-2
    torch.testing.assert_close(images(loaded(tiny_sd3_folder, adapter, training, 0.0)), base, atol=1e-5, rtol=0)
    half = loaded(tiny_sd3_folder, adapter, training, 0.5)
    ends = [loaded(tiny_sd3_folder, adapter, training, s) for s in (0.0, 1.0)]
    x, sigma = torch.randn(2, *half.family.latent_shape()), torch.tensor([0.9, 0.4])
    for policy in (half, *ends):
        policy.module.eval()
    if training == "full":
        middle = {
            n: (a + b) / 2 for (n, a), b in zip(ends[0].trainable().items(), ends[1].trainable().values(), strict=True)
        }
        assert all(torch.allclose(p, middle[n], atol=1e-6) for n, p in half.trainable().items())
    between = [p.velocity(x, sigma, p.encode(PROMPTS), None, GuidanceConfig()) for p in (ends[0], half, ends[1])]
    assert (between[1] - between[0]).norm() < (between[2] - between[0]).norm()


def test_annealing_goes_from_the_base_to_the_trained_policy(tiny_sd3_folder: Path, tmp_path: Path) -> None:
    adapter = trained(tiny_sd3_folder, tmp_path, "full")
    ours, base = loaded(tiny_sd3_folder, adapter, "full"), loaded(tiny_sd3_folder, None, "full")
    assert torch.equal(images(Annealed(ours, base, 0.0)), images(ours))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(images(Annealed(ours, base, 900.0)), images(base), atol=1e-3, rtol=0)  # pyright: ignore
    x, condition = torch.randn(1, *base.family.latent_shape()), base.encode(PROMPTS[:1])
    mixed = Annealed(ours, base, 2.0).velocity(x, torch.tensor([0.75]), condition, None, GuidanceConfig())
    parts = [p.velocity(x, torch.tensor([0.75]), condition, None, GuidanceConfig()) for p in (ours, base)]
    torch.testing.assert_close(mixed, parts[0] / 16 + parts[1] * 15 / 16)


def test_mixing_needs_something_to_mix(tmp_path: Path) -> None:
    for setting, name in (({"share": 0.5}, "share"), ({"anneal": 1.0}, "anneal")):
        with pytest.raises(InputError, match=f"{name}: mixes trained weights"):
            sample_to_folder(["a"], "shapes", None, 1, 2, 1.0, 0, tmp_path, **setting)  # pyright: ignore
    with pytest.raises(InputError, match="anneal: -1"):
        Annealed(None, None, -1)  # pyright: ignore[reportArgumentType]
