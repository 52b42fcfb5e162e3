"""The settings rows start from: published models and sizes, and the bundled world's."""

from beholder.config import EMAConfig, EvaluationConfig, LoopConfig, OptimiserConfig, PolicyConfig, RunConfig
from beholder.methods.flow_grpo import FLUX_CHANGES, SHAPES
from beholder.methods.flow_grpo import PUBLISHED as SD35
from beholder.methods.row import vary

__all__ = ["FLUX", "FLUX_RATE", "SD15", "SD35", "SHAPES", "SHAPES_DIFFUSION"]

FLUX = vary(
    SD35,
    "flux",
    {
        **FLUX_CHANGES,
        "policy.lora.rank": 128,
        "policy.lora.alpha": 256,
        "policy.resolution": 720,
        "rollout.steps": 12,
        "rollout.prompts": 8,
        "rollout.group": 12,
        "rollout.batch": 1,
        "rollout.shared_noise": True,
        "rollout.kernel.kind": "dance_sde",
        "rollout.kernel.level": 0.3,
        "rollout.plan.kind": "random",
        "rollout.plan.fraction": 0.6,
        "rollout.plan.last": "ode",
        "credit.scale": "group",
        "credit.ddof": 1,
        "credit.eps": 1e-8,
        "optimiser.lr": 3e-4,
        "ema.decay": 0.0,
        "loop.iterations": 300,
        "loop.updates": 4,
        "loop.micro_batch": 1,
    },
)
"""FLUX.1-dev in the manner of DanceGRPO's LoRA script; its guidance is embedded, so ``guidance.scale`` is 1."""

FLUX_RATE = (
    "The published learning rate of 1e-5 is the released script's; for adapters, which these presets train, DanceGRPO "
    "takes 3e-4."
)

SD15 = RunConfig(
    method="sd15",
    prompts="prompts.txt",
    rewards={},
    policy=PolicyConfig(model="stable-diffusion-v1-5/stable-diffusion-v1-5", dtype="float16"),
    optimiser=OptimiserConfig(lr=3e-4, weight_decay=1e-4, max_grad_norm=1.0),
    ema=EMAConfig(),
    loop=LoopConfig(iterations=100, updates=2, micro_batch=8),
    evaluation=EvaluationConfig(every=10, prompts="prompts_held_out.txt", images=256, rewards=()),
)
SD15 = vary(
    SD15,
    "sd15",
    {
        "policy.lora.rank": 4,
        "policy.lora.alpha": 4,
        "rollout.steps": 50,
        "rollout.prompts": 256,
        "rollout.group": 1,
        "rollout.batch": 8,
        "rollout.kernel.kind": "ddim",
        "rollout.kernel.level": 1.0,
        "rollout.plan.kind": "all",
        "rollout.guidance.scale": 5.0,
        "rollout.guidance.detach_unconditional": False,
        "credit.baseline": "running",
        "credit.scale": "running",
        "credit.eps": 1e-6,
    },
)
"""Stable Diffusion 1.5 in the manner of DDPO's released configuration."""

SHAPES_DIFFUSION = vary(
    SHAPES,
    "shapes-diffusion",
    {
        "rollout.shared_noise": False,
        "rollout.kernel.kind": "ddim",
        "rollout.kernel.level": 1.0,
        "rollout.plan.kind": "all",
        "kl.beta": 0.0,
    },
)
"""The bundled flow model seen as a variance-preserving diffusion: the same network under DDIM's kernel."""
