"""Plots as SVG, drawn here: a page with them needs nothing from outside. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Axis", "Line", "bars", "linear", "logarithmic", "plot"]

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 44
TICKS = 6
BAR_PX, NAME_PX = 22, 300
COLOURS = ("var(--first)", "var(--second)", "var(--third)")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, where it ends, how values become places in 0 to 1, and its ticks with their labels."""

    title: str
    low: float
    high: float
    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Line:
    """Points that belong together; `dots` draws them one by one, `dashed` marks a limit."""

    name: str
    points: Sequence[Point]
    dots: bool = False
    dashed: bool = False


def linear(title: str, values: Sequence[float], *, from_zero: bool = True) -> Axis:
    """An axis with equal steps around these values."""
    high = max(values, default=1.0)
    low = 0.0 if from_zero else min(values, default=0.0)
    if high <= low:
        high = low + 1.0
    step = _round_step((high - low) / TICKS)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    count = round((high - low) / step)
    ticks = [(low + number * step, f"{low + number * step:g}") for number in range(count + 1)]
    return Axis(title, low, high, lambda value: (value - low) / (high - low), ticks)


def logarithmic(title: str, values: Sequence[float]) -> Axis:
    """An axis on which equal steps are equal factors; what is not above 0 lies at its low end."""
    above = [value for value in values if value > 0]
    begin = math.floor(math.log10(min(above, default=1.0)))
    end = max(begin + 1, math.ceil(math.log10(max(above, default=10.0))))
    low, high = 10.0**begin, 10.0**end

    def place(value: float) -> float:
        return (math.log10(max(value, low)) - begin) / (end - begin)

    return Axis(title, low, high, place, [(10.0**power, f"{10.0**power:g}") for power in range(begin, end + 1)])


def _round_step(step: float) -> float:
    """The next larger step of 1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def plot(name: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Draw lines.

    Args:
        name: what the picture shows, for those who cannot see it.
        x: from left to right.
        y: from bottom to top.
        lines: as many as there are colours, at most; others repeat them.
    """
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(point: Point) -> tuple[float, float]:
        across, up = (min(max(axis.place(value), 0.0), 1.0) for axis, value in zip((x, y), point, strict=True))
        return LEFT + across * inner_width, TOP + (1 - up) * inner_height

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(name)}">']
    for value, label in x.ticks:
        across, _ = at((value, y.low))
        parts.append(f'<line class="grid" x1="{across:.1f}" y1="{TOP}" x2="{across:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(_text(across, HEIGHT - BOTTOM + 16, label, "middle"))
    for value, label in y.ticks:
        _, down = at((x.low, value))
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{down:.1f}" x2="{WIDTH - RIGHT}" y2="{down:.1f}"/>')
        parts.append(_text(LEFT - 6, down + 4, label, "end"))
    parts.append(_text(LEFT + inner_width / 2, HEIGHT - 6, x.title, "middle"))
    parts.append(
        f'<text transform="translate(14 {TOP + inner_height / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y.title)}</text>"
    )
    for number, line in enumerate(lines):
        parts += _drawn(line, [at(point) for point in line.points], COLOURS[number % len(COLOURS)])
    parts.append("</svg>")
    return "".join(parts) + _legend(lines)


def _drawn(line: Line, points: Sequence[Point], colour: str) -> list[str]:
    if line.dots:
        return [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{colour}"/>' for across, down in points]
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>']


def _legend(lines: Sequence[Line]) -> str:
    items = (
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{html.escape(line.name)}</span>'
        for number, line in enumerate(lines)
    )
    return f'<p class="legend">{"".join(items)}</p>'


def bars(name: str, rows: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw one bar for each row, from the same zero, with its figure behind it."""
    largest = max((value for _, value in rows), default=0.0) or 1.0
    height = BAR_PX * len(rows)
    room = WIDTH - NAME_PX - 90
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(name)}">']
    for number, (label, value) in enumerate(rows):
        down = number * BAR_PX
        length = room * value / largest
        parts.append(_text(NAME_PX - 8, down + 15, label, "end"))
        parts.append(
            f'<rect x="{NAME_PX}" y="{down + 4}" width="{length:.1f}" height="{BAR_PX - 8}" fill="{COLOURS[0]}"/>'
        )
        parts.append(_text(NAME_PX + length + 6, down + 15, f"{value:.2f} {unit}", "start"))
    parts.append("</svg>")
    return "".join(parts)


def _text(across: float, down: float, text: str, anchor: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
