"""Settings by their dotted names."""

from beholder.config import RunConfig


def setting(config: RunConfig, name: str) -> object:
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
