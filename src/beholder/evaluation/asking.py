"""Questions about images and videos on disk, answered by a judge."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from beholder.errors import InputError, RunError
from beholder.evaluation.media_files import find_media, kind_of, read_medium
from beholder.judges.checklist import SLOT
from beholder.judges.judge import Judge, all_failed, count_reasons
from beholder.judges.settings import JudgeConfig, Kind
from beholder.rewards.small_judge import load_any_judge_or_published
from beholder.video import FrameConfig

Row = dict[str, Any]


def ask(
    media: Sequence[Path],
    questions: Sequence[str],
    model: str | None = None,
    prompt: str | None = None,
    judge: JudgeConfig | None = None,
    frames: FrameConfig | None = None,
) -> Iterator[Row]:
    """One row for every medium and question: the answer, its probability, or why it is invalid.

    ``[[prompt]]`` in a question stands for the prompt. Among several files, one that cannot be read has every answer
    invalid; alone, it raises InputError.
    """
    if not questions:
        raise InputError('ask: no question given; add --question "Is the image sharp?"')
    if any(SLOT in question for question in questions) and prompt is None:
        raise InputError(f"ask: a question holds {SLOT}; give --prompt")
    asked = [question.replace(SLOT, prompt or "") for question in questions]

    @cache
    def judge_of(kind: Kind) -> Judge:
        return load_any_judge_or_published(model, kind, judge or JudgeConfig())

    for path in media:
        asks = judge_of(kind_of(path))
        try:
            answers = asks.ask(read_medium(path, frames), asked)
        except InputError as error:
            if len(media) == 1:
                raise
            answers = all_failed(len(asked), str(error))
        for question, yes, why in zip(asked, answers.yes_Q.tolist(), answers.why_Q, strict=True):
            row: Row = {"media": str(path), "question": question}
            said = {"answer": "yes" if yes > 0.5 else "no", "probability": yes}
            yield row | ({"answer": None, "probability": None, "invalid": why} if why else said)


def ask_on_terminal(media: list[Path], questions: list[str], as_json: bool, **settings: Any) -> None:
    """Prints the rows: as JSON lines as they come, or as one table; what is invalid is counted on stderr.

    RunError when no answer is valid.
    """
    rows: list[Row] = []
    files = find_media("ask", media)
    for row in with_bar("asking", ask(files, questions, **settings), len(files) * len(questions)):
        rows.append(row)
        if as_json:
            print(json.dumps(row), flush=True)
    if not as_json:
        print_answers(rows)
    say_invalid(rows, "answers", [str(row["invalid"]) for row in rows if row.get("invalid")])


def with_bar(what: str, rows: Iterable[Row], total: int) -> Iterator[Row]:
    """The rows, with a bar on stderr where somebody sees it and there are several."""
    bar = Progress(console=Console(stderr=True), disable=total < 2 or not sys.stderr.isatty(), transient=True)
    with bar:
        task = bar.add_task(what, total=total)
        for row in rows:
            bar.advance(task)
            yield row


def say_invalid(rows: Sequence[Row], what: str, reasons: Sequence[str]) -> None:
    """One line for what failed, with the reasons; as an error when everything did."""
    if not reasons:
        return
    said = "; ".join(f"{why} ({n} times)" if n > 1 else why for why, n in count_reasons(reasons).items())
    line = f"{len(reasons)} of {len(rows)} {what} are invalid: {said}"
    if len(reasons) == len(rows):
        raise RunError(line)
    print(f"beholder: {line}", file=sys.stderr)


def print_answers(rows: Sequence[Row]) -> None:
    """A table; the file is left out where there is only one."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    several = len({row["media"] for row in rows}) > 1
    for name in (*(["media"] if several else []), "question", "answer", "P(yes)"):
        table.add_column(name, justify="right" if name == "P(yes)" else "left")
    for row in rows:
        probability = "" if row["probability"] is None else f"{row['probability']:.3f}"
        cells = [row["question"], row["answer"] or "invalid", probability]
        table.add_row(*(escape(cell) for cell in ([row["media"]] if several else []) + cells))
    Console().print(table)
