"""What a judgement says about rewards: small pure functions, each a negative log-likelihood or a distance.

Shapes: ``_P`` pairs, ``_G`` groups, ``_K`` candidates, ``_N`` images, ``_C`` grades, ``_E`` copies of the reward (last,
where there are several). d is the gap r_first − r_second; p in 0..1 the share of the judgement that is for the first.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss, logsigmoid, softplus

NODES = 32
"""Of the Gauss–Hermite rule; off by less than 1e-5 for σ up to 3."""


# -------------------------------------------------------------------------------------------------------------- pairs


def bradley_terry(gap: Tensor, p: Tensor, margin: float = 0.0) -> Tensor:
    """−[p log σ(d − m) + (1 − p) log σ(−d − m)]: Bradley–Terry.

    p is 1 for a win and ½ for a tie (PickScore); graded votes are shares between (ordinal feedback, 2411.12843:
    unbiased where E[p] = σ(d)). A margin m asks for more than the sign.
    """
    return -(p * logsigmoid(gap - margin) + (1 - p) * logsigmoid(-gap - margin))


def rao_kupper(gap: Tensor, win: Tensor, tie: Tensor, log_k: Tensor) -> Tensor:
    """Bradley–Terry with ties (Rao & Kupper 1967; VideoAlign's BTT, 2501.13918), k > 1.

    P(first) = σ(d − ln k), P(second) = σ(−d − ln k), P(tie) = (k² − 1) P(first) P(second). ``win`` and ``tie`` are
    shares of the judgement; what is left lost.
    """
    first, second = logsigmoid(gap - log_k), logsigmoid(-gap - log_k)
    even = first + second + torch.log(torch.expm1(2 * log_k))
    return -(win * first + tie * even + (1 - win - tie) * second)


def davidson(gap: Tensor, win: Tensor, tie: Tensor, log_nu: Tensor) -> Tensor:
    """Bradley–Terry with ties (Davidson 1970): odds first : tie : second = e^{d/2} : ν : e^{−d/2}."""
    odds = torch.stack([gap / 2, log_nu.expand_as(gap), -gap / 2])
    first, even, second = odds.log_softmax(0)
    return -(win * first + tie * even + (1 - win - tie) * second)


def gaussian(gap: Tensor, variance: Tensor, p: Tensor) -> Tensor:
    """HPSv3 as released (2508.03789): E_z[p softplus(−z) + (1 − p) softplus(z)], z ~ N(d, σ_first² + σ_second²).

    By Gauss–Hermite quadrature; the released code draws 1000 samples. Spread only adds to this loss (Jensen), so it
    shrinks as training goes on; `gaussian_marginal` learns it.
    """
    z, weight_Q = _nodes(gap, variance)
    return ((p[..., None] * softplus(-z) + (1 - p[..., None]) * softplus(z)) * weight_Q).sum(-1)


def gaussian_marginal(gap: Tensor, variance: Tensor, p: Tensor) -> Tensor:
    """−[p log E_z σ(z) + (1 − p) log E_z σ(−z)]: the likelihood of that model; doubt pays."""
    z, weight_Q = _nodes(gap, variance)
    first, second = ((x.sigmoid() * weight_Q).sum(-1).clamp_min(1e-12).log() for x in (z, -z))
    return -(p * first + (1 - p) * second)


def _nodes(gap: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Where z is evaluated ``[..., Q]``, and the weights."""
    node_Q, weight_Q = (torch.as_tensor(a, dtype=gap.dtype, device=gap.device) for a in _hermite())
    return gap[..., None] + variance.sqrt()[..., None] * node_Q, weight_Q


@cache
def _hermite() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of an expectation under N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return nodes, weights / math.sqrt(2 * math.pi)


# -------------------------------------------------------------------------------------------------------------- groups


def plackett_luce(value_GKE: Tensor, order_GK: Tensor) -> Tensor:
    """−Σ_i [r_i − log Σ_{j no better than i} e^{r_j}] over the candidates, ``[G, E]`` (listMLE).

    ``order`` is higher for better, NaN for not judged. Tied candidates each stand against all that are no better
    (Breslow's rule). The last one says nothing.
    """
    judged_GK = ~order_GK.isnan()
    against_GKK = (order_GK[:, None] <= order_GK[..., None]) & judged_GK[:, None] & judged_GK[..., None]
    odds_GKKE = value_GKE[:, None].masked_fill(~against_GKK[..., None], -torch.inf)
    rest_GKE = torch.where(judged_GK[..., None, None], odds_GKKE, 0.0).logsumexp(2)
    return ((rest_GKE - value_GKE) * judged_GK[..., None]).sum(1)


def group_softmax(value_GKE: Tensor, share_GK: Tensor) -> Tensor:
    """Σ_k s_k [log s_k − log softmax(r)_k], ``[G, E]``: the softmax over a group against its shares of the votes.

    HPS (2303.14420) and PickScore (2305.01569), whose constant for ties makes the minimum 0 as here. NaN shares are
    not judged.
    """
    judged_GK = ~share_GK.isnan()
    log_GKE = value_GKE.masked_fill(~judged_GK[..., None], -torch.inf).log_softmax(1)
    share = share_GK.nan_to_num(0.0)
    said_GKE = torch.where(judged_GK[..., None], log_GKE, 0.0) * share[..., None]
    return torch.special.xlogy(share, share).sum(1)[:, None] - said_GKE.sum(1)


# -------------------------------------------------------------------------------------------------------------- images


def regression(value: Tensor, target: Tensor) -> Tensor:
    """Huber's loss with δ = 1: half the squared error up to 1, linear beyond."""
    return huber_loss(value, target, reduction="none")


def ordinal(value: Tensor, grade: Tensor, cuts_C: Tensor) -> Tensor:
    """Proportional odds (McCullagh 1980): P(grade ≤ c) = σ(cut_c − r) for increasing cuts; ``grade`` 0 … C as integers.

    The negative log-likelihood of the grade.
    """
    inf = cuts_C.new_full((1,), torch.inf)
    edges = torch.cat([-inf, cuts_C, inf])
    low, high = edges[grade] - value, edges[grade + 1] - value
    # log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − e^{a−b}), exact also where both are nearly equal
    return -(logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high)))


def wasserstein(logits_NEC: Tensor, label_NC: Tensor) -> Tensor:
    """Σ_c |CDF_p(c) − CDF_q(c)| ``[N, E]``: the transport of grades at distance 1 each (DPRM).

    For labels that are distributions over people; of single grades it learns the median, `cramer` the distribution.
    """
    return _cdf_gap(logits_NEC, label_NC).abs().sum(-1)


def cramer(logits_NEC: Tensor, label_NC: Tensor) -> Tensor:
    """Σ_c (CDF_p(c) − CDF_q(c))² ``[N, E]``: the ranked probability score, proper also for single grades."""
    return _cdf_gap(logits_NEC, label_NC).square().sum(-1)


def _cdf_gap(logits_NEC: Tensor, label_NC: Tensor) -> Tensor:
    return (logits_NEC.softmax(-1) - label_NC[:, None]).cumsum(-1)[..., :-1]


def centring(first: Tensor, second: Tensor) -> Tensor:
    """(r_first + r_second)²: keeps rewards around 0, which Bradley–Terry leaves open."""
    return (first + second).square()
