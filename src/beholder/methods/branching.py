"""Methods that compare branches of one path: TempFlow-GRPO, BranchGRPO, B²-DiffuRL."""

from beholder.methods.bases import FLUX, FLUX_RATE, SD15, SD35, SHAPES, SHAPES_DIFFUSION
from beholder.methods.row import Method, vary

SPURS = {"rollout.branch.kind": "spurs", "credit.peers": "siblings", "credit.scale": "group"}
TREE = {
    "rollout.steps": 20,
    "rollout.group": 1,
    "rollout.plan.kind": "prefix",
    "rollout.branch.kind": "tree",
    "rollout.branch.width": 2,
    "rollout.branch.steps": (0, 3, 6, 9),
    "credit.peers": "depth",
    "objective.clip_low": 1e-3,
    "objective.clip_high": 1e-3,
    "optimiser.lr": 1e-5,
}
NOISE_AWARE = {"objective.weighting": "noise"}

TEMPFLOW_GRPO = Method(
    name="tempflow-grpo",
    title="TempFlow-GRPO",
    paper="TempFlow-GRPO, 2508.04324",
    idea="From an ODE trunk each step sends out branches; their rewards differ by that step alone. Noise weighs steps.",
    presets={
        "published": vary(
            SD35, "tempflow-grpo", {**SPURS, **NOISE_AWARE, "rollout.group": 4, "rollout.branch.width": 6}
        ),
        "shapes": vary(
            SHAPES,
            "tempflow-grpo",
            {
                **SPURS,
                **NOISE_AWARE,
                "rollout.shared_noise": False,
                "rollout.prompts": 16,
                "rollout.group": 1,
                "rollout.branch.width": 6,
                "rollout.plan.fraction": 0.8,
                "kl.beta": 0.0,
            },
        ),
    },
    differences=(
        "Its code was never released: trunk, branches and sizes (4 noises x 6 branches) are the author's words in its "
        "issues, the noise weights the paper's; other settings are Flow-GRPO's, the paper's KL among them.",
    ),
)

BRANCH_GRPO = Method(
    name="branch-grpo",
    title="BranchGRPO",
    paper="BranchGRPO, 2509.06040",
    idea="A tree of samples; a node is worth the mean of its leaves and compared with the nodes of its depth.",
    presets={
        "published": vary(FLUX, "branch-grpo", TREE),
        "likelihood": vary(FLUX, "branch-grpo", {**TREE, "credit.nodes": "likelihood"}),
        "width_pruned": vary(FLUX, "branch-grpo", {**TREE, "credit.keep_best": 4, "credit.keep_worst": 4}),
        "depth_pruned": vary(
            FLUX,
            "branch-grpo",
            {
                **TREE,
                "rollout.plan.kind": "moving_window",
                "rollout.plan.outside": "sde",
                "rollout.plan.size": 10,
                "rollout.plan.stop": 13,
                "rollout.plan.every": 30,
            },
        ),
        "shapes": vary(
            SHAPES,
            "branch-grpo",
            {
                "rollout.prompts": 24,
                "rollout.group": 1,
                "rollout.shared_noise": False,
                "rollout.plan.kind": "prefix",
                "rollout.branch.kind": "tree",
                "rollout.branch.width": 2,
                "rollout.branch.steps": (0, 1, 2, 3),
                "credit.peers": "depth",
                "credit.scale": "group",
                "kl.beta": 0.0,
            },
        ),
    },
    differences=(
        FLUX_RATE,
        "The released code multiplies the noise at a split by 4 but scores it as if it had not; here noise and "
        "likelihood agree.",
        "The likelihood preset is the released code's `tree_prob_weighted`: a node is worth the mean of its children "
        "weighted by the softmax of their log-likelihood per dimension (credit.nodes). That of a step outside the plan "
        "is not kept: samples that part there weigh alike.",
        "Below the last split nodes of a depth are the leaves themselves.",
        "Depth pruning trains a moving span of depths, which turns back where the released one stays at its last "
        "place; width pruning trains the leaves of the highest and the lowest rewards.",
    ),
)

B2_DIFFURL = Method(
    name="b2-diffurl",
    title="B²-DiffuRL",
    paper="B²-DiffuRL, 2503.11240",
    idea="Train the last steps first and grow backwards; branch there, and keep only clear winners and losers.",
    presets={
        "published": vary(
            SD15,
            "b2-diffurl",
            {
                "policy.model": "CompVis/stable-diffusion-v1-4",
                "rollout.steps": 20,
                "rollout.prompts": 32,
                "rollout.group": 8,
                "rollout.plan.kind": "suffix",
                "rollout.plan.size": 14,
                "rollout.plan.every": 100,
                "rollout.branch.kind": "fan",
                "rollout.branch.width": 5,
                "credit.history": 360,
                "credit.history_min": 2,
                "credit.ddof": 1,
                "credit.eps": 1e-8,
                "credit.threshold": 0.5,
                "objective.clip_low": 0.1,
                "objective.clip_high": 0.1,
                "optimiser.lr": 1e-4,
                "loop.epochs": 2,
                "loop.updates": 8,
            },
        ),
        "shapes": vary(
            SHAPES_DIFFUSION,
            "b2-diffurl",
            {
                "rollout.prompts": 24,
                "rollout.group": 4,
                "rollout.plan.kind": "suffix",
                "rollout.plan.size": 4,
                "rollout.plan.every": 40,
                "rollout.branch.kind": "fan",
                "rollout.branch.width": 4,
                "credit.scale": "group",
                "credit.threshold": 0.5,
            },
        ),
    },
    differences=(
        "The released code compares with a prompt's rewards of this and the last eight stages; here a buffer of as "
        "many rewards per prompt (credit.history).",
        "Its clip range of 0.1 per dimension never acts; it is kept in the published preset.",
    ),
)
