"""How results are put into words and numbers into print."""

from collections.abc import Callable, Sequence

from beholder.methods import METHODS
from beholder.report.reading import Number, Run
from beholder.report.results import Change, Interval, Result
from beholder.report.settings import NOTHING, settings_of


def method_of(run: Run) -> str | None:
    """The method's title, from the summary or, while the run goes on, from its configuration."""
    name = run.summary.method or settings_of(run.config).get("method")
    return None if name is None else title_of(name)


def title_of(method: str) -> str:
    """How a method is written, e.g. ``MixGRPO`` for ``mix-grpo``; of one that is not ours its name."""
    return METHODS[method].title if method in METHODS else method


def subject(run: Run) -> str | None:
    """What was run: "METHOD on POLICY" as far as it is known; of a policy's path or hub name its last part."""
    policy = (run.summary.policy or settings_of(run.config).get("policy.model") or "").rstrip("/").rsplit("/", 1)[-1]
    return " on ".join(part for part in (method_of(run), policy) if part) or None


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method where the methods differ, else its folder, else its path."""
    choices: tuple[Callable[[Run], str | None], ...] = (
        method_of,
        lambda run: run.folder.resolve().name,
        lambda run: str(run.folder),
    )
    for choice in choices:
        names = [choice(run) for run in runs]
        if None not in names and len(set(names)) == len(runs):
            return [str(name) for name in names]
    return [f"{run.folder} ({i})" for i, run in enumerate(runs, start=1)]


def capital(text: str) -> str:
    """The text with a capital first letter and the rest as it is."""
    return text[:1].upper() + text[1:]


def sentence(result: Result, *, with_rewards: bool = False) -> str:
    """The result in a sentence without its subject, e.g. ``strict accuracy 0.52 → 0.78 on 240 held-out images``."""
    parts: list[str] = []
    if with_rewards or not result.change.known:
        parts += [f"training reward {r.name} {arrow(r.change)}" for r in result.rewards if r.change.known]
    if result.change.known:
        name = f"{result.gold.title}{' (gold)' if parts else ''}"
        images = f" on {result.n_images:,} {'held-out ' if result.gold.exact else ''}images" if result.n_images else ""
        parts.append(f"{name} {arrow(result.change, result.gold.exact)}{images}")
    if not parts:
        return "nothing has been measured yet."
    return f"{', '.join(parts)}{_spent(result)}."


def _spent(result: Result) -> str:
    evaluations = f"{result.network_evaluations:,.0f} network evaluations" if result.network_evaluations else ""
    spent = ", ".join(part for part in (evaluations, duration(result.seconds) if result.seconds else "") if part)
    return f" after {spent}" if spent else ""


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


def count(value: Number) -> str:
    """A number of things in print."""
    return NOTHING if value is None else f"{value:,.0f}"


def printed(value: Number, exact: bool = False) -> str:
    """A value in print; a share (``exact``) always with two decimals."""
    return f"{value:.2f}" if exact and value is not None else shown(value)


def signed(difference: Number, exact: bool = False) -> str:
    """A difference in print, with its sign."""
    if difference is None:
        return NOTHING
    size = printed(abs(difference), exact)
    return size if size == "0.00" else f"{'−' if difference < 0 else '+'}{size}"


def arrow(change: Change, exact: bool = False) -> str:
    """Before and after in print, with more digits where two would hide the change."""
    if not change.known:
        return NOTHING
    before, after = printed(change.before, exact), printed(change.after, exact)
    if before == after and change.difference and not exact:
        before, after = f"{change.before:.4g}", f"{change.after:.4g}"
    return f"{before} → {after}"


def between(interval: Interval | None) -> str:
    return f"{interval[0]:.2f}–{interval[1]:.2f}" if interval else ""
