"""A small chart per method on common axes: gold over cost, its seeds, and the median of all methods behind it.

Runs are evaluated at their own iterations. Every measured point is a dot; between dots a run is taken as linear, and
the mean over seeds is drawn only where all of the counted runs have been measured before and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from markupsafe import Markup

from beholder.report.curves import AXES, positions
from beholder.report.gathering import Attempt, Comparison, Entrant
from beholder.report.plots import Series, line_plot

Curve = list[tuple[float, float]]
SIZE = (270, 164)
MEDIAN_POINTS = 41
LEAST_METHODS = 3
"""A median of fewer says nothing."""


@dataclass(frozen=True)
class Panel:
    method: str
    drawn: dict[str, Markup]
    """The plot by axis name."""


@dataclass(frozen=True)
class Multiples:
    panels: tuple[Panel, ...]
    axes: tuple[str, ...]
    n_median: int
    """Methods behind the median; 0 where it is not drawn."""


def multiples_of(comparison: Comparison) -> Multiples:
    """A panel for every method that has been evaluated at least once."""
    curves = {axis: _curves(comparison, axis) for axis in ("calls", "seconds")}
    axes = tuple(axis for axis, known in curves.items() if any(c[-1][0] > 0 for c in known.values() if c))
    plots = {axis: _plots(comparison, curves[axis], axis) for axis in axes}
    methods = [entrant.method for entrant in comparison.entrants]
    drawn = {m: {axis: plots[axis][m] for axis in axes if m in plots[axis]} for m in methods}
    n_median = len(_finished(comparison))
    return Multiples(
        tuple(Panel(m, plots_of) for m, plots_of in drawn.items() if plots_of),
        axes,
        n_median if n_median >= LEAST_METHODS else 0,
    )


def at(curve: Curve, x: float) -> float:
    """The curve at ``x``, linear between its points and level beyond its ends."""
    if x <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y1
    return curve[-1][1]


def mean_and_range(curves: Sequence[Curve]) -> list[tuple[float, float, float, float]]:
    """``(x, mean, lowest, highest)`` at every point of every curve where all curves have begun and none has ended."""
    first, last = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    grid = sorted({x for curve in curves for x, _ in curve if first <= x <= last})
    values = [(x, [at(curve, x) for curve in curves]) for x in grid]
    return [(x, fmean(ys), min(ys), max(ys)) for x, ys in values]


def _curves(comparison: Comparison, axis: str) -> dict[str, Curve]:
    """Each run's measured points by its name, rising in x."""
    return {attempt.name: _curve(attempt, axis) for attempt in comparison.attempts}


def _curve(attempt: Attempt, axis: str) -> Curve:
    run, result = attempt.run, attempt.result
    if run is None or result is None:
        return []
    x_of = positions(run, axis)
    points = [(x_of(row), row.rewards.get(result.gold.name)) for row in run.evaluations]
    return sorted((x, y) for x, y in points if x is not None and y is not None)


def _finished(comparison: Comparison) -> list[Entrant]:
    return [entrant for entrant in comparison.entrants if entrant.done]


def _plots(comparison: Comparison, curves: dict[str, Curve], axis: str) -> dict[str, Markup]:
    points = [point for curve in curves.values() for point in curve]
    x_high, ys = max(x for x, _ in points), [y for _, y in points]
    behind = _median(comparison, curves, x_high)
    found: dict[str, Markup] = {}
    for entrant in comparison.entrants:
        series = _series(entrant, curves)
        if series:
            found[entrant.method] = line_plot(
                [*behind, *series],
                name=f"gold of {entrant.title}",
                x_label=AXES[axis],
                x_high=x_high,
                include=(min(ys), max(ys)),
                size=SIZE,
            )
    return found


def _median(comparison: Comparison, curves: dict[str, Curve], x_high: float) -> list[Series]:
    """The median of the methods' means; a method that has ended stays at its last value."""
    known = [[c for a in e.counted if (c := curves[a.name])] for e in _finished(comparison)]
    known = [runs for runs in known if runs]
    if len(known) < LEAST_METHODS:
        return []
    grid = [x_high * i / (MEDIAN_POINTS - 1) for i in range(MEDIAN_POINTS)]
    middle = [(x, median(fmean(at(curve, x) for curve in runs) for runs in known)) for x in grid]
    return [Series("median of the methods", list(middle), "behind", hover=False)]


def _series(entrant: Entrant, curves: dict[str, Curve]) -> list[Series]:
    """The mean of the counted runs with its band, their points, and hollow the points of runs left out."""
    counted = [c for a in entrant.counted if (c := curves[a.name])]
    found: list[Series] = []
    if counted:
        rows = mean_and_range(counted)
        band = [(x, low, high) for x, _, low, high in rows] if len(counted) > 1 else []
        found.append(Series("mean", [(x, mean) for x, mean, _, _ in rows], "run-0", hover=False, band=band))
    for attempt in entrant.attempts:
        if curve := curves[attempt.name]:
            kept = attempt in entrant.counted and attempt.done
            label = f"seed {attempt.seed}{'' if kept else ', ' + attempt.state}"
            css = "run-0" if kept else "run-0 open"
            found.append(Series(label, list(curve), css, dots=True, line=False))
    return found
