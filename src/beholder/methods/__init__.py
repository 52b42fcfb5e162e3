"""The rows: every published method as presets of one configuration. A new method is a new file and a line here."""

from beholder.errors import InputError, nearest
from beholder.methods.flow_grpo import FLOW_GRPO, FLOW_GRPO_FAST
from beholder.methods.row import Method

METHODS: dict[str, Method] = {method.name: method for method in (FLOW_GRPO, FLOW_GRPO_FAST)}


def find_method(name: str) -> Method:
    """The row called ``name``; InputError with the nearest name."""
    if name not in METHODS:
        raise InputError(f"method: unknown {name!r}; {nearest(name, METHODS)}")
    return METHODS[name]
