"""The critic: that it learns known values, how far it may move, and which neurons TDPO-R draws anew."""

import copy
import math
from typing import Any

import pytest
import torch
from small_trajectories import drawn, settings
from torch import Tensor, nn

from beholder.config import CriticConfig
from beholder.credit.critic import Critic, state_features
from beholder.rollouts.trajectory import Condition

CPU = torch.device("cpu")


FEATURES = 16


def made(n_features: int = FEATURES, seed: int = 0, **more: Any) -> Critic:
    return Critic(CriticConfig(**{"lr": 1e-2, "width": 32, "steps": 5, "clip": 0.0, **more}), n_features, CPU, seed)


def data(n: int = 128, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features, and their value x_0 - |x_1|."""
    x = torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] - x[:, 1].abs()).double()


def linears(critic: Critic) -> list[nn.Linear]:
    """Two hidden layers and the last."""
    return [layer for layer in critic.network.modules() if isinstance(layer, nn.Linear)]


# ------------------------------------------------------------------------------------------------------------ learning


def test_it_learns_a_known_value_function_and_new_states_of_it() -> None:
    critic, (x, value), (fresh, fresh_value) = made(lr=3e-3), data(512), data(512, seed=1)
    losses = [critic.fit(x, value, critic.values(x)) for _ in range(20)]
    assert losses[-1] < 0.1 * losses[0]
    assert (critic.values(fresh) - fresh_value).square().mean() < 0.3 * fresh_value.var()


def test_the_loss_is_half_the_mean_square_and_the_larger_of_both_with_a_clip() -> None:
    x, value = data(8)
    for clip in (0.0, 0.2):
        critic = made(steps=1, clip=clip)
        old = critic.values(x) + torch.linspace(-1, 1, 8).double()
        now = critic.values(x)
        near = old + (now - old).clamp(-clip, clip)
        want = (now - value).square()
        if clip:
            want = torch.maximum(want, (near - value).square())
        assert critic.fit(x, value, old) == pytest.approx(0.5 * want.mean().item(), rel=1e-5)


def test_the_clip_limits_how_far_values_move_per_rollout() -> None:
    x, _ = data()
    value = torch.full((128,), 10.0).double()
    moved = {}
    for clip in (0.0, 0.2):
        critic = made(lr=2e-3, steps=100, clip=clip)
        old = critic.values(x)
        critic.fit(x, value, old)
        moved[clip] = (critic.values(x) - old).abs()
    assert moved[0.0].min() > 2
    assert moved[0.2].max() < 1  # momentum goes a little past the limit, where the gradient ends
    assert moved[0.2].median() > 0.15


def test_states_already_too_far_on_the_way_to_their_return_have_no_gradient() -> None:
    x, critic = data(16)[0], made(steps=1, clip=0.2)
    now, before = critic.values(x), copy.deepcopy(critic.network.state_dict())
    critic.optimiser.param_groups[0]["weight_decay"] = 0.0
    critic.fit(x, now + 5, now - 0.5)  # moved up by 0.5 > 0.2 towards the return above
    assert all(torch.equal(value, before[name]) for name, value in critic.network.state_dict().items())
    critic.fit(x, now - 5, now - 0.5)  # moved away from the return: it still pulls
    assert not torch.equal(critic.values(x), now)


def test_failed_returns_are_left_out() -> None:
    x, value = data(32)
    half = value.clone()
    half[16:] = math.nan
    first, second = made(), made()
    assert first.fit(x, half, first.values(x)) == second.fit(x[:16], value[:16], second.values(x[:16]))
    assert torch.equal(first.values(x), second.values(x))


def test_gradients_are_averaged_by_what_it_is_given() -> None:
    x, value = data(32)
    asked: list[str] = []

    def reduce(gradient: Tensor, how: str) -> Tensor:
        asked.append(how)
        return torch.zeros_like(gradient)

    critic = made(steps=3)
    critic.optimiser.param_groups[0]["weight_decay"] = 0.0
    before = critic.values(x)
    critic.fit(x, value, before, reduce)
    assert asked == ["mean"] * 3 * len(list(critic.network.parameters()))
    assert torch.equal(critic.values(x), before)


def test_it_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    x, _ = data()
    state = torch.get_rng_state()
    assert torch.equal(made(seed=3).values(x), made(seed=3).values(x))
    assert not torch.equal(made(seed=3).values(x), made(seed=4).values(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert made().values(x).dtype == torch.float64 and made().values(x).shape == (128,)


# ------------------------------------------------------------------------------------------------------------ features


def test_features_are_the_latent_the_level_and_the_mean_of_each_condition() -> None:
    tokens, pooled = torch.arange(12.0).view(2, 3, 2), torch.tensor([[7.0], [8.0]])
    got = state_features(
        torch.arange(8.0).view(2, 2, 2), torch.tensor([0.5, 0.25]), Condition({"tokens": tokens, "pooled": pooled})
    )
    assert got.tolist() == [[0, 1, 2, 3, 0.5, 2, 3, 7], [4, 5, 6, 7, 0.25, 8, 9, 8]]


def test_features_of_a_rollouts_decisions_have_a_row_for_each() -> None:
    trajectory = drawn(settings())
    d = trajectory.decisions
    condition = Condition({"target": trajectory.condition.tensors["target"][:, None]}).select(d.sample_M)
    got = state_features(d.state_Mx, d.sigma_M, condition)
    assert got.shape == (18, 6 + 1 + 1)
    assert torch.equal(got[:, 6], d.sigma_M)


# --------------------------------------------------------------------------------------------------------------- reset


def prepared() -> tuple[Critic, Tensor, list[Tensor]]:
    """A trained critic with two dead neurons in each hidden layer, its states, and who is active by hand."""
    critic, (x, value) = made(width=6), data()
    with torch.no_grad():
        for layer in linears(critic)[:2]:
            layer.bias[1] = layer.bias[4] = -1e3
    critic.fit(x, value, critic.values(x))
    first = linears(critic)[0](critic.network.norm(x)).relu()
    second = linears(critic)[1](first).relu()
    return critic, x, [first.mean(0) > 0, second.mean(0) > 0]


def test_exactly_the_active_neurons_are_drawn_anew_and_their_moments_set_to_zero() -> None:
    critic, x, active = prepared()
    assert all(not a[[1, 4]].any() and a.sum() >= 2 for a in active)
    before = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in linears(critic)]
    moments = [copy.deepcopy(critic.optimiser.state[layer.weight]) for layer in linears(critic)]
    count = critic.reset_active(x, torch.Generator().manual_seed(0))
    assert count == sum(int(a.sum()) for a in active)
    for i, (layer, mask) in enumerate(zip(linears(critic)[:2], active, strict=True)):
        changed = (layer.weight != before[i][0]).all(1) & (layer.bias != before[i][1])
        assert torch.equal(changed, mask)
        assert torch.equal(layer.weight[~mask], before[i][0][~mask])
        assert torch.equal(layer.bias[~mask], before[i][1][~mask])
        state = critic.optimiser.state[layer.weight]
        for name in ("exp_avg", "exp_avg_sq"):
            assert (moments[i][name][mask] != 0).any(1).all()
            assert (state[name][mask] == 0).all()
            assert torch.equal(state[name][~mask], moments[i][name][~mask])
        assert (critic.optimiser.state[layer.bias]["exp_avg"][mask] == 0).all()
    assert torch.equal(linears(critic)[2].weight, before[2][0])


def test_new_weights_have_the_variance_of_one_over_the_inputs_and_one() -> None:
    critic, x = made(width=400), data()[0]
    with torch.no_grad():
        for layer in linears(critic)[:2]:
            layer.bias.fill_(10.0 if layer is linears(critic)[0] else 1e3)  # everybody is active
    assert critic.reset_active(x, torch.Generator().manual_seed(0)) == 800
    assert linears(critic)[0].weight.std().item() == pytest.approx(17**-0.5, rel=0.05)
    assert linears(critic)[1].weight.std().item() == pytest.approx(401**-0.5, rel=0.02)


def test_a_critic_that_has_never_been_fitted_can_be_reset_too() -> None:
    assert made().reset_active(data()[0], torch.Generator().manual_seed(0)) > 0


# --------------------------------------------------------------------------------------------------------------- state


def test_a_restored_critic_goes_on_exactly() -> None:
    x, value = data()
    first, second = made(seed=0), made(seed=9)
    first.fit(x, value, first.values(x))
    second.restore(copy.deepcopy(first.state()))
    assert torch.equal(first.values(x), second.values(x))
    for critic in (first, second):
        critic.fit(x, value, critic.values(x))
    assert torch.equal(first.values(x), second.values(x))
