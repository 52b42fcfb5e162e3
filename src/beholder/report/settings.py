"""The settings in which runs differ, read from their ``config.yaml``."""

from collections.abc import Sequence

import yaml

from beholder.report.results import NOTHING


def differences(configs: Sequence[str | None]) -> list[tuple[str, list[str]]]:
    """Dotted name and each run's value of every setting that is not the same in all; [] where one cannot be read."""
    if len(configs) < 2 or None in configs:
        return []
    try:
        flat = [_flat(yaml.safe_load(str(config)), "") for config in configs]
    except yaml.YAMLError:
        return []
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = [(name, [settings.get(name, NOTHING) for settings in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flat(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        return {name: str(value)} if name else {}
    prefix = f"{name}." if name else ""
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}{key}").items()}
