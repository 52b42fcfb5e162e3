"""The record of a rollout: what is needed to score its decisions again, and nothing else.

Shapes: N samples, K trained decisions per sample, M decisions at once; ``x`` stands for the latent's own dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import torch
from torch import Tensor

from beholder.config import GuidanceConfig, KernelConfig


@dataclass(frozen=True)
class Condition:
    """What a prompt became for the network: named tensors, each ``[N, ...]``."""

    tensors: dict[str, Tensor]

    def select(self, rows: Tensor | slice) -> "Condition":
        return Condition({name: value[rows] for name, value in self.tensors.items()})

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
    """M decisions taken out of a trajectory, ready to be scored again; every tensor is ``[M, ...]``."""

    step_M: Tensor
    sigma_M: Tensor
    sigma_next_M: Tensor
    state_Mx: Tensor
    next_Mx: Tensor
    logp_old_M: Tensor
    std_M: Tensor
    state_id_M: Tensor
    """int64: decisions with the same number were taken in the same state, and share its network call."""
    condition: Condition
    unconditional: Condition | None
    kernel: KernelConfig
    guidance: GuidanceConfig


@dataclass(frozen=True)
class Trajectory:
    """Trained decisions only: memory grows with K, not with the number of steps. States are float32."""

    prompts: list[str]
    group_N: Tensor
    """int64: index of the sample's prompt in this rollout; samples of one prompt form a group."""
    seed_N: Tensor
    """int64: seed of each sample's noise."""
    origin_N: Tensor
    """int64, from 0: samples with the same number were drawn as one up to step ``fans_out``."""
    step_NK: Tensor
    sigma_NK: Tensor
    sigma_next_NK: Tensor
    state_NKx: Tensor
    next_NKx: Tensor
    logp_old_NK: Tensor
    """Log-density of each decision under the policy that took it, summed over dimensions."""
    std_NK: Tensor
    final_Nx: Tensor
    condition: Condition
    unconditional: Condition | None
    kernel: KernelConfig
    guidance: GuidanceConfig
    fans_out: int
    """First stochastic step."""
    network_evaluations: int
    """Forward passes of the denoiser, counted per sample and per guidance branch."""

    @property
    def n_dims(self) -> int:
        return self.final_Nx[0].numel()

    def __len__(self) -> int:
        return len(self.prompts)

    def decisions(self, row_M: Tensor, column_M: Tensor) -> Decisions:
        """The decisions ``column_M`` of the samples ``row_M`` (both int64)."""
        own_M = self.origin_N.max() + 1 + torch.arange(len(row_M), device=row_M.device)
        at_trunk_M = self.step_NK[row_M, column_M].to(row_M.device) <= self.fans_out
        return Decisions(
            state_id_M=torch.where(at_trunk_M, self.origin_N[row_M], own_M),
            step_M=self.step_NK[row_M, column_M],
            sigma_M=self.sigma_NK[row_M, column_M],
            sigma_next_M=self.sigma_next_NK[row_M, column_M],
            state_Mx=self.state_NKx[row_M, column_M],
            next_Mx=self.next_NKx[row_M, column_M],
            logp_old_M=self.logp_old_NK[row_M, column_M],
            std_M=self.std_NK[row_M, column_M],
            condition=self.condition.select(row_M),
            unconditional=None if self.unconditional is None else self.unconditional.select(row_M),
            kernel=self.kernel,
            guidance=self.guidance,
        )

    @staticmethod
    def cat(parts: Sequence["Trajectory"]) -> "Trajectory":
        """One trajectory of several batches drawn under one plan."""
        tensors = [f.name for f in fields(Trajectory) if isinstance(getattr(parts[0], f.name), Tensor)]
        counts = [0, *accumulate(int(p.origin_N.max()) + 1 for p in parts[:-1])]
        parts = [replace(p, origin_N=p.origin_N + n) for p, n in zip(parts, counts, strict=True)]
        unconditional = [p.unconditional for p in parts if p.unconditional is not None]
        return replace(
            parts[0],
            prompts=[prompt for p in parts for prompt in p.prompts],
            condition=Condition.cat([p.condition for p in parts]),
            unconditional=Condition.cat(unconditional) if unconditional else None,
            network_evaluations=sum(p.network_evaluations for p in parts),
            **{name: torch.cat([getattr(p, name) for p in parts]) for name in tensors},
        )
