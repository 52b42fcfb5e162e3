"""Every setting of a run as typed dataclasses: one row of the method table, written out.

This file imports nothing heavy, so that ``--help`` is quick. The line under a field is its help text.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the denoiser (Hu et al. 2106.09685)."""

    rank: int = 32
    alpha: int = 64
    targets: tuple[str, ...] = ()
    """Names of the linear layers; empty means the attention projections of the model family."""


@dataclass(frozen=True)
class PolicyConfig:
    """What draws and which of its parameters learn."""

    model: str = "shapes"
    """`shapes` (the bundled generator), a diffusers folder or a hub name."""
    training: Literal["lora", "full"] = "lora"
    lora: LoraConfig = field(default_factory=LoraConfig)
    adapter: str | None = None
    """Trained weights to start from: `RUN/policy` of an earlier run, or any adapter diffusers loads."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen weights; trained weights and kernels stay in float32."""
    resolution: int | None = None
    """Height and width in pixels; none takes the model's own."""
    max_sequence_length: int | None = None
    """Text tokens of the T5 branch, where the family has one; none takes the model folder's or the family's own."""


@dataclass(frozen=True)
class GuidanceConfig:
    """Classifier-free guidance v = v_u + scale (v_c - v_u); scale 1 needs no unconditional evaluation."""

    scale: float = 1.0
    detach_unconditional: bool = True
    """Give the unconditional branch no gradient (Flow-GRPO's first release); saves a quarter of a LoRA update."""


@dataclass(frozen=True)
class KernelConfig:
    """How one stochastic denoising transition is drawn."""

    kind: Literal["flow_sde", "dance_sde", "cps", "euler"] = "flow_sde"
    level: float = 0.7
    """Noise level: a of Flow-GRPO (0.7), eta of DanceGRPO (0.3), the angle share of CPS in 0..1 (0.8)."""
    log_prob: Literal["gaussian", "unweighted"] = "gaussian"
    """`unweighted` drops 1/(2 c^2) and the constants, as the released FlowCPS does."""
    min_std: float = 1e-2
    """Transitions with a smaller standard deviation are drawn but never trained: their ratios measure rounding."""


@dataclass(frozen=True)
class PlanConfig:
    """Which steps are stochastic and which of them are trained."""

    kind: Literal["all", "prefix", "random", "window", "random_window", "moving_window"] = "prefix"
    fraction: float = 0.99
    """prefix: the first int(fraction * steps) steps; random: that share of steps, drawn anew per sample."""
    size: int = 2
    """windows: number of consecutive stochastic steps; the rest follows the ODE."""
    start: int = 0
    """window: first step; random_window and moving_window: first admissible step."""
    stop: int | None = None
    """random_window and moving_window: one past the last step a window may hold; none means all but the last step."""
    stride: int = 1
    """moving_window: how far it moves."""
    every: int = 25
    """moving_window: iterations between moves."""


@dataclass(frozen=True)
class RolloutConfig:
    """How samples are drawn for learning."""

    steps: int = 10
    prompts: int = 16
    """Prompts per iteration, all processes together."""
    group: int = 8
    """Samples per prompt."""
    batch: int = 64
    """Samples per network call while drawing, per process."""
    shared_noise: bool = False
    """Start all samples of a group from the same noise."""
    kernel: KernelConfig = field(default_factory=KernelConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)


@dataclass(frozen=True)
class CreditConfig:
    """Rewards to advantages."""

    baseline: Literal["none", "group"] = "group"
    """What is subtracted: nothing, or the mean of the prompt's group."""
    scale: Literal["none", "group", "batch"] = "batch"
    """What it is divided by: nothing, the group's standard deviation, or that of the whole iteration (`global_std`)."""
    ddof: int = 0
    """Degrees of freedom taken off in the standard deviation: 0 (Flow-GRPO), 1 (DanceGRPO, MixGRPO)."""
    eps: float = 1e-4
    """Added to the standard deviation."""
    clip: float = 5.0
    """Advantages are limited to ±clip."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The clipped policy gradient of PPO (1707.06347, eq. 7) over denoising decisions."""

    clip_low: float = 1e-4
    """Ratios below 1 - clip_low stop earning."""
    clip_high: float = 1e-4
    """Ratios above 1 + clip_high stop earning."""
    trust_region: Literal["per_dimension", "joint"] = "per_dimension"
    """Whether the clip bounds the log-ratio per latent dimension (official) or the joint one, in nats."""
    weighting: Literal["uniform", "noise"] = "uniform"
    """Weight of each decision's loss: equal, or its noise scale c over the mean of c (TempFlow-GRPO, 2508.04324)."""


@dataclass(frozen=True)
class KLConfig:
    """Distance to the reference (the policy before training)."""

    beta: float = 0.0
    """Weight in the loss; 0 skips the reference."""
    form: Literal["exact", "no_dt", "mean", "velocity"] = "no_dt"
    """exact: (μ-μ_ref)²/(2c²); no_dt: over 2s² (Flow-GRPO); mean: (μ-μ_ref)²; velocity: (v-v_ref)²; per dimension."""


@dataclass(frozen=True)
class OptimiserConfig:
    lr: float = 3e-4
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    warmup: int = 0
    """Optimiser steps of linear warm-up."""


@dataclass(frozen=True)
class EMAConfig:
    """A running average of the trained weights, used for evaluation and as the result."""

    decay: float = 0.0
    """0 turns it off."""
    every: int = 1
    """Optimiser steps between updates."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation: the same prompts and seeds every time."""

    every: int = 10
    """Iterations between evaluations; 0 evaluates only before and after."""
    prompts: str = "shapes:held_out"
    """Prompt source, as for training."""
    images: int = 192
    steps: int | None = None
    """Sampling steps; none takes the rollout's."""
    guidance: float | None = None
    """Guidance scale; none takes the rollout's."""
    rewards: tuple[str, ...] = ("shapes_strict",)
    """What is measured, the reported one first; need not be what is trained on."""
    grid: int = 24
    """Images shown in the grid."""


@dataclass(frozen=True)
class LoopConfig:
    iterations: int = 100
    updates: int = 2
    """Optimiser steps per rollout; the first is exactly on-policy."""
    micro_batch: int = 64
    """Samples per forward and backward pass, per process."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    minutes: float | None = None
    """Stop after this much training time, evaluations apart."""
    signal_every: int = 10
    """Iterations between measurements of the split-half gradient cosine; 0 never."""


@dataclass(frozen=True)
class RunConfig:
    """One run, complete: `config.yaml` holds exactly this."""

    method: str
    """Row of the method table this started from."""
    prompts: str = "shapes:train"
    """Prompt source: `shapes:train`, `shapes:held_out`, or a UTF-8 text file with one prompt a line."""
    rewards: dict[str, float] = field(default_factory=lambda: {"shapes": 1.0})
    """Rewards by name, or `package.module:function`, and their weights."""
    seed: int = 0
    output: str = "runs/latest"
    """Folder of the run."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    credit: CreditConfig = field(default_factory=CreditConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    kl: KLConfig = field(default_factory=KLConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
