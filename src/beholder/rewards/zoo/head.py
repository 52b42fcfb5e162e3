"""The head of ImageReward and of LAION's second aesthetic predictor: five linear layers, nothing between them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from beholder.errors import InputError

PLACES = (0, 2, 4, 6, 7)
"""Of the linear layers among the dropouts, which do nothing when scoring."""


def linear_head(state: Mapping[str, Tensor], prefix: str, source: Path) -> nn.Sequential:
    """``[N, D] → [N, 1]`` from ``{prefix}{0,2,4,6,7}.{weight,bias}``, in float32; InputError when these are not all."""
    wanted = {f"{prefix}{place}.{kind}" for place in PLACES for kind in ("weight", "bias")}
    found = {name for name in state if name.startswith(prefix)}
    if wanted != found:
        raise InputError(
            f"rewards: {str(source)!r} has no head of five linear layers ({prefix}0, 2, 4, 6, 7); it has "
            f"{', '.join(sorted(found)) or 'no such layer'}"
        )
    layers = [linear(state[f"{prefix}{place}.weight"], state[f"{prefix}{place}.bias"]) for place in PLACES]
    return nn.Sequential(*layers)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with these values, in float32."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer
