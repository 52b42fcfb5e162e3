"""Which steps a reward's gradient reaches, and how strongly: a network with one weight per step tells."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from beholder.config import GuidanceConfig
from beholder.rollouts.engine import Start
from beholder.rollouts.pathwise import coefficient, directions, follow, live_clean, taught_steps
from beholder.rollouts.trajectory import Condition

SIGMAS = torch.tensor([1.0, 0.85, 0.6, 0.4, 0.15, 0.0], dtype=torch.float64)
STEPS, GUIDANCE = len(SIGMAS) - 1, GuidanceConfig()


class WeightPerStep(nn.Module):
    """v(x, σ_s) = tanh(w_s x): whatever step a gradient reaches has its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(0.3, 1.1, STEPS, dtype=torch.float64))
        self.calls: list[int] = []

    def velocity(self, x: Tensor, sigma_N: Tensor, *rest: object) -> Tensor:
        step = int((SIGMAS - sigma_N[0].double()).abs().argmin())
        self.calls.append(step)
        return torch.tanh(self.w[step] * x)


def start_of(n: int = 3) -> Start:
    x = torch.randn(n, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    numbers = torch.arange(n)
    return Start(["p"] * n, numbers, numbers, numbers, x, Condition({"c": x.flatten(1)}), None)


def reward(clean: Tensor) -> Tensor:
    return (clean.flatten(1) * torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=clean.dtype)).sum(1).sin()


def by_hand(policy: WeightPerStep, steps: list[int], live: bool) -> Tensor:
    """∂ mean R/∂w through the Euler chain, inputs and all other steps' outputs cut off (or not)."""
    x, stop = start_of().x_Nx.float(), steps[-1]
    for s, (here, there) in enumerate(pairwise(SIGMAS.float())):
        v = torch.tanh(policy.w[s] * (x if live and s > steps[0] else x.detach()))
        v = v if s in steps else v.detach()
        if s == stop:
            x = x - here * v
            break
        x = x + (there - here) * v
    (gradient,) = torch.autograd.grad(reward(x).mean(), policy.w)
    return gradient


def replayed(policy: WeightPerStep, steps: list[int]) -> Tensor:
    """The same from stored states, one step at a time."""
    start = start_of()
    path = follow(policy, start, SIGMAS, steps, GUIDANCE)  # pyright: ignore[reportArgumentType]
    clean = path.clean_Nx.requires_grad_()
    (gradient_Nx,) = torch.autograd.grad(reward(clean).sum(), clean)
    d, decision_NS = directions(path, SIGMAS, gradient_Nx)
    assert sorted(decision_NS.flatten().tolist()) == list(range(len(d)))
    psi = [
        (policy.velocity(x[None], s[None]) * w).sum() for x, s, w in zip(d.state_Mx, d.sigma_M, d.next_Mx, strict=True)
    ]
    (gradient,) = torch.autograd.grad(torch.stack(psi).mean(), policy.w)
    return gradient


@pytest.mark.parametrize("steps", [[4], [2], [0, 2, 4], [1, 3], [0, 1, 2, 3, 4]])
def test_replayed_steps_have_the_gradient_of_the_chain_with_inputs_cut(steps: list[int]) -> None:
    policy = WeightPerStep()
    got = replayed(policy, steps)
    torch.testing.assert_close(got, by_hand(policy, steps, live=False), rtol=1e-5, atol=1e-8)
    assert got.nonzero().flatten().tolist() == steps


@pytest.mark.parametrize("count", [1, 2, 5])
def test_live_steps_have_the_gradient_of_the_whole_chain(count: int) -> None:
    policy, start = WeightPerStep(), start_of()
    steps = list(range(STEPS - count, STEPS))
    path = follow(policy, start, SIGMAS, steps, GUIDANCE)  # pyright: ignore[reportArgumentType]
    clean = live_clean(policy, path.states[0], SIGMAS[steps[0] :], start.condition, None, GUIDANCE)  # pyright: ignore
    (got,) = torch.autograd.grad(reward(clean).mean(), policy.w)
    torch.testing.assert_close(got, by_hand(policy, steps, live=True), rtol=1e-5, atol=1e-8)
    assert got.nonzero().flatten().tolist() == steps
    torch.testing.assert_close(clean, path.clean_Nx)


def test_one_live_step_is_one_replayed_step_and_two_are_not() -> None:
    policy = WeightPerStep()
    torch.testing.assert_close(replayed(policy, [4]), by_hand(policy, [4], live=True), rtol=1e-5, atol=1e-8)
    assert (replayed(policy, [3, 4]) - by_hand(policy, [3, 4], live=True)).abs().max() > 1e-4


def test_nothing_is_evaluated_after_the_step_that_predicts_the_image() -> None:
    policy = WeightPerStep()
    path = follow(policy, start_of(), SIGMAS, [2], GUIDANCE)  # pyright: ignore[reportArgumentType]
    assert policy.calls == [0, 1, 2] and len(path.states) == 1
    v = policy.velocity(path.states[0], SIGMAS[2:3])
    torch.testing.assert_close(path.clean_Nx, path.states[0] - 0.6 * v, rtol=1e-5, atol=1e-7)


def test_coefficients_are_what_a_step_moves_the_image_by() -> None:
    assert [round(coefficient(SIGMAS, s, 4), 9) for s in range(5)] == [-0.15, -0.25, -0.2, -0.25, -0.15]
    assert coefficient(SIGMAS, 1, 1) == -0.85
    assert sum(coefficient(SIGMAS, s, 3) for s in range(4)) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("stop", "count", "want"),
    [(49, 3, [16, 32, 49]), (4, 1, [4]), (4, 9, [0, 1, 2, 3, 4]), (0, 3, [0]), (3, 2, [1, 3]), (29, 3, [9, 19, 29])],
)
def test_taught_steps_are_even_and_hold_the_last(stop: int, count: int, want: list[int]) -> None:
    assert taught_steps(stop, count) == want


# ------------------------------------------------------------------------------------------------- frames (VADER)

FRAMES = torch.tensor([[1], [0], [1]])


def frame_reward(clean: Tensor) -> Tensor:
    """The reward of each sample's one decoded frame; the second axis of the state is time."""
    return reward(clean[torch.arange(len(clean))[:, None], FRAMES].expand(-1, 2, -1))


def test_a_reward_of_one_frame_follows_that_frame_alone() -> None:
    """VADER: K = 1 and one frame of each video; its direction is 0 in every other, and the step learns from it."""
    policy, start = WeightPerStep(), start_of()
    path = follow(policy, start, SIGMAS, [4], GUIDANCE)  # pyright: ignore[reportArgumentType]
    clean = path.clean_Nx.requires_grad_()
    (gradient_Nx,) = torch.autograd.grad(frame_reward(clean).sum(), clean)
    d, _ = directions(path, SIGMAS, gradient_Nx)
    silent = torch.ones(3, 2, dtype=torch.bool).scatter(1, FRAMES, False)
    assert d.next_Mx[silent].eq(0).all() and d.next_Mx[~silent].ne(0).all()
    psi = (policy.velocity(d.state_Mx, d.sigma_M) * d.next_Mx).flatten(1).sum(1)
    (got,) = torch.autograd.grad(psi.mean(), policy.w)
    x = path.states[0]
    last = x - 0.15 * torch.tanh(policy.w[4] * x)
    (want,) = torch.autograd.grad(frame_reward(last).mean(), policy.w)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-8)
    assert got.nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("count", [1, 3])
def test_live_steps_learn_from_one_frame_through_all_of_them(count: int) -> None:
    policy, start = WeightPerStep(), start_of()
    steps = list(range(STEPS - count, STEPS))
    path = follow(policy, start, SIGMAS, steps, GUIDANCE)  # pyright: ignore[reportArgumentType]
    clean = live_clean(policy, path.states[0], SIGMAS[steps[0] :], start.condition, None, GUIDANCE)  # pyright: ignore
    (got,) = torch.autograd.grad(frame_reward(clean).mean(), policy.w)
    assert got.nonzero().flatten().tolist() == steps
    x = path.states[0]
    for s in steps:
        x = x + (SIGMAS[s + 1] - SIGMAS[s]).float() * torch.tanh(policy.w[s] * x)
    (want,) = torch.autograd.grad(frame_reward(x).mean(), policy.w)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)
