"""DanceGRPO (2505.07818): one recipe for diffusion and flow models, images and video."""

from beholder.methods.bases import FLUX, SHAPES
from beholder.methods.row import Method, vary

DANCE_GRPO = Method(
    name="dance-grpo",
    title="DanceGRPO",
    paper="DanceGRPO, 2505.07818",
    idea="Shared starting noise, an SDE of constant strength, a random share of the steps trained per sample.",
    presets={
        "published": vary(FLUX, "dance-grpo", {}),
        "video": vary(
            FLUX,
            "dance-grpo",
            {
                "policy.model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
                "policy.resolution": None,
                "rollout.steps": 16,
                "rollout.guidance.scale": 5.0,
                "rollout.group": 24,
                "optimiser.lr": 1e-5,
                "rollout.kernel.level": 0.25,
                "credit.combine": "losses",
                "credit.keep_best": 4,
                "credit.keep_worst": 4,
            },
        ),
        "shapes": vary(
            SHAPES,
            "dance-grpo",
            {
                "rollout.kernel.kind": "dance_sde",
                "rollout.kernel.level": 0.5,
                "rollout.plan.kind": "random",
                "rollout.plan.fraction": 0.6,
                "rollout.plan.last": "ode",
                "credit.scale": "group",
                "credit.ddof": 1,
                "kl.beta": 0.0,
            },
        ),
    },
    differences=(
        "A reward that fails is left out; the released code counts it as -1.",
        "The released code shifts FLUX's noise levels by 3; here they are those of the model's own scheduler.",
        "The published preset is the FLUX LoRA script; full fine-tuning took 16 steps and lr 1e-5.",
        "The video preset has HunyuanVideo's settings, best-of-N and a loss for each reward among them "
        "(credit.keep-best, keep-worst, combine losses), on Wan 2.1, which the released code trains too.",
    ),
)
