"""The contract of a pipeline family: what one file per family must say so that everything else works.

A family converts between its network and the straight path x_σ = (1-σ) x0 + σ ε. Kernels, credit and objectives
only ever see path coordinates and velocities. Shapes: ``[N, C, H, W]`` latents, ``[N]`` noise levels.
"""

from typing import Any, Protocol

from torch import Tensor, nn

from beholder.config import PolicyConfig
from beholder.errors import InputError
from beholder.rollouts.trajectory import Condition


class Family(Protocol):
    pipeline_class: str
    """Name of the diffusers pipeline this family serves."""
    network_name: str
    """Attribute of the pipeline that holds the denoiser."""
    lora_targets: tuple[str, ...]
    """Linear layers that get adapters by default."""

    def __init__(self, pipeline: Any, config: PolicyConfig) -> None: ...

    def encode(self, prompts: list[str]) -> Condition:
        """Text conditions, one row per prompt; ``""`` is the unconditional one."""
        ...

    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent at the configured resolution."""
        ...

    def schedule(self, steps: int) -> Tensor:
        """Noise levels float64 ``[steps + 1]``, descending, as the pipeline itself would sample."""
        ...

    def to_path(self, latents: Tensor, sigma_N: Tensor) -> Tensor:
        """The network's own latents in path coordinates."""
        ...

    def velocity(self, network: nn.Module, x: Tensor, sigma_N: Tensor, condition: Condition) -> Tensor:
        """The network's prediction as velocity, float32."""
        ...

    def decode(self, x: Tensor, sigma_N: Tensor) -> Tensor:
        """Final latents (path coordinates, at the schedule's last σ) to images ``[N, 3, H, W]`` in 0..1."""
        ...


def resolution(wanted: int | None, own: int, multiple: int) -> int:
    """Height and width in pixels: the wanted ones, else the model's own; InputError unless its grid divides them."""
    if wanted is not None and wanted % multiple:
        nearest = max(1, round(wanted / multiple)) * multiple
        raise InputError(f"policy.resolution: {wanted} is not a multiple of this model's {multiple}; use {nearest}")
    return wanted or own
