"""Methods that change the trust region or the comparison, not the rollout: GRPO-Guard, Flow-DPPO, Pref-GRPO, GARDO."""

from beholder.methods.bases import FLUX, FLUX_RATE, SD35, SHAPES
from beholder.methods.row import Method, vary

GRPO_GUARD = Method(
    name="grpo-guard",
    title="GRPO-Guard",
    paper="GRPO-Guard, 2510.22319",
    idea="Normalise the log-ratio by its known bias and scale, so that one clip range fits all steps.",
    presets={
        "published": vary(
            SD35,
            "grpo-guard",
            {
                "credit.scale": "group",
                "objective.kind": "guard",
                "objective.weighting": "inverse_dt",
                "objective.clip_low": 2e-6,
                "objective.clip_high": 2e-6,
                "kl.beta": 0.0,
                "optimiser.lr": 1e-4,
            },
        ),
        "shapes": vary(
            SHAPES,
            "grpo-guard",
            {
                "objective.kind": "guard",
                "objective.weighting": "inverse_dt",
                "objective.clip_low": 0.1,
                "objective.clip_high": 0.1,
                "kl.beta": 0.0,
            },
        ),
    },
    differences=(
        "The released code takes the bias over the whole micro-batch (an empty list of dimensions); here, as in the "
        "paper, per decision.",
    ),
)
FLOW_DPPO = Method(
    name="flow-dppo",
    title="Flow-DPPO",
    paper="Flow-DPPO, 2606.11025",
    idea="No ratio clip: drop a decision's term once its exact KL is large and the update would push it further.",
    presets={
        "published": vary(
            SD35,
            "flow-dppo",
            {
                "objective.kind": "kl_mask",
                "objective.clip_high": 1e-5,
                "kl.beta": 0.0,
            },
        ),
        "shapes": vary(SHAPES, "flow-dppo", {"objective.kind": "kl_mask", "objective.clip_high": 0.05, "kl.beta": 0.0}),
    },
    differences=("One public port clamps σ at 0.99 in this KL only; here it is the kernel's own.",),
)
PREF_GRPO = Method(
    name="pref-grpo",
    title="Pref-GRPO",
    paper="Pref-GRPO, 2508.20751",
    idea="Reward a sample by the share of its group it beats, so that tiny reward gaps are not blown up.",
    presets={
        "published": vary(
            FLUX,
            "pref-grpo",
            {
                "rollout.steps": 25,
                "rollout.group": 8,
                "rollout.kernel.kind": "flow_sde",
                "rollout.kernel.level": 0.7,
                "credit.combine": "advantages",
                "credit.whiten": True,
                "objective.kind": "guard",
                "optimiser.lr": 1e-5,
            },
        ),
        "shapes": vary(SHAPES, "pref-grpo", {"credit.win_rate": True, "credit.scale": "group", "kl.beta": 0.0}),
    },
    differences=(
        FLUX_RATE,
        "Pairs are asked in both orders, failed comparisons are left out; the released code asks once and counts both "
        "ties and unparsable answers as half.",
        "A judge is any reward whose function has `pairwise = True`; credit.win-rate turns scalar rewards into win "
        "rates, which the shapes preset uses.",
        "The released judge overwrites a weight in its category loop; ours has no such loop.",
        "It shifts FLUX's noise levels by 3; here they are those of the model's own scheduler.",
    ),
)
GARDO = Method(
    name="gardo",
    title="GARDO",
    paper="GARDO, 2512.24138",
    idea="Hold only those samples to the reference whose trained reward other rewards disagree with; pay for novelty.",
    presets={
        "published": vary(
            SD35,
            "gardo",
            {
                "objective.clip_low": 1e-5,
                "objective.clip_high": 1e-5,
                "rollout.plan.fraction": 0.89,
                "credit.scale": "none",
                "credit.novelty": "facebook/dinov3-vitl16-pretrain-lvd1689m",
                "kl.form": "no_dt",
                "kl.gate": 0.5,
                "kl.refresh": 15,
                "rewards": {"mymodule:main": 1.0, "mymodule:aesthetic": 0.0, "mymodule:imagereward": 0.0},
            },
        ),
        "shapes": vary(
            SHAPES,
            "gardo",
            {
                "rewards": {"shapes": 1.0, "shapes_sharpness": 0.0, "shapes_cleanliness": 0.0},
                "credit.novelty": "pixels",
                "kl.gate": 0.5,
                "kl.beta": 0.04,
            },
        ),
    },
    differences=(
        "The share of samples under the KL is fixed here; the released code adapts it.",
        "The reference moves every 15 iterations; in the released code also when the KL exceeds 3e-4.",
        "On the bundled world novelty is measured in pooled pixels, as diversity is.",
    ),
)
