"""The record of a rollout: what is needed to score its decisions again, and nothing else.

Shapes: N samples, M trained decisions, T steps; ``x`` stands for the latent's own dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from beholder.config import ForwardConfig, GuidanceConfig, KernelConfig

EvidenceKind = Literal["transition", "denoising", "direction"]


@dataclass(frozen=True)
class Condition:
    """What a prompt became for the network: named tensors, each ``[N, ...]``."""

    tensors: dict[str, Tensor]

    def select(self, rows: Tensor | slice) -> "Condition":
        return Condition({name: value[rows] for name, value in self.tensors.items()})

    def to(self, device: torch.device | str) -> "Condition":
        return Condition({name: value.to(device) for name, value in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence["Condition"]) -> "Condition":
        return Condition({name: torch.cat([p.tensors[name] for p in parts]) for name in parts[0].tensors})


def first_of_each(id_N: Tensor) -> tuple[Tensor, Tensor]:
    """``(row_U, member_N)``: the first row of each distinct id, and for every row the index of its id among them."""
    _, member_N = id_N.unique(return_inverse=True)
    row_U = torch.full((int(member_N.max()) + 1,), len(id_N), device=id_N.device)
    return row_U.scatter_reduce(0, member_N, torch.arange(len(id_N), device=id_N.device), "amin"), member_N


@dataclass(frozen=True)
class Decisions:
    """M decisions, ready to be scored again; every tensor is ``[M, ...]``. States are float32.

    Where evidence is from the forward process, ``state`` is a re-noised sample, ``next`` its target velocity and
    ``mean_old`` the old policy's velocity, ``[M, 0]`` unless it is kept.
    """

    step_M: Tensor
    sigma_M: Tensor
    sigma_next_M: Tensor
    state_Mx: Tensor
    next_Mx: Tensor
    logp_old_M: Tensor
    """Log-density of each decision under the policy that took it, summed over dimensions."""
    mean_old_Mx: Tensor
    """Mean of the transition it was drawn from; ``[M, 0]`` unless the rollout was asked to keep it."""
    std_M: Tensor
    change_M: Tensor
    """Root mean square change of the predicted clean latent x̂0 that the decision brought about."""
    state_id_M: Tensor
    """int64: decisions with the same number were taken in the same state, and share its network call."""
    sample_M: Tensor
    """int64: the first sample this decision led to."""

    def __len__(self) -> int:
        return len(self.step_M)

    def select(self, index: Tensor) -> "Decisions":
        return Decisions(**{f.name: getattr(self, f.name)[index] for f in fields(Decisions)})


@dataclass(frozen=True)
class Trajectory:
    """Trained decisions only: memory grows with their number, not with the number of steps."""

    prompts: list[str]
    group_N: Tensor
    """int64: index of the sample's prompt in this rollout; samples of one prompt form a group."""
    start_N: Tensor
    """int64: the start (initial noise) each sample grew from."""
    probe_N: Tensor
    """int64: -1 for a sample, else the step whose state's value it measures."""
    seed_N: Tensor
    """int64: seed of each sample's noise."""
    decisions: Decisions
    decision_NT: Tensor
    """int64: the decision a sample took at each step, -1 where none is trained. Branches share what they share."""
    final_Nx: Tensor
    clean_NTx: Tensor
    """Predicted clean latents x̂0 before each step; ``[N, 0]`` unless the rollout was asked to keep them."""
    condition: Condition
    unconditional: Condition | None
    kernel: KernelConfig
    guidance: GuidanceConfig
    evidence: EvidenceKind
    """What the decisions are: the transitions that drew the sample, errors of denoising it, or products of the velocity
    with a given direction (``next``)."""
    forward: ForwardConfig
    """How denoising errors count."""
    network_evaluations: int
    """Forward passes of the denoiser, counted per sample and per guidance branch."""
    mask_Nx: Tensor | None = None
    """Weights ``[N, 1, h, w]`` of each place's denoising error; None weighs all alike."""
    weight_N: Tensor | None = None
    """Factor on the loss of each sample, the same for those of one prompt; None weighs all alike."""
    state_NTx: Tensor | None = None
    """The states after each step; None unless the rollout was asked to keep them."""
    sigma_T: Tensor | None = None
    """Their noise levels, with them."""
    first_step: int = 0
    """The schedule's step that is number 0 here: not the first of all where a rollout began from noised images."""

    @property
    def n_dims(self) -> int:
        return self.final_Nx[0].numel()

    def __len__(self) -> int:
        return len(self.prompts)

    def without_paths(self) -> "Trajectory":
        """The same decisions without what was kept of every step for the rewards."""
        return replace(self, clean_NTx=self.final_Nx.new_zeros(len(self), 0), state_NTx=None, sigma_T=None)

    def with_decisions(
        self, decisions: Decisions, decision_NT: Tensor, forward: ForwardConfig, scored: int
    ) -> "Trajectory":
        """The same samples with forward decisions; ``scored`` of them cost an evaluation each (two with guidance)."""
        cost = scored * (1 if self.unconditional is None else 2)
        return replace(
            self,
            decisions=decisions,
            decision_NT=decision_NT,
            evidence="denoising",
            forward=forward,
            first_step=0,
            network_evaluations=self.network_evaluations + cost,
        )

    @staticmethod
    def cat(parts: Sequence["Trajectory"]) -> "Trajectory":
        """One trajectory of several batches drawn under one plan."""
        if len(parts) == 1:
            return parts[0]
        samples = [0, *accumulate(len(p) for p in parts[:-1])]
        counts = [0, *accumulate(len(p.decisions) for p in parts[:-1])]
        states = [0, *accumulate(int(p.decisions.state_id_M.amax()) + 1 if len(p.decisions) else 0 for p in parts[:-1])]
        shifted = [
            replace(p.decisions, state_id_M=p.decisions.state_id_M + s, sample_M=p.decisions.sample_M + n)
            for p, s, n in zip(parts, states, samples, strict=True)
        ]
        decision = [torch.where(p.decision_NT < 0, -1, p.decision_NT + c) for p, c in zip(parts, counts, strict=True)]
        unconditional = [p.unconditional for p in parts if p.unconditional is not None]
        masks = [p.mask_Nx for p in parts if p.mask_Nx is not None]
        weighed = any(p.weight_N is not None for p in parts)
        weights = [torch.ones(len(p)) if p.weight_N is None else p.weight_N for p in parts]
        states = [p.state_NTx for p in parts if p.state_NTx is not None]
        own = ("group_N", "start_N", "probe_N", "seed_N", "final_Nx", "clean_NTx")
        return replace(
            parts[0],
            prompts=[prompt for p in parts for prompt in p.prompts],
            decisions=Decisions(
                **{f.name: torch.cat([getattr(d, f.name) for d in shifted]) for f in fields(Decisions)}
            ),
            decision_NT=torch.cat(decision),
            condition=Condition.cat([p.condition for p in parts]),
            unconditional=Condition.cat(unconditional) if unconditional else None,
            network_evaluations=sum(p.network_evaluations for p in parts),
            mask_Nx=torch.cat(masks) if masks else None,
            weight_N=torch.cat(weights) if weighed else None,
            state_NTx=torch.cat(states) if states else None,
            **{name: torch.cat([getattr(p, name) for p in parts]) for name in own},
        )
