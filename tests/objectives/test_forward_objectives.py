"""DPO, DGPO and DiffusionNFT by hand and by finite differences; D = 8 latent dimensions."""

import math

import pytest
import torch
from evidence_by_hand import D, evidence, outcome
from torch import Tensor

from beholder.config import ObjectiveConfig
from beholder.objectives.policy_gradient import Evidence, ForwardTerms, policy_gradient


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_dpo_is_the_logistic_loss_of_every_untied_pair() -> None:
    gaps, a = [0.3, -0.2, 0.1], [1.0, -1.0, 1.0]  # two pairs: (0, 1) and (2, 1); 0 and 2 tie
    found = outcome(evidence(gaps), a, ObjectiveConfig(kind="dpo", temperature=2.0))
    assert found.loss == pytest.approx(-(log_sigmoid(2 * 0.5) + log_sigmoid(2 * 0.3)) / 2)
    up = [2 / (1 + math.exp(2 * gap)) / (2 * D) for gap in (0.5, 0.3)]
    assert found.weight_M.tolist() == pytest.approx([up[0], -up[0] - up[1], up[1]])


def test_dpo_without_an_untied_pair_teaches_nothing() -> None:
    found = outcome(evidence([0.3, -0.2]), [1.0, 1.0], ObjectiveConfig(kind="dpo"))
    assert found.loss == 0
    assert found.weight_M.tolist() == [0, 0]


def test_dpo_leaves_out_failed_samples_and_the_middle_of_a_group() -> None:
    config = ObjectiveConfig(kind="dpo", temperature=3.0)
    nan = float("nan")
    found = outcome(evidence([0.3, 9.0, -0.2, 7.0]), [2.0, nan, -2.0, nan], config)
    alone = outcome(evidence([0.3, -0.2]), [2.0, -2.0], config)
    assert found.loss == pytest.approx(alone.loss)
    assert found.weight_M[[0, 2]].tolist() == pytest.approx(alone.weight_M.tolist())
    assert found.weight_M[[1, 3]].tolist() == [0, 0]


def test_dgpo_weighs_a_group_with_one_sigmoid() -> None:
    gaps, a = [0.3, -0.2, 0.5, 0.1], [1.0, -1.0, 0.5, -0.5]
    e = evidence(gaps, group=[0, 0, 1, 1])
    found = outcome(e, a, ObjectiveConfig(kind="dgpo", temperature=4.0))
    share = [1 / (1 + math.exp(4 * s)) for s in ((0.3 + 0.2) / 2, (0.25 - 0.05) / 2)]
    want = [share[g] * a[i] / (4 * D) for i, g in enumerate((0, 0, 1, 1))]
    assert found.weight_M.tolist() == pytest.approx(want)
    swapped = outcome(
        evidence(gaps, group=[0, 0, 1, 1]), [-x for x in a], ObjectiveConfig(kind="dgpo", temperature=4.0)
    )
    assert (found.weight_M.sign() == -swapped.weight_M.sign()).all()


def terms(velocity: Tensor) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    old, target = (torch.randn(velocity.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.2, 0.9, len(velocity), dtype=torch.float64)
    e = evidence([0.0] * len(velocity))
    return Evidence(**{**vars(e), "forward": ForwardTerms(velocity, old, target, t)})


NFT = ObjectiveConfig(kind="nft", temperature=0.7, advantage_limit=5.0)
ADVANTAGE = torch.tensor([5.0, -5.0, 1.0, 9.0], dtype=torch.float64)


def test_nft_against_the_error_of_the_clean_prediction() -> None:
    """The paper's form: x̂0 from v± at x_t, compared with x0, normalised by its own mean absolute error."""
    v = torch.randn(4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    e = terms(v)
    f = e.forward
    assert f is not None
    x0 = torch.randn(4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x_t = x0 + f.t_M[:, None] * f.target  # (1-t) x0 + t ε with ε = x0 + u

    def normalised(velocity: Tensor) -> Tensor:
        error = x_t - f.t_M[:, None] * velocity - x0
        return error.square().mean(1) / error.abs().mean(1).clamp_min(1e-5)

    r = (ADVANTAGE.clamp(-5, 5) / 5 / 2 + 0.5).clamp(0, 1)
    up, down = 0.7 * v + 0.3 * f.velocity_old, 1.7 * f.velocity_old - 0.7 * v
    want = ((r * normalised(up) + (1 - r) * normalised(down)) / 0.7 * 5).mean()
    assert policy_gradient(e, ADVANTAGE, NFT)[0].item() == pytest.approx(want.item(), rel=1e-12)


def test_nft_pulls_to_good_targets_and_from_bad_ones() -> None:
    """At v = v_old the pull of r = 1 and the push of r = 0 are opposite, and r = ½ stays where it is."""
    old = terms(torch.zeros(3, D, dtype=torch.float64)).forward
    assert old is not None
    v = old.velocity_old.clone().requires_grad_()
    e = terms(v)
    advantage = torch.tensor([5.0, -5.0, 0.0], dtype=torch.float64)
    policy_gradient(e, advantage, NFT)[0].backward()
    toward = (old.target - old.velocity_old) * v.grad
    assert (toward[0] <= 0).all() and (toward[0] < 0).any()  # descending moves v towards the target
    assert (toward[1] >= 0).all() and (toward[1] > 0).any()
    assert v.grad[2].abs().max() < 1e-15


def test_nft_counts_a_failed_sample_for_nothing() -> None:
    v = torch.randn(2, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    policy_gradient(terms(v), torch.tensor([float("nan"), 2.0], dtype=torch.float64), NFT)[0].backward()
    assert (v.grad[0] == 0).all()
    assert (v.grad[1] != 0).any()
