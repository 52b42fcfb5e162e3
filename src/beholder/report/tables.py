"""The comparison's tables in print: what stands in each cell, which are marked, and in which orders rows can stand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from beholder.methods import METHODS
from beholder.report.gathering import Comparison, Entrant
from beholder.report.reading import Number
from beholder.report.settings import NOTHING
from beholder.report.standings import (
    Column,
    Scatter,
    Spread,
    Standing,
    base_of,
    best,
    columns_of,
    kind_columns,
    ranks,
    rise,
    scatter_of,
    standings_of,
)
from beholder.report.words import count, printed, shown, signed


@dataclass(frozen=True)
class Cell:
    text: str
    range: str = ""
    """Lowest and highest seed, where there are several."""
    seeds: str = ""
    """The value of every seed."""
    best: bool = False
    tint: Number = None
    """Change from the base, −1 to 1, 1 being the largest change in the table."""


@dataclass(frozen=True)
class Line:
    """One method's row in both tables; ``orders`` holds its place under every column, the listed order first."""

    method: str
    title: str
    idea: str
    final: bool
    state: str
    seeds: str
    cells: tuple[Cell, ...]
    kinds: tuple[Cell, ...]
    orders: tuple[int, ...]


@dataclass(frozen=True)
class Tables:
    exact: bool
    gold: str
    """What gold is called."""
    columns: tuple[Column, ...]
    kinds: tuple[Column, ...]
    base: tuple[Cell, ...]
    base_kinds: tuple[Cell, ...]
    lines: tuple[Line, ...]
    standings: tuple[Standing, ...]
    largest: float
    """The change of a kind's accuracy that has the full tint."""
    scatter: Scatter | None
    """Of gold between seeds."""


def tables_of(comparison: Comparison) -> Tables:
    """Both tables, the methods with the highest gold first."""
    columns, kinds = columns_of(comparison), kind_columns(comparison)
    standings = standings_of(comparison, [*columns, *kinds])
    golds = [attempt.result.gold for attempt in comparison.attempts if attempt.result]
    exact = not golds or golds[0].exact
    bases = {column.key: base_of(comparison, column) for column in (*columns, *kinds)}
    marks = {column.key: best(standings, column) for column in (*columns, *kinds)}
    rises = {(s.entrant.method, c.key): rise(s.entrant, c.head) for s in standings for c in kinds}
    largest = max((abs(r) for r in rises.values() if r is not None), default=0.0)
    listed = {entrant.method: i for i, entrant in enumerate(comparison.entrants)}
    places = [listed, *(ranks(standings, column) for column in (*columns, *kinds))]
    lines: list[Line] = []
    for s in standings:
        method = s.entrant.method
        lines.append(
            Line(
                method=method,
                title=s.entrant.title,
                idea=METHODS[method].idea if method in METHODS else "",
                final=s.final,
                state=s.entrant.state,
                seeds=_seeds(s.entrant),
                cells=tuple(_cell(s, c, bases[c.key], exact, method in marks[c.key]) for c in columns),
                kinds=tuple(
                    _kind_cell(s, c, rises[method, c.key], largest, exact, method in marks[c.key]) for c in kinds
                ),
                orders=tuple(place[method] for place in places),
            )
        )
    return Tables(
        exact=exact,
        gold=golds[0].title if golds else "gold",
        columns=tuple(columns),
        kinds=tuple(kinds),
        base=tuple(_base_cell(bases[c.key], exact) for c in columns),
        base_kinds=tuple(_base_cell(bases[c.key], exact) for c in kinds),
        lines=tuple(lines),
        standings=tuple(standings),
        largest=largest,
        scatter=scatter_of(standings, "gold"),
    )


def scatter_words(tables: Tables) -> str:
    """How far apart two means must be, in a sentence or two."""
    seeds = [len(s.spreads["gold"].values) for s in tables.standings if s.final and "gold" in s.spreads]
    if tables.scatter is None or not seeds:
        return (
            "Too few runs were repeated with another seed to say how far seeds alone scatter: differences between "
            "methods may be chance."
        )
    n = sorted(seeds)[len(seeds) // 2]
    least = tables.scatter.resolves(n, n)
    return (
        f"Seeds of one method scatter by {shown(tables.scatter.deviation)} (standard deviation, pooled over methods), "
        f"so means of {seeds_words(n)} less than {shown(least)} apart are not told apart (t test at 5 %, "
        f"{tables.scatter.freedom} degrees of freedom). That holds for one pair; the highest of {len(seeds)} is "
        "flattered by being the highest."
    )


def seeds_words(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def markdown(tables: Tables, comparison: Comparison) -> str:
    """Both tables as Markdown, with what must be said of them and no heading."""
    heads = ["method", *(f"{c.head.lower()}, {c.help}" for c in tables.columns), "seeds"]
    rows = [["base", *(cell.text for cell in tables.base), ""]]
    rows += [[line.title, *map(_marked, line.cells), line.seeds] for line in tables.lines]
    parts = [f"{about(comparison)} {scatter_words(tables)}", _grid(heads, rows)]
    if tables.kinds:
        kinds = [["base", *(cell.text for cell in tables.base_kinds)]]
        kinds += [[line.title, *map(_marked, line.kinds)] for line in tables.lines]
        parts += [
            f"{tables.gold.capitalize()} per kind of prompt:",
            _grid(["", *(c.head for c in tables.kinds)], kinds),
        ]
    if problems := [a for a in comparison.attempts if a.problem]:
        parts.append("\n".join(["Failed:", "", *(f"- {_plain(a.name)}: {_plain(a.problem)}" for a in problems)]))
    return "\n\n".join(parts) + "\n"


def about(comparison: Comparison) -> str:
    """What was run and what is done, in one sentence."""
    methods, n, done = len(comparison.entrants), len(comparison.attempts), sum(a.done for a in comparison.attempts)
    each = f"{seeds_words(len(comparison.seeds))}{' each' if len(comparison.seeds) > 1 and methods > 1 else ''}"
    state = "" if done == n else f"; {done} of {n} runs are done"
    return (
        f"{methods} method{'s' * (methods != 1)}, {each}, {comparison.budget:,} network evaluations per run{state}. "
        "Numbers are means over the seeds, with the lowest and highest seed in brackets; bold is the best and what "
        "its seeds do not tell apart from it, nothing where that is every method."
    )


def _cell(standing: Standing, column: Column, base: Spread | None, exact: bool, marked: bool) -> Cell:
    spread = standing.spreads.get(column.key)
    if spread is None:
        return Cell(NOTHING)
    text = _printed(spread.mean, column, exact)
    if column.form == "arrow":
        text = f"{_three(base.mean)} → {_three(spread.mean)}" if base else _three(spread.mean)
    return Cell(text, _range(spread, column, exact), _values(spread, column, exact), marked)


def _kind_cell(standing: Standing, column: Column, rise: Number, largest: float, exact: bool, marked: bool) -> Cell:
    spread = standing.spreads.get(column.key)
    if spread is None:
        return Cell(NOTHING)
    seeds = f"{_values(spread, column, exact)}; {signed(rise, exact)} from the base"
    tint = None if rise is None or not largest else rise / largest
    return Cell(_printed(spread.mean, column, exact), "", seeds, marked, tint)


def _base_cell(base: Spread | None, exact: bool) -> Cell:
    return Cell(printed(base.mean, exact) if base else "")


def _printed(value: float, column: Column, exact: bool) -> str:
    if math.isinf(value):
        return "not reached"
    if column.form == "signed":
        return signed(value, exact)
    if column.form == "exact":
        return printed(value, exact)
    if column.form == "small" and 1e-4 <= abs(value) < 1:
        return f"{value:#.2g}".replace("-", "−")
    return count(value) if column.form == "count" else shown(value)


def _three(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _range(spread: Spread, column: Column, exact: bool) -> str:
    if len(spread.values) < 2 or column.key not in ("gold", "gain"):
        return ""
    low, high = _printed(spread.low, column, exact), _printed(spread.high, column, exact)
    return f"{low} to {high}" if column.key == "gain" else f"{low}–{high}"


def _values(spread: Spread, column: Column, exact: bool) -> str:
    return f"{'seeds' if len(spread.values) > 1 else 'one seed'}: " + ", ".join(
        _printed(value, column, exact) for value in spread.values
    )


def _seeds(entrant: Entrant) -> str:
    """ "2 of 3, 1 failed"; all done is a plain number."""
    failed, n = sum(a.state == "failed" for a in entrant.attempts), len(entrant.attempts)
    text = str(n) if entrant.done == n else f"{entrant.done} of {n}"
    return text + (f", {failed} failed" if failed else "")


def _marked(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ({cell.range})" if cell.range else text


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_plain(text) for text in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("|", "\\|")
