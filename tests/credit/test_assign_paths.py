"""Credit where samples share decisions (trees, fans, spurs), where probes measure values, and where few are kept."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_trajectories import by_sample, close, credited, drawn, settings
from torch import Tensor

from beholder.config import BranchConfig, CreditConfig, PlanConfig, ProbeConfig
from beholder.credit import paths
from beholder.rollouts.trajectory import Trajectory

NAN = math.nan
DR = CreditConfig(scale="none", clip=99.0)
TREE = settings(prompts=2, group=2, branch=BranchConfig("tree", 2, (1, 2)))
FAN = settings(prompts=2, group=2, branch=BranchConfig("fan", 3))
SPURS = settings(prompts=2, group=1, plan=PlanConfig(kind="window", start=1, size=2), branch=BranchConfig("spurs", 3))


def random_rewards(n: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(n))


def leaves(trajectory: Trajectory, decision: int) -> list[int]:
    return (trajectory.decision_NT == decision).any(1).nonzero().flatten().tolist()


# ------------------------------------------------------------------------------------------------------------ branches


def test_a_shared_decision_gets_the_mean_advantage_of_its_leaves() -> None:
    trajectory = drawn(TREE)
    rewards = random_rewards(len(trajectory))
    got = credited(DR, trajectory, rewards)[:, 0]
    centred = rewards - torch.stack([rewards[trajectory.group_N == g].mean() for g in trajectory.group_N.tolist()])
    shared = [len(leaves(trajectory, m)) for m in range(len(got))]
    close(got, [centred[leaves(trajectory, m)].mean().item() for m in range(len(got))])
    # 4 starts: one decision of 4 leaves each, then 2 of 2, then 4 of 1
    assert sorted(shared) == [1] * 16 + [2] * 8 + [4] * 4


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_depth_compares_the_decisions_of_a_prompt_at_one_step(scale: Any) -> None:
    trajectory = drawn(TREE)
    d, rewards = trajectory.decisions, random_rewards(len(trajectory))
    got = credited(CreditConfig(peers="depth", scale=scale, eps=0.0, clip=99.0), trajectory, rewards)[:, 0]
    value = torch.stack([rewards[leaves(trajectory, m)].mean() for m in range(len(got))]).double()
    group_M = trajectory.group_N[d.sample_M]
    for m in range(len(got)):
        peers = value[(group_M == group_M[m]) & (d.step_M == d.step_M[m])]
        divisor = {"none": 1.0, "group": peers.std(correction=0), "batch": rewards.std(correction=0)}[scale]
        assert got[m].item() == pytest.approx(((value[m] - peers.mean()) / divisor).item(), rel=1e-4, abs=1e-6)


def test_depth_without_branches_is_the_plain_group() -> None:
    trajectory = drawn(settings())
    rewards = random_rewards(6)
    config = CreditConfig(scale="group")
    close(
        credited(CreditConfig(peers="depth", scale="group"), trajectory, rewards), credited(config, trajectory, rewards)
    )


@pytest.mark.parametrize("setting", [SPURS, FAN, TREE], ids=["spurs", "fan", "tree"])
def test_siblings_are_the_decisions_taken_in_one_state(setting: Any) -> None:
    trajectory = drawn(setting)
    rewards = random_rewards(len(trajectory))
    got = credited(CreditConfig(peers="siblings", scale="none", clip=99.0), trajectory, rewards)[:, 0]
    d = trajectory.decisions
    value = torch.stack([rewards[leaves(trajectory, m)].mean() for m in range(len(got))])
    siblings = [
        [o for o in range(len(got)) if d.step_M[o] == d.step_M[m] and torch.equal(d.state_Mx[o], d.state_Mx[m])]
        for m in range(len(got))
    ]
    close(got, [(value[m] - value[siblings[m]].mean()).item() for m in range(len(got))])
    assert max(map(len, siblings)) > 1


def test_siblings_of_spurs_are_the_branches_of_one_step() -> None:
    trajectory = drawn(SPURS)
    rewards = torch.tensor([1.0, 2, 6, 10, 20, 60, 0, 0, 3, 5, 5, 5])
    got = by_sample(
        trajectory, credited(CreditConfig(peers="siblings", scale="none", clip=99.0), trajectory, rewards)[:, 0]
    )
    close(got.nansum(1), [-2, -1, 3, -20, -10, 30, -1, -1, 2, 0, 0, 0])
    assert (~got.isnan()).sum(1).tolist() == [1] * 12


# ------------------------------------------------------------------------------------------------ nodes by likelihood


def worth_by_recursion(trajectory: Trajectory, rewards: Tensor) -> list[float]:
    """Every node's worth as a tree walked from the root, written apart from the code."""
    d = trajectory.decisions

    def worth(decision: int) -> float:
        mine = leaves(trajectory, decision)
        step = int(d.step_M[decision]) + 1
        below = trajectory.decision_NT[mine, step : step + 1].unique().tolist()
        if below in ([], [-1]):
            (leaf,) = mine
            return rewards[leaf].item()
        chances = [math.exp(d.logp_old_M[b].item() / trajectory.n_dims) for b in below]
        return sum(p * worth(b) for p, b in zip(chances, below, strict=True)) / sum(chances)

    return [worth(m) for m in range(len(d))]


def test_a_node_is_worth_its_children_weighted_by_their_likelihood() -> None:
    trajectory = drawn(TREE)
    rewards = random_rewards(len(trajectory))
    want = worth_by_recursion(trajectory, rewards)
    raw = CreditConfig(baseline="none", scale="none", peers="depth", clip=99.0)
    got = credited(replace(raw, nodes="likelihood"), trajectory, rewards)[:, 0]
    close(got, want)
    mean = credited(raw, trajectory, rewards)[:, 0]
    single = torch.tensor([len(leaves(trajectory, m)) == 1 for m in range(len(got))])
    close(got[single], mean[single])
    assert (got - mean)[~single].abs().min() > 1e-4


def test_nodes_of_two_children_by_hand() -> None:
    """A root of two children, the likelier worth a quarter of the other's chance more; a failed leaf is left out."""
    decision_NT = torch.tensor([[0, 1, 3], [0, 1, 4], [0, 2, 5], [0, 2, 6]])
    logp_M = torch.tensor([0.0, math.log(3.0), 0.0, 9.0, 9.0, math.log(0.25), 0.0]).double()
    state_id_M = torch.tensor([0, 1, 1, 2, 2, 3, 3])
    got = paths.mean_by_likelihood(torch.tensor([4.0, 8.0, 5.0, 10.0]), logp_M, state_id_M, decision_NT)
    close(got, [(3 * 6 + 9) / 4, 6, 9, 4, 8, 5, 10])
    got = paths.mean_by_likelihood(torch.tensor([4.0, NAN, NAN, NAN]), logp_M, state_id_M, decision_NT)
    close(got, [4, 4, NAN, 4, NAN, NAN, NAN])


def test_equal_likelihoods_make_the_mean_of_the_leaves_and_far_ones_a_single_child() -> None:
    trajectory = drawn(TREE)
    rewards, d = random_rewards(len(trajectory)), trajectory.decisions
    equal = replace(trajectory, decisions=replace(d, logp_old_M=torch.full_like(d.logp_old_M, -1e6)))
    likelihood = CreditConfig(scale="none", peers="depth", nodes="likelihood", clip=99.0)
    close(credited(likelihood, equal, rewards), credited(replace(likelihood, nodes="mean"), trajectory, rewards))
    far = paths.mean_by_likelihood(rewards, 1e4 * torch.arange(len(d)), d.state_id_M, trajectory.decision_NT)
    top = [max(leaves(trajectory, m), key=lambda n: trajectory.decision_NT[n, 2].item()) for m in range(len(d))]
    close(far, rewards[top])


def test_where_an_untrained_step_parts_the_samples_weigh_alike() -> None:
    """The split at step 2 is not trained, so the decisions at step 1 are worth the plain mean of their leaves."""
    plan = PlanConfig(kind="window", start=0, size=2, outside="sde")
    trajectory = drawn(settings(prompts=1, group=1, plan=plan, branch=BranchConfig("tree", 2, (1, 2))))
    rewards = torch.tensor([1.0, 3, 10, 20])
    d = trajectory.decisions
    got = paths.mean_by_likelihood(rewards, d.logp_old_M / trajectory.n_dims, d.state_id_M, trajectory.decision_NT)
    first, second = (d.logp_old_M[1:] / trajectory.n_dims).double().exp().tolist()
    close(got, [(first * 2 + second * 15) / (first + second), 2, 15])


# -------------------------------------------------------------------------------------------------------------- probes

GREEDY = settings(prompts=2, group=2, probe=ProbeConfig("greedy"))
VINE = settings(prompts=2, group=2, probe=ProbeConfig("vine", 2))


def test_greedy_probes_are_the_baseline() -> None:
    trajectory = drawn(GREEDY)
    assert trajectory.probe_N.tolist() == [-1, 0] * 4
    rewards = torch.tensor([5.0, 1, 2, 4, 9, 9, 0, 3])
    got = by_sample(trajectory, credited(CreditConfig(baseline="probe", scale="none"), trajectory, rewards)[:, 0])
    close(got[0::2, :3], torch.tensor([4.0, -2, 0, -3])[:, None].expand(4, 3))
    assert got[1::2].isnan().all() and got[:, 3].isnan().all()


def test_probe_advantages_are_divided_by_the_deviation_of_the_samples_alone() -> None:
    trajectory = drawn(GREEDY)
    rewards = torch.tensor([5.0, 100, 2, -100, 9, 70, 0, 3])
    plain, scaled = (
        credited(CreditConfig(baseline="probe", scale=s, eps=0.5, clip=999.0), trajectory, rewards)
        for s in ("none", "batch")
    )
    close(scaled, plain / (torch.tensor([5.0, 2, 9, 0]).std(correction=0) + 0.5))


def test_vine_advantages_telescope_from_the_first_value_to_the_reward() -> None:
    trajectory = drawn(VINE)
    rewards = random_rewards(len(trajectory))
    got = by_sample(trajectory, credited(CreditConfig(baseline="probe", scale="none"), trajectory, rewards)[:, 0])
    samples = (trajectory.probe_N < 0).nonzero().flatten()
    assert len(samples) == 4 and len(trajectory) == 4 * (1 + 2 * 3)
    for n in samples.tolist():
        mine = trajectory.start_N == trajectory.start_N[n]
        values = [rewards[mine & (trajectory.probe_N == step)].mean() for step in range(3)]
        after = [*values[1:], rewards[n]]
        close(got[n, :3], [(b - a).item() for a, b in zip(values, after, strict=True)])
        assert got[n].nansum().item() == pytest.approx((rewards[n] - values[0]).item(), abs=1e-5)


@pytest.mark.parametrize("setting", [GREEDY, VINE], ids=["greedy", "vine"])
@pytest.mark.parametrize(
    "config",
    [
        CreditConfig(),
        CreditConfig(baseline="leave_one_out", scale="group", trim=0.5),
        CreditConfig(baseline="none", scale="batch", whiten=True),
        CreditConfig(keep_best=1),
    ],
)
def test_probes_belong_to_no_statistic_of_the_others(setting: Any, config: CreditConfig) -> None:
    trajectory = drawn(setting)
    samples, rewards = trajectory.probe_N < 0, random_rewards(len(trajectory))
    got = credited(config, trajectory, rewards)
    close(credited(config, trajectory, torch.where(samples, rewards, rewards + 1000)), got)
    close(credited(config, trajectory, torch.where(samples, rewards, NAN)), got)
    without = drawn(settings(prompts=2, group=2))
    close(
        by_sample(trajectory, got[:, 0])[samples], by_sample(without, credited(config, without, rewards[samples])[:, 0])
    )


# ----------------------------------------------------------------------------------------------------- what is kept


def kept(config: CreditConfig, trajectory: Trajectory, rewards: Any, *weights: float) -> list[bool]:
    """Which samples have any decision left; a decision is left with its advantage or not at all."""
    got = credited(config, trajectory, rewards, weights or (1.0,))
    return (~by_sample(trajectory, got[:, 0]).isnan()).any(1).tolist()


def test_the_best_and_the_worst_of_each_prompt_are_kept_with_the_advantages_they_have_among_all() -> None:
    trajectory, rewards = drawn(settings(group=4)), [3.0, 1, 0, 2, 5, 8, 6, 7]
    everything = credited(DR, trajectory, rewards)
    got = credited(CreditConfig(scale="none", keep_best=1, keep_worst=1, clip=99.0), trajectory, rewards)
    want_N = torch.tensor([True, False, True, False, True, True, False, False])
    want_M = want_N[trajectory.decisions.sample_M]
    close(got[:, 0], torch.where(want_M, everything[:, 0], NAN))


def test_probes_are_neither_the_best_nor_the_worst() -> None:
    trajectory = drawn(GREEDY)
    for sign in (1.0, -1.0):
        rewards = sign * torch.tensor([1.0, 0, 2, 0, 4, 0, 3, 0])
        config = CreditConfig(baseline="none", scale="none", keep_best=int(sign < 0), keep_worst=int(sign > 0))
        assert kept(config, trajectory, rewards) == [True, False, False, False, False, False, True, False]


def test_failed_samples_are_never_the_worst() -> None:
    trajectory = drawn(settings(prompts=1, group=4))
    assert kept(CreditConfig(keep_worst=1), trajectory, [3.0, NAN, 0, 2]) == [False, False, True, False]
    assert kept(CreditConfig(keep_best=4), trajectory, [3.0, NAN, 0, 2]) == [True, False, True, True]


def test_the_weights_of_separate_losses_decide_together_who_is_kept() -> None:
    trajectory = drawn(settings(prompts=1, group=3))
    rewards = torch.tensor([[0.0, 3.0], [1.0, 0.0], [2.0, -3.0]])  # weighted 1, -2: -6, 1, 8
    for whiten in (False, True):
        config = CreditConfig(scale="none", combine="losses", keep_best=1, whiten=whiten)
        assert kept(config, trajectory, rewards, 1.0, -2.0) == [False, False, True]
        assert kept(config, trajectory, rewards, 1.0, 2.0) == [True, False, False]


def test_a_tree_keeps_the_leaves_of_the_highest_and_the_lowest_rewards() -> None:
    """Not those of the best subtrees: the best leaf of all stands alone among bad ones."""
    trajectory = drawn(settings(prompts=1, group=1, branch=BranchConfig("tree", 2, (0, 1, 2))))
    rewards = [10.0, 0.0, 0.5, 1.0, 5.0, 5.5, 6.0, 4.0]
    for nodes in ("mean", "likelihood"):
        config = CreditConfig(peers="depth", keep_best=2, keep_worst=1, nodes=nodes)
        left = ~by_sample(trajectory, credited(config, trajectory, rewards)[:, 0])[:, 2].isnan()  # each leaf's own
        assert left.tolist() == [True, True, False, False, False, False, True, False]


def test_a_fan_keeps_only_the_clear_winners_and_losers_of_each_start() -> None:
    trajectory = drawn(FAN)
    rewards = torch.tensor([0.9, 0.0, -0.9, 0.4, 0.0, -0.4, 2, 2, 2, 1, 0, -6])  # prompt means 0, 0.5
    config = CreditConfig(scale="none", threshold=0.5, clip=99.0)
    want = [True, False, True, False, False, False, *[False, False, True], True, False, True]
    assert kept(config, trajectory, rewards) == want
    assert kept(CreditConfig(scale="none"), trajectory, rewards) == [True] * 12


def test_a_decision_of_a_tree_is_kept_for_any_of_its_leaves() -> None:
    trajectory = drawn(settings(prompts=1, group=1, branch=BranchConfig("tree", 2, (1, 2))))
    got = by_sample(
        trajectory, credited(CreditConfig(scale="none", keep_best=1), trajectory, [0.0, 0.5, 1.0, 9.0])[:, 0]
    )
    shared = by_sample(trajectory, credited(CreditConfig(scale="none"), trajectory, [0.0, 0.5, 1.0, 9.0])[:, 0])
    keep = paths.mean_over_samples(
        torch.tensor([0.0, 0, 0, 1]).double()[:, None].expand(4, 4), trajectory.decision_NT, 7
    )
    close(got, torch.where(by_sample(trajectory, keep) > 0, shared.double(), NAN))
    assert (~got.isnan()).sum(1).tolist() == [1, 1, 2, 3]
