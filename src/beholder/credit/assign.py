"""Rewards of samples to advantages of decisions, by the settings of `CreditConfig`: one path for every row.

Shapes: N samples and M decisions of this process, E samples of all processes, R rewards (1 after a weighted sum).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.config import CreditConfig
from beholder.credit import paths
from beholder.credit.group import advantages, standardised, whitened
from beholder.rollouts.trajectory import Trajectory


@dataclass(frozen=True)
class Scored:
    """What credit is made of. Probe samples have their rewards but belong to no statistic of the others."""

    reward_ER: Tensor
    """NaN where a reward failed."""
    group_E: Tensor
    probe_E: Tensor
    mine: slice
    """This process's samples among all."""
    weight_R: Tensor
    """Weights of the columns where they are combined after credit."""
    running_ER: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation of each sample's prompt, for the running baseline."""
    value_M: Tensor | None = None
    """The critic's values."""
    dense_NTR: Tensor | None = None
    """Rewards of each step."""
    running_NT: tuple[Tensor, Tensor] | None = None
    """Mean and standard deviation of the returns of each sample's prompt at each step, for the running baseline."""
    novelty_E: Tensor | None = None
    """What positive advantages are multiplied with."""
    judged_MR: Tensor | None = None
    """Rewards of the decisions themselves, by rewards of noisy states, instead of their samples'."""


def assign(config: CreditConfig, trajectory: Trajectory, scored: Scored, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """Advantages float32 ``[M, R]`` (one column unless ``combine`` is losses), NaN for decisions left out.

    ``gather`` gives all processes' rows of a tensor.
    """
    columns = [_column(config, trajectory, scored, r) for r in range(scored.reward_ER.shape[1])]
    advantage_MR = torch.stack(columns, 1)
    weight_R = scored.weight_R.double()
    if config.combine != "losses":
        advantage_MR, weight_R = (advantage_MR @ weight_R)[:, None], torch.ones(1, dtype=torch.float64)
    if config.whiten:
        advantage_MR = torch.stack([whitened(a, gather(a)) for a in advantage_MR.unbind(1)], 1)
    kept_M = _kept(config, trajectory, scored, advantage_MR @ weight_R)
    if config.weights != "advantage":
        advantage_MR = _positive(config, trajectory, scored, advantage_MR)
    return torch.where(kept_M[:, None], advantage_MR, torch.nan).clamp(-config.clip, config.clip).float()


def _column(config: CreditConfig, trajectory: Trajectory, scored: Scored, r: int) -> Tensor:
    """Advantages ``[M]`` of one reward, before whitening, selection and limits."""
    decision_NT, count = trajectory.decision_NT.cpu(), len(trajectory.decisions)
    reward_E = scored.reward_ER[:, r].double()
    others_E = torch.where(scored.probe_E < 0, reward_E, torch.nan)
    reward_N = reward_E[scored.mine]
    if config.baseline == "critic":
        assert scored.value_M is not None
        reward_N = critic_rewards(config, scored)[scored.mine]
        return paths.gae(reward_N, scored.value_M, decision_NT, config.discount, config.critic.lam)[0]
    if config.baseline == "probe":
        probed_NT = paths.probe_advantages(reward_N, trajectory.start_N, trajectory.probe_N, decision_NT)
        probed_M = paths.mean_over_samples(probed_NT, decision_NT, count)
        return advantages(probed_M, torch.zeros(count, dtype=torch.int64), _around_zero(config), batch_N=others_E)
    if config.dense != "none":
        assert scored.dense_NTR is not None
        value_NT = paths.dense_returns(scored.dense_NTR[..., r].double(), config.discount)
        if scored.running_NT is not None:
            mean_NT, std_NT = scored.running_NT
            return paths.mean_over_samples((value_NT - mean_NT) / (std_NT + config.eps), decision_NT, count)
        return _among_decisions(config, trajectory, paths.mean_over_samples(value_NT, decision_NT, count), others_E)
    if scored.judged_MR is not None:
        return _among_decisions(config, trajectory, scored.judged_MR[:, r].double(), others_E)
    if config.peers != "samples":
        d = trajectory.decisions
        if config.nodes == "likelihood":
            logp_M = d.logp_old_M.cpu() / trajectory.n_dims
            value_M = paths.mean_by_likelihood(reward_N, logp_M, d.state_id_M.cpu(), decision_NT)
        else:
            value_M = paths.mean_over_samples(reward_N[:, None].expand(decision_NT.shape), decision_NT, count)
        return _among_decisions(config, trajectory, value_M, others_E)
    given = None
    if config.baseline == "running":
        assert scored.running_ER is not None
        given = scored.running_ER[0][:, r]
    advantage_E = advantages(others_E, scored.group_E, config, given=given)
    if config.scale == "running":
        assert scored.running_ER is not None
        advantage_E = advantage_E / (scored.running_ER[1][:, r] + config.eps)
    if scored.novelty_E is not None:
        advantage_E = torch.where(advantage_E > 0, advantage_E * scored.novelty_E, advantage_E)
    factor_NT = paths.discounted(decision_NT, config.discount)
    if config.redistribute:
        factor_NT = factor_NT * paths.redistributed(
            decision_NT, trajectory.decisions.change_M.cpu(), config.redistribute
        )
    return paths.mean_over_samples(advantage_E[scored.mine][:, None] * factor_NT, decision_NT, count)


def critic_rewards(config: CreditConfig, scored: Scored) -> Tensor:
    """Rewards float64 ``[E]`` in the units that the critic learns; there is one column."""
    running = None if scored.running_ER is None else (scored.running_ER[0][:, 0], scored.running_ER[1][:, 0])
    return standardised(scored.reward_ER[:, 0], config, running)


def _positive(config: CreditConfig, trajectory: Trajectory, scored: Scored, advantage_MR: Tensor) -> Tensor:
    """Weights in the place of advantages: 1, or the softmax of the rewards over all samples times their number."""
    if config.weights == "one":
        return torch.where(advantage_MR.isnan(), torch.nan, 1.0)
    reward_E = config.temperature * (scored.reward_ER.double() @ scored.weight_R.double())
    reward_E = reward_E.masked_fill(scored.probe_E >= 0, torch.nan)
    valid = ~reward_E.isnan()
    weight_E = torch.full_like(reward_E, torch.nan)
    weight_E[valid] = torch.softmax(reward_E[valid], 0) * valid.sum()
    weight_N, decision_NT = weight_E[scored.mine], trajectory.decision_NT.cpu()
    return paths.mean_over_samples(weight_N[:, None].expand(decision_NT.shape), decision_NT, len(advantage_MR))[:, None]


def _around_zero(config: CreditConfig) -> CreditConfig:
    """The same scale without a baseline: probes have been taken off already."""
    return CreditConfig(baseline="none", scale=config.scale, ddof=config.ddof, eps=config.eps)


def _among_decisions(config: CreditConfig, trajectory: Trajectory, value_M: Tensor, batch_N: Tensor) -> Tensor:
    """Each decision among those of its prompt at its step, or of its state."""
    d = trajectory.decisions
    peer_M = (
        d.state_id_M if config.peers == "siblings" else trajectory.group_N[d.sample_M.cpu()] * 2**20 + d.step_M.cpu()
    )
    _, peer_M = peer_M.cpu().unique(return_inverse=True)
    return advantages(value_M, peer_M, config, batch_N=batch_N)


def _leaf_standing(config: CreditConfig, scored: Scored) -> Tensor:
    """float64 ``[N]``: how a sample stands among its prompt's; the nodes it shares say little about itself."""
    reward_ER = torch.where(scored.probe_E[:, None] < 0, scored.reward_ER.double(), torch.nan)
    columns = [advantages(reward_E, scored.group_E, config) for reward_E in reward_ER.unbind(1)]
    return (torch.stack(columns, 1) @ scored.weight_R.double())[scored.mine]


def _kept(config: CreditConfig, trajectory: Trajectory, scored: Scored, total_M: Tensor) -> Tensor:
    """bool ``[M]``: the decisions of the samples that are trained on (best-of-N, clear winners)."""
    if not (config.keep_best or config.keep_worst or config.threshold):
        return torch.ones(len(total_M), dtype=torch.bool)
    decision_NT = trajectory.decision_NT.cpu()
    taken_NT = decision_NT >= 0
    advantage_NT = torch.where(taken_NT, total_M[decision_NT.clamp_min(0)], 0)
    advantage_N = advantage_NT.sum(1) / taken_NT.sum(1).clamp_min(1)
    advantage_N[~taken_NT.any(1)] = torch.nan  # probes
    keep_N = torch.ones(len(advantage_N), dtype=torch.bool)
    if config.keep_best or config.keep_worst:
        of_nodes = config.peers == "depth" and config.dense == "none" and scored.judged_MR is None
        standing_N = _leaf_standing(config, scored) if of_nodes else advantage_N
        keep_N = paths.best_and_worst(standing_N, trajectory.group_N, config.keep_best, config.keep_worst)
    if config.threshold:
        keep_N &= paths.clear_winners(advantage_N, trajectory.start_N, config.threshold)
    return (
        paths.mean_over_samples(
            torch.where(keep_N[:, None], 1.0, 0.0).double().expand(decision_NT.shape), decision_NT, len(total_M)
        )
        > 0
    )
