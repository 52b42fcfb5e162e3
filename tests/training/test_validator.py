"""What the validator refuses, each by a minimal change of a valid run, and that it lets every preset pass."""

import math
from dataclasses import is_dataclass, replace
from typing import Any

import pytest

from beholder.config import KLConfig, RolloutConfig, RunConfig
from beholder.errors import InputError
from beholder.methods import METHODS
from beholder.training import validator
from beholder.training.validator import problems, validate

VALID = RunConfig(
    method="flow-grpo", rollout=RolloutConfig(steps=10, prompts=24, group=8, batch=96), kl=KLConfig(beta=0.04)
)
"""No preset: those may change, and what is refused stays."""


def changed(config: Any, **settings: object) -> Any:
    """The configuration with settings by path, dots written as two underscores."""
    for path, value in settings.items():
        section, _, rest = path.partition("__")
        config = replace(config, **{section: changed(getattr(config, section), **{rest: value}) if rest else value})
    return config


def presets() -> list[Any]:
    return [
        pytest.param(config, id=f"{row.name} {name}")
        for row in METHODS.values()
        for name, config in row.presets.items()
    ]


@pytest.mark.parametrize("config", presets())
def test_presets_pass_once_they_have_rewards(config: RunConfig) -> None:
    config = changed(config, rewards={"shapes": 1.0}, evaluation__rewards=("shapes_strict",))
    assert list(problems(config)) == []
    assert list(problems(config, processes=2)) == []


RANGES = {
    **{name: (0, -1, math.nan) for name in validator.POSITIVE},
    **{name: (-1, math.nan) for name in validator.NOT_NEGATIVE},
    **{name: (0, -1, math.nan) for name in validator.OPTIONAL_POSITIVE},
    **{name: (-0.1, 1.0, 1.5, math.nan) for name in validator.BELOW_ONE},
    "rollout.plan.fraction": (0.0, -0.1, 1.01, math.nan),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_range_names_its_setting(name: str) -> None:
    for value in RANGES[name]:
        with pytest.raises(InputError, match=f"^{name}: {value}") as caught:
            validate(changed(VALID, **{name.replace(".", "__"): value}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*validator.NOT_NEGATIVE, *validator.BELOW_ONE])
def test_zero_is_a_choice(name: str) -> None:
    """Only where it is one: a kernel of level 0 has no density."""
    found = list(problems(changed(VALID, **{name.replace(".", "__"): 0})))
    assert len(found) == (name == "rollout.kernel.level")


def test_every_number_of_the_configuration_has_a_range() -> None:
    """A new number belongs into one of the tables."""
    free = {"credit.ddof", "rollout.plan.fraction"}
    tables = {*validator.POSITIVE, *validator.NOT_NEGATIVE, *validator.OPTIONAL_POSITIVE, *validator.BELOW_ONE}
    assert set(_numbers(VALID, "")) - free <= tables


def _numbers(section: Any, prefix: str) -> list[str]:
    found: list[str] = []
    for name, value in vars(section).items():
        if is_dataclass(value):
            found += _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append(prefix + name)
    return found


def test_every_number_is_finite() -> None:
    """None of the settings that take a fraction takes infinity or what is no number."""
    floats = [name for name in _numbers(VALID, "") if isinstance(_read(name), float)]
    assert len(floats) > 15
    for name in [*floats, "loop.minutes", "evaluation.guidance"]:
        for value in (math.inf, -math.inf, math.nan):
            with pytest.raises(InputError, match=f"^{name}: {value} is not a finite number"):
                validate(changed(VALID, **{name.replace(".", "__"): value}))


def _read(name: str) -> object:
    value: Any = VALID
    for part in name.split("."):
        value = getattr(value, part)
    return value


COMBINATIONS: dict[str, tuple[dict[str, object], str, str]] = {
    "a deterministic kernel": ({"rollout__kernel__kind": "euler"}, "rollout.kernel.kind", "flow_sde, dance_sde or cps"),
    "a kernel of level 0": ({"rollout__kernel__level": 0.0}, "rollout.kernel.level", "use 0.7"),
    "more than all of CPS": (
        {"rollout__kernel__kind": "cps", "rollout__kernel__level": 1.2},
        "rollout.kernel.level",
        "use 0.8",
    ),
    "CPS's score elsewhere": ({"rollout__kernel__log_prob": "unweighted"}, "rollout.kernel.log_prob", "use gaussian"),
    "a group of one": ({"rollout__group": 1}, "rollout.group", "2 or more"),
    "a group of one to scale by": (
        {"rollout__group": 1, "credit__baseline": "none", "credit__scale": "group"},
        "rollout.group",
        "scale batch",
    ),
    "no degrees of freedom": (
        {"credit__scale": "group", "credit__ddof": 8},
        "credit.ddof",
        "larger rollout.group",
    ),
    "more updates than samples": ({"loop__updates": 193}, "loop.updates", "fewer updates"),
    "half precision learning": (
        {"policy__training": "full", "policy__dtype": "bfloat16"},
        "policy.dtype",
        "float32 or lora",
    ),
    "a window too long": (
        {"rollout__plan__kind": "random_window", "rollout__plan__size": 10},
        "rollout.plan.size",
        "smaller size",
    ),
    "a window past its stop": (
        {"rollout__plan__kind": "window", "rollout__plan__start": 4, "rollout__plan__stop": 5},
        "rollout.plan.size",
        "wider start..stop",
    ),
    "less than one step": ({"rollout__plan__fraction": 0.05}, "rollout.plan.fraction", "larger"),
    "less than one random step": (
        {"rollout__plan__kind": "random", "rollout__plan__fraction": 0.09},
        "rollout.plan.fraction",
        "larger",
    ),
    "no reward": ({"rewards": {}}, "rewards", "--rewards shapes 1.0"),
    "nothing measured": ({"evaluation__rewards": ()}, "evaluation.rewards", "--evaluation.rewards shapes_strict"),
    "a rank beside an adapter": (
        {"policy__adapter": "runs/a/policy", "policy__lora__rank": 8},
        "policy.lora",
        "leave policy.lora out",
    ),
    "a weight that is no number": ({"rewards": {"shapes": math.nan}}, "rewards.shapes", "nan"),
    "an infinite weight": ({"rewards": {"shapes": 1.0, "redness": -math.inf}}, "rewards.redness", "-inf"),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_combination_that_cannot_work(name: str) -> None:
    change, setting, remedy = COMBINATIONS[name]
    found = list(problems(changed(VALID, **change)))
    assert len(found) == 1
    assert found[0].startswith(f"{setting}: ") and remedy in found[0]
    with pytest.raises(InputError, match=f"^{setting}: "):
        validate(changed(VALID, **change))


AT_THE_EDGE: list[dict[str, object]] = [
    {"rollout__kernel__kind": "cps", "rollout__kernel__level": 1.0},
    {"rollout__kernel__kind": "cps", "rollout__kernel__log_prob": "unweighted"},
    {"rollout__group": 1, "credit__baseline": "none"},
    {"rollout__group": 1, "credit__baseline": "none", "credit__scale": "batch"},
    {"credit__scale": "group", "credit__ddof": 7},
    {"loop__updates": 192},
    {"policy__training": "full"},
    {"policy__dtype": "float16"},
    {"policy__adapter": "runs/a/policy"},
    {"rollout__plan__kind": "random_window", "rollout__plan__size": 9},
    {"rollout__plan__kind": "window", "rollout__plan__size": 10, "rollout__plan__stop": 10},
    {"rollout__plan__fraction": 0.1},
    {"rewards": {"shapes": -1.0}},
]


@pytest.mark.parametrize("change", AT_THE_EDGE, ids=str)
def test_what_still_works_passes(change: dict[str, object]) -> None:
    assert list(problems(changed(VALID, **change))) == []


def test_prompts_divide_over_the_processes() -> None:
    config = changed(VALID, rollout__prompts=10)
    assert list(problems(config, 5)) == []
    (problem,) = problems(config, 4)
    assert problem.startswith("rollout.prompts: 10 ") and problem.endswith("use 12")


def test_updates_share_the_samples_of_one_process() -> None:
    config = changed(VALID, rollout__prompts=2, rollout__group=4, loop__updates=8)
    assert list(problems(config, 1)) == []
    (problem,) = problems(config, 2)
    assert problem.startswith("loop.updates: 8 updates share the 4 samples of a process")


# ------------------------------------------------------------------------------------------------ published numbers


def test_flow_grpo_as_published() -> None:
    """Flow-GRPO 2505.05470 and its released configuration for SD3.5 medium."""
    config = METHODS["flow-grpo"].presets["published"]
    rollout = config.rollout
    assert (rollout.steps, rollout.group, rollout.prompts, rollout.guidance.scale) == (10, 24, 48, 4.5)
    assert (rollout.kernel.kind, rollout.kernel.level, rollout.kernel.log_prob) == ("flow_sde", 0.7, "gaussian")
    assert (rollout.plan.kind, int(rollout.plan.fraction * rollout.steps)) == ("prefix", 9)
    assert (config.objective.clip_low, config.objective.clip_high) == (1e-4, 1e-4)
    assert config.objective.trust_region == "per_dimension" and config.objective.weighting == "uniform"
    assert (config.kl.beta, config.kl.form) == (0.04, "no_dt")
    assert (config.optimiser.lr, config.optimiser.weight_decay, config.optimiser.max_grad_norm) == (3e-4, 1e-4, 1.0)
    assert (config.optimiser.beta1, config.optimiser.beta2, config.optimiser.eps) == (0.9, 0.999, 1e-8)
    assert (config.policy.training, config.policy.lora.rank, config.policy.lora.alpha) == ("lora", 32, 64)
    assert (config.policy.dtype, config.policy.resolution) == ("float16", 512)
    assert (config.ema.decay, config.ema.every, config.loop.updates) == (0.9, 8, 2)
    assert (config.credit.baseline, config.credit.scale, config.credit.ddof) == ("group", "batch", 0)
    assert (config.credit.eps, config.credit.clip, config.evaluation.steps) == (1e-4, 5.0, 40)


def test_flow_grpo_fast_as_published() -> None:
    """The released Fast configuration: CPS, a window of 3 in the first half, no guidance, no KL."""
    config, full = (METHODS[name].presets["published"] for name in ("flow-grpo-fast", "flow-grpo"))
    rollout = config.rollout
    assert (rollout.kernel.kind, rollout.kernel.level, rollout.kernel.log_prob) == ("cps", 0.8, "unweighted")
    assert (rollout.plan.kind, rollout.plan.size, rollout.plan.start, rollout.plan.stop) == ("random_window", 3, 0, 5)
    assert rollout.guidance.scale == 1.0 and config.kl.beta == 0
    assert (config.objective.clip_low, config.objective.clip_high) == (1e-5, 1e-5)
    same = ("policy", "credit", "optimiser", "ema", "loop", "evaluation", "prompts")
    assert all(getattr(config, name) == getattr(full, name) for name in same)
    assert (rollout.steps, rollout.group, rollout.prompts) == (10, 24, 48)
