"""Figures as short texts. What is not known is a dash, and nothing is told by colour alone."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "UNKNOWN",
    "bar",
    "count",
    "megabytes",
    "milliseconds",
    "number",
    "percent",
    "rate",
    "shortened",
    "sparkline",
]

UNKNOWN = "-"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
# Not to the full height: those of two rows would touch.
_LEVELS = "▁▂▃▄▅▆▇"


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def rate(value: float | None) -> str:
    """So many a second."""
    return UNKNOWN if value is None else f"{number(value)}/s"


def milliseconds(value: float | None) -> str:
    """A time, in the unit that suits it."""
    if value is None:
        return UNKNOWN
    if value < 1000:
        return f"{number(value)} ms" if value < 10 else f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if value < 100_000 else f"{value / 60_000:.0f} min"


def percent(share: float | None) -> str:
    """A share."""
    return UNKNOWN if share is None else f"{100 * share:.0f}%"


def count(value: int | None) -> str:
    """A number of things."""
    if value is None:
        return UNKNOWN
    return str(value) if value < 100_000 else f"{value // 1000}k"


def megabytes(size: int | None) -> str:
    """An amount of memory."""
    if not size:
        return UNKNOWN
    return f"{size / 2**20:.0f} MB" if size < 10 * 2**30 else f"{size / 2**30:.0f} GB"


def bar(share: float | None, width: int) -> str:
    """A share as a bar of so many characters."""
    if share is None:
        return " " * width
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values, one a character, against the largest of them."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    marks = [_LEVELS[round(value / top * (len(_LEVELS) - 1))] if top > 0 else _LEVELS[0] for value in shown]
    return "".join(marks).rjust(width)


def shortened(text: str, width: int) -> str:
    """A name in so many characters; of an address the end tells more than the middle."""
    if len(text) <= width:
        return text
    if width < 2:
        return text[:width]
    ahead = (width - 1) // 2
    return f"{text[:ahead]}…{text[len(text) - (width - 1 - ahead) :]}"
