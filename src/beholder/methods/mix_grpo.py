"""MixGRPO (2507.21802): the SDE only in a window that moves from noise to image; its two fast variants."""

from beholder.methods.bases import FLUX, FLUX_RATE, SHAPES
from beholder.methods.row import Method, vary

WINDOW = {
    "rollout.steps": 25,
    "rollout.kernel.kind": "flow_sde",
    "rollout.kernel.level": 0.7,
    "rollout.plan.kind": "moving_window",
    "rollout.plan.size": 4,
    "rollout.plan.stop": 23,
    "rollout.plan.every": 25,
    "rollout.plan.stride": 1,
    "credit.combine": "advantages",
    "optimiser.lr": 1e-5,
}
FLASH = {"rollout.plan.every": 20, "rollout.tail": 0.4, "rollout.tail_solver": "dpm++"}
FROZEN = {**FLASH, "rollout.plan.stride": 0, "rollout.tail": 0.2}

SMALL = {
    "rollout.steps": 8,
    "rollout.plan.kind": "moving_window",
    "rollout.plan.size": 2,
    "rollout.plan.stop": 6,
    "rollout.plan.every": 10,
    "credit.scale": "group",
    "credit.ddof": 1,
    "kl.beta": 0.0,
}

SHARED_DIFFERENCES = (
    FLUX_RATE,
    "The released window shrinks past its last place and then trains nothing for a whole stay; ours rolls back to the "
    "start.",
    "The released code truncates the time it gives to the network; here the network gets the exact noise level.",
    "It shifts FLUX's noise levels by 3; here they are those of the model's own scheduler.",
)

MIX_GRPO = Method(
    name="mix-grpo",
    title="MixGRPO",
    paper="MixGRPO, 2507.21802",
    idea="A window of SDE steps slides from noise to image; before and after it the ODE, and no training.",
    presets={
        "published": vary(FLUX, "mix-grpo", WINDOW),
        "decay": vary(FLUX, "mix-grpo", {**WINDOW, "rollout.plan.pace": "decay", "rollout.plan.every": 10}),
        "exp_decay": vary(FLUX, "mix-grpo", {**WINDOW, "rollout.plan.pace": "exp_decay"}),
        "random": vary(FLUX, "mix-grpo", {**WINDOW, "rollout.plan.kind": "random_window"}),
        "shapes": vary(SHAPES, "mix-grpo", SMALL),
    },
    differences=SHARED_DIFFERENCES,
)
MIX_GRPO_FLASH = Method(
    name="mix-grpo-flash",
    title="MixGRPO-Flash",
    paper="MixGRPO, 2507.21802",
    idea="MixGRPO with fewer ODE steps after the window, taken by DPM-Solver++.",
    presets={
        "published": vary(FLUX, "mix-grpo-flash", {**WINDOW, **FLASH}),
        "shapes": vary(SHAPES, "mix-grpo-flash", {**SMALL, "rollout.tail": 0.5, "rollout.tail_solver": "dpm++"}),
    },
    differences=(
        *SHARED_DIFFERENCES,
        "Where one step remains after the window, the released schedule ends above σ = 0; ours reaches it.",
    ),
)
MIX_GRPO_FLASH_STAR = Method(
    name="mix-grpo-flash-star",
    title="MixGRPO-Flash*",
    paper="MixGRPO, 2507.21802",
    idea="MixGRPO-Flash with the window frozen at the first steps and a shorter tail.",
    presets={
        "published": vary(FLUX, "mix-grpo-flash-star", {**WINDOW, **FROZEN}),
        "shapes": vary(
            SHAPES,
            "mix-grpo-flash-star",
            {**SMALL, "rollout.plan.stride": 0, "rollout.tail": 0.34, "rollout.tail_solver": "dpm++"},
        ),
    },
    differences=(*SHARED_DIFFERENCES, "As for Flash, a tail of one step reaches σ = 0."),
)
