"""What the tests of policies do with a tiny one: move it, draw from it, ask it for a velocity."""

from typing import Any

import torch
from torch import Tensor

from beholder.config import GuidanceConfig, KernelConfig, LoraConfig, PlanConfig, RolloutConfig
from beholder.policies import Policy
from beholder.rollouts.engine import noise_for, rollout
from beholder.rollouts.kernels import trainable_steps
from beholder.rollouts.plans import draw_plan
from beholder.rollouts.trajectory import Condition, Trajectory

PROMPTS = ["a photo of a red circle", "two orange squares"]
SEEDS = [5, 6]
LORA = LoraConfig(rank=4, alpha=12)
FLOW_SDE = KernelConfig(kind="flow_sde", level=0.7)
DANCE_SDE = KernelConfig(kind="dance_sde", level=0.3)
CPS = KernelConfig(kind="cps", level=0.8)
KERNELS = (FLOW_SDE, DANCE_SDE, CPS)


@torch.no_grad()
def stir(policy: Policy, size: float = 0.2, seed: int = 0) -> Policy:
    """Moves every trainable parameter, as an update would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.trainable().values():
        parameter.add_(
            size * parameter.std().nan_to_num().clamp_min(0.1) * torch.randn(parameter.shape, generator=generator)
        )
    return policy


def drawn(policy: Policy, kernel: KernelConfig, guidance: float = 1.0, steps: int = 5) -> Trajectory:
    """Four samples, every step stochastic, all trainable ones trained."""
    sigmas, seed_N = policy.schedule(steps), torch.arange(4)
    scale = GuidanceConfig(scale=guidance)
    config = RolloutConfig(steps=steps, group=1, kernel=kernel, plan=PlanConfig(kind="all"), guidance=scale)
    plan = draw_plan(config, trainable_steps(kernel, sigmas), 4, 0, torch.Generator())
    start = policy.start(PROMPTS * 2, seed_N // 2, seed_N, seed_N, sigmas[0].item(), guidance != 1)
    return rollout(policy, start, sigmas, plan, config)


def somewhere(policy: Policy, seed: int = 1) -> tuple[Tensor, Tensor, Condition, Condition]:
    """Two states, their noise levels, and their conditions."""
    x = noise_for(torch.tensor([seed, seed + 1]), policy.family.latent_shape(), 0)
    return x, torch.tensor([0.7, 0.4]), policy.encode(PROMPTS), policy.encode([""] * 2)


def pipeline_output(pipeline: Any, policy: Policy, steps: int, **options: Any) -> Tensor:
    """What the pipeline's own call draws from the noise the policy would start from, at its size."""
    height, width = policy.family.size
    given = {"latents": noise_for(torch.tensor(SEEDS), policy.family.latent_shape(), 0), **options}
    return pipeline(PROMPTS, num_inference_steps=steps, height=height, width=width, output_type="pt", **given)[0]


def velocity(policy: Policy) -> Tensor:
    x, sigma_N, condition, _ = somewhere(policy)
    return policy.velocity(x, sigma_N, condition, None, GuidanceConfig())
