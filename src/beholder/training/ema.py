"""Exponential moving average of the trained weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from beholder.config import EMAConfig


class EMA:
    """θ̄ ← d θ̄ + (1-d) θ with d = min(decay, (1+k)/(10+k)), or min(decay, rise · (k - delay)), at the k-th update."""

    def __init__(self, config: EMAConfig, parameters: Mapping[str, nn.Parameter]) -> None:
        self.config, self.updates = config, 0
        self.shadow: dict[str, Tensor] = {}
        if config.decay > 0:
            self.shadow = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], optimiser_step: int, taken: int = 1) -> None:
        """Called after every optimiser step, or after ``taken`` of them; averages where ``config.every`` passed."""
        passed = optimiser_step // self.config.every - (optimiser_step - taken) // self.config.every
        if not self.shadow or not passed:
            return
        k, c = self.updates, self.config
        decay = min(c.decay, max(0.0, c.rise * (k - c.delay)) if c.rise else (1 + k) / (10 + k))
        self.updates += 1
        for name, p in parameters.items():
            self.shadow[name].lerp_(p.detach(), 1 - decay)

    @contextmanager
    def applied(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """The averaged weights in place of the trained ones; nothing happens when the average is off."""
        if not self.shadow:
            yield
            return
        with replaced(parameters, self.shadow):
            yield


@contextmanager
def replaced(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights in place of the trained ones."""
    trained = {name: p.detach().clone() for name, p in parameters.items()}
    _write(parameters, values)
    try:
        yield
    finally:
        _write(parameters, trained)


@torch.no_grad()
def _write(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, p in parameters.items():
        p.copy_(values[name])
