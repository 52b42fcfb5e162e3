"""Flow-GRPO (2505.05470) and its Fast variant: online policy gradients on flow models through an equivalent SDE."""

from dataclasses import replace

from beholder.config import (
    CreditConfig,
    EMAConfig,
    EvaluationConfig,
    GuidanceConfig,
    KernelConfig,
    KLConfig,
    LoopConfig,
    ObjectiveConfig,
    OptimiserConfig,
    PlanConfig,
    PolicyConfig,
    RolloutConfig,
    RunConfig,
)
from beholder.methods.row import Method, vary

PUBLISHED = RunConfig(
    method="flow-grpo",
    prompts="prompts.txt",
    rewards={},
    policy=PolicyConfig(
        model="stabilityai/stable-diffusion-3.5-medium", dtype="float16", resolution=512, max_sequence_length=128
    ),
    rollout=RolloutConfig(
        steps=10,
        prompts=48,
        group=24,
        batch=9,
        kernel=KernelConfig(kind="flow_sde", level=0.7),
        plan=PlanConfig(kind="prefix", fraction=0.99),
        guidance=GuidanceConfig(scale=4.5),
    ),
    credit=CreditConfig(baseline="group", scale="batch", ddof=0, eps=1e-4, clip=5.0),
    objective=ObjectiveConfig(clip_low=1e-4, clip_high=1e-4),
    kl=KLConfig(beta=0.04, form="exact"),
    optimiser=OptimiserConfig(lr=3e-4, weight_decay=1e-4, max_grad_norm=1.0),
    ema=EMAConfig(decay=0.9, every=8),
    loop=LoopConfig(iterations=2500, updates=2, micro_batch=9, checkpoint_every=30),
    evaluation=EvaluationConfig(every=30, prompts="prompts_held_out.txt", images=256, steps=40, rewards=()),
)

PUBLISHED_FAST = replace(
    PUBLISHED,
    method="flow-grpo-fast",
    rollout=replace(
        PUBLISHED.rollout,
        kernel=KernelConfig(kind="cps", level=0.8, log_prob="unweighted"),
        plan=PlanConfig(kind="random_window", size=3, start=0, stop=5),
        guidance=GuidanceConfig(scale=1.0),
    ),
    objective=ObjectiveConfig(clip_low=1e-5, clip_high=1e-5),
    kl=KLConfig(beta=0.0),
)

# Its guidance is an input of the network, so there is no second, unconditional call.
FLUX_CHANGES = {
    "policy.model": "black-forest-labs/FLUX.1-dev",
    "policy.dtype": "bfloat16",
    "policy.max_sequence_length": 512,
    "policy.lora.rank": 64,
    "policy.lora.alpha": 128,
    "rollout.steps": 6,
    "rollout.batch": 3,
    "rollout.guidance.scale": 1.0,
    "kl.beta": 0.0,
    "loop.micro_batch": 3,
    "evaluation.steps": 28,
}

# The bundled world: full training (the network is small), few rollout steps (Flow-GRPO's denoising reduction), groups
# that share their starting noise, and a trust region in nats, which does not depend on the size of the latent.
SHAPES = RunConfig(
    method="flow-grpo",
    policy=PolicyConfig(training="full"),
    rollout=RolloutConfig(
        steps=5,
        prompts=32,
        group=12,
        batch=384,
        shared_noise=True,
        kernel=KernelConfig(kind="flow_sde", level=0.7),
        plan=PlanConfig(kind="prefix", fraction=0.99),
    ),
    credit=CreditConfig(baseline="group", scale="batch"),
    objective=ObjectiveConfig(clip_low=0.2, clip_high=0.2, trust_region="joint"),
    kl=KLConfig(beta=0.04, form="no_dt"),
    optimiser=OptimiserConfig(lr=3e-4, beta2=0.99),
    loop=LoopConfig(iterations=100, updates=2, micro_batch=384),
    evaluation=EvaluationConfig(every=20, images=384, steps=10),
)

SHAPES_FAST = replace(
    SHAPES,
    method="flow-grpo-fast",
    rollout=replace(
        SHAPES.rollout,
        kernel=KernelConfig(kind="cps", level=0.8),
        plan=PlanConfig(kind="random_window", size=1, start=0, stop=2),
    ),
    kl=KLConfig(beta=0.0),
    ema=EMAConfig(decay=0.98),
)

DEMO = replace(
    SHAPES_FAST,
    loop=replace(SHAPES_FAST.loop, iterations=80),
    evaluation=replace(SHAPES_FAST.evaluation, every=20),
)

LONG = vary(
    SHAPES_FAST,
    "flow-grpo-fast",
    {
        "rollout.steps": 6,
        "rollout.plan.stop": 3,
        "optimiser.lr": 2e-4,
        "loop.iterations": 1500,
        "loop.minutes": 60.0,
        "evaluation.every": 40,
    },
)

# Reward hacking on purpose: redness is easily raised and has nothing to do with the prompt.
HACK = replace(
    SHAPES_FAST,
    rewards={"redness": 1.0},
    ema=EMAConfig(),
    rollout=replace(SHAPES_FAST.rollout, prompts=12, group=8, batch=96),
    loop=replace(SHAPES_FAST.loop, iterations=25, micro_batch=96),
    evaluation=replace(SHAPES_FAST.evaluation, every=5, images=96, rewards=("shapes_strict", "redness")),
)

HACK_KL = replace(HACK, kl=KLConfig(beta=0.02, form="velocity"))

FLOW_GRPO = Method(
    name="flow-grpo",
    title="Flow-GRPO",
    paper="Flow-GRPO, 2505.05470",
    idea="Turn the ODE into an SDE with the same marginals; every step then has a density.",
    presets={
        "published": PUBLISHED,
        "released": vary(PUBLISHED, "flow-grpo", {"kl.form": "no_dt"}),
        "flux": vary(PUBLISHED, "flow-grpo", {**FLUX_CHANGES, "rollout.kernel.level": 0.9}),
        "shapes": SHAPES,
    },
    differences=(
        "The released code drops dt from the paper's KL, which makes it 4 to 112 times smaller: preset released, "
        "kl.form no_dt, which the shapes preset has too.",
        "At the first step the SDE's coefficient is singular; like the released code, this row puts the second noise "
        "level into its denominator.",
        "The first release detached the unconditional branch, later ones do not; rollout.guidance.detach-unconditional "
        "chooses.",
        "EMA is updated at every 8th optimiser step; the released code counts micro-batches.",
    ),
)

FLOW_GRPO_FAST = Method(
    name="flow-grpo-fast",
    title="Flow-GRPO-Fast",
    paper="Flow-GRPO, 2505.05470; CPS kernel of 2509.05952",
    idea="Only a short random window of early steps is stochastic and trained; the rest follows the ODE.",
    presets={
        "published": PUBLISHED_FAST,
        "flux": vary(
            PUBLISHED_FAST, "flow-grpo-fast", {**FLUX_CHANGES, "rollout.plan.stop": 3, "credit.scale": "group"}
        ),
        "shapes": SHAPES_FAST,
        "demo": DEMO,
        "long": LONG,
        "hack": HACK,
        "hack_kl": HACK_KL,
    },
    differences=(
        "The released CPS code scores with -(x-mean)^2, without 1/(2c^2); so does the published preset "
        "(rollout.kernel.log-prob unweighted).",
        "The first release shared one trunk per prompt and branched at the window; since 2025-10 the whole batch "
        "shares a random window, as here.",
    ),
)

FLOW_CPS = Method(
    name="flow-cps",
    title="Flow-CPS",
    paper="FlowCPS, 2509.05952",
    idea="Flow-GRPO with a step that keeps the noise level exact, so that samples stay clean at any strength.",
    presets={
        "published": vary(
            PUBLISHED,
            "flow-cps",
            {
                "rollout.kernel.kind": "cps",
                "rollout.kernel.level": 0.8,
                "rollout.kernel.log_prob": "unweighted",
                "objective.clip_low": 1e-5,
                "objective.clip_high": 1e-5,
                "kl.beta": 0.0,
            },
        ),
        "shapes": vary(SHAPES, "flow-cps", {"rollout.kernel.kind": "cps", "rollout.kernel.level": 0.8, "kl.beta": 0.0}),
    },
    differences=(
        "The released code scores with -(x-mean)^2 (log-prob unweighted); the shapes preset with the density.",
    ),
)
