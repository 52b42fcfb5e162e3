"""Small line plots and interval strips as inline SVG; colours come from the page's style sheet by class.

Lengths are SVG user units; ``LEFT``, ``TOP``, ``Frame.right`` and ``Frame.bottom`` are the edges of the plotting area.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup, escape

from beholder.report.reading import Number
from beholder.report.results import Change
from beholder.report.words import shown

SIZE = (340, 180)
LEFT, TOP = 46, 10
MOST_POINTS, MOST_TITLES, MOST_DOTS = 240, 40, 60


@dataclass(frozen=True)
class Series:
    """One line of ``(x, y)``, y None for a gap; ``dots`` marks each point, ``band`` holds ``(x, low, high)``."""

    label: str
    points: list[tuple[float, Number]]
    css: str = "run-0"
    dots: bool = False
    line: bool = True
    hover: bool = True
    """Whether a line without dots shows its numbers under the pointer."""
    band: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Frame:
    """The ranges of both axes, and where a value lies on them."""

    x_high: float
    y_low: float
    y_high: float
    size: tuple[int, int] = SIZE

    @property
    def right(self) -> int:
        return self.size[0] - 8

    @property
    def bottom(self) -> int:
        return self.size[1] - 36

    def x(self, value: float) -> float:
        return round(LEFT + (self.right - LEFT) * value / self.x_high, 1)

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - TOP) * (value - self.y_low) / (self.y_high - self.y_low), 1)


def line_plot(
    series: Sequence[Series],
    *,
    name: str,
    x_label: str,
    x_high: float,
    include: Sequence[float] = (),
    size: tuple[int, int] = SIZE,
) -> Markup:
    """Lines over a common x axis from 0 to ``x_high``; the y axis covers the values and ``include``."""
    series = [_thinned(s) for s in series]
    values = [y for s in series for _, y in s.points if y is not None] + [
        y for s in series for b in s.band for y in b[1:]
    ]
    ticks_y = nice_ticks(min([*values, *include]), max([*values, *include]))
    frame = Frame(x_high or 1.0, ticks_y[0], ticks_y[-1], size)
    parts = [_grid(frame, ticks_y), _x_axis(frame, x_label)]
    parts += [_band(frame, s) for s in series if s.band]
    parts += [_line(frame, s) for s in series if s.line]
    parts += [_dots(frame, s, x_label) for s in series if s.dots or s.hover]
    box = f'viewBox="0 0 {size[0]} {size[1]}" role="img"'
    return Markup('<svg class="plot" {} aria-label="{}">{}</svg>').format(
        Markup(box), f"{name} over {x_label}", Markup("").join(parts)
    )


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, at most ``most + 1`` of them."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        pad = abs(high) * 0.1 or 1.0
        low, high = max(low - pad, 0.0) if low >= 0 else low - pad, high + pad
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [i * step for i in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """A tick's number with no more decimals than its step needs."""
    if abs(value) < step * 1e-6:
        return "0"
    if step >= 1000:
        return f"{value / 1e6:g}M" if step >= 1e6 else f"{value / 1e3:g}k"
    if step < 1e-3:
        return f"{value:.2g}".replace("e-0", "e-")
    return f"{value:.{max(0, (f'{step:.1e}'[2] != '0') - math.floor(math.log10(step) + 1e-9))}f}".replace("-", "−")


def _thinned(series: Series) -> Series:
    """The series with neighbouring points averaged until at most ``MOST_POINTS`` are left."""
    width = math.ceil(len(series.points) / MOST_POINTS)
    if width <= 1:
        return series
    parts = [series.points[i : i + width] for i in range(0, len(series.points), width)]
    return replace(series, points=[_averaged(part) for part in parts])


def _averaged(points: list[tuple[float, Number]]) -> tuple[float, Number]:
    known = [y for _, y in points if y is not None]
    return points[-1][0], sum(known) / len(known) if known else None


def _grid(frame: Frame, ticks: list[float]) -> Markup:
    step = ticks[1] - ticks[0]
    lines = [
        f'<line class="rule{" zero" if t == 0 else ""}" x1="{LEFT}" x2="{frame.right}" y1="{y}" y2="{y}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5}" text-anchor="end">{tick_text(t, step)}</text>'
        for t, y in ((t, frame.y(t)) for t in ticks)
    ]
    return Markup("".join(lines))


def _x_axis(frame: Frame, label: str) -> Markup:
    ticks = [t for t in nice_ticks(0.0, frame.x_high) if t <= frame.x_high * 1.001]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else frame.x_high
    texts = [
        f'<line class="rule" x1="{frame.x(t)}" x2="{frame.x(t)}" y1="{frame.bottom}" y2="{frame.bottom + 4}"/>'
        f'<text class="tick" x="{frame.x(t)}" y="{frame.bottom + 15}" text-anchor="middle">{tick_text(t, step)}</text>'
        for t in ticks
    ]
    texts.append(
        f'<text class="tick" x="{(LEFT + frame.right) / 2}" y="{frame.size[1] - 4}" text-anchor="middle">'
        f"{escape(label)}</text>"
    )
    return Markup("".join(texts))


def _band(frame: Frame, series: Series) -> Markup:
    upper = [f"{frame.x(x)},{frame.y(high)}" for x, _, high in series.band]
    lower = [f"{frame.x(x)},{frame.y(low)}" for x, low, _ in reversed(series.band)]
    return Markup(f'<polygon class="band {series.css}" points="{" ".join(upper + lower)}"/>')


def _line(frame: Frame, series: Series) -> Markup:
    steps: list[str] = []
    pen_down = False
    for x, y in series.points:
        if y is not None:  # "h0" gives a point between two gaps its round caps
            steps.append(f"{'L' if pen_down else 'M'}{frame.x(x)} {frame.y(y)}{'' if pen_down else 'h0'}")
        pen_down = y is not None
    return Markup(f'<path class="line {series.css}" d="{"".join(steps)}"/>')


def _dots(frame: Frame, series: Series, x_label: str) -> Markup:
    """Dots that show their numbers under the pointer: all of a few marked points, else an unseen selection."""
    known = [(x, y) for x, y in series.points if y is not None]
    marked = series.dots and len(known) <= MOST_DOTS
    seen, radius, stride = ("dot", 2.6, 1) if marked else ("target", 6, max(1, math.ceil(len(known) / MOST_TITLES)))
    dots = [
        f'<circle class="{seen} {series.css}" cx="{frame.x(x)}" cy="{frame.y(y)}" r="{radius}">'
        f"<title>{escape(series.label)}: {shown(y)} at {x:,.0f} {escape(x_label)}</title></circle>"
        for x, y in known[::-1][::stride]
    ]
    return Markup("".join(dots))


def interval_strip(changes: Sequence[Change], name: str) -> Markup:
    """Shares on a line from 0 to 1: the first change's start hollow, each run's end filled, with their intervals."""
    width, pitch = 280, 9
    rows = [(changes[0].before, changes[0].interval_before, "base")]
    rows += [(c.after, c.interval_after, f"run-{i}") for i, c in enumerate(changes)]
    height = pitch * len(rows) + 4

    def x(share: float) -> float:
        return round(4 + (width - 8) * share, 1)

    parts = [f'<line class="rule" x1="{x(t)}" x2="{x(t)}" y1="0" y2="{height}"/>' for t in (0, 0.5, 1)]
    for i, (share, interval, css) in enumerate(rows):
        y = 6.5 + pitch * i
        if interval:
            parts.append(f'<line class="whisker {css}" x1="{x(interval[0])}" x2="{x(interval[1])}" y1="{y}" y2="{y}"/>')
        if share is not None:
            parts.append(f'<circle class="dot {css}" cx="{x(share)}" cy="{y}" r="3.2"/>')
    return Markup(
        '<svg class="strip" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, width, height, name, Markup("".join(parts)))
