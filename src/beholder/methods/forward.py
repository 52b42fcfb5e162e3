"""Methods that need no likelihood of a path: they re-noise clean samples and look at the denoising error."""

from beholder.methods.bases import SD15, SD35, SHAPES
from beholder.methods.row import Method, vary

CFG_FREE = {
    "rollout.guidance.scale": 1.0,
    "rollout.forward.times": 10,
    "kl.form": "velocity",
}
SMALL = {
    "rollout.shared_noise": False,
    "rollout.forward.times": 2,
    "rollout.forward.time": "uniform",
    "kl.form": "velocity",
    "kl.beta": 0.0,
    "loop.updates": 1,
}

SELF_PLAY = {
    "rewards": {},
    "rollout.group": 1,
    "rollout.guidance.scale": 1.0,
    "rollout.real.images": 1,
    "rollout.forward.times": 1,
    "rollout.forward.time": "uniform",
    "rollout.forward.shared": True,
    "credit.baseline": "none",
    "credit.scale": "none",
    "objective.kind": "preference",
    "objective.anchor": "reference",
    "kl.beta": 0.0,
    "kl.form": "velocity",
    "loop.updates": 1,
}
WEIGHTED = {
    "rollout.real.images": 1,
    "rollout.real.value": 1.0,
    "credit.baseline": "none",
    "credit.scale": "none",
    "objective.kind": "reinforce",
    "objective.anchor": "none",
    "kl.beta": 0.0,
}
NFT = {"objective.kind": "nft", "objective.temperature": 1.0, "rollout.policy": "ema", "loop.updates": 1}
NFT_SHAPES = vary(SHAPES, "diffusion-nft", {**SMALL, **NFT, "ema.decay": 0.5, "ema.rise": 0.01})
DIFFUSION_NFT = Method(
    name="diffusion-nft",
    title="DiffusionNFT",
    paper="DiffusionNFT, 2509.16117",
    idea="Two implicit policies around an old one: pull towards what scored well, push from what scored badly.",
    presets={
        "published": vary(
            SD35,
            "diffusion-nft",
            {**CFG_FREE, **NFT, "kl.beta": 1e-4, "ema.decay": 0.5, "ema.rise": 0.001, "ema.every": 1},
        ),
        "shapes": NFT_SHAPES,
        "long": vary(
            NFT_SHAPES,
            "diffusion-nft",
            {
                "optimiser.lr": 2e-4,
                "loop.iterations": 90,
                "loop.minutes": 60.0,
                "evaluation.every": 30,
                "evaluation.guidance": 2.0,
            },
        ),
    },
    differences=(
        "Samples are drawn by Euler steps; the released code uses a second-order DPM solver.",
        "The old policy is the running average, whose decay rises with the updates as in the released schedule 1.",
    ),
)
AWM = Method(
    name="awm",
    title="AWM",
    paper="Advantage Weighted Matching, 2509.25050",
    idea="The policy gradient on the denoising loss itself: advantages weigh how well samples are matched.",
    presets={
        "published": vary(
            SD35,
            "awm",
            {
                **CFG_FREE,
                "rollout.steps": 14,
                "rollout.prompts": 24,
                "rollout.forward.times": 6,
                "rollout.forward.fraction": 0.9,
                "rollout.forward.weight": "ghuber",
                "credit.clip": 1.0,
                "objective.clip_low": 0.99,
                "objective.clip_high": 1.0,
                "kl.beta": 0.001,
                "ema.decay": 0.99,
                "ema.every": 1,
                "loop.updates": 1,
            },
        ),
        "shapes": vary(
            SHAPES,
            "awm",
            {
                **SMALL,
                "rollout.forward.weight": "uniform",
                "objective.trust_region": "per_dimension",
                "objective.clip_low": 0.99,
                "objective.clip_high": 1.0,
            },
        ),
    },
    differences=("The released sampler is SA-Solver with 14 steps; here Euler.",),
)
DGPO = Method(
    name="dgpo",
    title="DGPO",
    paper="DGPO, 2510.08425",
    idea="DPO for whole groups: advantages split a group in two, and one σ weighs the comparison.",
    presets={
        "published": vary(
            SD35,
            "dgpo",
            {
                **CFG_FREE,
                "rollout.group": 16,
                "rollout.forward.times": 4,
                "rollout.forward.shared": True,
                "rollout.forward.weight": "uniform",
                "objective.kind": "preference",
                "objective.preference.contrast": "group",
                "objective.preference.weight": 0.01,
                "objective.anchor": "reference",
                "objective.temperature": 100.0,
                "kl.beta": 0.02,
                "loop.updates": 1,
            },
        ),
        "shapes": vary(
            SHAPES,
            "dgpo",
            {
                **SMALL,
                "rollout.forward.shared": True,
                "rollout.forward.weight": "uniform",
                "objective.kind": "preference",
                "objective.preference.contrast": "group",
                "objective.preference.weight": 0.1,
                "objective.anchor": "reference",
                "objective.temperature": 10.0,
            },
        ),
    },
    differences=("Its KL is to a reference with guidance 4.5; here both have the rollout's guidance.",),
)
ONLINE_DPO = Method(
    name="online-flow-dpo",
    title="Online Flow-DPO",
    paper="Flow-DPO (VideoAlign), 2501.13918; Diffusion-DPO, 2311.12908",
    idea="The best against the worst of a fresh group, on re-noised samples that share noise and time; ties dropped.",
    presets={
        "published": vary(
            SD35,
            "online-flow-dpo",
            {
                **CFG_FREE,
                "rollout.steps": 40,
                "rollout.guidance.scale": 4.5,
                "rollout.forward.times": 39,
                "rollout.forward.time": "logit_normal",
                "rollout.forward.shared": True,
                "credit.scale": "none",
                "credit.keep_best": 1,
                "credit.keep_worst": 1,
                "objective.kind": "preference",
                "objective.anchor": "reference",
                "objective.temperature": 100.0,
                "kl.beta": 0.0,
                "loop.updates": 1,
            },
        ),
        "shapes": vary(
            SHAPES,
            "online-flow-dpo",
            {
                **SMALL,
                "rollout.forward.shared": True,
                "credit.scale": "none",
                "credit.keep_best": 1,
                "credit.keep_worst": 1,
                "objective.kind": "preference",
                "objective.anchor": "reference",
                "objective.temperature": 20.0,
            },
        ),
    },
    differences=(
        "The released code pairs the first two samples of a group whose rewards all tie; here it is left out.",
        "Its loss is without guidance though its samples have it; here both have the rollout's.",
    ),
)
ITERATIVE_DPO = Method(
    name="iterative-dpo",
    title="Iterative DPO",
    paper="RLHF workflow, 2405.07863",
    idea="Rounds of DPO on the best against the worst of fresh samples, each round against the policy it began with.",
    presets={
        "published": vary(
            ONLINE_DPO.presets["published"],
            "iterative-dpo",
            {"rollout.group": 8, "rollout.guidance.scale": 1.0, "rollout.forward.times": 4, "kl.refresh": 100},
        ),
        "shapes": vary(ONLINE_DPO.presets["shapes"], "iterative-dpo", {"kl.refresh": 20}),
    },
    differences=(
        "Stated for language models: 3 rounds of 20,000 prompts, 8 samples each; its length penalty is left out.",
    ),
)
RAFT = Method(
    name="raft",
    title="RAFT",
    paper="RAFT, 2304.06767",
    idea="Fine-tune on the best of each prompt's samples.",
    presets={
        "published": vary(
            SD35,
            "raft",
            {
                **CFG_FREE,
                "rollout.group": 10,
                "credit.weights": "one",
                "credit.keep_best": 1,
                "objective.kind": "reinforce",
                "kl.beta": 0.0,
            },
        ),
        "shapes": vary(
            SHAPES, "raft", {**SMALL, "credit.weights": "one", "credit.keep_best": 1, "objective.kind": "reinforce"}
        ),
    },
    differences=(
        "The released notebook keeps the best eight over all prompts, which favours easy ones; here per prompt.",
    ),
)
RWR = Method(
    name="rwr",
    title="RWR",
    paper="DDPO's baseline, 2305.13301",
    idea="Fine-tune on the policy's own samples, weighted by the softmax of their rewards.",
    presets={
        "published": vary(
            SD35,
            "rwr",
            {
                **CFG_FREE,
                "credit.weights": "softmax",
                "credit.temperature": 0.2,
                "credit.clip": 1e6,
                "objective.kind": "reinforce",
                "kl.beta": 0.0,
            },
        ),
        "shapes": vary(
            SHAPES,
            "rwr",
            {
                **SMALL,
                "credit.weights": "softmax",
                "credit.temperature": 5.0,
                "credit.clip": 1e6,
                "objective.kind": "reinforce",
            },
        ),
    },
    differences=(
        "DDPO's code weighs 10240 samples at once and re-encodes decoded images; here an iteration's latents.",
    ),
)
CRD = Method(
    name="crd",
    title="CRD",
    paper="Centred reward distillation, 2603.14128",
    idea="Regress the implicit reward of every sample, less its group's mean, onto its reward, less the group's.",
    presets={
        "published": vary(
            SD35,
            "crd",
            {
                **CFG_FREE,
                "rollout.forward.shared": True,
                "objective.kind": "preference",
                "objective.preference.contrast": "centred",
                "objective.preference.link": "regress",
                "kl.beta": 0.1,
                "rollout.policy": "ema",
                "ema.decay": 0.999,
                "ema.rise": 0.005,
                "ema.every": 1,
                "loop.updates": 1,
            },
        ),
        "shapes": vary(
            SHAPES,
            "crd",
            {
                **SMALL,
                "rollout.forward.shared": True,
                "objective.kind": "preference",
                "objective.preference.contrast": "centred",
                "objective.preference.link": "regress",
                "objective.temperature": 20.0,
                "rollout.policy": "ema",
                "ema.decay": 0.5,
                "ema.rise": 0.01,
            },
        ),
    },
    differences=(
        "Errors are plain means; the released code divides each by its own mean absolute error.",
        "Its KL is to a reference with guidance 4.5; here both have the rollout's guidance.",
    ),
)
SPIN = Method(
    name="spin-diffusion",
    title="SPIN-Diffusion",
    paper="SPIN-Diffusion, 2402.10210",
    idea="Prefer real images to the policy's own, the policy of the last round being both opponent and reference.",
    presets={
        "published": vary(
            SD15,
            "spin-diffusion",
            {
                **SELF_PLAY,
                "policy.training": "full",
                "policy.dtype": "float32",
                "rollout.prompts": 256,
                "objective.temperature": 2000.0,
                "optimiser.lr": 2e-5,
                "kl.refresh": 50,
            },
        ),
        "shapes": vary(
            SHAPES,
            "spin-diffusion",
            {
                **SMALL,
                **SELF_PLAY,
                "rollout.prompts": 192,
                "objective.temperature": 20.0,
                "optimiser.lr": 1e-4,
                "kl.refresh": 20,
            },
        ),
    },
    differences=("Opponents are drawn anew every iteration; the released code draws a round's images at once.",),
)
HUMAN_FEEDBACK = Method(
    name="reward-weighted",
    title="Reward-weighted fine-tuning",
    paper="Aligning text-to-image models using human feedback, 2302.12192",
    idea="Fine-tune on own samples weighted by their rewards, and on real images so that quality stays.",
    presets={
        "published": vary(
            SD15,
            "reward-weighted",
            {
                **CFG_FREE,
                **WEIGHTED,
                "rollout.group": 4,
                "rollout.forward.times": 1,
                "rollout.forward.time": "uniform",
                "optimiser.lr": 1e-5,
            },
        ),
        "shapes": vary(SHAPES, "reward-weighted", {**SMALL, **WEIGHTED}),
    },
    differences=("There is no official code; its rewards are those of a model trained on 27,000 human labels.",),
)
TAUGHT_BY_TEXT = {
    "credit.baseline": "none",
    "credit.scale": "none",
    "credit.weights": "one",
    "objective.kind": "reinforce",
    "objective.anchor": "none",
    "kl.beta": 0.0,
}
WORST_AND_BEST = ("Weird image. ", "")
HPS_TUNING = Method(
    name="hps-tuning",
    title="HPS bad-token conditioning",
    paper="HPS, 2303.14420",
    idea="Learn the disliked images under a bad word, and draw with that word as the negative prompt.",
    presets={
        "published": vary(
            SD15,
            "hps-tuning",
            {
                **CFG_FREE,
                **TAUGHT_BY_TEXT,
                "relabel.labels": WORST_AND_BEST,
                "policy.negative": "Weird image. ",
                "data.path": "preferences",
                "rollout.forward.times": 1,
                "rollout.forward.time": "uniform",
                "rollout.prompts": 40,
                "loop.iterations": 10_000,
                "optimiser.lr": 1e-5,
                "evaluation.guidance": 7.5,
            },
        ),
        "shapes": vary(
            SHAPES,
            "hps-tuning",
            {
                **SMALL,
                **TAUGHT_BY_TEXT,
                "relabel.labels": WORST_AND_BEST,
                "policy.negative": "Weird image. ",
                "evaluation.guidance": 2.0,
            },
        ),
    },
    differences=(
        "Liked and disliked come from the preference set; the paper takes the best and worst of each prompt by HPS, if "
        "they stand out, and adds 200,000 LAION images against forgetting.",
    ),
)
QUANTILES = ("worst ", "bad ", "fair ", "good ", "best ")
QUARK = Method(
    name="quark",
    title="Quark",
    paper="Quark, 2205.13636",
    idea="Learn every sample under the quantile of its reward, near the reference, and ask for the best quantile.",
    presets={
        "published": vary(
            SD35,
            "quark",
            {
                **CFG_FREE,
                **TAUGHT_BY_TEXT,
                "relabel.labels": QUANTILES,
                "policy.prefix": QUANTILES[-1],
                "kl.beta": 0.05,
            },
        ),
        "shapes": vary(
            SHAPES,
            "quark",
            {**SMALL, **TAUGHT_BY_TEXT, "relabel.labels": QUANTILES, "policy.prefix": QUANTILES[-1], "kl.beta": 0.05},
        ),
    },
    differences=(
        "Stated for language models: quantiles are words, not new tokens, and of the iteration's samples, not of a "
        "growing pool.",
    ),
)
HIR = Method(
    name="hir",
    title="Hindsight relabelling",
    paper="HIR, 2302.05206",
    idea="Replace the prompt by one that the image does satisfy, and fine-tune: no sample is wasted.",
    presets={
        "published": vary(SD35, "hir", {**CFG_FREE, **TAUGHT_BY_TEXT, "relabel.caption": "captions:describe"}),
        "shapes": vary(SHAPES, "hir", {**SMALL, **TAUGHT_BY_TEXT, "relabel.caption": "shapes"}),
    },
    differences=(
        "Stated for language models, with a contrastive and an entropy term that are left out; the caption comes from "
        "a function of yours (`published`) or the world's detector (`shapes`).",
    ),
)
FORWARD = (
    DIFFUSION_NFT,
    AWM,
    DGPO,
    ONLINE_DPO,
    ITERATIVE_DPO,
    RAFT,
    RWR,
    CRD,
    SPIN,
    HUMAN_FEEDBACK,
    HPS_TUNING,
    QUARK,
    HIR,
)
