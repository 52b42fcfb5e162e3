"""A trust region in the KL to the policy that drew the rollout, enforced by a line search (TRPO, 1502.05477, app. C).

The direction is the optimiser's, not the natural gradient; the KL of Gaussian transitions is exact, so no Fisher
products are needed to measure it.
"""

from typing import Any

import torch

from beholder.rollouts.engine import replay
from beholder.rollouts.kernels import sum_dims
from beholder.training.learner import Batch, Learner, loss_weights

HALVINGS = 10


class TrustRegion:
    def __init__(self, learner: Learner, batch: Batch) -> None:
        self.learner, self.batch = learner, batch
        self.before = {name: p.detach().clone() for name, p in learner.policy.trainable().items()}

    def left(self) -> bool:
        """Whether the policy has moved further than allowed."""
        return self.measure()[0] > float(self.learner.config.loop.max_kl or 0)

    @torch.no_grad()
    def measure(self) -> tuple[float, float]:
        """Mean KL(old ‖ new) of a decision in nats, all dimensions together, and the surrogate mean A ρ."""
        learner, trajectory = self.learner, self.batch.trajectory
        d, size, sums = trajectory.decisions, learner.config.loop.micro_batch, torch.zeros(3, dtype=torch.float64)
        weight_R = torch.tensor(loss_weights(learner.config, self.batch.table))
        for i in range(0, len(d), size):
            index = torch.arange(i, min(i + size, len(d)))
            part = d.select(index.to(d.step_M.device))
            scored = replay(learner.policy, trajectory, part)
            assert scored.transition is not None  # the validator refuses forward evidence here
            kl_M = sum_dims((scored.transition.mean - part.mean_old_Mx).square()) / (2 * part.std_M.square())
            ratio_M = ((scored.logp_M - part.logp_old_M) / trajectory.n_dims).exp()
            gain_M = (self.batch.advantage_MR[index].nan_to_num(0.0) @ weight_R) * (ratio_M.cpu() - 1)
            sums += torch.tensor([len(index), kl_M.sum().item(), gain_M.sum().item()], dtype=torch.float64)
        count, kl, gain = learner.accelerator.reduce(sums.to(learner.accelerator.device), "sum").tolist()
        return kl / count, gain / count

    @torch.no_grad()
    def enforce(self) -> dict[str, Any]:
        """Halves the iteration's step until the KL is allowed and the surrogate not worse than at the start."""
        trained = self.learner.policy.trainable()
        after = {name: p.detach().clone() for name, p in trained.items()}
        limit, share = float(self.learner.config.loop.max_kl or 0), 1.0
        kl, gain = self.measure()
        while (kl > limit or gain < 0) and share > 0:
            share = share / 2 if share > 0.5**HALVINGS else 0.0
            for name, p in trained.items():
                p.copy_(torch.lerp(self.before[name], after[name], share))
            kl, gain = self.measure()
        return {"step_share": share, "kl_of_update": kl}
