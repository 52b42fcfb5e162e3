"""Fewer steps after the last stochastic one: where they lie, that none is lost, and what stays as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_policy import LinearPolicy, asked, begin, per_sample_step, plan_for
from torch import Tensor

from beholder.config import PlanConfig, ProbeConfig
from beholder.rollouts.engine import rollout
from beholder.rollouts.plans import ODE, StepPlan, between, compress_tail


def shifted(t: Tensor, shift: float) -> Tensor:
    return shift * t / (1 + (shift - 1) * t)


def schedule(steps: int, shift: float = 1.0) -> Tensor:
    return shifted(1 - torch.arange(steps + 1, dtype=torch.float64) / steps, shift)


def stable_diffusion(steps: int) -> Tensor:
    """The noise levels of DDIM in Stable Diffusion 1.x: scaled-linear betas, and an end that is not 0."""
    alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double().square()).cumprod(0)
    sigmas = (1 - alphas).sqrt() / (alphas.sqrt() + (1 - alphas).sqrt())
    visited = torch.arange(steps).flip(0) * (1000 // steps) + 1
    return torch.cat([sigmas[visited], sigmas[:1]])


def windowed(steps: int, first: int, size: int) -> StepPlan:
    """Two samples, stochastic and trained on the steps first .. first + size - 1."""
    inside = torch.zeros(2, steps, dtype=torch.bool)
    inside[:, first : first + size] = True
    return StepPlan(torch.arange(2), torch.where(inside, 0, ODE), inside, torch.tensor([-1, 0]))


@settings(deadline=None, max_examples=200)
@given(
    steps=st.integers(1, 40),
    at=st.floats(0, 1),
    size=st.integers(0, 5),
    share=st.floats(0, 1),
    shift=st.floats(0.2, 12),
)
def test_a_shifted_schedule_has_a_tail_shifted_alike(
    steps: int, at: float, size: int, share: float, shift: float
) -> None:
    sigmas, first = schedule(steps, shift), int(at * (steps - min(size, steps)))
    plan = windowed(steps, first, size)
    after = min(first + size, steps) if size else 0
    kept, cut = compress_tail(sigmas, plan, share)
    n = min(max(1, int((steps - after + 1) * share) - 1), steps - after)
    assert len(kept) == after + n + 1
    assert torch.equal(kept[: after + 1], sigmas[: after + 1])
    assert kept[-1] == 0
    want = shifted(torch.linspace(1 - after / steps, 0, n + 1, dtype=torch.float64), shift)
    torch.testing.assert_close(kept[after:], want, rtol=1e-10, atol=1e-12)
    assert cut.draw_NT.shape == cut.trained_NT.shape == (2, after + n)
    assert torch.equal(cut.draw_NT[:, :after], plan.draw_NT[:, :after])
    assert torch.equal(cut.trained_NT[:, :after], plan.trained_NT[:, :after])
    assert (cut.draw_NT[:, after:] == ODE).all() and not cut.trained_NT[:, after:].any()
    assert torch.equal(cut.start_N, plan.start_N) and torch.equal(cut.probe_N, plan.probe_N)


@pytest.mark.parametrize("share, after", [(0.0, 1), (0.01, 1), (0.2, 3), (0.4, 7), (0.99, 20), (1.0, 21)])
def test_mix_grpo_flash_keeps_a_share_of_the_steps_after_the_window_and_never_none(share: float, after: int) -> None:
    """25 steps, window 0..3: 22 levels follow, of which int(22 · share) are kept, as in the released code."""
    kept, plan = compress_tail(schedule(25, 3.0), windowed(25, 0, 4), share)
    assert len(kept) == 4 + after + 1 and plan.draw_NT.shape[1] == 4 + after
    assert kept[-1] == 0 and kept[-2] > 0


@pytest.mark.parametrize(
    "steps, first, size, share", [(10, 2, 3, 1.0), (10, 8, 2, 0.1), (10, 8, 1, 0.1), (1, 0, 1, 0.5)]
)
def test_what_cannot_be_shortened_stays_as_it_is(steps: int, first: int, size: int, share: float) -> None:
    sigmas, plan = schedule(steps, 2.0), windowed(steps, first, size)
    kept, cut = compress_tail(sigmas, plan, share)
    assert torch.equal(kept, sigmas)
    assert torch.equal(cut.draw_NT, plan.draw_NT)


@settings(deadline=None, max_examples=60)
@given(steps=st.integers(2, 50), first=st.integers(0, 48), share=st.floats(0, 1))
def test_any_schedule_falls_to_its_own_end(steps: int, first: int, share: float) -> None:
    first = min(first, steps - 1)
    for sigmas in (stable_diffusion(steps), schedule(steps, 3.0).pow(1.5)):
        kept, _ = compress_tail(sigmas, windowed(steps, first, 1), share)
        assert (kept.diff() < 0).all()
        assert torch.equal(kept[: first + 2], sigmas[: first + 2])
        assert kept[-1] == sigmas[-1]


def test_new_levels_lie_between_their_neighbours_and_meet_them_at_whole_numbers() -> None:
    sigmas = stable_diffusion(20)
    assert torch.equal(between(sigmas, torch.arange(21).double()), sigmas)
    halves = between(sigmas, torch.arange(1, 19) + 0.5)
    assert ((halves < sigmas[1:19]) & (halves > sigmas[2:20])).all()
    near = between(sigmas, torch.arange(1, 20) + 1e-9)
    torch.testing.assert_close(near, sigmas[1:20], rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_schedule_keeps_its_type(dtype: torch.dtype) -> None:
    assert compress_tail(schedule(10).to(dtype), windowed(10, 0, 2), 0.5)[0].dtype == dtype


def test_a_shorter_tail_saves_calls_and_leaves_the_decisions_alone() -> None:
    config, sigmas = asked(steps=20, plan=PlanConfig(kind="window", start=3, size=2)), schedule(20, 3.0)
    whole = plan_for(config, sigmas)
    found = []
    for share in (1.0, 0.4):
        policy = LinearPolicy()
        kept, plan = compress_tail(sigmas, whole, share)
        found.append((rollout(policy, begin(config, plan), kept, plan, config), len(policy.calls)))
    (full, calls), (short, fewer) = found
    assert (calls, fewer) == (20, 5 + 5)
    for name in ("state_Mx", "next_Mx", "logp_old_M", "sigma_M", "step_M"):
        assert torch.equal(per_sample_step(full, name), per_sample_step(short, name)), name
    gap = (full.final_Nx - short.final_Nx).abs().max().item()
    assert 1e-4 < gap < 0.2


def test_probes_are_shortened_with_the_samples() -> None:
    config = asked(steps=10, plan=PlanConfig(kind="window", start=1, size=2), probe=ProbeConfig("greedy"))
    sigmas, plan = compress_tail(schedule(10), plan_for(config, schedule(10)), 0.5)
    policy = LinearPolicy()
    got = rollout(policy, begin(config, plan), sigmas, plan, config)
    assert policy.widths == [6, 6] + [12] * 4
    assert len(got) == 12
