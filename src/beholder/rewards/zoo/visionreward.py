"""VisionReward (2412.21059): a judge, a checklist, and the sum or mean of its weighted answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from beholder.errors import InputError
from beholder.judges.ask import Judged, put_checklist
from beholder.judges.checklist import Checklist
from beholder.judges.checklist_file import DEFAULT, bundled_checklists, load_checklist
from beholder.judges.judge import Judge
from beholder.judges.load import SHAPES
from beholder.judges.medium import as_medium
from beholder.judges.settings import Kind
from beholder.rewards.small_judge import load_any_judge

CHECKLIST_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Description:
    """What the score of one medium is made of; None for what failed."""

    total: float | None
    dimensions: dict[str, float | None]
    """What each dimension adds to the total."""
    questions: dict[str, float | None]
    """The probability of yes to each question, or 0 and 1 from a judge that answers hard."""
    failed: dict[str, int]
    """How often each reason for a failed answer occurs."""


class ChecklistReward:
    """``(images [N, 3, H, W] or videos [N, F, 3, H, W] in 0..1, prompts) → totals [N]``, NaN where an answer failed.

    Videos are taken as the frames that the judge should see: one a second for the published VisionReward.
    """

    def __init__(self, judge: Judge, checklists: Sequence[Checklist]) -> None:
        self.judge = judge
        self.checklists: dict[Kind, Checklist] = {checklist.media: checklist.needed() for checklist in checklists}

    def judge_all(self, media: Tensor, prompts: Sequence[str]) -> Judged:
        """The answers and their scores; InputError where there is no checklist for this kind of medium."""
        kind: Kind = "video" if media.ndim == 5 else "image"
        if kind not in self.checklists:
            raise InputError(f"rewards: visionreward with judge {self.judge.name!r} has no checklist for {kind}s")
        return put_checklist(self.judge, self.checklists[kind], [as_medium(one) for one in media], prompts)

    def __call__(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.judge_all(media, prompts).scores.total_N.float()

    def describe(self, media: Tensor, prompts: Sequence[str]) -> list[Description]:
        """The total of each medium and what it is made of."""
        judged = self.judge_all(media, prompts)
        scores, asked = judged.scores, judged.scores.checklist.questions
        columns = {name: values.tolist() for name, values in scores.dimensions().items()}
        return [
            Description(
                _number(total),
                {name: _number(values[i]) for name, values in columns.items()},
                {q.id: _number(yes) for q, yes in zip(asked, judged.yes_NQ[i].tolist(), strict=True)},
                judged.failures(i),
            )
            for i, total in enumerate(scores.total_N.tolist())
        ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def load_visionreward(checkpoint: str) -> ChecklistReward:
    """``JUDGE`` or ``JUDGE#CHECKLIST``: a judge as `load_any_judge` names them, and a bundled checklist or a file.

    Without a checklist: the one in the judge's folder, where it was taught one; the bundled world's for the judge
    ``shapes``; else the published ones.
    """
    name, names = _split(checkpoint)
    try:
        judge = load_any_judge(name)
    except InputError as error:
        raise InputError(f"rewards: visionreward asks a judge, named as visionreward@MODEL: {error}") from error
    own = Path(name) / "checklist.yaml"
    names = names or ([str(own)] if own.is_file() else [SHAPES] if name == SHAPES else [*DEFAULT.values()])
    return ChecklistReward(judge, [load_checklist(one) for one in names])


def _split(checkpoint: str) -> tuple[str, list[str]]:
    """The judge and its checklists; what follows the # of a server's address may also be the model it serves."""
    judge, mark, last = checkpoint.rpartition("#")
    if mark and (last in bundled_checklists() or Path(last).suffix in CHECKLIST_SUFFIXES):
        return judge, [last]
    return checkpoint, []
