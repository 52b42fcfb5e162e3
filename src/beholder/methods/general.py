"""Policy-gradient choices of general RLHF over denoising decisions: baselines, ratios, trust regions, credit."""

from typing import Any

from beholder.methods.bases import SD35, SHAPES
from beholder.methods.row import Method, vary

COMMON = {"kl.beta": 0.0}
SMALL = {**COMMON, "rollout.shared_noise": False}
ON_REWARD = {"kl.form": "exact", "kl.place": "reward"}
PPO_CREDIT = {
    "credit.baseline": "critic",
    "credit.scale": "batch",
    "credit.whiten": True,
    "credit.critic.lam": 0.95,
    "kl.beta": 0.05,
    **ON_REWARD,
    "loop.epochs": 4,
    "loop.updates": 1,
}


def row(
    name: str,
    title: str,
    paper: str,
    idea: str,
    changes: dict,
    small: dict,
    *differences: str,
    published: dict[str, Any] | None = None,
) -> Method:
    """Flow-GRPO's rollout with ``changes``; further ones of the published preset, ``small`` for the bundled world."""
    return Method(
        name=name,
        title=title,
        paper=paper,
        idea=idea,
        presets={
            "published": vary(SD35, name, {**COMMON, **changes, **(published or {})}),
            "shapes": vary(SHAPES, name, {**SMALL, **changes, **small}),
        },
        differences=("Sizes are Flow-GRPO's: the method was published for language models.", *differences),
    )


GRPO = row(
    "grpo",
    "GRPO",
    "DeepSeekMath, 2402.03300",
    "Standardise each reward within its prompt's group.",
    {"credit.scale": "group"},
    {},
    "The shapes preset has no KL.",
    published={"kl.beta": 0.04, "kl.form": "k3"},
)
DR_GRPO = row(
    "dr-grpo",
    "Dr. GRPO",
    "Dr. GRPO, 2503.20783",
    "GRPO without the division by the standard deviation, which favours prompts of little spread.",
    {"credit.scale": "none"},
    {},
)
RLOO = row(
    "rloo",
    "RLOO",
    "Back to Basics, 2402.14740",
    "REINFORCE with the mean of the group's other samples as baseline; the KL is taken off the reward.",
    {
        "credit.baseline": "leave_one_out",
        "credit.scale": "none",
        "objective.kind": "gspo",
        "kl.beta": 0.05,
        **ON_REWARD,
    },
    {"objective.clip_low": 0.2, "objective.clip_high": 0.2},
    "One ratio per sample, as in TRL; its clip of 0.2 is of the joint ratio of a text.",
)
REMAX = row(
    "remax",
    "ReMax",
    "ReMax, 2310.10505",
    "REINFORCE with the reward of the greedy sample as baseline: here the ODE's from the same noise.",
    {
        "rollout.probe.kind": "greedy",
        "credit.baseline": "probe",
        "credit.scale": "none",
        "objective.kind": "reinforce",
        "loop.updates": 1,
    },
    {"rollout.prompts": 64, "rollout.group": 3},
    "The KL is the sum of the exact ones of a sample's decisions, taken off its reward; the shapes preset has none.",
    published={"kl.beta": 0.1, **ON_REWARD},
)
REINFORCE_PP = row(
    "reinforce-pp",
    "REINFORCE++",
    "REINFORCE++, 2501.03262",
    "No baseline of its own: whiten over the whole batch; the KL is taken off the reward.",
    {
        "credit.baseline": "none",
        "credit.scale": "none",
        "credit.whiten": True,
        "kl.beta": 0.01,
        **ON_REWARD,
    },
    {},
    "The KL is the exact one of the Gaussian transitions, summed over a sample's decisions, instead of a token's k1.",
)
PPO = row(
    "ppo",
    "PPO",
    "PPO, 1707.06347",
    "A critic on the noisy latents, generalised advantage estimation, several epochs of the clipped ratio.",
    PPO_CREDIT,
    {"credit.scale": "none", "credit.critic.lr": 1e-3, "loop.epochs": 2},
    "The KL of a whole sample is taken off its end; published PPO charges each decision its own.",
    "The clip of 0.2 on values is meant for rewards of unit variance, as Ziegler et al. (1909.08593) make their reward "
    "model's: the published preset standardises them over the iteration; the shapes preset's lie in 0..1.",
)
TRPO = row(
    "trpo",
    "TRPO",
    "TRPO, 1502.05477",
    "No clip: passes stop at a KL budget, and a line search scales the update back into it.",
    {
        "credit.scale": "group",
        "objective.kind": "ppo_clip",
        "objective.clip_low": 1.0,
        "objective.clip_high": 1e6,
        "loop.max_kl": 0.05,
        "loop.epochs": 4,
    },
    {"objective.trust_region": "per_dimension", "loop.epochs": 2},
    "The direction is Adam's, not the natural gradient; the budget is the exact KL of a decision in nats.",
)
DAPO = row(
    "dapo",
    "DAPO",
    "DAPO, 2503.14476",
    "A wider clip upwards, groups of equal rewards replaced by other prompts', the mean over all decisions.",
    {"credit.scale": "group", "objective.clip_low": 1e-4, "objective.clip_high": 1.4e-4, "rollout.redraw": 2},
    {"objective.clip_low": 0.2, "objective.clip_high": 0.28},
    "The paper's soft penalty on length has no meaning for a fixed number of steps.",
)
GSPO = row(
    "gspo",
    "GSPO",
    "GSPO, 2507.18071",
    "One importance ratio per sample, of the mean log-ratio of its decisions.",
    {"credit.scale": "group", "objective.kind": "gspo", "objective.clip_low": 3e-4, "objective.clip_high": 4e-4},
    {"objective.clip_low": 0.1, "objective.clip_high": 0.13},
)
VINEPPO = row(
    "vineppo",
    "VinePPO",
    "VinePPO, 2410.01679",
    "No critic: fresh continuations from every state estimate its value, and a step earns the change it made.",
    {
        "rollout.probe.kind": "vine",
        "rollout.probe.samples": 9,
        "credit.baseline": "probe",
        "credit.scale": "batch",
        "kl.beta": 1e-4,
    },
    {"rollout.probe.samples": 3, "rollout.prompts": 32, "rollout.group": 1, "rollout.plan.fraction": 0.8},
)
REDISTRIBUTED = row(
    "redistributed",
    "Dense reward for free",
    "Dense Reward for Free, 2402.00782",
    "Pay half the reward out along the path, in proportion to how far each step moved the clean prediction.",
    {"credit.scale": "group", "credit.redistribute": 0.5},
    {},
    "The paper's weights are a reward model's attention over tokens; ours are the movement of the predicted clean "
    "latent, which every policy has.",
)

DR_PO = row(
    "dr-po",
    "DR-PO",
    "Dataset Reset Policy Optimization, 2404.08495",
    "Rollouts start from real images noised to a later step: states that good samples pass through.",
    {},
    {"credit.scale": "group", "rollout.reset.share": 0.5, "rollout.reset.step": 2},
    "The prompt source must have images: the bundled world renders them, others are .jsonl files.",
    "The shapes preset resets half of its iterations, at random, and its baseline is the group's, not a critic's.",
    published={**PPO_CREDIT, "rollout.reset.share": 1.0, "rollout.reset.step": 3},
)

GENERAL = (GRPO, DR_GRPO, RLOO, REMAX, REINFORCE_PP, PPO, TRPO, DAPO, GSPO, VINEPPO, DR_PO, REDISTRIBUTED)
