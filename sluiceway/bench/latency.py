"""Latencies in a histogram of high dynamic range: exact to three digits, from a microsecond to an hour."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

__all__ = ["PERCENTILES", "Latencies"]

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
MAX_US = 3_600_000_000
DIGITS = 3
# How finely `curve` divides each halving of the distance to 100 %.
TICKS = 5


class Latencies:
    """Latencies of one run.

    Args:
        values_s: in seconds.
    """

    def __init__(self, values_s: Iterable[float]) -> None:
        self._histogram = HdrHistogram(1, MAX_US, DIGITS)
        for value_s in values_s:
            # Clocks of one process do not go back, but what took no time at all has no place on this scale.
            self._histogram.record_value(min(max(1, round(value_s * 1e6)), MAX_US))

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def percentile_s(self, percentile: float) -> float | None:
        """The least latency that so many per cent of the requests did not exceed; None without any."""
        return self._histogram.get_value_at_percentile(percentile) / 1e6 if len(self) else None

    def mean_s(self) -> float | None:
        """Mean; None without any."""
        return self._histogram.get_mean_value() / 1e6 if len(self) else None

    def curve(self) -> list[tuple[float, float]]:
        """Percentiles with their latencies in seconds, ever closer to 100."""
        steps = self._histogram.get_percentile_iterator(TICKS)
        return [(float(step.percentile_level_iterated_to), step.value_iterated_to / 1e6) for step in steps]

    def encoded(self) -> str:
        """The histogram in the compressed format (V2, base64) that tools for HdrHistogram read; values in µs."""
        return str(self._histogram.encode().decode())
