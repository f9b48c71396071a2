"""Four pictures in one SVG: throughput by workers, latency by load, goodput behind a step, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sluiceway.bench.plots import Axis, linear, logarithmic

__all__ = ["draw"]

PANEL_WIDTH, PANEL_HEIGHT, GAP = 520, 300, 24
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 34, 40
LEGEND_ROW, COLUMNS = 18, 3
COLOURS = (
    "#0b7285", "#c92a2a", "#e8590c", "#5c7cfa", "#364fc7", "#2b8a3e", "#74b816", "#862e9c", "#e64980", "#868e96",
    "#f59f00", "#1098ad", "#495057", "#ae3ec9",
)  # fmt: skip
# Of a step: a window lies there by its middle, and lasts as long as it says.
Line = tuple[str, Sequence[tuple[float, float]]]


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a run.

    Args:
        found: what run.py writes as JSON.
        path: of the SVG file.
    """
    names = list(dict.fromkeys(stint["name"] for stint in found["stints"]))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    panels = [
        _lines("images a second, by workers", "workers", _by_workers(found), colours, log_x=True, log_y=True),
        _lines("p99 by load, ms", "share of the contestant's own capacity", _by_load(found), colours, log_y=True),
        _lines("goodput behind a step to 3 x, of capacity", "seconds", _by_window(found), colours),
        _bars("memory at its best, MB", found, colours),
    ]
    rows = -(-len(names) // COLUMNS)
    width = 2 * PANEL_WIDTH + 3 * GAP
    height = 2 * PANEL_HEIGHT + 3 * GAP + LEGEND_ROW * (rows + 1)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    parts = [
        f'{head} font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for place, panel in enumerate(panels):
        across, down = GAP + (PANEL_WIDTH + GAP) * (place % 2), GAP + (PANEL_HEIGHT + GAP) * (place // 2)
        parts.append(f'<g transform="translate({across} {down})">{panel}</g>')
    top = 2 * PANEL_HEIGHT + 3 * GAP
    for place, name in enumerate(names):
        across = GAP + place % COLUMNS * ((width - 2 * GAP) / COLUMNS)
        down = top + LEGEND_ROW * (place // COLUMNS)
        parts.append(f'<rect x="{across:.0f}" y="{down}" width="12" height="12" fill="{colours[name]}"/>')
        parts.append(_text(across + 18, down + 10, found["titles"][name]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _by_workers(found: Mapping[str, Any]) -> list[Line]:
    points: dict[str, dict[int, float]] = {}
    for stint in found["stints"]:
        best = max(part["answered_per_s"] for part in stint["closed"])
        counts = points.setdefault(stint["name"], {})
        counts[stint["workers"]] = max(best, counts.get(stint["workers"], 0.0))
    return [(name, sorted(counts.items())) for name, counts in points.items()]


def _by_load(found: Mapping[str, Any]) -> list[Line]:
    lines = {}
    for stint in found["stints"]:
        if stint["open"]:
            lines.setdefault(stint["name"], [(part["factor"], part["p99_ms"]) for part in stint["open"]])
    return list(lines.items())


def _by_window(found: Mapping[str, Any]) -> list[Line]:
    lines = {}
    for stint in found["stints"]:
        step = stint["step"]
        best = max(part["answered_per_s"] for part in stint["closed"])
        capacity = (best + stint["after_per_s"]) / 2
        if step and capacity:
            windows = enumerate(step["goodput_per_s"])
            points = [((place + 0.5) * step["window_s"], rate / capacity) for place, rate in windows]
            lines.setdefault(stint["name"], points)
    return list(lines.items())


def _lines(
    title: str,
    x_title: str,
    lines: Sequence[Line],
    colours: Mapping[str, str],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    across = [x for _, points in lines for x, _ in points]
    upward = [y for _, points in lines for _, y in points]
    x = _counts(x_title, across) if log_x else linear(x_title, across)
    y = logarithmic("", upward) if log_y else linear("", upward)
    parts = [_text(LEFT, 18, title, weight="600"), *_grid(x, y)]
    for name, points in lines:
        places = [_at(x, y, point) for point in points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colours[name]}"/>' for a, b in places]
    return "".join(parts)


def _counts(title: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis whose ticks are the numbers of workers themselves."""
    axis = logarithmic(title, values)
    ticks = [(value, f"{value:g}") for value in sorted(set(values))]
    return Axis(title, axis.low, axis.high, axis.place, ticks)


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value, label in x.ticks:
        across, _ = _at(x, y, (value, y.low))
        parts.append(_text(across, PANEL_HEIGHT - BOTTOM + 16, label, anchor="middle"))
    for value, label in y.ticks:
        _, down = _at(x, y, (x.low, value))
        parts.append(f'<path d="M{LEFT} {down:.1f}H{PANEL_WIDTH - RIGHT}" stroke="#dee2e6"/>')
        parts.append(_text(LEFT - 6, down + 4, label, anchor="end"))
    parts.append(_text((LEFT + PANEL_WIDTH - RIGHT) / 2, PANEL_HEIGHT - 6, x.title, anchor="middle"))
    return parts


def _at(x: Axis, y: Axis, point: tuple[float, float]) -> tuple[float, float]:
    across, up = (min(max(axis.place(value), 0.0), 1.0) for axis, value in zip((x, y), point, strict=True))
    return LEFT + across * (PANEL_WIDTH - LEFT - RIGHT), TOP + (1 - up) * (PANEL_HEIGHT - TOP - BOTTOM)


def _bars(title: str, found: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    memory = {stint["name"]: stint["memory_mb"] for stint in reversed(found["stints"]) if stint["usual"]}
    rows = [(name, memory[name]) for name in colours if name in memory]
    most = max((value for _, value in rows), default=1.0)
    room, names = PANEL_WIDTH - RIGHT - 60, 150
    step = min(22.0, (PANEL_HEIGHT - TOP) / max(1, len(rows)))
    parts = [_text(LEFT, 18, title, weight="600")]
    for place, (name, value) in enumerate(rows):
        down, length = TOP + step * place, (room - names) * value / most
        parts.append(_text(names - 6, down + step * 0.7, name, anchor="end"))
        parts.append(
            f'<rect x="{names}" y="{down:.1f}" width="{length:.1f}" height="{step * 0.75:.1f}" fill="{colours[name]}"/>'
        )
        parts.append(_text(names + length + 6, down + step * 0.7, f"{value:,.0f}"))
    return "".join(parts)


def _text(across: float, down: float, text: str, *, anchor: str = "start", weight: str = "400") -> str:
    return (
        f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="#343a40">'
        f"{escape(text)}</text>"
    )
