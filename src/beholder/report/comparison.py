"""The page that compares methods: one HTML file over all runs of ``beholder compare-methods``, and its tables alone."""

from pathlib import Path

from markupsafe import Markup

from beholder.report.curves import AXES
from beholder.report.gathering import Attempt, Comparison, read_comparison
from beholder.report.multiples import sections_of
from beholder.report.page import HERE, environment, write_whole
from beholder.report.strips import walls_of
from beholder.report.tables import Tables, markdown, scatter_words, seeds_words, tables_of
from beholder.report.words import capital, count, printed

COST_TOLERANCE = 0.1
"""Runs whose network evaluations differ from the budget by a larger share are named."""


def write_comparison(folder: Path, output: Path | None = None) -> Path:
    """Write the page that compares the methods in ``folder`` and return its path.

    ``output`` defaults to ``comparison.html`` in the folder. Runs may be missing, unfinished or failed; the page shows
    what there is. InputError where there is no readable ``comparison.json``.
    """
    folder = Path(folder)
    html = render(read_comparison(folder))
    return write_whole(html, folder / "comparison.html" if output is None else Path(output))


def comparison_markdown(folder: Path) -> str:
    """The comparison's tables as Markdown, without a heading."""
    comparison = read_comparison(Path(folder))
    return markdown(tables_of(comparison), comparison)


def render(comparison: Comparison) -> str:
    """The page as text."""
    tables, sections = tables_of(comparison), sections_of(comparison)
    walls, pictures = walls_of(comparison)
    places = {line.method: i for i, line in enumerate(tables.lines)}
    return (
        environment()
        .get_template("comparison.html")
        .render(
            title=f"{len(comparison.entrants)} method{'s' * (len(comparison.entrants) != 1)} compared",
            name=comparison.folder.resolve().name,
            comparison=comparison,
            tables=tables,
            sentences=_sentences(comparison, tables),
            scatter=scatter_words(tables),
            sections=[(part, sorted(part.panels, key=lambda panel: places[panel.method])) for part in sections],
            drawn_axes=[axis for axis in AXES if any(axis in part.axes for part in sections)],
            axes=AXES,
            walls=[(wall, sorted(wall.strips, key=lambda s: places.get(s.method, -1))) for wall in walls],
            pictures=pictures,
            places=places,
            lines={line.method: line for line in tables.lines},
            problems=[(a.name, a.problem) for a in comparison.attempts if a.problem],
            waiting={state: _waiting(comparison, state) for state in ("unfinished", "not run")},
            notes=_notes(comparison),
            css=Markup((HERE / "page.css").read_text("utf-8") + (HERE / "comparison.css").read_text("utf-8")),
        )
    )


def _sentences(comparison: Comparison, tables: Tables) -> list[str]:
    """The result in a few sentences."""
    attempts, done = comparison.attempts, sum(a.done for a in comparison.attempts)
    found = [
        f"{seeds_words(len(comparison.seeds))} per method, {count(comparison.budget)} network evaluations per run; "
        f"{done} of {len(attempts)} runs {'is' if done == 1 else 'are'} done."
    ]
    first = tables.lines[0]
    if not first.final or "gold" not in tables.standings[0].spreads:
        return [*found, "No run that is done has been evaluated yet."]
    spread = tables.standings[0].spreads["gold"]
    base = f" from {tables.base[0].text} of the base" if tables.base[0].text else ""
    seeds = f"mean of {seeds_words(len(spread.values))}" if len(spread.values) > 1 else "one seed"
    found.append(
        f"{first.title} reached the highest {tables.gold}, {printed(spread.mean, tables.exact)}{base} ({seeds})."
    )
    if tables.scatter:
        level = sum(line.cells[0].best for line in tables.lines) - 1
        others = "No other is" if level < 0 else f"{level} other{' is' if level == 1 else 's are'} not"
        found.append(f"{others} told apart from it." if level else "Every other is told apart from it.")
    return found


def _waiting(comparison: Comparison, state: str) -> list[str]:
    return [attempt.name for attempt in comparison.attempts if attempt.state == state]


def _notes(comparison: Comparison) -> list[str]:
    """What makes the numbers less comparable than they look, and what reading the runs brought up."""
    known = [(a, a.result) for a in comparison.attempts if a.result]
    notes: list[str] = []
    golds = dict.fromkeys(result.gold.name for _, result in known)
    if len(golds) > 1:
        notes.append(f"The runs report different held-out rewards first ({', '.join(golds)}): their gold is not one.")
    images = sorted({result.n_images for _, result in known if result.n_images})
    if len(images) > 1:
        notes.append(f"The runs were judged on different numbers of images: {', '.join(map(count, images))}.")
    bases = [result.change.before for _, result in known if result.change.before is not None]
    if bases and max(bases) - min(bases) > 1e-6:
        low, high = printed(min(bases), True), printed(max(bases), True)
        notes.append(f"The runs do not start from one base: gold before training lies between {low} and {high}.")
    if astray := [text for attempt, _ in known if (text := _astray(attempt, comparison.budget))]:
        notes.append(f"Not all runs spent about the budget of {count(comparison.budget)}: {', '.join(astray)}.")
    notes += [
        f"{attempt.name}: the last evaluation has no {result.gold.title}; the run is left out of that mean."
        for attempt, result in known
        if attempt.done and result.change.after is None
    ]
    return notes + [
        f"{attempt.name}: {capital(note)}" for attempt, _ in known if attempt.run for note in attempt.run.notes
    ]


def _astray(attempt: Attempt, budget: int) -> str:
    """The run and its cost where it missed the budget by more than the tolerance."""
    spent = attempt.result.network_evaluations if attempt.result else None
    if not attempt.done or not spent or abs(spent / budget - 1) <= COST_TOLERANCE:  # 0: it read a set
        return ""
    return f"{attempt.name} ({count(spent)})"
