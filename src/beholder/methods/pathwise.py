"""Following the reward's gradient: rows differ in which steps of the sampler feel it, and where the image is taken."""

from beholder.methods.bases import SD15, SHAPES
from beholder.methods.row import Method, vary

GRADIENT = {
    "rollout.forward.times": 0,
    "rollout.shared_noise": False,
    "credit.baseline": "none",
    "credit.scale": "none",
    "objective.kind": "pathwise",
    "kl.beta": 0.0,
    "kl.form": "velocity",
    "loop.updates": 1,
    "loop.signal_every": 0,
}
SD15_GRADIENT = vary(
    SD15,
    "sd15-gradient",
    {**GRADIENT, "rollout.prompts": 16, "rollout.group": 1, "rollout.guidance.scale": 7.5, "optimiser.lr": 2e-4},
)
SHAPES_GRADIENT = vary(
    SHAPES,
    "shapes-gradient",
    {
        **GRADIENT,
        "rewards": {"learned@runs/reward": 1.0},
        "rollout.prompts": 192,
        "rollout.group": 1,
        "rollout.batch": 192,
        "loop.micro_batch": 192,
        "optimiser.lr": 1e-4,
        "loop.iterations": 60,
        "evaluation.every": 15,
        "evaluation.rewards": ("shapes_strict", "learned@runs/reward"),
    },
)
"""The bundled world has no differentiable gold reward, so these rows follow a learned one and are judged by both."""

REFL = Method(
    name="refl",
    title="ReFL",
    paper="ImageReward / ReFL, 2304.05977",
    idea="Stop late in the schedule, predict the image there, and follow its reward through that one step.",
    presets={
        "published": vary(
            SD15_GRADIENT,
            "refl",
            {
                "policy.training": "full",
                "policy.dtype": "float32",
                "rollout.steps": 40,
                "rollout.prompts": 64,
                "rollout.guidance.scale": 1.0,
                "rollout.pathwise.first": 0.75,
                "rollout.pathwise.ceiling": 2.0,
                "optimiser.lr": 1e-5,
                "optimiser.weight_decay": 1e-2,
            },
        ),
        "pretraining": vary(
            SD15_GRADIENT,
            "refl",
            {
                "policy.training": "full",
                "policy.dtype": "float32",
                "rollout.steps": 40,
                "rollout.prompts": 64,
                "rollout.guidance.scale": 1.0,
                "rollout.pathwise.first": 0.75,
                "rollout.pathwise.ceiling": 2.0,
                "rollout.real.images": 1,
                "rollout.real.value": 1000.0,
                "optimiser.lr": 1e-5,
                "optimiser.weight_decay": 1e-2,
            },
        ),
        "shapes": vary(SHAPES_GRADIENT, "refl", {"rollout.pathwise.first": 0.6}),
    },
    differences=(
        "The paper adds a pre-training loss on real images, which the released SD 1.4 code leaves out: preset "
        "`pretraining` has it, the reward's 1e-3 turned into a weight of 1000 on the other term.",
        "Samples follow the ODE; the released code uses ancestral steps up to the one with gradient.",
    ),
)
DRAFT = Method(
    name="draft",
    title="DRaFT",
    paper="DRaFT, 2309.17400",
    idea="Follow the reward's gradient through the whole sampler.",
    presets={
        "published": vary(
            SD15_GRADIENT,
            "draft",
            {
                "policy.lora.rank": 32,
                "policy.lora.alpha": 32,
                "rollout.pathwise.inputs": "live",
                "rollout.pathwise.steps": 50,
                "optimiser.weight_decay": 0.1,
            },
        ),
        "shapes": vary(SHAPES_GRADIENT, "draft", {"rollout.pathwise.inputs": "live", "rollout.pathwise.steps": 5}),
    },
    differences=("There is no official code; sizes are those of public reproductions.",),
)
DRAFT_K = Method(
    name="draft-k",
    title="DRaFT-K",
    paper="DRaFT, 2309.17400",
    idea="Follow the reward's gradient through the last K steps only.",
    presets={
        "published": vary(
            SD15_GRADIENT,
            "draft-k",
            {
                "policy.lora.rank": 32,
                "policy.lora.alpha": 32,
                "rollout.pathwise.steps": 1,
                "optimiser.weight_decay": 0.1,
            },
        ),
        "shapes": vary(SHAPES_GRADIENT, "draft-k", {"rollout.pathwise.inputs": "live", "rollout.pathwise.steps": 2}),
    },
    differences=("K = 1 needs no graph of several steps, so it is replayed.",),
)
DRAFT_LV = Method(
    name="draft-lv",
    title="DRaFT-LV",
    paper="DRaFT, 2309.17400",
    idea="DRaFT-1 whose last step is repeated from re-noised images, for less variance.",
    presets={
        "published": vary(
            SD15_GRADIENT,
            "draft-lv",
            {
                "policy.lora.rank": 32,
                "policy.lora.alpha": 32,
                "rollout.pathwise.renoised": 2,
                "optimiser.weight_decay": 0.1,
            },
        ),
        "shapes": vary(SHAPES_GRADIENT, "draft-lv", {"rollout.pathwise.renoised": 2}),
    },
)
ALIGNPROP = Method(
    name="alignprop",
    title="AlignProp",
    paper="AlignProp, 2310.03739",
    idea="Follow the reward's gradient through a random number of last steps, drawn once per batch.",
    presets={
        "published": vary(
            SD15_GRADIENT,
            "alignprop",
            {
                "rollout.prompts": 128,
                "rollout.pathwise.inputs": "live",
                "rollout.pathwise.steps": 50,
                "rollout.pathwise.random": True,
                "optimiser.lr": 1e-3,
                "optimiser.weight_decay": 0.1,
                "optimiser.max_grad_norm": 5.0,
            },
        ),
        "shapes": vary(
            SHAPES_GRADIENT,
            "alignprop",
            {
                "rollout.pathwise.inputs": "live",
                "rollout.pathwise.steps": 5,
                "rollout.pathwise.random": True,
            },
        ),
    },
    differences=(
        "One cut per batch, uniform as in the paper; the first release drew it anew inside the loop over steps, the "
        "last one takes N(42, 5) of 50.",
        "Rewards see images in 0..1 once; the released code maps them there twice.",
    ),
)
IMAGE_REFL = Method(
    name="image-refl",
    title="ImageReFL",
    paper="ImageReFL, 2505.22569",
    idea="ReFL from noised real images, held to them by their denoising error.",
    presets={
        "published": vary(
            SD15_GRADIENT,
            "image-refl",
            {
                "policy.training": "full",
                "policy.dtype": "float32",
                "rollout.steps": 40,
                "rollout.prompts": 32,
                "rollout.guidance.scale": 1.0,
                "rollout.reset.share": 1.0,
                "rollout.reset.step": 30,
                "rollout.pathwise.first": 0.01,
                "rollout.real.images": 1,
                "rollout.real.value": 0.01,
                "optimiser.lr": 3e-4,
            },
        ),
        "shapes": vary(
            SHAPES_GRADIENT,
            "image-refl",
            {
                "rollout.reset.share": 1.0,
                "rollout.reset.step": 2,
                "rollout.pathwise.first": 0.01,
                "rollout.real.images": 1,
                "rollout.real.value": 0.01,
            },
        ),
    },
    differences=("Real images are re-noised at uniform levels; the released code takes the starting level.",),
)
DRTUNE = Method(
    name="drtune",
    title="DRTune",
    paper="DRTune, 2405.00760",
    idea="Stop the gradient at every step's input, so that early steps learn too; train three of them.",
    presets={
        "published": vary(SD15_GRADIENT, "drtune", {"rollout.pathwise.steps": 3, "rollout.pathwise.first": 0.6}),
        "shapes": vary(SHAPES_GRADIENT, "drtune", {"rollout.pathwise.steps": 3, "rollout.pathwise.first": 0.6}),
    },
    differences=("There is no official code of the authors; sizes are those of a public re-implementation.",),
)
VADER = Method(
    name="vader",
    title="VADER",
    paper="VADER, 2407.08737",
    idea="Video: follow the reward's gradient through the last step, from one random frame that is decoded and scored.",
    presets={
        "published": vary(
            SD15_GRADIENT,
            "vader",
            {
                "policy.model": "damo-vilab/text-to-video-ms-1.7b",
                "policy.resolution": 384,
                "policy.frames": 16,
                "policy.lora.rank": 16,
                "policy.lora.alpha": 16,
                "rewards": {"aesthetic": 0.1},
                "rollout.steps": 25,
                "rollout.batch": 1,
                "rollout.guidance.scale": 9.0,
                "rollout.pathwise.frames": 1,
                "optimiser.weight_decay": 0.0,
                "loop.micro_batch": 1,
            },
        ),
        "shapes": vary(SHAPES_GRADIENT, "vader", {}),
    },
    differences=(
        "These are the released ModelScope settings, 16 videos an update; those of VideoCrafter2 (12 frames of 320 x "
        "512, guidance 12, η = 1, HPS beside the aesthetic score) and Open-Sora are of models that diffusers lacks.",
        "Samples follow the ODE by Euler steps; the released ModelScope code takes DPM-Solver++.",
        "The released LoRA covers every layer of the UNet and the text encoder, with dropout 0.1; this one the "
        "attention projections. Its alpha, and the number of iterations of the paper, are not known.",
        "The bundled world draws images, so its preset is DRaFT-1.",
    ),
)
PATHWISE = (REFL, DRAFT, DRAFT_K, DRAFT_LV, ALIGNPROP, IMAGE_REFL, DRTUNE, VADER)
