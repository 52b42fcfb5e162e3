"""How far a policy has moved from another: the squared distance of their velocities along its own samples."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from beholder.config import GuidanceConfig
from beholder.evaluation.heldout import SEED
from beholder.policies import Policy
from beholder.rollouts.kernels import euler_step


@torch.no_grad()
def velocity_distance(policy: Policy, base: Policy, prompts: Sequence[str], steps: int, guidance: float) -> float:
    """Mean of (v - v_base)² per dimension over the deterministic paths of ``policy``, one sample per prompt."""
    sigmas, setting, texts = policy.schedule(steps), GuidanceConfig(scale=guidance), list(prompts)
    seed_N = torch.arange(SEED, SEED + len(texts))
    start = policy.start(texts, torch.arange(len(texts)), seed_N, seed_N, sigmas[0].item(), guidance != 1)
    x, gaps = start.x_Nx.float(), []
    for here, there in pairwise(sigmas):
        sigma, sigma_next = (value.float().expand(len(x)).to(x.device) for value in (here, there))
        v = policy.velocity(x, sigma, start.condition, start.unconditional, setting)
        other = base.velocity(x, sigma, start.condition, start.unconditional, setting)
        gaps.append((v - other).square().mean().item())
        x = euler_step(x, v, sigma, sigma_next)
    return sum(gaps) / len(gaps)
