"""Beholder aligns image and video generators with what people prefer.

    from beholder import align, find_method, load_policy, load_reward

    run = align(find_method("flow-grpo-fast").preset("shapes"))

Names are imported when first used, so that ``import beholder`` is light.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "align": "beholder.training.align",
    "resume": "beholder.training.align",
    "find_method": "beholder.methods",
    "METHODS": "beholder.methods",
    "RunConfig": "beholder.config",
    "load_policy": "beholder.policies",
    "load_reward": "beholder.rewards",
    "score": "beholder.rewards",
    "open_preferences": "beholder.preferences",
    "fit_reward": "beholder.fitting.run",
    "ask": "beholder.evaluation.asking",
    "compare": "beholder.evaluation.comparing",
    "write_report": "beholder.report",
}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'beholder' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
