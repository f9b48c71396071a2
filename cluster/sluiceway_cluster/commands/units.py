"""Rates and times as they are typed: 50/s, 200ms."""

from __future__ import annotations

import math

from sluiceway.cli.terminal import EXIT_USAGE, fail

__all__ = ["read_p99_ms", "read_rate"]


def read_rate(text: str) -> float:
    """Images a second; ends the command where it is none."""
    return _number("--rate", text.removesuffix("/s"), text)


def read_p99_ms(text: str) -> float:
    """Milliseconds; `0.2s` as well."""
    if text.endswith("s") and not text.endswith("ms"):
        return _number("--p99", text.removesuffix("s"), text) * 1000
    return _number("--p99", text.removesuffix("ms"), text)


def _number(option: str, number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        fail(
            f"{option} must be a number above 0, such as {'50/s' if option == '--rate' else '200ms'}, not {text}",
            EXIT_USAGE,
        )
    return value
