"""The draw tables of plans that branch, written out, and what holds for all of them."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from beholder.config import BranchConfig, PlanConfig, ProbeConfig, RolloutConfig
from beholder.errors import InputError
from beholder.rollouts.plans import ODE, StepPlan, draw_plan, samples_per_start

o = ODE
WINDOW = PlanConfig(kind="window", start=1, size=2)
ALL = PlanConfig(kind="all")
WIDE = PlanConfig(kind="window", start=1, size=2, outside="sde")
Table = list[list[int]]


def planned(config: RolloutConfig, trainable: Tensor, iteration: int = 0) -> StepPlan:
    return draw_plan(config, trainable, config.prompts, iteration, torch.Generator().manual_seed(3))


def of_one_start(
    plan: PlanConfig, branch: BranchConfig | None = None, probe: ProbeConfig | None = None, steps: int = 4
) -> StepPlan:
    settings = (branch or BranchConfig(), probe or ProbeConfig())
    config = RolloutConfig(steps=steps, prompts=1, group=1, plan=plan, branch=settings[0], probe=settings[1])
    return planned(config, torch.ones(steps, dtype=torch.bool))


TABLES: dict[str, tuple[StepPlan, Table, Table]] = {
    "prefix": (of_one_start(PlanConfig(kind="prefix", fraction=0.5)), [[0, 0, 0, 0]], [[1, 1, 0, 0]]),
    "window": (of_one_start(WINDOW), [[o, 0, 0, o]], [[0, 1, 1, 0]]),
    "stochastic window": (of_one_start(WIDE), [[0, 0, 0, 0]], [[0, 1, 1, 0]]),
    "fan of a suffix": (
        of_one_start(PlanConfig(kind="suffix", size=2), BranchConfig("fan", width=3)),
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 2, 2]],
        [[0, 0, 1, 1]] * 3,
    ),
    "fan of a window": (
        of_one_start(WINDOW, BranchConfig("fan", width=2)),
        [[o, 0, 0, o], [o, 1, 1, o]],
        [[0, 1, 1, 0]] * 2,
    ),
    "fan of a stochastic window": (
        of_one_start(WIDE, BranchConfig("fan", width=2)),
        [[0, 0, 0, 0], [0, 1, 1, 1]],
        [[0, 1, 1, 0]] * 2,
    ),
    "tree": (
        of_one_start(ALL, BranchConfig("tree", width=2, steps=(0, 2))),
        [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0]],
        [[1, 1, 1, 1]] * 4,
    ),
    "ternary tree": (
        of_one_start(ALL, BranchConfig("tree", width=3, steps=(1,))),
        [[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]],
        [[1, 1, 1, 1]] * 3,
    ),
    "spurs of a window": (
        of_one_start(WINDOW, BranchConfig("spurs", width=2)),
        [[o, 0, o, o], [o, 1, o, o], [o, o, 0, o], [o, o, 1, o]],
        [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]],
    ),
    "spurs of a prefix": (
        of_one_start(PlanConfig(kind="prefix", fraction=0.5), BranchConfig("spurs", width=1)),
        [[0, o, o, o], [o, 0, o, o]],
        [[1, 0, 0, 0], [0, 1, 0, 0]],
    ),
    "greedy": (
        of_one_start(ALL, probe=ProbeConfig("greedy")),
        [[0, 0, 0, 0], [o, o, o, o]],
        [[1, 1, 1, 1], [0, 0, 0, 0]],
    ),
    "vine": (
        of_one_start(WINDOW, probe=ProbeConfig("vine", samples=2)),
        [[o, 0, 0, o], [o, 1, 1, o], [o, 2, 2, o], [o, 0, 3, o], [o, 0, 4, o]],
        [[0, 1, 1, 0]] + [[0, 0, 0, 0]] * 4,
    ),
}


@pytest.mark.parametrize("plan, draws, trained", TABLES.values(), ids=TABLES.keys())
def test_the_table_of(plan: StepPlan, draws: Table, trained: Table) -> None:
    assert plan.draw_NT.tolist() == draws
    assert plan.trained_NT.int().tolist() == trained
    assert plan.start_N.tolist() == [0] * len(draws)


def test_probes_say_which_state_they_measure() -> None:
    assert TABLES["greedy"][0].probe_N.tolist() == [-1, 0]
    assert TABLES["vine"][0].probe_N.tolist() == [-1, 1, 1, 2, 2]
    assert TABLES["tree"][0].probe_N.tolist() == [-1] * 4


def test_every_start_of_every_prompt_has_the_same_table() -> None:
    config = RolloutConfig(steps=4, prompts=3, group=2, plan=WINDOW, branch=BranchConfig("spurs", width=2))
    plan = planned(config, torch.ones(4, dtype=torch.bool))
    assert plan.start_N.tolist() == [start for start in range(6) for _ in range(4)]
    assert plan.draw_NT.tolist() == TABLES["spurs of a window"][1] * 6


def test_starts_of_one_noise_are_told_apart_by_their_draws() -> None:
    config = RolloutConfig(steps=4, prompts=2, group=3, plan=WINDOW, shared_noise=True)
    plan = planned(config, torch.ones(4, dtype=torch.bool))
    assert plan.draw_NT.tolist() == [[o, 0, 0, o], [o, 1, 1, o], [o, 2, 2, o]] * 2


def test_the_branches_of_starts_of_one_noise_are_told_apart_too() -> None:
    suffix = PlanConfig(kind="suffix", size=2)
    fan = BranchConfig("fan", width=2)
    config = RolloutConfig(steps=4, prompts=1, group=2, plan=suffix, branch=fan, shared_noise=True)
    plan = planned(config, torch.ones(4, dtype=torch.bool))
    assert plan.draw_NT.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 3, 3]]


def test_a_plan_begun_later_measures_the_states_that_are_left() -> None:
    plan = TABLES["vine"][0]
    later = plan.without(1)
    assert later.probe_N.tolist() == [-1, 0, 0, 1, 1] and torch.equal(later.trained_NT, plan.trained_NT[:, 1:])
    assert plan.without(2).probe_N.tolist() == [-1, 0, 0, 0, 0]


def test_untrainable_steps_send_out_no_spurs_and_no_vines_and_fan_nothing_out() -> None:
    trainable = torch.tensor([False, True, False, True])
    plans = {
        kind: planned(RolloutConfig(steps=4, prompts=1, group=1, plan=ALL, branch=branch, probe=probe), trainable)
        for kind, branch, probe in (
            ("spurs", BranchConfig("spurs", width=1), ProbeConfig()),
            ("fan", BranchConfig("fan", width=2), ProbeConfig()),
            ("vine", BranchConfig(), ProbeConfig("vine", samples=1)),
        )
    }
    assert plans["spurs"].draw_NT.tolist() == [[o, 0, o, o], [o, o, o, 0]]
    assert plans["fan"].draw_NT.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1]]
    assert plans["fan"].trained_NT.int().tolist() == [[0, 1, 0, 1]] * 2
    assert plans["vine"].draw_NT.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 2]]
    assert plans["vine"].probe_N.tolist() == [-1, 1, 3]


# ---------------------------------------------------------------------------------------------- what always holds

STEPS = 6
plans = st.one_of(
    st.builds(PlanConfig, kind=st.sampled_from(["all", "prefix"]), fraction=st.floats(0.2, 1)),
    st.builds(PlanConfig, kind=st.just("random"), fraction=st.floats(0.2, 1)),
    st.builds(PlanConfig, kind=st.sampled_from(["suffix", "geometric"]), size=st.integers(1, 5)),
    st.builds(
        PlanConfig,
        kind=st.sampled_from(["window", "random_window", "moving_window"]),
        size=st.integers(1, 3),
        outside=st.sampled_from(["ode", "sde"]),
        every=st.integers(1, 3),
    ),
)
trees = st.builds(
    BranchConfig,
    kind=st.just("tree"),
    width=st.integers(2, 3),
    steps=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=3, unique=True).map(lambda v: tuple(sorted(v))),
)
branches = st.one_of(
    st.just((BranchConfig(), ProbeConfig())),
    trees.map(lambda tree: (tree, ProbeConfig())),
    st.builds(BranchConfig, kind=st.sampled_from(["fan", "spurs"]), width=st.integers(1, 3)).map(
        lambda branch: (branch, ProbeConfig())
    ),
    st.builds(ProbeConfig, kind=st.sampled_from(["greedy", "vine"]), samples=st.integers(1, 3)).map(
        lambda probe: (BranchConfig(), probe)
    ),
)


@settings(deadline=None, max_examples=200)
@given(
    plan=plans,
    branching=branches,
    prompts=st.integers(1, 2),
    group=st.integers(1, 3),
    shared=st.booleans(),
    trainable=st.lists(st.booleans(), min_size=STEPS, max_size=STEPS).map(torch.tensor),
    iteration=st.integers(0, 20),
)
def test_whatever_is_asked_for(
    plan: PlanConfig,
    branching: tuple[BranchConfig, ProbeConfig],
    prompts: int,
    group: int,
    shared: bool,
    trainable: Tensor,
    iteration: int,
) -> None:
    branch, probe = branching
    config = RolloutConfig(
        steps=STEPS, prompts=prompts, group=group, plan=plan, branch=branch, probe=probe, shared_noise=shared
    )
    assume(plan.kind != "random" or branch.kind not in ("fan", "spurs"))  # the validator refuses these
    try:
        drawn = planned(config, trainable, iteration)
    except InputError:  # nothing to train, which is refused and tested elsewhere
        assume(False)
        raise
    stochastic, sample = drawn.draw_NT != ODE, drawn.probe_N < 0
    assert (stochastic | ~drawn.trained_NT).all() and not drawn.trained_NT[:, ~trainable].any()
    assert not drawn.trained_NT[~sample].any()
    starts = prompts * group
    assert drawn.start_N.tolist() == sorted(drawn.start_N.tolist())
    trained_steps = int(drawn.trained_NT.any(0).sum())
    counts = torch.bincount(drawn.start_N[sample], minlength=starts)
    assert counts.tolist() == [samples_per_start(config, trained_steps)] * starts
    origin_N = drawn.start_N // group if shared else drawn.start_N
    rows = torch.cat([origin_N[:, None], drawn.draw_NT], 1)[sample]
    assert len(rows.unique(dim=0)) == len(rows)
    first = {int(s): int((sample & (drawn.start_N == s)).nonzero()[0]) for s in range(starts)}
    for i in (~sample).nonzero().flatten().tolist():
        main, at = drawn.draw_NT[first[int(drawn.start_N[i])]], int(drawn.probe_N[i])
        if probe.kind == "greedy":
            assert not stochastic[i].any() and at == 0
            continue
        assert torch.equal(drawn.draw_NT[i, :at], main[:at])
        assert torch.equal(stochastic[i], main != ODE)
        others = drawn.draw_NT[(drawn.start_N == drawn.start_N[i]) & (torch.arange(len(drawn)) != i)]
        assert not (others[:, at:] == drawn.draw_NT[i, at:])[:, main[at:] != ODE].any()
