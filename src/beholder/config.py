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
    share: float = 1.0
    """How much of `adapter` to apply: 0 is the model without it, 1 all; between them the way back after training."""
    prefix: str = ""
    """Text put before every prompt that is drawn."""
    negative: str = ""
    """Text of the unconditional branch of guidance."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen weights; trained weights and kernels stay in float32."""
    resolution: int | None = None
    """Height and width in pixels; none takes the model's own."""
    width: int | None = None
    """Width in pixels where it differs from the height; none takes `resolution`, or the model's own."""
    frames: int | None = None
    """Frames of a video, where the generator draws videos; none takes the model's own."""
    max_sequence_length: int | None = None
    """Text tokens of the T5 branch, where the family has one; none takes the model folder's or the family's own."""
    embedded_guidance: float | None = None
    """Guidance that a distilled network takes as an input (FLUX.1-dev); none takes the pipeline's own 3.5."""


@dataclass(frozen=True)
class GuidanceConfig:
    """Classifier-free guidance v = v_u + scale (v_c - v_u); scale 1 needs no unconditional evaluation."""

    scale: float = 1.0
    detach_unconditional: bool = True
    """Give the unconditional branch no gradient (Flow-GRPO's first release); saves a quarter of a LoRA update."""


@dataclass(frozen=True)
class KernelConfig:
    """How one stochastic denoising transition is drawn."""

    kind: Literal["flow_sde", "dance_sde", "cps", "ddim", "euler"] = "flow_sde"
    level: float = 0.7
    """Noise level: a of Flow-GRPO (0.7), eta of DanceGRPO (0.3) and DDIM (1 is DDPM), CPS's angle share in 0..1."""
    log_prob: Literal["gaussian", "unweighted"] = "gaussian"
    """`unweighted` drops 1/(2 c^2) and the constants, as the released FlowCPS does."""
    min_std: float = 1e-2
    """Transitions with a smaller standard deviation are drawn but never trained: their ratios measure rounding."""


@dataclass(frozen=True)
class PlanConfig:
    """Which steps are stochastic and which of them are trained."""

    kind: Literal["all", "prefix", "suffix", "random", "geometric", "window", "random_window", "moving_window"] = (
        "prefix"
    )
    fraction: float = 0.99
    """prefix: the first int(fraction * steps) steps; random: that share of steps, drawn anew per sample."""
    size: int = 2
    """windows: number of consecutive stochastic steps, the rest follows the ODE; suffix: last steps at first;
    geometric: number of trained steps, drawn for each prompt."""
    decay: float = 0.9
    """geometric: how much less likely each step is to be drawn than the one before."""
    start: int = 0
    """window: first step; random_window and moving_window: first admissible step."""
    stop: int | None = None
    """random_window and moving_window: one past the last step a window may hold; none means all but the last step."""
    stride: int = 1
    """moving_window: how far it moves; 0 freezes it."""
    every: int = 25
    """moving_window: iterations between moves; suffix: iterations until it holds every step."""
    last: Literal["sde", "ode"] = "sde"
    """The last step: ode ends in the clean prediction instead of a draw, and is never trained (DanceGRPO)."""
    outside: Literal["ode", "sde"] = "ode"
    """windows: how the steps outside are drawn; sde leaves them stochastic but untrained (BranchGRPO's pruning)."""
    pace: Literal["constant", "decay", "exp_decay"] = "constant"
    """moving_window: whether it stays as long at later positions."""


@dataclass(frozen=True)
class BranchConfig:
    """Samples that share the beginning of their path."""

    kind: Literal["none", "fan", "tree", "spurs", "ladder"] = "none"
    """fan: part at the first trained step; tree: split at ``steps``; spurs: leave an ODE trunk at each trained step;
    ladder: leave a trunk that itself goes on through one of them (SPO)."""
    width: int = 2
    """Branches at a parting."""
    steps: tuple[int, ...] = ()
    """tree: where every path splits."""


@dataclass(frozen=True)
class ProbeConfig:
    """Further samples that are never trained, only scored: they measure the value of states."""

    kind: Literal["none", "greedy", "vine"] = "none"
    """greedy: the ODE sample from the same noise (ReMax); vine: fresh continuations of every trained state."""
    samples: int = 4
    """vine: continuations of each state."""


@dataclass(frozen=True)
class ResetConfig:
    """Starting from real images instead of noise (DR-PO, 2404.08495)."""

    share: float = 0.0
    """Share of the iterations that start from noised images of the prompt source; 0 never."""
    step: int = 2
    """The step of the schedule at which they start."""


@dataclass(frozen=True)
class ForwardConfig:
    """Evidence from re-noised clean samples instead of the transitions that drew them; rollouts then follow the ODE."""

    times: int = 0
    """Noise levels per sample and rollout; 0 turns it off."""
    time: Literal["schedule", "uniform", "logit_normal"] = "schedule"
    """Where they come from: the sampler's levels in random order, or a distribution over (0, 1)."""
    fraction: float = 0.99
    """schedule: share of the levels used, from the noisiest."""
    shared: bool = False
    """The same levels and the same noise for all samples of a prompt."""
    weight: Literal["half", "flow_dpo", "uniform", "t", "t2", "huber", "ghuber"] = "half"
    """Evidence of an error ℓ: -ℓ/2 (the DPO family), -(1-t)² ℓ/2 (Flow-DPO), or AWM's weights."""
    inversion: int = 0
    """Find the noise by so many steps of the policy's own ODE, backwards from the image (InPO); 0 draws it."""
    eta: float = 0.1
    """inversion: share of fresh noise mixed in at every step."""


@dataclass(frozen=True)
class RealConfig:
    """Real images of the prompts, re-noised beside the policy's own samples; the prompt source must have images."""

    images: int = 0
    """Per prompt; 0 turns it off."""
    value: float = 1.0
    """Their advantage: above the own samples' in SPIN, the weight of the pre-training term elsewhere."""


@dataclass(frozen=True)
class PathwiseConfig:
    """Following the reward's own gradient back into the sampler, for objective.kind pathwise."""

    inputs: Literal["given", "live"] = "given"
    """given: a step's input counts as given, so steps are replayed one by one (ReFL, DRaFT-1, DRaFT-LV, DRTune); live:
    the gradient also runs through later steps' inputs (DRaFT, DRaFT-K, AlignProp), in memory that grows with them."""
    steps: int = 1
    """given: steps that learn, spread evenly up to the one that predicts the image; live: the last steps."""
    random: bool = False
    """live: draw the number of steps anew every iteration, from 1 to `steps` (AlignProp's one cut per batch)."""
    first: float = 1.0
    """given: the image is the x̂0 predicted at a step drawn from this share of the schedule on (ReFL 0.75, DRTune 0.6);
    1 is the last step."""
    renoised: int = 0
    """given: further copies of the last step, from re-noised images (DRaFT-LV)."""
    ceiling: float | None = None
    """Rewards above this teach nothing (ReFL's 2)."""
    frames: int | None = None
    """Videos: decode and score so many random frames of each (VADER's 1); none, those that the rewards see."""


@dataclass(frozen=True)
class RolloutConfig:
    """How samples are drawn for learning."""

    steps: int = 10
    prompts: int = 16
    """Prompts per iteration, all processes together."""
    group: int = 8
    """Starts per prompt: samples, where `branch` is none."""
    batch: int = 64
    """Samples per network call while drawing, per process; branches of one start are drawn together all the same."""
    shared_noise: bool = False
    """Start all samples of a group from the same noise."""
    redraw: int = 0
    """Times that groups of equal rewards are replaced by other prompts' before updating (DAPO's dynamic sampling)."""
    kernel: KernelConfig = field(default_factory=KernelConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    branch: BranchConfig = field(default_factory=BranchConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    reset: ResetConfig = field(default_factory=ResetConfig)
    forward: ForwardConfig = field(default_factory=ForwardConfig)
    real: RealConfig = field(default_factory=RealConfig)
    pathwise: PathwiseConfig = field(default_factory=PathwiseConfig)
    policy: Literal["current", "ema"] = "current"
    """Who draws: the trained weights, or their running average (DiffusionNFT's old policy)."""
    tail: float = 1.0
    """Share of the ODE steps after the last stochastic one that is kept (MixGRPO-Flash)."""
    tail_solver: Literal["euler", "dpm++"] = "euler"
    """Solver of those steps; DPM-Solver++ is of second order."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)


@dataclass(frozen=True)
class CriticConfig:
    """A small network that learns the value of a state, for `credit.baseline` critic."""

    lr: float = 1e-4
    width: int = 256
    steps: int = 5
    """Optimiser steps on each rollout."""
    lam: float = 0.95
    """GAE's λ (1506.02438): 1 compares with the final reward alone, 0 with the next state's value alone."""
    clip: float = 0.2
    """Values may move this far from their old ones per rollout, as in PPO; 0 turns it off."""
    reset_every: int = 0
    """Iterations between re-initialisations of the critic's active neurons (TDPO-R, 2402.08552); 0 never."""


@dataclass(frozen=True)
class CreditConfig:
    """Rewards to advantages."""

    baseline: Literal["none", "group", "leave_one_out", "running", "probe", "critic"] = "group"
    """What is subtracted: nothing, the mean of the peers, of the other peers, of the prompt's recent rewards (DDPO),
    the reward of the probe samples (ReMax, VinePPO), or a critic's value."""
    peers: Literal["samples", "depth", "siblings"] = "samples"
    """Who is compared: the prompt's samples; its decisions at one step, each worth the mean of the samples it led to
    (trees); the decisions taken in one state (TempFlow-GRPO)."""
    scale: Literal["none", "group", "batch", "running"] = "batch"
    """What it is divided by: nothing, the standard deviation of the peers, of the whole iteration (`global_std`), or of
    the prompt's recent rewards. baseline critic: rewards are standardised so before it learns them (batch, running)."""
    nodes: Literal["mean", "likelihood"] = "mean"
    """peers depth or siblings of a tree: what a node is worth, the mean of its leaves, or from the leaves up the mean
    of its children weighted by the softmax of their log-likelihood per dimension (BranchGRPO's option)."""
    ddof: int = 0
    """Degrees of freedom taken off in the standard deviation: 0 (Flow-GRPO), 1 (DanceGRPO, MixGRPO)."""
    eps: float = 1e-4
    """Added to the standard deviation."""
    clip: float = 5.0
    """Advantages are limited to ±clip."""
    weights: Literal["advantage", "one", "softmax"] = "advantage"
    """What the objective gets: advantages, 1 for whoever is kept (RAFT), or softmax weights of rewards (RWR)."""
    temperature: float = 1.0
    """softmax: factor on the rewards before the softmax over the iteration."""
    win_rate: bool = False
    """First turn every reward into the share of the prompt's other samples it beats (Pref-GRPO without a judge)."""
    novelty: str = ""
    """Positive advantages are multiplied by how far a sample is from its prompt's nearest other one (GARDO), in
    `pixels` (as diversity is measured) or in the features of a vision model by folder or hub name; empty: by 1."""
    combine: Literal["rewards", "advantages", "losses"] = "rewards"
    """Where several rewards meet: their weighted sum, the weighted sum of their advantages, or of their losses."""
    whiten: bool = False
    """At the end, subtract the mean and divide by the standard deviation over the whole iteration."""
    history: int = 32
    """running: rewards remembered per prompt (with credit.dense: returns per prompt and step)."""
    history_min: int = 16
    """running: with fewer, the iteration's own mean and standard deviation serve."""
    discount: float = 1.0
    """Factor per trained step between a decision and the end."""
    redistribute: float = 0.0
    """Share of the reward paid out along the path, in proportion to how far each decision moved x̂0 (2402.00782)."""
    dense: Literal["none", "anchors"] = "none"
    """anchors: rewards of x̂0 at the first, an anchor and the last step, interpolated between (SDPO, 2411.11727); a
    reward of noisy states (`fit --noisy`) judges instead the state that each step leads to."""
    keep_best: int = 0
    """Train only on so many best of each prompt's samples, and `keep_worst`; 0 and 0 keep all (DanceGRPO)."""
    keep_worst: int = 0
    threshold: float = 0.0
    """Of each start's branches keep only the best, if its advantage is at least this, and the worst, if at most minus
    this (B²-DiffuRL); 0 keeps all."""
    trim: float = 0.0
    """Share of each prompt's lowest rewards left out of the mean and the standard deviation (MixGRPO)."""
    critic: CriticConfig = field(default_factory=CriticConfig)


@dataclass(frozen=True)
class PreferenceConfig:
    """objective.kind preference: weight · link(contrast(β utility(ρ))) + anchors, ρ the log-ratio per dimension."""

    utility: Literal["identity", "clip", "clip_ratio", "odds", "mapo"] = "identity"
    """identity; clip: ρ limited by objective.clip_low/high; clip_ratio: log of the clipped e^ρ (D3PO, SPO, LPO); odds
    (ORPO) and mapo are for objective.anchor none."""
    contrast: Literal["pair", "point", "group", "centred", "list"] = "pair"
    """pair: every two of a prompt's samples; point: each for itself (KTO, BCO); group: Σ value · score (DGPO); centred:
    each against its group's mean (CRD); list: in order (Plackett-Luce, PRO)."""
    link: Literal["logistic", "robust", "square", "regress", "hinge", "kto", "reverse_kl"] = "logistic"
    """logistic: -log σ(x) (DPO); robust: unbiased under flipped labels; square: (h - 1/2β)² (IPO); regress: (x - gap of
    the values)² (SDPO, CaPO); hinge: max(0, -x) (RRHF, SLiC); kto: 1 - σ(x); reverse_kl (EXO, DMPO)."""
    label: Literal["hard", "soft", "bradley_terry"] = "hard"
    """hard: the better value wins, ties are left out (lists: Plackett-Luce); soft: values are ±(2p - 1), p the share of
    votes (lists: PRO); bradley_terry: σ of the values' difference."""
    pairs: Literal["all", "extremes"] = "all"
    """pair: every two, or the best against the worst alone."""
    min_gap: float = 0.0
    """pair: values that differ by less are left out (SPO's threshold)."""
    over: Literal["decision", "sample"] = "decision"
    """sample: compare the means over each sample's decisions (Dense Reward View)."""
    smoothing: float = 0.0
    """logistic, robust: share of labels taken for wrong; reverse_kl: its α."""
    margin: float = 0.0
    """Taken off x: SimPO's γ; 1 for SLiC's hinge."""
    baseline: Literal["none", "positive_mean", "mean"] = "none"
    """point: what every score is compared with: 0, the batch's mean log-ratio where positive (KTO), or the mean of the
    desired and the undesired (BCO)."""
    desirable: float = 1.0
    """point: weight of desired samples."""
    undesirable: float = 1.0
    """point: weight of undesired samples."""
    pessimistic: bool = False
    """Take the larger of the losses with and without the utility's clip (SDPO)."""
    discount: float = 1.0
    """Factor per step on the log-ratio (SDPO)."""
    weight: float = 1.0
    """Factor on the comparison, the anchors apart."""
    sft: float = 0.0
    """Anchor: times -ψ/D of each comparison's best sample (RRHF, ORPO, CPO; 2 for MaPO, whose errors lack the ½)."""
    down: float = 0.0
    """Anchor: times σ of the best sample's score (APO-down)."""
    safeguard: float | None = None
    """μ of Diffusion-SDPO: scale the loser's gradient so that the winner's error does not rise; none turns it off."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the policy gradient minimises, given the log-ratio and the advantage of every decision."""

    kind: Literal[
        "ppo_clip",
        "reinforce",
        "hard_clip",
        "guard",
        "kl_mask",
        "gspo",
        "preference",
        "dspo",
        "nft",
        "pathwise",
    ] = "ppo_clip"
    """ppo_clip (1707.06347); reinforce; hard_clip (DPOK); guard (GRPO-Guard); kl_mask (Flow-DPPO); gspo (one ratio per
    sample); preference (the DPO family, see objective.preference); dspo; nft (DiffusionNFT); pathwise (the
    reward's gradient, see rollout.pathwise)."""
    clip_low: float = 1e-4
    """Ratios below 1 - clip_low stop earning; kl_mask: unused."""
    clip_high: float = 1e-4
    """Ratios above 1 + clip_high stop earning; kl_mask: the divergence from which on they do."""
    trust_region: Literal["per_dimension", "joint"] = "per_dimension"
    """Whether the clip bounds the log-ratio per latent dimension (official) or the joint one, in nats."""
    anchor: Literal["old", "reference", "none"] = "old"
    """What ratios compare with: the policy that drew the samples, the reference (the DPO family), or nothing (MaPO,
    SimPO, ORPO)."""
    weighting: Literal["uniform", "noise", "inverse_dt"] = "uniform"
    """Weight of each decision's loss: equal, its std c over the mean of c (TempFlow-GRPO), or 1/|dt| (GRPO-Guard)."""
    temperature: float = 1.0
    """preference, dspo, nft: β."""
    advantage_limit: float = 5.0
    """nft: the advantage from which on a sample counts as wholly good."""
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)


@dataclass(frozen=True)
class KLConfig:
    """Distance to the reference."""

    beta: float = 0.0
    """Weight; 0 skips the reference."""
    form: Literal["exact", "no_dt", "mean", "velocity", "k2", "k3"] = "exact"
    """no_dt (K1): (μ-μ_ref)² over 2s² (Flow-GRPO); exact (K2): over 2c²; mean (K3): (μ-μ_ref)²; velocity (K4):
    (v-v_ref)²; k2, k3: Schulman's estimates from the log-ratio, no relation of K2 and K3; all per dimension."""
    place: Literal["loss", "reward"] = "loss"
    """reward: the sum over a sample's decisions is taken off its reward, where the KL is measured and not learnt."""
    reference: Literal["start", "ema"] = "start"
    """The policy before training (adapters off, or a frozen copy), or the running average of its weights."""
    refresh: int = 0
    """start: iterations after which the trained policy becomes the reference (online DPO, SPIN); 0 never."""
    target: float | None = None
    """Adapt beta so that the measured KL approaches this (1909.08593, eq. 3)."""
    horizon: float = 10.0
    """Iterations in which an error of 20 % or more changes beta by about that share."""
    gate: float = 1.0
    """Share of the samples that feel the KL: those whose first reward the others disagree with most (GARDO)."""


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
    rise: float = 0.0
    """0 warms the decay up as (1+k)/(10+k); above, as rise · (k - delay) (DiffusionNFT)."""
    delay: int = 0
    """Updates during which the average is a copy, where ``rise`` is above 0."""


@dataclass(frozen=True)
class DataConfig:
    """Preference data to learn from, instead of samples of the policy's own."""

    path: str = ""
    """Parquet file, folder or pattern of a preference set; empty: the policy draws."""
    view: Literal["pairs", "groups"] = "pairs"
    """What is learnt from: pairs of a record's images, or all its images with a value each."""
    rule: Literal["all_pairs", "threshold", "best_worst", "dominance", "majority", "frontier"] = "all_pairs"
    """pairs: which of a record's images meet, see `beholder.preferences.selection`."""
    by: tuple[str, ...] = ()
    """What decides: names of ratings, `votes` or `ranks`; none: the votes, else the ranks, else the only rating."""
    margin: float = 0.0
    """threshold: how far values must be apart."""
    slack: tuple[float, ...] = (0.0,)
    """dominance: how much worse the winner may be."""
    temperature: float = 0.0
    """Values as logits at this temperature; 0 makes every difference certain."""
    mask: str = ""
    """Name of the heat maps that weigh each place's denoising error (PatchDPO); images without one count evenly."""
    drop_prompt: float = 0.0
    """Share of the records that are learnt without their prompt, for guidance."""


@dataclass(frozen=True)
class RelabelConfig:
    """Feedback as text: what re-noised samples are conditioned on, by how they turned out."""

    labels: tuple[str, ...] = ()
    """Texts put before the prompts by quantile of the iteration's values, from worst to best; ask for the best with
    policy.prefix (Quark), or against the worst with policy.negative (HPS)."""
    caption: str = ""
    """Replace prompts by what the images show (HIR): `shapes` in the bundled world, or package.module:function."""


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
    """Shares a rollout is divided into, one optimiser step each; the first is exactly on-policy."""
    epochs: int = 1
    """Passes over each rollout."""
    order: Literal["samples", "steps"] = "samples"
    """steps: a further optimiser step for each trained step of a share, in random order (TDPO, SDPO)."""
    max_kl: float | None = None
    """Trust region per rollout (TRPO): passes stop when the joint KL of a decision to the policy that drew it exceeds
    this many nats on average, and the update is scaled back until it does not."""
    micro_batch: int = 64
    """Samples per forward and backward pass, per process."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    minutes: float | None = None
    """Stop after this much training time, evaluations apart."""
    budget: int | None = None
    """Stop after this many network evaluations in rollouts."""
    signal_every: int = 10
    """Iterations between measurements of the split-half gradient cosine; 0 never."""


@dataclass(frozen=True)
class RunConfig:
    """One run, complete: `config.yaml` holds exactly this."""

    method: str
    """Row of the method table this started from."""
    prompts: str = "shapes:train"
    """Prompt source: `shapes:train`, `shapes:held_out`, a UTF-8 text file with one prompt a line, or a `.jsonl` file of
    prompts with kinds (`tag`), or with images."""
    rewards: dict[str, float] = field(default_factory=lambda: {"shapes": 1.0})
    """Rewards by name, or `package.module:function`, and their weights."""
    reward_frames: int = 4
    """Frames of a video that a reward of images scores, from the first to the last, evenly; their mean counts."""
    seed: int = 0
    output: str = "runs/latest"
    """Folder of the run."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    data: DataConfig = field(default_factory=DataConfig)
    relabel: RelabelConfig = field(default_factory=RelabelConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    credit: CreditConfig = field(default_factory=CreditConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    kl: KLConfig = field(default_factory=KLConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
