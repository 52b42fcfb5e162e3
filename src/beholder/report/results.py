"""What a run achieved: quantities before and after, their intervals, and the sentences that say so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from beholder.report.reading import Endpoint, Evaluation, Number, Run

GOLD = "strict"
"""The held-out reward that is the exact verdict."""
GOLD_NAME = "strict accuracy"
NOTHING = "–"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """A quantity of the base and of the aligned policy; None where it is not known."""

    before: Number
    after: Number
    interval_before: Interval | None = None
    interval_after: Interval | None = None

    @property
    def known(self) -> bool:
        return self.before is not None or self.after is not None

    @property
    def difference(self) -> Number:
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class Reward:
    """A reward the run was trained on; ``source`` says on which images it was measured."""

    name: str
    change: Change
    source: str


@dataclass(frozen=True)
class Result:
    gold: Change
    rewards: tuple[Reward, ...]
    per_kind: dict[str, Change]
    diversity: Change
    n_images: int | None
    n_per_kind: int | None
    network_evaluations: Number
    seconds: Number
    kl: Number
    """Mean of the last iterations."""

    @property
    def over_optimised(self) -> bool:
        """Whether a training reward rose while gold fell, below its first interval where that is known."""
        gold, floor = self.gold, self.gold.interval_before
        fell = (gold.difference or 0.0) < 0 and (floor is None or gold.after is None or gold.after < floor[0])
        return fell and any((r.change.difference or 0.0) > 0 for r in self.rewards)


def result_of(run: Run) -> Result:
    """What the run achieved, from its first and last evaluation, else from its summary."""
    first, last = first_and_last(run.evaluations)
    summary = run.summary
    kinds = dict.fromkeys([*_kinds(first, summary.base), *_kinds(last, summary.aligned)])
    shown = last or first
    return Result(
        gold=_gold(run, first, last),
        rewards=tuple(_reward(run, name, first, last) for name in reward_names(run)),
        per_kind={kind: _kind_change(kind, run, first, last) for kind in kinds},
        diversity=Change(
            first.diversity if first else summary.base.diversity, last.diversity if last else summary.aligned.diversity
        ),
        n_images=shown.n_images if shown else None,
        n_per_kind=images_per_kind(shown) if shown else None,
        network_evaluations=_cost(run),
        seconds=max(run.seconds.values()) if run.seconds else summary.seconds,
        kl=ends([row.numbers.get("kl") for row in run.training]).after,
    )


def first_and_last(evaluations: Sequence[Evaluation]) -> tuple[Evaluation | None, Evaluation | None]:
    """The base's and the aligned policy's evaluation; a lone one is the base's where its iteration is 0."""
    if not evaluations:
        return None, None
    if len(evaluations) == 1:
        return (evaluations[0], None) if evaluations[0].iteration == 0 else (None, evaluations[0])
    return evaluations[0], evaluations[-1]


def reward_names(run: Run) -> list[str]:
    """The rewards the run was trained on, gold left out."""
    return [name for name in dict.fromkeys(name for row in run.training for name in row.rewards) if name != GOLD]


def wilson(p: float, n: int, z: float = 1.959964) -> Interval:
    """The 95 % Wilson interval of a share of ``n`` (Wilson 1927)."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def images_per_kind(evaluation: Evaluation) -> int | None:
    """Images behind each kind's accuracy, where the row shows that all kinds have the same number.

    The row holds no counts. Equal shares are taken as shown when the images divide by the kinds, every accuracy
    is then a whole number of images, and the mean over kinds is the overall accuracy.
    """
    known = [p for p in evaluation.per_kind.values() if p is not None]
    if not known or not evaluation.n_images or evaluation.n_images % len(evaluation.per_kind):
        return None
    n = evaluation.n_images // len(evaluation.per_kind)
    whole = all(abs(p * n - round(p * n)) < 0.02 for p in known)
    overall = evaluation.rewards.get(GOLD)
    agrees = len(known) == len(evaluation.per_kind) and (overall is None or abs(fmean(known) - overall) < 1e-3)
    return n if whole and agrees else None


def gold_interval(evaluation: Evaluation) -> Interval | None:
    """The interval of the strict accuracy: the row's own, else Wilson's."""
    gold = evaluation.rewards.get(GOLD)
    if evaluation.interval or gold is None or not evaluation.n_images or not 0 <= gold <= 1:
        return evaluation.interval
    return wilson(gold, evaluation.n_images)


def _gold(run: Run, first: Evaluation | None, last: Evaluation | None) -> Change:
    return Change(
        first.rewards.get(GOLD) if first else run.summary.base.gold,
        last.rewards.get(GOLD) if last else run.summary.aligned.gold,
        gold_interval(first) if first else None,
        gold_interval(last) if last else None,
    )


def _kinds(evaluation: Evaluation | None, endpoint: Endpoint) -> dict[str, Number]:
    return evaluation.per_kind if evaluation and evaluation.per_kind else endpoint.per_kind


def _kind_change(kind: str, run: Run, first: Evaluation | None, last: Evaluation | None) -> Change:
    before, after = _kinds(first, run.summary.base).get(kind), _kinds(last, run.summary.aligned).get(kind)
    return Change(before, after, _kind_interval(before, first), _kind_interval(after, last))


def _kind_interval(p: Number, evaluation: Evaluation | None) -> Interval | None:
    n = images_per_kind(evaluation) if evaluation else None
    return None if p is None or n is None else wilson(p, n)


def _reward(run: Run, name: str, first: Evaluation | None, last: Evaluation | None) -> Reward:
    """On held-out images where both evaluations have it, else the means of the first and last training rows."""
    if first and last and first.rewards.get(name) is not None and last.rewards.get(name) is not None:
        return Reward(name, Change(first.rewards[name], last.rewards[name]), "held-out images")
    return Reward(name, ends([row.rewards.get(name) for row in run.training]), "training batches")


def ends(values: Sequence[Number]) -> Change:
    """Start and end of a noisy series: the means of its first and last tenth, of 5 values at most."""
    known = [value for value in values if value is not None]
    width = min(5, max(1, len(known) // 10))
    return Change(fmean(known[:width]), fmean(known[-width:])) if known else Change(None, None)


def _cost(run: Run) -> Number:
    spent = [
        row.network_evaluations for row in (*run.training, *run.evaluations) if row.network_evaluations is not None
    ]
    return max(spent) if spent else run.summary.network_evaluations


# Words -------------------------------------------------------------------------------------------------------------


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method where the methods differ, else its folder, else its path."""
    choices: tuple[Callable[[Run], str | None], ...] = (
        lambda run: run.summary.method,
        lambda run: run.folder.resolve().name,
        lambda run: str(run.folder),
    )
    for choice in choices:
        names = [choice(run) for run in runs]
        if None not in names and len(set(names)) == len(runs):
            return [str(name) for name in names]
    return [f"{run.folder} ({i})" for i, run in enumerate(runs, start=1)]


def sentence(run: Run, result: Result, *, with_rewards: bool = False) -> str:
    """The result in a sentence without its subject, e.g. ``strict accuracy 0.52 → 0.78 on 240 held-out images``."""
    parts: list[str] = []
    if with_rewards or not result.gold.known:
        parts += [f"training reward {r.name} {arrow(r.change)}" for r in result.rewards if r.change.known]
    if result.gold.known:
        images = f" on {result.n_images:,} held-out images" if result.n_images else ""
        parts.append(f"{GOLD_NAME}{' (gold)' if parts else ''} {arrow(result.gold, share)}{images}")
    if not parts:
        return "nothing has been measured yet."
    return f"{', '.join(parts)}{_spent(result)}."


def _spent(result: Result) -> str:
    spent = f" after {result.network_evaluations:,.0f} network evaluations" if result.network_evaluations else ""
    seconds = f"{duration(result.seconds)}" if result.seconds else ""
    return f"{spent}, {seconds}" if spent and seconds else spent or (f" after {seconds}" if seconds else "")


def subject(run: Run) -> str | None:
    """What was run: "METHOD on POLICY" as far as the summary says."""
    method, policy = run.summary.method, run.summary.policy
    return f"{method} on {policy}" if method and policy else method or policy


def duration(seconds: Number) -> str:
    """``412 s``, ``1 h 52 min``, with spaces that do not break."""
    if seconds is None:
        return NOTHING
    minutes = round(seconds / 60)
    if seconds < 1000:
        text = f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    else:
        text = f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
    return text.replace(" ", "\u00a0")


def shown(value: Number) -> str:
    """A value in print: two decimals, fewer or more where the size asks for it, a dash for None."""
    if value is None:
        return NOTHING
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.2f}" if size >= 0.1 or size == 0 else f"{value:.2g}"
    return text.replace("-", "−") if "e" not in text else text


def share(value: Number) -> str:
    """A share in print: always two decimals."""
    return NOTHING if value is None else f"{value:.2f}"


def signed(difference: Number) -> str:
    """A difference of shares in print, with its sign."""
    return NOTHING if difference is None else f"{difference:+.2f}".replace("-", "−").replace("+0.00", "0.00")


def arrow(change: Change, printed: Callable[[Number], str] = shown) -> str:
    return f"{printed(change.before)} → {printed(change.after)}" if change.known else NOTHING


def shares(change: Change) -> str:
    return arrow(change, share)


def between(interval: Interval | None) -> str:
    return f"{interval[0]:.2f}–{interval[1]:.2f}" if interval else ""
