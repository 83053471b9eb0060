"""SVG: where the lines, dots and ticks of a chart are, for the template that draws them.

In: lines in their own units. Out: a `Chart` in the units of its view box, which the macro `chart`
of templates/macros.html draws in the page's colours. As PNG files: plots.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 40

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points that are connected where they are numbers."""

    name: str
    kind: str
    """Its class in the style sheet: first, second or even."""
    points: Sequence[Point]
    sizes: Sequence[float] = ()
    """Radius of the dot at each point; none: no dots."""
    spans: Sequence[tuple[float, float]] = ()
    """From where to where the value may lie at each point."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A side of the chart."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def place(self, value: float) -> float:
        """0 at its low end, 1 at its high one."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point of a line."""

    x: float
    y: float
    radius: float
    low: float
    high: float
    """Where its span ends; both `y` where it has none."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A line in the view box."""

    name: str
    kind: str
    runs: Sequence[str]
    """Points of a polyline each: x,y x,y ..."""
    dots: Sequence[Dot]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What the macro draws."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Drawn]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    mark: float | None
    """Where a vertical line is."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM
    legend: Sequence[Drawn] = field(default_factory=tuple)


def chart(
    title: str, lines: Sequence[Line], *, x: Axis, y: Axis, mark: float | None = None
) -> Chart:
    """Lines between two axes; the last of them lies on top."""
    drawn = tuple(_drawn(one, x, y) for one in lines)
    return Chart(
        title=title,
        x=x,
        y=y,
        lines=drawn,
        x_ticks=[(_across(x, value), text) for value, text in x.ticks],
        y_ticks=[(_up(y, value), text) for value, text in y.ticks],
        mark=None if mark is None else _across(x, mark),
        legend=tuple(reversed(drawn)) if len(drawn) > 1 else (),
    )


def axis(
    label: str, values: Sequence[float], *, percent: bool = False, most: float = 1e300
) -> Axis:
    """An axis for these values, with about five round ticks."""
    known = [one for one in values if math.isfinite(one)] or [0.0, 1.0]
    low, high = min(known), min(max(known), most)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = (low - room if low - room > 0 or low < 0 else 0.0), high + room
    step = _step((high - low) / 4)
    ticks = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    digits = max(0, -math.floor(math.log10(step * (100 if percent else 1)) + 1e-9))
    texts = [f"{100 * one:.{digits}f} %" if percent else f"{one:.{digits}f}" for one in ticks]
    pairs = [pair for pair in zip(ticks, texts, strict=True) if pair[0] <= most]
    return Axis(label=label, low=low, high=high, ticks=pairs)


def steps(label: str, texts: Sequence[str]) -> Axis:
    """An axis for the places 0, 1, 2 ... with some of their texts."""
    each = max(1, math.ceil(len(texts) / 6))
    ticks = [(float(place), texts[place]) for place in range(0, len(texts), each)]
    return Axis(label=label, low=-0.4, high=max(len(texts) - 0.6, 0.4), ticks=ticks)


def _step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about))
    return next(one * power for one in (1, 2, 5, 10) if one * power >= about * 0.999)


def _drawn(line: Line, x: Axis, y: Axis) -> Drawn:
    runs: list[list[str]] = [[]]
    dots = []
    for place, (across, up) in enumerate(line.points):
        if not (math.isfinite(across) and math.isfinite(up)):
            runs.append([])
            continue
        at = (_across(x, across), _up(y, up))
        runs[-1].append(f"{at[0]},{at[1]}")
        if line.sizes:
            low, high = line.spans[place] if line.spans else (up, up)
            dots.append(
                Dot(x=at[0], y=at[1], radius=line.sizes[place], low=_up(y, low), high=_up(y, high))
            )
    return Drawn(
        name=line.name, kind=line.kind, runs=[" ".join(one) for one in runs if one], dots=dots
    )


def _across(axis: Axis, value: float) -> float:
    return round(LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT), 1)


def _up(axis: Axis, value: float) -> float:
    return round(HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM), 1)
