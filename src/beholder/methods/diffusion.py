"""Policy gradients on diffusion models: DDPO, DPOK, TDPO, SDPO, Dense Reward View, D3PO.

Their kernel is DDIM's with η = 1. On a flow model the same kernel runs through the signal-to-noise map, so the presets
for the bundled world use it unchanged.
"""

from beholder.methods.bases import SD15, SHAPES_DIFFUSION
from beholder.methods.row import Method, vary

REGRESSED_PAIRS = {
    "objective.kind": "preference",
    "objective.preference.utility": "clip",
    "objective.preference.link": "regress",
    "objective.preference.pessimistic": True,
    "objective.preference.discount": 0.99,
}
DDPO_SF = Method(
    name="ddpo-sf",
    title="DDPO-SF",
    paper="DDPO, 2305.13301",
    idea="Denoising as a decision process: the score-function gradient of its likelihood, one update per rollout.",
    presets={
        "published": vary(SD15, "ddpo-sf", {"objective.kind": "reinforce", "loop.updates": 1}),
        "shapes": vary(SHAPES_DIFFUSION, "ddpo-sf", {"objective.kind": "reinforce", "loop.updates": 1}),
    },
    differences=("Released code has DDPO-IS only; with one update per rollout its ratio is 1 and the two agree.",),
)
DDPO_IS = Method(
    name="ddpo-is",
    title="DDPO-IS",
    paper="DDPO, 2305.13301",
    idea="DDPO with PPO's clipped importance ratio, so that a rollout serves several updates.",
    presets={
        "published": vary(SD15, "ddpo-is", {}),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "ddpo-is",
            {"credit.baseline": "running", "credit.scale": "running", "credit.eps": 1e-6},
        ),
    },
    differences=(
        "The paper trains the full network with lr 1e-5, four updates per 256 samples and advantages within ±10; the "
        "published preset is the released LoRA configuration.",
    ),
)
DPOK_PUBLISHED = vary(
    SD15,
    "dpok",
    {
        "rollout.prompts": 10,
        "rollout.guidance.scale": 7.5,
        "credit.baseline": "critic",
        "credit.scale": "none",
        "credit.clip": 1000.0,
        "credit.critic.lam": 1.0,
        "credit.critic.steps": 1,
        "credit.critic.clip": 0.0,
        "objective.kind": "hard_clip",
        "kl.beta": 0.001,
        "kl.form": "exact",
        "optimiser.lr": 1e-5,
        "optimiser.weight_decay": 0.0,
        "optimiser.max_grad_norm": 0.01,
        "loop.iterations": 2000,
        "loop.updates": 5,
    },
)
DPOK = Method(
    name="dpok",
    title="DPOK",
    paper="DPOK, 2305.16381",
    idea="Raw reward minus a learnt value, a hard clip, and a KL to the pretrained model as part of the loss.",
    presets={
        "published": DPOK_PUBLISHED,
        "released": vary(DPOK_PUBLISHED, "dpok", {"kl.form": "velocity"}),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "dpok",
            {
                "credit.baseline": "critic",
                "credit.scale": "none",
                "credit.whiten": True,
                "credit.critic.lam": 1.0,
                "credit.critic.lr": 1e-3,
                "objective.kind": "hard_clip",
                "kl.beta": 0.01,
                "kl.form": "exact",
            },
        ),
    },
    differences=(
        "The released loss weighs the reward with 10 (one prompt) or 1000 (many) and the KL with 0.01 or 0.1; the loss "
        "is the same up to that factor, so kl.beta and max_grad_norm are divided by the 10.",
        "The released code's KL is the squared distance of noise predictions: preset released, kl.form velocity. The "
        "paper's is the Gaussians', here kl.form exact.",
        "It draws transitions from a buffer of the last 20 trajectories; ours are of the present rollout.",
        "The error of the velocity is that of the noise prediction over (1-σ)²: it weighs early steps more.",
        "The shapes preset whitens advantages; the paper does not.",
    ),
)
TDPO = Method(
    name="tdpo",
    title="TDPO",
    paper="TDPO-R, 2402.08552",
    idea="A temporal critic gives every step its own advantage, and every step its own update.",
    presets={
        "published": vary(
            SD15,
            "tdpo",
            {
                "credit.baseline": "critic",
                "credit.whiten": True,
                "credit.clip": 1000.0,
                "credit.critic.lam": 1.0,
                "optimiser.lr": 1e-4,
                "loop.order": "steps",
            },
        ),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "tdpo",
            {
                "credit.baseline": "critic",
                "credit.scale": "none",
                "credit.whiten": True,
                "credit.critic.lam": 1.0,
                "credit.critic.lr": 1e-3,
                "loop.order": "steps",
                "loop.updates": 1,
            },
        ),
    },
    differences=(
        "Its critic sees the reward model's features of the decoded noisy state; ours sees the latent and the prompt.",
        "The critic learns rewards standardised over their prompt's recent ones, as in the released code (credit.scale "
        "running); in the shapes preset raw ones, which lie in 0..1.",
    ),
)
TDPO_R = Method(
    name="tdpo-r",
    title="TDPO-R",
    paper="TDPO-R, 2402.08552",
    idea="TDPO that re-initialises the critic's active neurons now and then, against primacy bias.",
    presets={
        "published": vary(TDPO.presets["published"], "tdpo-r", {"credit.critic.reset_every": 10}),
        "shapes": vary(TDPO.presets["shapes"], "tdpo-r", {"credit.critic.reset_every": 10}),
    },
    differences=TDPO.differences,
)
SDPO = Method(
    name="sdpo",
    title="SDPO",
    paper="SDPO, 2411.11727",
    idea="Few-step models: dense reward differences between two paths from one noise, regressed step by step.",
    presets={
        "published": vary(
            SD15,
            "sdpo",
            {
                "policy.model": "stabilityai/sd-turbo",
                "rollout.steps": 4,
                "rollout.group": 2,
                "rollout.shared_noise": True,
                "rollout.guidance.scale": 1.0,
                "credit.peers": "depth",
                "credit.dense": "anchors",
                "credit.discount": 0.99,
                **REGRESSED_PAIRS,
                "optimiser.lr": 1e-4,
                "loop.order": "steps",
            },
        ),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "sdpo",
            {
                "rollout.prompts": 96,
                "rollout.group": 4,
                "rollout.shared_noise": True,
                "credit.peers": "depth",
                "credit.scale": "group",
                "credit.dense": "anchors",
                "credit.discount": 0.99,
                **REGRESSED_PAIRS,
                "loop.updates": 1,
                "loop.order": "steps",
            },
        ),
    },
    differences=(
        "The regression target is of order 1 and log-ratios of order 1e-4, so it is never reached: the gradient is a "
        "clipped pairwise policy gradient.",
        "Four steps, for the few-step models the paper is about; the released configuration draws 50.",
        "The published preset standardises returns over the last 32 of their prompt and step, as the released code "
        "does (fewer than 16: over the iteration's at that step); the shapes preset within the rollout's.",
    ),
)
DENSE_REWARD = Method(
    name="dense-reward",
    title="Dense Reward View",
    paper="A Dense Reward View, 2402.08265",
    idea="Plackett-Luce over a prompt's trajectories; early steps count more because they are drawn more often.",
    presets={
        "published": vary(
            SD15,
            "dense-reward",
            {
                "policy.dtype": "bfloat16",
                "policy.lora.rank": 32,
                "policy.lora.alpha": 32,
                "rollout.prompts": 32,
                "rollout.group": 5,
                "rollout.guidance.scale": 7.5,
                "rollout.plan.kind": "geometric",
                "rollout.plan.size": 1,
                "rollout.plan.decay": 0.9,
                "credit.baseline": "group",
                "credit.scale": "none",
                "credit.clip": 1e6,
                "objective.kind": "preference",
                "objective.preference.utility": "clip",
                "objective.preference.contrast": "list",
                "objective.preference.over": "sample",
                "objective.anchor": "reference",
                "objective.temperature": 12.5,
                "objective.clip_low": 5e-4,
                "objective.clip_high": 5e-4,
                "optimiser.lr": 2e-5,
                "optimiser.max_grad_norm": 0.05,
            },
        ),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "dense-reward",
            {
                "rollout.prompts": 64,
                "rollout.group": 6,
                "rollout.plan.kind": "geometric",
                "rollout.plan.size": 2,
                "rollout.plan.decay": 0.7,
                "credit.scale": "none",
                "objective.kind": "preference",
                "objective.preference.utility": "clip",
                "objective.preference.contrast": "list",
                "objective.preference.over": "sample",
                "objective.anchor": "reference",
                "objective.temperature": 10.0,
                "objective.trust_region": "joint",
                "objective.clip_low": 20.0,
                "objective.clip_high": 20.0,
            },
        ),
    },
    differences=(
        "Steps are drawn without repetition; the released code draws with it.",
        "Trajectories are of the present rollout; the released code keeps a buffer that it refills every 2500 updates, "
        "and of 12 trajectories the 5 evenly spaced by rank; here 5 are drawn.",
    ),
)
D3PO = Method(
    name="d3po",
    title="D3PO",
    paper="D3PO, 2311.13231",
    idea="DPO on every denoising step of a pair of samples, against the pretrained model.",
    presets={
        "published": vary(
            SD15,
            "d3po",
            {
                "rollout.steps": 20,
                "rollout.prompts": 10,
                "rollout.group": 2,
                "rollout.shared_noise": True,
                "credit.baseline": "group",
                "credit.scale": "none",
                "credit.clip": 1e6,
                "objective.kind": "preference",
                "objective.preference.utility": "clip_ratio",
                "objective.anchor": "reference",
                "objective.temperature": 0.1,
                "objective.clip_low": 0.1,
                "objective.clip_high": 0.1,
                "optimiser.lr": 3e-5,
                "loop.iterations": 400,
            },
        ),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "d3po",
            {
                "rollout.prompts": 96,
                "rollout.group": 4,
                "rollout.shared_noise": True,
                "credit.scale": "none",
                "objective.kind": "preference",
                "objective.preference.utility": "clip_ratio",
                "objective.anchor": "reference",
                "objective.temperature": 10.0,
                "objective.trust_region": "joint",
                "objective.clip_low": 20.0,
                "objective.clip_high": 20.0,
            },
        ),
    },
    differences=(
        "With β 0.1 and a clip of 0.1 the loss can only lie between 0.683 and 0.703: it looks stuck by construction.",
        "All pairs of a prompt's samples are compared, as the released code does for human feedback on seven images.",
    ),
)

STEPWISE = {
    "rollout.group": 1,
    "rollout.branch.kind": "ladder",
    "rollout.branch.width": 4,
    "credit.baseline": "none",
    "credit.scale": "none",
    "credit.clip": 1e6,
    "objective.kind": "preference",
    "objective.preference.utility": "clip_ratio",
    "objective.preference.pairs": "extremes",
    "objective.anchor": "reference",
    "loop.updates": 1,
}
SPO = Method(
    name="spo",
    title="SPO",
    paper="SPO, 2406.04314",
    idea="At every step draw some next states from one, prefer the best to the worst, and go on from a random one.",
    presets={
        "published": vary(
            SD15,
            "spo",
            {
                **STEPWISE,
                "rollout.steps": 20,
                "rollout.prompts": 40,
                "rollout.plan.kind": "suffix",
                "rollout.plan.size": 16,
                "objective.temperature": 10.0,
                "objective.preference.min_gap": 0.62,
                "objective.clip_low": 0.1,
                "objective.clip_high": 0.1,
                "optimiser.lr": 6e-5,
            },
        ),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "spo",
            {
                **STEPWISE,
                "rollout.prompts": 24,
                "rollout.plan.kind": "prefix",
                "rollout.plan.fraction": 0.8,
                "objective.temperature": 10.0,
                "objective.trust_region": "joint",
                "objective.clip_low": 20.0,
                "objective.clip_high": 20.0,
            },
        ),
    },
    differences=(
        "Candidates are judged by the image that the ODE makes of them, or with a reward fitted with `--noisy` by "
        "their noisy state itself, as in the paper, which shows its model the clean image predicted from that and "
        "draws no ODE for it.",
        "Its threshold 0.3 on the softmax of two scores is a difference of 0.62.",
    ),
)
LPO = Method(
    name="lpo",
    title="LPO",
    paper="LPO, 2502.01051",
    idea="SPO from the first step on, with a far larger β and a threshold on the preference.",
    presets={
        "published": vary(
            SD15,
            "lpo",
            {
                **STEPWISE,
                "rollout.steps": 20,
                "rollout.prompts": 40,
                "rollout.plan.kind": "all",
                "objective.temperature": 500.0,
                "objective.preference.min_gap": 0.85,
                "objective.clip_low": 0.1,
                "objective.clip_high": 0.1,
                "optimiser.lr": 6e-5,
            },
        ),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "lpo",
            {
                **STEPWISE,
                "rollout.prompts": 24,
                "rollout.plan.kind": "prefix",
                "rollout.plan.fraction": 0.8,
                "objective.temperature": 50.0,
                "objective.trust_region": "joint",
                "objective.clip_low": 20.0,
                "objective.clip_high": 20.0,
            },
        ),
    },
    differences=(
        "Its reward model is the diffusion backbone on noisy latents; here candidates are judged as in SPO, and a "
        "reward fitted with `--noisy` sees the noisy latents decoded.",
        "Its threshold grows with the noise from 0.35 to 0.5 over 20 steps; here it is one difference, 0.85, between.",
    ),
)
