"""The rewards one can name, on the terminal and in the documentation (``python -m beholder.rewards.show``)."""

import inspect
import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from beholder.rewards.reward import BUILT_IN, Reward
from beholder.rewards.zoo import ZOO, Entry

COLUMNS = ("reward", "gradients", "licence", "checkpoint", "what it is")


@dataclass(frozen=True)
class Row:
    name: str
    differentiable: bool
    licence: str
    checkpoint: str
    says: str


def rows() -> list[Row]:
    """The built-in rewards, then the zoo."""
    return [_built_in(reward) for reward in BUILT_IN.values()] + [_published(*item) for item in ZOO.items()]


def _built_in(reward: Reward) -> Row:
    says = (inspect.getdoc(reward.score) or "").partition("\n")[0].rstrip(".")
    return Row(reward.name, reward.differentiable, "Apache-2.0", "none", says)


def _published(name: str, entry: Entry) -> Row:
    checkpoint = "none" if entry.checkpoint is None else entry.checkpoint or f"{name}@FILE"
    return Row(name, entry.differentiable, entry.licence, checkpoint, entry.says)


def cells(row: Row) -> tuple[str, ...]:
    return (row.name, "yes" if row.differentiable else "no", row.licence, row.checkpoint, row.says)


def show_rewards(as_json: bool) -> None:
    """All rewards as a table, or as JSON."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows()], indent=1))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("reward", "gradients", "licence", "what it is, and where its weights come from"):
        table.add_column(column, no_wrap=column == "reward", overflow="fold")
    for row in rows():
        name, gradients, licence, checkpoint, says = cells(row)
        table.add_row(name, gradients, licence, says if checkpoint == "none" else f"{says}\n{checkpoint}")
    Console().print(table)


def markdown() -> str:
    """The table in the documentation."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in rows())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(markdown(), end="")
