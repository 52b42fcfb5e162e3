"""How good a reward is, from gaps of rewards and labels alone.

Shapes: ``_P`` pairs with ``gap`` = r_first − r_second and ``label`` +1 (the first is better), −1 or 0 (a tie).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

BINS = 15


def labels_of(p_P: Tensor) -> Tensor:
    """Soft labels as outcomes: +1 above ½, −1 below, 0 for a tie."""
    return (p_P - 0.5).sign()


def accuracy(gap_P: Tensor, label_P: Tensor) -> float:
    """Share of the pairs that are no tie in which the better one is rated higher (VisionReward's "diff").

    Equal rewards are wrong. NaN without such pairs.
    """
    decided = label_P != 0
    return (gap_P * label_P > 0)[decided].float().mean().item() if decided.any() else math.nan


def accuracy_with_ties(gap_P: Tensor, label_P: Tensor, threshold: float) -> float:
    """Share of all pairs that are right, when gaps up to ``threshold`` are called ties; −1 calls none."""
    called_P = torch.where(gap_P.abs() <= threshold, 0.0, gap_P.sign())
    return (called_P == label_P).float().mean().item() if len(gap_P) else math.nan


def calibrate_ties(gap_P: Tensor, label_P: Tensor) -> tuple[float, float]:
    """The best accuracy with ties over all thresholds, and the smallest threshold that has it ("tau", 2305.14324).

    Candidates are −1 (no ties) and every |gap|; equal |gap| change sides together, so the order of pairs cannot matter.
    """
    if len(gap_P) == 0:
        return math.nan, -1.0
    size_P, order_P = gap_P.abs().sort()
    right_P = ((gap_P.sign() == label_P) & (gap_P != 0))[order_P].long()
    tied_P = (label_P[order_P] == 0).long()
    gain_P = (tied_P - right_P).cumsum(0)
    last_P = torch.cat([size_P[1:] != size_P[:-1], torch.ones(1, dtype=torch.bool)])  # of its run of equal gaps
    counts = right_P.sum() + torch.cat([gain_P.new_zeros(1), gain_P[last_P]])
    thresholds = torch.cat([size_P.new_full((1,), -1.0), size_P[last_P]])
    best = int(counts.argmax())
    return counts[best].item() / len(gap_P), thresholds[best].item()


def calibration_error(gap_P: Tensor, label_P: Tensor, temperature: float = 1.0) -> float:
    """Expected calibration error over pairs that are no tie: Σ_b share_b |mean confidence − accuracy|.

    Confidence σ(|gap| / temperature) in ½..1, in 15 bins of equal width.
    """
    decided = label_P != 0
    gap_P, label_P = gap_P[decided].double() / temperature, label_P[decided]
    if len(gap_P) == 0:
        return math.nan
    sure_P, right_P = gap_P.abs().sigmoid(), (gap_P * label_P > 0).double()
    bin_P = ((sure_P - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    off_B = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bin_P, sure_P - right_P)
    return (off_B.abs().sum() / len(gap_P)).item()


def fit_temperature(gap_P: Tensor, p_P: Tensor) -> float:
    """The T in 0.001 … 1000 that makes σ(gap / T) likeliest; p are soft labels."""
    gaps, p = gap_P.double(), p_P.double()

    def loss(log_t: float) -> float:
        return binary_cross_entropy_with_logits(gaps / math.exp(log_t), p).item()

    low, high = math.log(1e-3), math.log(1e3)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):  # golden section: the loss is convex in 1/T, so it falls and then rises in log T
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return math.exp((low + high) / 2)


def best_of_n(reward_RK: Sequence[Tensor], gold_RK: Sequence[Tensor]) -> dict[int, float]:
    """The truth of the image that the reward likes best among n of its K, averaged over every choice and all records.

    E = Σ_i gold_(i) C(i − 1, n − 1) / C(K, n) over the images from worst to best; equal rewards share. n = 1 is chance.
    """
    if not reward_RK:
        return {}
    most = min(len(reward) for reward in reward_RK)
    return {
        n: sum(_best_among(r, g, n) for r, g in zip(reward_RK, gold_RK, strict=True)) / len(reward_RK)
        for n in range(1, most + 1)
    }


def _best_among(reward_K: Tensor, gold_K: Tensor, n: int) -> float:
    total, place, ways = 0.0, 0, math.comb(len(reward_K), n)
    for value in reward_K.unique():
        tied = gold_K[reward_K == value]
        chosen = sum(math.comb(place + i, n - 1) for i in range(len(tied)))
        total += tied.mean().item() * chosen / ways
        place += len(tied)
    return total


def separation(inside_N: Tensor, outside_N: Tensor) -> float:
    """Area under the ROC curve: how often something outside scores higher than something inside; ties half."""
    if not len(inside_N) or not len(outside_N):
        return math.nan
    gap = outside_N[:, None] - inside_N[None]
    return ((gap.sign() + 1) / 2).mean().item()


def clustered_error(right_P: Tensor, cluster_P: Tensor) -> float:
    """Standard error of the share of ``right`` pairs, when pairs of one cluster (a prompt) go together.

    √(Σ_g (right_g − share · n_g)²) / n: the linearised error of a ratio.
    """
    if not len(right_P):
        return math.nan
    off_P = right_P.double() - right_P.double().mean()
    _, place_P = cluster_P.unique(return_inverse=True)
    return (torch.zeros(int(place_P.max()) + 1).double().index_add_(0, place_P, off_P).norm() / len(right_P)).item()


def correlation(first_N: Tensor, second_N: Tensor) -> float:
    """Pearson's; NaN where one of them does not vary."""
    a, b = (x.double() - x.double().mean() for x in (first_N, second_N))
    return ((a * b).sum() / (a.norm() * b.norm())).item() if len(a) and a.norm() > 0 and b.norm() > 0 else math.nan


def rank_correlation(first_N: Tensor, second_N: Tensor) -> float:
    """Spearman's; equal values share the mean of their ranks."""
    return correlation(_ranks(first_N), _ranks(second_N))


def _ranks(value_N: Tensor) -> Tensor:
    _, place_N, count_U = value_N.unique(return_inverse=True, return_counts=True)
    return (count_U.cumsum(0) - (count_U - 1) / 2)[place_N]
