"""The frontier as a picture: what each setting does and what it costs, as one SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sluiceway_simulation.profiles.model import Workers
from sluiceway_simulation.tune.climb import Point, Setting, Step

__all__ = ["frontier", "in_words", "to_svg"]

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 30, 60


def in_words(setting: Setting) -> str:
    """A setting: detection 2 x 1, recognition 1 x 1 (workers x threads)."""
    return ", ".join(f"{kind} {_workers(its)}" for kind, its in setting)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Settings that no other one beats in both throughput and memory, from the least memory on."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.memory_mb, -point.prediction.per_s)):
        if not found or point.prediction.per_s > found[-1].prediction.per_s:
            found.append(point)
    return found


def to_svg(points: Sequence[Point], steps: Sequence[Step], chosen: Point, title: str) -> str:
    """Draw memory of the workers across and images a second upward; the way up is a line, the choice is filled."""
    most_mb = max(point.memory_mb for point in points) * 1.1
    most_per_s = max(point.prediction.per_s for point in points) * 1.15 or 1.0

    def place(point: Point) -> tuple[float, float]:
        x = LEFT + point.memory_mb / most_mb * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - point.prediction.per_s / most_per_s * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<style>text {font: 12px sans-serif}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18">{escape(title)}</text>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#555"/>',
    ]
    for quarter in range(5):
        x = LEFT + quarter / 4 * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - quarter / 4 * (HEIGHT - TOP - BOTTOM)
        mb, per_s = most_mb * quarter / 4, most_per_s * quarter / 4
        parts.append(f'<text x="{x:.0f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mb:.0f}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{per_s:.1f}</text>')
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 18}" text-anchor="middle">MB of all workers</text>')
    parts.append(f'<text x="14" y="{TOP - 8}" fill="#555">images/s</text>')
    way = " ".join("{:.1f},{:.1f}".format(*place(step.point)) for step in steps)
    parts.append(f'<polyline points="{way}" fill="none" stroke="#1565c0" stroke-width="2"/>')
    best = {point.setting for point in frontier(points)}
    for point in points:
        x, y = place(point)
        fill = "#c62828" if point is chosen else "#1565c0" if point.setting in best else "white"
        told = f"{in_words(point.setting)}: {point.prediction.per_s:.1f} images/s, p99 {point.prediction.p99_ms:.0f} ms"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="#1565c0">')
        parts.append(f"<title>{escape(told)}</title></circle>")
    x, y = place(chosen)
    anchor, shift = ("end", -10) if x > WIDTH / 2 else ("start", 10)
    parts.append(
        f'<text x="{x + shift:.0f}" y="{y - 10:.0f}" text-anchor="{anchor}">{escape(in_words(chosen.setting))}</text>'
    )
    return "\n".join([*parts, "</svg>\n"])


def _workers(its: Workers) -> str:
    return f"{its.workers} x {its.threads}"
