"""The charts of a report: each quantity over network evaluations and over seconds, one line per run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from beholder.report.plots import Series, line_plot
from beholder.report.reading import Evaluation, Number, Run, Training
from beholder.report.results import Change, Gold, ends, gold_interval, gold_of, reward_names
from beholder.report.words import arrow, capital, shown

AXES = {"calls": "network evaluations", "seconds": "seconds of training", "iterations": "iterations"}
GOLD_HELP = "Share of held-out images that satisfy their prompt exactly; band: 95 % interval."
TRAINED_HELP = "What training maximises. Line: training batches; dots: held-out images, where they were scored."
JUDGED_HELP = "Measured on held-out images; not trained on."
KL_HELP = "How far the policy has moved; a steep rise often precedes over-optimisation."
DIVERSITY_HELP = "How much images of one prompt differ; a fall towards 0 is mode collapse."
CLIP_HELP = "Share of decisions where the ratio left the trust region and the gradient was cut."
COSINE_HELP = "Agreement of the gradients of two halves of a batch; near 0 the update is mostly noise."
FURTHER = (
    ("reward_std", "Reward spread", "Standard deviation of the rewards of a batch."),
    (
        "groups_without_variance",
        "Groups without variance",
        "Share of groups whose rewards are all equal; they teach nothing.",
    ),
    ("grad_norm", "Gradient norm", "Length of the gradient before clipping."),
    ("loss", "Loss", "Its level means little in reinforcement learning; look for jumps."),
    (
        "ratio_deviation",
        "Ratio before the first update",
        "Largest |ratio − 1|; above about 1e-3 replay and rollout disagree.",
    ),
    ("failed_rewards", "Failed rewards", "Samples whose reward could not be computed; they are left out."),
    ("learning_rate", "Learning rate", "The optimiser's step size."),
)


@dataclass(frozen=True)
class Quantity:
    """Something to draw: ``trained`` reads it from a training row, ``evaluated`` from an evaluation."""

    title: str
    help: str
    trained: Callable[[Training], Number] | None = None
    evaluated: Callable[[Evaluation], Number] | None = None
    include: tuple[float, ...] = ()
    gold: Gold | None = None
    """Set where the evaluations carry intervals of this reward."""
    sparse: bool = False
    """Measured at some iterations only: its points are joined."""


@dataclass(frozen=True)
class Chart:
    title: str
    help: str
    ends: tuple[str, ...]
    """First and last value of each run, "0.52 → 0.78"."""
    drawn: dict[str, Markup]
    """The plot by axis name."""


@dataclass(frozen=True)
class Charts:
    main: tuple[Chart, ...]
    further: tuple[Chart, ...]
    axes: tuple[str, ...]
    missing: tuple[str, ...]
    """Titles of the main quantities that no run recorded."""


def charts_of(runs: Sequence[Run], labels: Sequence[str]) -> Charts:
    """Every quantity that at least one run recorded, over cost and time as far as every run knows them."""
    axes = tuple(axis for axis in ("calls", "seconds") if all(x_high([run], axis) > 0 for run in runs))
    axes = axes or ("iterations",)
    quantities = _main_quantities(runs)
    main = {q.title: _chart(q, runs, labels, axes) for q in quantities}
    further = [_chart(_further(*row), runs, labels, axes) for row in FURTHER if _worth_drawing(row[0], runs)]
    return Charts(
        main=tuple(chart for chart in main.values() if chart),
        further=tuple(chart for chart in further if chart),
        axes=axes,
        missing=tuple(title for title, chart in main.items() if chart is None),
    )


def _main_quantities(runs: Sequence[Run]) -> list[Quantity]:
    trained = list(dict.fromkeys(name for run in runs for name in reward_names(run)))
    judged = dict.fromkeys(name for run in runs for row in run.evaluations for name in row.rewards)
    golds = {gold.name: gold for gold in map(gold_of, runs)}
    trained = [name for name in trained if name not in golds]
    others = [name for name in judged if name not in trained and name not in golds]
    return [
        *(_gold_quantity(gold) for gold in golds.values()),
        *(Quantity(f"Training reward · {name}", TRAINED_HELP, _reward_of(name), _reward_of(name)) for name in trained),
        *(Quantity(f"Held-out reward · {name}", JUDGED_HELP, None, _reward_of(name)) for name in others),
        Quantity("KL to the reference", KL_HELP, _number_of("kl"), None, (0.0,)),
        Quantity("Diversity", DIVERSITY_HELP, None, lambda row: row.diversity, (0.0,)),
        Quantity("Clip fraction", CLIP_HELP, _number_of("clip_fraction"), None, (0.0,)),
        Quantity("Gradient cosine", COSINE_HELP, _number_of("gradient_cosine"), None, (0.0,), sparse=True),
    ]


def _gold_quantity(gold: Gold) -> Quantity:
    title = capital(gold.title)
    if not gold.exact:
        return Quantity(title, TRAINED_HELP, _reward_of(gold.name), _reward_of(gold.name))
    return Quantity(f"{title} (gold)", GOLD_HELP, _reward_of(gold.name), _reward_of(gold.name), (0.0, 1.0), gold)


def _reward_of(name: str) -> Callable[[Training | Evaluation], Number]:
    return lambda row: row.rewards.get(name)


def _number_of(key: str) -> Callable[[Training], Number]:
    return lambda row: row.numbers.get(key)


def _further(key: str, title: str, text: str) -> Quantity:
    return Quantity(title, text, _number_of(key), None, () if key == "loss" else (0.0,))


def _worth_drawing(key: str, runs: Sequence[Run]) -> bool:
    """Failures are drawn only where there were some, a learning rate only where it changed."""
    values = {row.numbers[key] for run in runs for row in run.training if key in row.numbers}
    return (
        bool(values)
        and not (key == "failed_rewards" and values == {0.0})
        and not (key == "learning_rate" and len(values) == 1)
    )


def _chart(quantity: Quantity, runs: Sequence[Run], labels: Sequence[str], axes: Sequence[str]) -> Chart | None:
    drawn: dict[str, Markup] = {}
    for axis in axes:
        series = [s for i, run in enumerate(runs) for s in _series(quantity, run, labels[i], i, axis)]
        if any(y is not None for s in series for _, y in s.points):
            drawn[axis] = line_plot(
                series, name=quantity.title, x_label=AXES[axis], x_high=x_high(runs, axis), include=quantity.include
            )
    return Chart(quantity.title, quantity.help, tuple(_ends(quantity, run) for run in runs), drawn) if drawn else None


def _series(quantity: Quantity, run: Run, label: str, i: int, axis: str) -> list[Series]:
    """The run's line from its training rows and its dots from its evaluations, as far as it has them."""
    x_of = positions(run, axis)
    found: list[Series] = []
    if quantity.trained:
        points = [(x_of(row), quantity.trained(row)) for row in run.training]
        points = [(x, y) for x, y in points if y is not None or not quantity.sparse]
        found.append(Series(label, [(x, y) for x, y in points if x is not None], f"run-{i}", dots=quantity.sparse))
    if quantity.evaluated:
        points = [(x_of(row), quantity.evaluated(row)) for row in run.evaluations]
        band = _band(run, quantity.gold, x_of) if quantity.gold else []
        found.append(Series(label, [(x, y) for x, y in points if x is not None], f"run-{i}", dots=True, band=band))
    return [s for s in found if any(y is not None for _, y in s.points)]


def _band(run: Run, gold: Gold, x_of: Callable[[Training | Evaluation], Number]) -> list[tuple[float, float, float]]:
    known = [(x_of(row), gold_interval(row, gold)) for row in run.evaluations]
    return [(x, *interval) for x, interval in known if x is not None and interval is not None]


def positions(run: Run, axis: str) -> Callable[[Training | Evaluation], Number]:
    """Where a row lies on an axis; the seconds of an evaluation are those of the last iteration before it."""

    def seconds(row: Training | Evaluation) -> Number:
        if row.iteration == 0:
            return 0.0
        return max((s for iteration, s in run.seconds.items() if iteration <= row.iteration), default=None)

    if axis == "iterations":
        return lambda row: row.iteration
    return seconds if axis == "seconds" else lambda row: row.network_evaluations


def x_high(runs: Sequence[Run], axis: str) -> float:
    """The common end of the axis, so that all charts line up."""
    if axis == "seconds":
        return max((s for run in runs for s in run.seconds.values()), default=0.0)
    rows = [row for run in runs for row in (*run.training, *run.evaluations)]
    return max((row.iteration if axis == "iterations" else row.network_evaluations or 0.0 for row in rows), default=0.0)


def _ends(quantity: Quantity, run: Run) -> str:
    """Start and end, of the evaluations where there are two."""
    judged = [quantity.evaluated(row) for row in run.evaluations] if quantity.evaluated else []
    trained = [quantity.trained(row) for row in run.training] if quantity.trained else []
    known = [y for y in judged if y is not None]
    if len(known) > 1 or not trained:
        return arrow(Change(known[0], known[-1])) if len(known) > 1 else shown(known[0] if known else None)
    return arrow(ends(trained))
