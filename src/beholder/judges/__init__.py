"""Who answers yes-no questions about a picture or a video, and checklists of such questions as rewards.

Names are imported when first used: the command line reads the settings without loading torch.
"""

import importlib
from typing import Any

_HOME = {
    "Answers": "beholder.judges.judge",
    "Checklist": "beholder.judges.checklist",
    "Judge": "beholder.judges.judge",
    "JudgeConfig": "beholder.judges.settings",
    "Medium": "beholder.judges.medium",
    "load_checklist": "beholder.judges.checklist_file",
    "load_judge": "beholder.judges.load",
    "score_answers": "beholder.judges.score",
}
__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'beholder.judges' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
