"""Draws images a second over the number of processes, as SVG: one line for each way to serve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["draw_chart"]

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 64, 84
FONT = 'font-family="system-ui, sans-serif" font-size="13"'
COLOURS = ("#0b7285", "#c92a2a", "#5c7cfa", "#868e96")


def draw_chart(title: str, lines: Mapping[str, Mapping[int, float]], notes: Sequence[str], x_label: str) -> str:
    """An SVG document, readable on light and dark ground.

    Args:
        title: above the chart.
        lines: name -> processes -> images a second, which must be positive; drawn on logarithmic axes.
        notes: lines below it, such as machine and versions.
        x_label: of the horizontal axis.
    """
    values = [value for line in lines.values() for value in line.values()]
    counts = sorted({count for line in lines.values() for count in line})
    low = 10.0 ** math.floor(math.log10(min(values)))
    high = 10.0 ** max(math.ceil(math.log10(max(values))), math.floor(math.log10(min(values))) + 1)
    span = max(math.log2(counts[-1] / counts[0]), 1.0)

    def x(count: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log2(count / counts[0]) / span

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - math.log(value / low) / math.log(high / low))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        _text(LEFT, 28, title, size=16, weight="600"),
        _text(LEFT, 48, "images a second, logarithmic", fill="#495057"),
    ]
    for exponent in range(round(math.log10(low)), round(math.log10(high)) + 1):
        level = 10.0**exponent
        parts.append(f'<path d="M{LEFT} {y(level):.1f}H{WIDTH - RIGHT}" stroke="#dee2e6"/>')
        parts.append(_text(LEFT - 8, y(level) + 4, f"{level:g}", anchor="end", fill="#495057"))
    foot = HEIGHT - BOTTOM + 20
    parts += [_text(x(count), foot, str(count), anchor="middle", fill="#495057") for count in counts]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - BOTTOM + 38, x_label, anchor="middle", fill="#495057"))
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        points = sorted(line.items())
        path = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for count, value in points:
            parts.append(f'<circle cx="{x(count):.1f}" cy="{y(value):.1f}" r="4" fill="{colour}"/>')
            parts.append(_text(x(count), y(value) - 9, f"{value:.3g}", anchor="middle", fill=colour))
        end_x, end_y = x(points[-1][0]), y(points[-1][1])
        parts.append(_text(end_x + 14, end_y + 4, name, fill=colour, weight="600"))
    for row, note in enumerate(notes):
        parts.append(_text(LEFT, HEIGHT - 26 + 15 * row, note, size=11, fill="#868e96"))
    return "\n".join([*parts, "</svg>", ""])


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = "#212529", size: int = 13, weight: str = "400"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
