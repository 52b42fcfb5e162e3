"""A small chart per method on common axes: a quantity over cost, its seeds, and the median of all methods behind it.

Runs are evaluated at their own iterations. Every measured point is a dot; between dots a run is taken as linear, and
the mean over seeds is drawn only where all of the counted runs have been measured before and after.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from markupsafe import Markup

from beholder.report.curves import AXES, positions
from beholder.report.gathering import Attempt, Comparison, Entrant
from beholder.report.plots import Series, line_plot
from beholder.report.reading import Number, Run
from beholder.report.results import gold_of
from beholder.report.words import capital

Curve = list[tuple[float, float]]
SIZE = (270, 164)
MEDIAN_POINTS = 41
LEAST_METHODS = 3
"""A median of fewer says nothing."""
PROXY = "Another reward on the same held-out images; where it rises while gold does not, it is over-optimised."
DISPLACEMENT = (
    "How much smaller the denoising error of the preferred (solid) and of the other images (dashed) is than under the "
    "reference, in the unit of the loss; below 0 the policy predicts them worse. Where both fall, likelihood moves "
    "away from the data and only the margin grows (displacement)."
)


@dataclass(frozen=True)
class Measure:
    """A line of every panel: values of a run by iteration, at its evaluations (``dots``) or its training iterations."""

    label: str
    values: Callable[[Run], dict[int, Number]]
    css: str = "run-0"
    dots: bool = True


@dataclass(frozen=True)
class Panel:
    method: str
    drawn: dict[str, Markup]
    """The plot by axis name; an axis on which the method stays at 0 has none."""


@dataclass(frozen=True)
class Multiples:
    """A section of the page: one quantity, a panel for every method that has it."""

    key: str
    title: str
    help: str
    panels: tuple[Panel, ...]
    axes: tuple[str, ...]
    n_median: int
    """Methods behind the median; 0 where it is not drawn."""


def sections_of(comparison: Comparison) -> list[Multiples]:
    """Gold, every further held-out reward, and how well winners and losers are predicted, where some run has them."""
    golds = list(dict.fromkeys(a.result.gold for a in comparison.attempts if a.result))
    gold = capital(golds[0].title) if golds else "Gold"
    names = dict.fromkeys(name for a in comparison.attempts for name in held_out(a))
    others = [name for name in names if name not in {g.name for g in golds}]
    proxies = [
        _section(comparison, f"reward-{i}", f"Held-out {name}", PROXY, [Measure("mean", _reward(name))])
        for i, name in enumerate(others)
    ]
    pair = [
        Measure("winner", _trained("liked_gain"), dots=False),
        Measure("loser", _trained("disliked_gain"), "run-1", dots=False),
    ]
    found = [
        _section(comparison, "curves", gold, "", [GOLD_OF]),
        *proxies,
        _section(comparison, "displacement", "Winners and losers", DISPLACEMENT, pair),
    ]
    return [section for section in found if section.panels]


def held_out(attempt: Attempt) -> list[str]:
    """The held-out rewards of a run."""
    return list(dict.fromkeys(name for row in attempt.run.evaluations for name in row.rewards)) if attempt.run else []


def curve_of(attempt: Attempt, measure: Measure, axis: str) -> Curve:
    """The points of one run, rising in x."""
    run = attempt.run
    if run is None:
        return []
    x_of, values = positions(run, axis), measure.values(run)
    rows = {row.iteration: row for row in (run.evaluations if measure.dots else run.training)}
    points = [(x_of(rows[i]), y) for i, y in values.items() if i in rows]
    return sorted((x, y) for x, y in points if x is not None and y is not None)


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


def _gold(run: Run) -> dict[int, Number]:
    return {row.iteration: row.rewards.get(gold_of(run).name) for row in run.evaluations}


def _reward(name: str) -> Callable[[Run], dict[int, Number]]:
    return lambda run: {row.iteration: row.rewards.get(name) for row in run.evaluations}


def _trained(key: str) -> Callable[[Run], dict[int, Number]]:
    return lambda run: {row.iteration: row.numbers.get(key) for row in run.training}


GOLD_OF = Measure("mean", _gold)


def _section(comparison: Comparison, key: str, title: str, text: str, measures: Sequence[Measure]) -> Multiples:
    reading = any(_costless(a) for a in comparison.attempts)
    every = {
        axis: [{a.name: curve_of(a, m, axis) for a in comparison.attempts} for m in measures]
        for axis in ("calls", "seconds", *(["iterations"] if reading else []))
    }
    axes = tuple(axis for axis, curves in every.items() if any(_spans(c) for known in curves for c in known.values()))
    plots = {axis: _plots(comparison, measures, every[axis], axis, title) for axis in axes}
    drawn = {
        e.method: {axis: plots[axis][e.method] for axis in axes if e.method in plots[axis]} for e in comparison.entrants
    }
    n_median = len(_finished(comparison)) if len(measures) == 1 else 0
    return Multiples(
        key,
        title,
        text,
        tuple(Panel(method, plots_of) for method, plots_of in drawn.items() if plots_of),
        axes,
        n_median if n_median >= LEAST_METHODS else 0,
    )


def _costless(attempt: Attempt) -> bool:
    """Whether it trained without evaluating the network in rollouts: on data."""
    training = attempt.run.training if attempt.run else ()
    return bool(training) and not training[-1].network_evaluations


def _spans(curve: Sequence[tuple[float, Number]]) -> bool:
    return bool(curve) and curve[-1][0] > 0


def _finished(comparison: Comparison) -> list[Entrant]:
    return [entrant for entrant in comparison.entrants if entrant.done]


def _plots(
    comparison: Comparison, measures: Sequence[Measure], curves: Sequence[dict[str, Curve]], axis: str, title: str
) -> dict[str, Markup]:
    points = [point for known in curves for curve in known.values() for point in curve]
    x_high, ys = max(x for x, _ in points), [y for _, y in points]
    behind = _median(comparison, curves[0], x_high) if len(measures) == 1 else []
    found: dict[str, Markup] = {}
    for entrant in comparison.entrants:
        series = [s for m, known in zip(measures, curves, strict=True) for s in _series(entrant, known, m)]
        if any(_spans(s.points) for s in series):
            found[entrant.method] = line_plot(
                [*behind, *series],
                name=f"{title} of {entrant.title}",
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


def _series(entrant: Entrant, curves: dict[str, Curve], measure: Measure) -> list[Series]:
    """The mean of the counted runs with its band, their points, and hollow the points of runs left out."""
    counted = [c for a in entrant.counted if (c := curves[a.name])]
    found: list[Series] = []
    if counted:
        rows = mean_and_range(counted)
        band = [(x, low, high) for x, _, low, high in rows] if len(counted) > 1 else []
        found.append(
            Series(measure.label, [(x, mean) for x, mean, _, _ in rows], measure.css, hover=not measure.dots, band=band)
        )
    for attempt in entrant.attempts if measure.dots else ():
        if curve := curves[attempt.name]:
            kept = attempt in entrant.counted and attempt.done
            label = f"seed {attempt.seed}{'' if kept else ', ' + attempt.state}"
            css = measure.css if kept else f"{measure.css} open"
            found.append(Series(label, list(curve), css, dots=True, line=False))
    return found
