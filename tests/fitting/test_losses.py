"""Each loss against its model written out: probabilities that sum to one, values by hand, gradients in fp64."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from beholder.fitting import losses

GAPS = torch.tensor([-2.5, -0.3, 0.0, 0.4, 3.0], dtype=torch.float64)
ONE, NONE = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
reals = st.floats(-6, 6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def number(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


# -------------------------------------------------------------------------------------------------------------- pairs


def test_bradley_terry_is_the_log_likelihood_of_the_label() -> None:
    wins = losses.bradley_terry(GAPS, ONE)
    assert wins.tolist() == pytest.approx([-math.log(sigmoid(d)) for d in GAPS.tolist()])
    assert losses.bradley_terry(GAPS, NONE).tolist() == pytest.approx([-math.log(sigmoid(-d)) for d in GAPS.tolist()])
    assert losses.bradley_terry(GAPS, 0.7 * ONE).tolist() == pytest.approx(
        (0.7 * losses.bradley_terry(GAPS, ONE) + 0.3 * losses.bradley_terry(GAPS, NONE)).tolist()
    )
    assert losses.bradley_terry(GAPS, ONE, margin=0.57).tolist() == pytest.approx(
        [-math.log(sigmoid(d - 0.57)) for d in GAPS.tolist()]
    )


@given(st.floats(0.02, 0.98))
def test_a_soft_label_is_learned_as_its_log_odds(p: float) -> None:
    """The gradient is σ(d) − p, so it vanishes where the model says p."""
    gap = number(math.log(p / (1 - p))).requires_grad_()
    losses.bradley_terry(gap, number(p)).backward()
    assert gap.grad is not None and gap.grad.item() == pytest.approx(0, abs=1e-12)
    away = number(1.7).requires_grad_()
    losses.bradley_terry(away, number(p)).backward()
    assert away.grad is not None and away.grad.item() == pytest.approx(sigmoid(1.7) - p)


@given(reals, st.floats(0.05, 3))
def test_rao_kupper_is_the_published_model_and_its_outcomes_sum_to_one(gap: float, log_k: float) -> None:
    k, a, b = math.exp(log_k), math.exp(gap / 2), math.exp(-gap / 2)
    expected = {
        "win": a / (a + k * b),
        "tie": (k * k - 1) * a * b / ((a + k * b) * (k * a + b)),
        "loss": b / (b + k * a),
    }
    shares = {"win": (1.0, 0.0), "tie": (0.0, 1.0), "loss": (0.0, 0.0)}
    found = {
        name: math.exp(-losses.rao_kupper(number(gap), number(w), number(t), number(log_k)).item())
        for name, (w, t) in shares.items()
    }
    assert found == pytest.approx(expected, rel=1e-9)
    assert sum(found.values()) == pytest.approx(1)


@given(reals, st.floats(-2, 2))
def test_davidson_is_the_published_model_and_its_outcomes_sum_to_one(gap: float, log_nu: float) -> None:
    a, b = math.exp(gap), 1.0
    even = math.exp(log_nu) * math.sqrt(a * b)
    expected = [a / (a + b + even), even / (a + b + even), b / (a + b + even)]
    found = [
        math.exp(-losses.davidson(number(gap), number(w), number(t), number(log_nu)).item())
        for w, t in ((1, 0), (0, 1), (0, 0))
    ]
    assert found == pytest.approx(expected, rel=1e-9) and sum(found) == pytest.approx(1)


def test_models_of_ties_without_ties_are_bradley_terry() -> None:
    even = losses.bradley_terry(GAPS, ONE)
    assert losses.rao_kupper(GAPS, ONE, NONE, number(1e-12)).tolist() == pytest.approx(even.tolist())
    assert losses.davidson(GAPS, ONE, NONE, number(-40.0)).tolist() == pytest.approx(even.tolist())


def test_a_tie_pulls_together_and_its_threshold_is_learned() -> None:
    for loss in (losses.rao_kupper, losses.davidson):
        gap, extra = number(2.0).requires_grad_(), number(0.5).requires_grad_()
        loss(gap, number(0.0), number(1.0), extra).backward()
        assert gap.grad is not None and gap.grad > 0
        assert extra.grad is not None and extra.grad < 0, "a larger threshold makes this tie likelier"


def test_gaussian_is_the_expectation_over_the_uncertainty() -> None:
    variance = torch.tensor([0.2, 1.0, 4.0, 0.5, 9.0], dtype=torch.float64)
    z = torch.linspace(-14, 14, 200_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    for p in (1.0, 0.5, 0.2):
        at = GAPS[:, None] + variance.sqrt()[:, None] * z
        soft = torch.nn.functional.softplus
        exact = torch.trapezoid((p * soft(-at) + (1 - p) * soft(at)) * density, z)
        found = losses.gaussian(GAPS, variance, p * ONE)
        assert found.tolist() == pytest.approx(exact.tolist(), abs=2e-5)
    assert losses.gaussian(GAPS, 0 * ONE, ONE).tolist() == pytest.approx(losses.bradley_terry(GAPS, ONE).tolist())


def test_gaussian_marginal_is_the_probability_of_the_outcome() -> None:
    variance = torch.tensor([0.2, 1.0, 4.0, 0.5, 9.0], dtype=torch.float64)
    z = torch.linspace(-14, 14, 200_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    won = torch.trapezoid(torch.sigmoid(GAPS[:, None] + variance.sqrt()[:, None] * z) * density, z)
    found = losses.gaussian_marginal(GAPS, variance, ONE), losses.gaussian_marginal(GAPS, variance, NONE)
    assert torch.exp(-found[0]).tolist() == pytest.approx(won.tolist(), abs=2e-5)
    assert (torch.exp(-found[0]) + torch.exp(-found[1])).tolist() == pytest.approx([1.0] * 5)


def test_only_the_likelihood_rewards_doubt_about_what_was_wrong() -> None:
    gap, small, large = number(-6.0), number(0.01), number(36.0)
    assert losses.gaussian(gap, large, number(1.0)) > losses.gaussian(gap, small, number(1.0))
    assert losses.gaussian_marginal(gap, large, number(1.0)) < losses.gaussian_marginal(gap, small, number(1.0))
    assert losses.gaussian_marginal(-gap, large, number(1.0)) > losses.gaussian_marginal(-gap, small, number(1.0))


# ------------------------------------------------------------------------------------------------------------- groups


def test_plackett_luce_gives_every_ranking_its_probability() -> None:
    values = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64)
    total = 0.0
    for ranking in permutations(range(4)):
        left, expected = list(range(4)), 1.0
        for chosen in ranking:
            expected *= math.exp(values[chosen]) / sum(math.exp(values[i]) for i in left)
            left.remove(chosen)
        order = torch.empty(1, 4, dtype=torch.float64)
        for place, chosen in enumerate(ranking):
            order[0, chosen] = -place
        found = math.exp(-losses.plackett_luce(values[None, :, None], order).item())
        assert found == pytest.approx(expected)
        total += found
    assert total == pytest.approx(1)


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    values = torch.stack([GAPS / 2, -GAPS / 2], 1)[..., None]
    order = torch.tensor([[1.0, 0.0]]).expand(5, 2)
    assert losses.plackett_luce(values, order)[:, 0].tolist() == pytest.approx(losses.bradley_terry(GAPS, ONE).tolist())


def test_plackett_luce_leaves_out_who_was_not_judged_and_treats_ties_alike() -> None:
    values = torch.tensor([[[0.5], [1.5], [-0.2], [9.0]]], dtype=torch.float64, requires_grad=True)
    order = torch.tensor([[2.0, 2.0, 1.0, math.nan]])
    loss = losses.plackett_luce(values, order)
    top = torch.logsumexp(values[0, :3, 0], 0)
    assert loss.item() == pytest.approx((2 * top - values[0, 0, 0] - values[0, 1, 0]).item())
    loss.sum().backward()
    assert values.grad is not None and values.grad[0, 3, 0] == 0 and values.grad.isfinite().all()


def test_group_softmax_is_the_divergence_from_the_votes() -> None:
    values = torch.tensor([[[0.5], [1.5], [-0.2], [9.0]]], dtype=torch.float64, requires_grad=True)
    shares = torch.tensor([[0.25, 0.75, 0.0, math.nan]], dtype=torch.float64)
    said = torch.softmax(values.detach()[0, :3, 0], 0)
    expected = 0.25 * math.log(0.25 / said[0]) + 0.75 * math.log(0.75 / said[1])
    loss = losses.group_softmax(values, shares)
    assert loss.item() == pytest.approx(expected)
    loss.sum().backward()
    assert values.grad is not None
    assert values.grad[0, :, 0].tolist() == pytest.approx([*(said - shares[0, :3]).tolist(), 0.0])


def test_a_tie_of_two_costs_nothing_at_equal_rewards() -> None:
    """PickScore's constant: the minimum is 0."""
    shares = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert losses.group_softmax(torch.zeros(1, 2, 1).double(), shares).item() == pytest.approx(0, abs=1e-15)
    assert losses.group_softmax(torch.tensor([[[1.0], [0.0]]]).double(), shares).item() > 0.1


# ------------------------------------------------------------------------------------------------------------- images


def test_regression_is_half_the_square_then_linear() -> None:
    found = losses.regression(torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0]))
    assert found.tolist() == pytest.approx([0.125, 2.5])


@given(st.lists(st.floats(0.1, 2), min_size=1, max_size=4), reals)
def test_ordinal_probabilities_sum_to_one_and_rise_with_the_reward(steps: list[float], value: float) -> None:
    cuts = torch.tensor(steps, dtype=torch.float64).cumsum(0) - 1
    grades = torch.arange(len(cuts) + 1)

    def likely(v: float) -> Tensor:
        return torch.exp(-losses.ordinal(torch.full((len(grades),), v, dtype=torch.float64), grades, cuts))

    assert likely(value).sum().item() == pytest.approx(1)
    first = sigmoid(cuts[0].item() - value)
    assert likely(value)[0].item() == pytest.approx(first, rel=1e-6)
    assert (likely(value + 1) * grades).sum() > (likely(value) * grades).sum()


def test_wasserstein_moves_grades_one_step_at_a_time() -> None:
    sure = 40.0 * torch.eye(4, dtype=torch.float64)
    label = torch.eye(4, dtype=torch.float64)
    distance = torch.tensor(
        [[losses.wasserstein(sure[None, i, None], label[None, j]).item() for j in range(4)] for i in range(4)]
    )
    assert torch.allclose(distance, torch.tensor([[abs(i - j) * 1.0 for j in range(4)] for i in range(4)]), atol=1e-6)
    spread = torch.tensor([[0.5, 0.0, 0.0, 0.5]], dtype=torch.float64)
    assert losses.wasserstein(torch.zeros(1, 1, 4).double(), spread).item() == pytest.approx(0.25 + 0 + 0.25)


def test_of_single_grades_wasserstein_learns_the_median_and_cramer_the_shares() -> None:
    label = torch.eye(3, dtype=torch.float64)[torch.tensor([0] * 6 + [2] * 4)]
    expected = {losses.wasserstein: [1.0, 0.0, 0.0], losses.cramer: [0.6, 0.0, 0.4]}
    for loss, shares in expected.items():
        logits = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.1)
        for _ in range(600):
            optimiser.zero_grad()
            loss(logits.expand(10, 1, 3), label).mean().backward()
            optimiser.step()
        assert logits.detach().softmax(-1).flatten().tolist() == pytest.approx(shares, abs=0.02)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: losses.bradley_terry(x, 0.3 * ONE),
        lambda x: losses.rao_kupper(x, 0.3 * ONE, 0.2 * ONE, number(0.7)),
        lambda x: losses.davidson(x, 0.3 * ONE, 0.2 * ONE, number(0.7)),
        lambda x: losses.gaussian(x, x.square() + 0.5, 0.3 * ONE),
        lambda x: losses.plackett_luce(x.view(1, 5, 1), torch.tensor([[1.0, 2.0, 2.0, 0.0, math.nan]])),
        lambda x: losses.group_softmax(x.view(1, 5, 1), torch.tensor([[0.1, 0.2, 0.7, 0.0, math.nan]]).double()),
        lambda x: losses.ordinal(x, torch.tensor([0, 1, 2, 1, 0]), torch.tensor([-0.5, 0.8]).double()),
        lambda x: losses.cramer(x.view(1, 1, 5), torch.tensor([[0.1, 0.2, 0.7, 0.0, 0.0]]).double()),
        lambda x: losses.centring(x, 2 * x),
    ],
)
def test_gradients_are_those_of_the_values(loss) -> None:
    values = torch.tensor([0.3, -0.7, 1.1, 0.2, -1.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (values,))
