"""What a checklist learns from people: its weights from preferences, its judge from answers (VisionReward, 2412.21059).

Names are imported when first used: the command line reads the settings without loading torch.
"""

import importlib
from typing import Any

_HOME = {
    "TeachConfig": "beholder.checklists.settings",
    "WeighConfig": "beholder.checklists.settings",
    "annotate": "beholder.checklists.annotate",
    "bias": "beholder.checklists.bias",
    "read_answered": "beholder.checklists.answers",
    "teach": "beholder.checklists.teach",
    "weigh": "beholder.checklists.weigh",
}
__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'beholder.checklists' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
