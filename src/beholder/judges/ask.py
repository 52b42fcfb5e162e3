"""A judge and a checklist put together: what it says about some media, and what that is worth.

Shapes: ``_N`` media, ``_Q`` questions of the checklist.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from beholder.errors import InputError
from beholder.judges.checklist import Checklist
from beholder.judges.judge import Answers, Judge, all_failed, count_reasons
from beholder.judges.medium import Medium
from beholder.judges.score import Scores, score_answers


@dataclass(frozen=True)
class Judged:
    """The answers about N media, and the scores they make."""

    yes_NQ: Tensor
    why_NQ: tuple[tuple[str, ...], ...]
    """Why an answer is NaN; empty where it is not."""
    scores: Scores

    def failures(self, row: int) -> dict[str, int]:
        """How often each reason for a failed answer occurs about one medium."""
        return count_reasons(self.why_NQ[row])


def put_checklist(
    judge: Judge, checklist: Checklist, media: Sequence[Medium | None], prompts: Sequence[str | None]
) -> Judged:
    """Asks every question of the checklist about every medium; InputError for a medium of the other kind.

    About None, a medium that could not be read, every answer is NaN.
    """
    answers = [_ask(judge, checklist, medium, prompt) for medium, prompt in zip(media, prompts, strict=True)]
    yes_NQ = torch.stack([one.yes_Q for one in answers]) if answers else torch.empty(0, len(checklist.questions))
    return Judged(yes_NQ, tuple(one.why_Q for one in answers), score_answers(checklist, yes_NQ))


def _ask(judge: Judge, checklist: Checklist, medium: Medium | None, prompt: str | None) -> Answers:
    if medium is None:
        return all_failed(len(checklist.questions), "it cannot be read, or holds NaN")
    if medium.kind != checklist.media:
        raise InputError(
            f"checklist: {checklist.name!r} is for {checklist.media}s, and this is {_a(medium.kind)}; name one for "
            f"{medium.kind}s with --checklist"
        )
    return judge.ask(medium, checklist.texts(prompt))


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
