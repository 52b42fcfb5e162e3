"""A run's settings, read from its ``config.yaml`` as dotted names."""

from collections.abc import Sequence

import yaml

NOTHING = "–"
"""What the page shows where a value is not known."""
NO_SETTING = {"output"}
"""Differs between any two runs and changes neither."""


def settings_of(config: str | None) -> dict[str, str]:
    """Every setting by its dotted name; {} where there is no configuration or it is not YAML."""
    try:
        return _flat(yaml.safe_load(config or ""), "")
    except yaml.YAMLError:
        return {}


def differences(configs: Sequence[str | None]) -> list[tuple[str, list[str]]]:
    """Dotted name and each run's value of every setting that is not the same in all; [] where one is not known."""
    flat = [settings_of(config) for config in configs]
    if not all(flat):
        return []
    names = dict.fromkeys(name for settings in flat for name in settings if name not in NO_SETTING)
    rows = [(name, [settings.get(name, NOTHING) for settings in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flat(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        return {name: str(value)} if name else {}
    prefix = f"{name}." if name else ""
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}{key}").items()}
