"""Configurations as YAML: nothing is lost on the way, and nothing wrong gets in unnamed."""

import math
import re
import types
import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beholder.config import RunConfig
from beholder.config_file import from_yaml, read_config, to_yaml
from beholder.errors import InputError
from beholder.methods import METHODS

PRESETS = {f"{name} {preset}": config for name, row in METHODS.items() for preset, config in row.presets.items()}


def sections(kind: type, prefix: tuple[str, ...] = ()) -> typing.Iterator[tuple[tuple[str, ...], type]]:
    """Every dataclass of the configuration with the keys that lead to it."""
    yield prefix, kind
    for name, hint in typing.get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from sections(typing.cast(type, hint), (*prefix, name))


def leaves() -> typing.Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting that holds a value, and its type."""
    for prefix, kind in sections(RunConfig):
        yield from (((*prefix, n), h) for n, h in typing.get_type_hints(kind).items() if not is_dataclass(h))


def document(keys: tuple[str, ...], value: object) -> str:
    """YAML with one setting."""
    for key in reversed(keys):
        value = {key: value}
    return yaml.safe_dump({"method": "flow-grpo", **typing.cast(dict, value)})


def read(config: object, keys: tuple[str, ...]) -> object:
    for key in keys:
        config = getattr(config, key)
    return config


SECTIONS = dict(sections(RunConfig))
LEAVES = dict(leaves())
every_leaf = pytest.mark.parametrize("keys", LEAVES, ids=".".join)


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_presets_survive_the_round_trip(config: RunConfig, tmp_path: Path) -> None:
    text = to_yaml(config)
    assert from_yaml(text) == config
    assert to_yaml(from_yaml(text)) == text
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert read_config(tmp_path / "config.yaml") == config


def test_every_setting_is_written_in_order() -> None:
    written = yaml.safe_load(to_yaml(RunConfig("flow-grpo")))
    assert list(written) == [f.name for f in fields(RunConfig)]
    assert {keys for keys in LEAVES if _present(written, keys)} == set(LEAVES)


def _present(data: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if key not in data:
            return False
        data = data[key]
    return True


def test_what_is_left_out_keeps_its_default() -> None:
    assert from_yaml("method: flow-grpo\nloop: {updates: 1}\n") == replace(
        RunConfig("flow-grpo"), loop=replace(RunConfig("flow-grpo").loop, updates=1)
    )


@pytest.mark.parametrize("keys", SECTIONS, ids=lambda keys: ".".join(keys) or "top")
def test_an_unknown_key_names_its_place_and_the_nearest(keys: tuple[str, ...]) -> None:
    right = max((f.name for f in fields(SECTIONS[keys])), key=len)
    wrong = right[:-1] + "z"
    place = ".".join(("file.yaml", *keys))
    with pytest.raises(InputError, match=f"^{re.escape(place)}: unknown setting '{wrong}'; did you mean '{right}'\\?$"):
        from_yaml(document((*keys, wrong), 1), "file.yaml")


def wrong_values(hint: Any) -> list[object]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [v for v in wrong_values(next(a for a in arguments if a is not type(None))) if v is not None]
    if origin is typing.Literal:
        return ["no such choice", 1, None, [arguments[0]]]
    if origin is tuple:
        return ["text", 1, None, {"a": 1}, *([wrong] for wrong in wrong_values(arguments[0]))]
    if origin is dict:
        return ["text", 1, None, ["shapes"], {"shapes": "much"}, {"shapes": None}, {"shapes": [1]}, {"shapes": True}]
    everything: dict[type, list[object]] = {
        int: ["text", "3", 1.5, True, None, [1], {"a": 1}],
        float: ["text", True, None, [1.0], {"a": 1}, 10**400],
        bool: ["yes it is", 1, 0.0, None, [True]],
        str: [1, 1.5, True, None, ["text"], {"a": 1}],
    }
    return everything[hint]


@every_leaf
def test_a_wrong_type_names_the_setting(keys: tuple[str, ...]) -> None:
    for value in wrong_values(LEAVES[keys]):
        with pytest.raises(InputError) as caught:
            from_yaml(document(keys, value), "file.yaml")
        message = str(caught.value)
        assert message.startswith(".".join(("file.yaml", *keys))), message
        assert "\n" not in message


@pytest.mark.parametrize("keys", [keys for keys in SECTIONS if keys], ids=".".join)
@pytest.mark.parametrize("value", [None, 3, "text", ["a"]])
def test_a_section_is_a_mapping(keys: tuple[str, ...], value: object) -> None:
    with pytest.raises(InputError, match=rf"^config\.{re.escape('.'.join(keys))}: expected a mapping"):
        from_yaml(document(keys, value))


def test_a_wrong_choice_lists_the_right_ones() -> None:
    with pytest.raises(InputError, match="'flow' is not one of flow_sde, dance_sde, cps, ddim, euler"):
        from_yaml(document(("rollout", "kernel", "kind"), "flow"))


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("'0.5'", 0.5), ("3", 3.0), (".inf", math.inf), ("1E+2", 100.0), ("1.0e-04", 1e-4)],
)
def test_numbers_as_people_write_them(written: str, value: float) -> None:
    """YAML 1.1 takes 1e-4 for text; here it is the number it looks like."""
    lr = from_yaml(f"method: m\noptimiser: {{lr: {written}}}\n").optimiser.lr
    assert lr == value and type(lr) is float


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "NoneType"),
        ("- a\n- b\n", "list"),
        ("just text", "str"),
        ("a: [1\n", "not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "not YAML"),
        ("\x00", "not YAML"),
        ("method: m\nseed: 2024-99-99\n", "not YAML"),
        ("seed: 1\n", "method"),
        ("1: 2\nmethod: m\n", "unknown setting 1"),
    ],
)
def test_what_is_no_configuration_is_one_line(text: str, wanted: str) -> None:
    with pytest.raises(InputError, match=re.escape(wanted)) as caught:
        from_yaml(text, "file.yaml")
    assert str(caught.value).startswith("file.yaml") and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("method: é".encode("latin-1"))
    for path in (tmp_path / "missing.yaml", tmp_path / "latin.yaml", tmp_path):
        with pytest.raises(InputError, match=re.escape(repr(str(path)))):
            read_config(path)


# Strategies by type, so that a new setting is covered the moment it is written.
TEXT = st.text(max_size=12)
NUMBERS = st.floats(allow_nan=False)
BY_TYPE = {int: st.integers(-(10**9), 10**9), float: NUMBERS, bool: st.booleans(), str: TEXT}


def values_of(hint: Any) -> st.SearchStrategy:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        kind = typing.cast(Any, hint)
        return st.builds(kind, **{n: values_of(h) for n, h in typing.get_type_hints(kind).items()})
    if origin in (typing.Union, types.UnionType):
        return st.none() | values_of(next(a for a in arguments if a is not type(None)))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, values_of(arguments[1]), max_size=3)
    return BY_TYPE[hint]


@settings(max_examples=40, deadline=None)
@given(values_of(RunConfig))
@example(RunConfig("flow-grpo", output="next line \x85 line \u2028 paragraph \u2029 newline \n 'quoted' \x1f"))
def test_any_configuration_survives_the_round_trip(config: RunConfig) -> None:
    assert from_yaml(to_yaml(config)) == config


@every_leaf
def test_every_setting_is_read_where_it_is_written(keys: tuple[str, ...]) -> None:
    value = values_of(LEAVES[keys]).filter(lambda v: v != read(RunConfig("flow-grpo"), keys))
    for found in (_example(value, seed) for seed in range(2)):
        plain = list(found) if isinstance(found, tuple) else found
        assert read(from_yaml(document(keys, plain)), keys) == found


def _example(strategy: st.SearchStrategy, seed: int) -> Any:
    found: list[Any] = []

    @settings(max_examples=1 + seed, database=None, derandomize=True, deadline=None)
    @given(strategy)
    def draw(value: Any) -> None:
        found.append(value)

    draw()
    return found[-1]
