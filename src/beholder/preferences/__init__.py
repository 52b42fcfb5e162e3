"""Human (or simulated) feedback as data: one schema, its files, pairs for training, annotators, public data sets.

Names are imported when first used, so that the command line's settings are light.
"""

import importlib
from typing import Any

_HOME = {
    "Medium": "schema",
    "Record": "schema",
    "open_preferences": "store",
    "write_preferences": "store",
    "PreferenceWriter": "store",
    "Selection": "selection",
    "choose": "selection",
    "pairs": "views",
    "groups": "views",
    "Crowd": "annotators",
    "Taste": "annotators",
    "SetConfig": "settings",
    "make_preferences": "make",
    "read_public": "readers",
}
__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'beholder.preferences' has no attribute {name!r}")
    return getattr(importlib.import_module(f"beholder.preferences.{_HOME[name]}"), name)
