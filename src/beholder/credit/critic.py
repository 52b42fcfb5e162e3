"""A critic: the value of a state, from the latent, the prompt's condition and the noise level.

It regresses the returns of the samples' decisions with its own optimiser (DPOK 2305.16381; PPO 1707.06347, eq. 9; TDPO
2402.08552). TDPO's critic sees CLIP features of the decoded state; this one sees the latent itself, as DPOK's does.
"""

from typing import Any

import torch
from torch import Tensor, nn

from beholder.config import CriticConfig
from beholder.rollouts.trajectory import Condition


def state_features(state_Mx: Tensor, sigma_M: Tensor, condition: Condition) -> Tensor:
    """``[M, F]``: flattened latent, noise level, and each tensor of the condition averaged over its tokens."""
    text = [
        value.float().flatten(1, -2).mean(1) if value.ndim > 2 else value.float()
        for value in condition.tensors.values()
    ]
    return torch.cat([state_Mx.float().flatten(1), sigma_M.float()[:, None], *text], dim=1)


class ValueNetwork(nn.Module):
    """Two hidden layers on standardised features; ``[M, F]`` to ``[M, 1]``."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_features)
        self.first, self.second, self.last = nn.Linear(n_features, width), nn.Linear(width, width), nn.Linear(width, 1)

    def hidden(self, features: Tensor) -> list[tuple[nn.Linear, Tensor]]:
        """Each hidden layer with its activations."""
        one = self.first(self.norm(features)).relu()
        return [(self.first, one), (self.second, self.second(one).relu())]

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.hidden(features)[-1][1])


class Critic:
    def __init__(self, config: CriticConfig, n_features: int, device: torch.device, seed: int) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = ValueNetwork(n_features, config.width).to(device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=config.lr)

    @torch.no_grad()
    def values(self, features_MF: Tensor) -> Tensor:
        return self.network(features_MF)[:, 0].double().cpu()

    def fit(self, features_MF: Tensor, return_M: Tensor, old_M: Tensor, reduce: Any = None) -> float:
        """``config.steps`` steps of PPO's clipped value loss on the valid returns; the last loss.

        ½ mean max((V - R)², (clip(V, V_old ± c) - R)²); ``reduce`` averages gradients over processes.
        """
        valid = ~return_M.isnan()
        features = features_MF[valid.to(features_MF.device)]
        target, old = (value[valid].to(features.device, torch.float32) for value in (return_M, old_M))
        loss = features.new_zeros(())
        for _ in range(self.config.steps):
            value = self.network(features)[:, 0]
            error = (value - target).square()
            if self.config.clip > 0:
                near = old + (value - old).clamp(-self.config.clip, self.config.clip)
                error = torch.maximum(error, (near - target).square())
            loss = 0.5 * error.sum() / max(1, len(error))  # every process steps, even one without a valid return
            loss.backward()
            if reduce is not None:
                for parameter in self.network.parameters():
                    parameter.grad = reduce(parameter.grad, "mean")
            self.optimiser.step()
            self.optimiser.zero_grad()
        return loss.item()

    @torch.no_grad()
    def reset_active(self, features_MF: Tensor, generator: torch.Generator) -> int:
        """TDPO-R: re-initialises the hidden neurons that are active on these states; how many there were.

        Active: a positive mean activation. Their incoming weights are drawn from N(0, 1/(inputs + 1)), their Adam
        moments set to zero; dormant neurons stay as they are.
        """
        count = 0
        for layer, activation in self.network.hidden(features_MF):
            active = activation.mean(0) > 0
            for parameter in (layer.weight, layer.bias):
                fresh = torch.randn(parameter.shape, generator=generator) * (layer.in_features + 1) ** -0.5
                parameter[active] = fresh.to(parameter.device)[active]
                for name in ("exp_avg", "exp_avg_sq"):
                    if name in self.optimiser.state[parameter]:
                        self.optimiser.state[parameter][name][active] = 0
            count += int(active.sum())
        return count

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
