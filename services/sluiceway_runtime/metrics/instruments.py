"""Counters and histograms of one event loop.

Those of prometheus-client take a lock for each number, which is 2 to 3 microseconds an observation, and an image makes
twenty. All of ours are raised and read on the loop of their server, so a list and a search do, in a tenth of that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

__all__ = ["SECONDS", "Cell", "Counters", "Family", "Histogram", "Histograms", "counter", "gauge"]

# The buckets that OpenTelemetry advises for durations of calls, in seconds.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


@dataclass(frozen=True, slots=True)
class Family:
    """What is shown under one name.

    Attributes:
        name: with its unit. Of a counter without `_total`, of a histogram without `_bucket`, `_sum` and `_count`.
        text: what it says, as docs/metrics.md has it.
        labels: names of its labels, in order.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name by which it is asked for; of a histogram that of all its parts."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _as_text(bound: float) -> str:
    """A bound as it is written by those of Go and by prometheus-client."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


class Cell:
    """A number that goes up: `cell.value += 1`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """How many values lay at or below each bound."""

    __slots__ = ("_counts", "_sum", "bounds")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Show it."""
        total, buckets = 0, []
        for bound, count in zip(self.bounds, self._counts, strict=False):
            total += count
            buckets.append((_as_text(bound), float(total)))
        buckets.append(("+Inf", float(total + self._counts[-1])))
        family.add_metric(list(labels), buckets, self._sum)


class Histograms(Collector):
    """Histograms of one family. Whoever observes gets his own once (`of`), and not for each value."""

    def __init__(self, family: Family, bounds: Sequence[float] = SECONDS) -> None:
        self.family = family
        self._bounds = bounds
        self._children: dict[tuple[str, ...], Histogram] = {}

    def of(self, *labels: str) -> Histogram:
        """The one with these values of the labels."""
        found = self._children.get(labels)
        if found is None:
            found = self._children[labels] = Histogram(self._bounds)
        return found

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        shown = HistogramMetricFamily(self.family.name, self.family.text, labels=self.family.labels)
        for labels, histogram in self._children.items():
            histogram.add_to(shown, labels)
        yield shown


class Counters(Collector):
    """Counters of one family. One that is made at the start shows 0 until something happens, so that its first rise
    is seen as one.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self._children: dict[tuple[str, ...], Cell] = {}

    def of(self, *labels: str) -> Cell:
        """The one with these values of the labels."""
        found = self._children.get(labels)
        if found is None:
            found = self._children[labels] = Cell()
        return found

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        yield counter(self.family, ((labels, cell.value) for labels, cell in self._children.items()))


def counter(family: Family, values: Iterable[tuple[Sequence[str], float]]) -> CounterMetricFamily:
    """A family of counters that are read only now, each with its labels."""
    shown = CounterMetricFamily(family.name, family.text, labels=family.labels)
    for labels, value in values:
        shown.add_metric(list(labels), value)
    return shown


def gauge(family: Family, values: Iterable[tuple[Sequence[str], float]] | float) -> GaugeMetricFamily:
    """A family of values that are read only now, each with its labels; or the one value of a family without labels."""
    shown = GaugeMetricFamily(family.name, family.text, labels=family.labels)
    for labels, value in (((), values),) if isinstance(values, float | int) else values:
        shown.add_metric(list(labels), value)
    return shown
