"""When requests are due. Pure: no clock and no I/O but reading a trace.

An arrival is due at its time whether or not anything has been answered, so a slow server meets the same load as a
quick one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Arrival", "Trace", "TraceFault", "evenly", "poisson", "read_trace"]


class TraceFault(Exception):
    """A trace cannot be used; the message says where and why."""


class Arrival(NamedTuple):
    """One request: when it is due, in seconds from the start, and which source it sends, by position."""

    due_s: float
    source: int


def poisson(rate_per_s: float, seconds: float, sources: int, chance: random.Random) -> Iterator[Arrival]:
    """Independent clients: gaps between arrivals are exponential, `rate_per_s` of them a second on average."""
    due_s, number = chance.expovariate(rate_per_s), 0
    while due_s < seconds:
        yield Arrival(due_s, number % sources)
        due_s += chance.expovariate(rate_per_s)
        number += 1


def evenly(rate_per_s: float, seconds: float, sources: int) -> Iterator[Arrival]:
    """One clock that never waits: equal gaps."""
    for number in range(math.ceil(rate_per_s * seconds)):
        yield Arrival(number / rate_per_s, number % sources)


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals that were recorded.

    Attributes:
        times_s: seconds from the first arrival, rising.
        sources: what each of them sends, as the trace spells it; empty where it leaves that open.
    """

    times_s: tuple[float, ...]
    sources: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """From the first arrival to one mean gap behind the last; 0 where all are due at once."""
        gaps = len(self.times_s) - 1
        return self.times_s[-1] * (gaps + 1) / gaps if gaps else 0.0

    @property
    def rate_per_s(self) -> float:
        """Mean rate; 0 where it has no length."""
        return len(self.times_s) / self.seconds if self.seconds else 0.0

    def names(self) -> tuple[str, ...]:
        """What it sends, each once."""
        return tuple(dict.fromkeys(self.sources))

    def arrivals(self, sources: Sequence[str], *, speed: float = 1.0) -> Iterator[Arrival]:
        """Play it.

        Args:
            sources: names by position; one that the trace does not name its arrivals by is used in turn.
            speed: 2 plays it in half its time.
        """
        places = {name: place for place, name in enumerate(sources)}
        for number, time_s in enumerate(self.times_s):
            place = places[self.sources[number]] if self.sources else number % len(sources)
            yield Arrival(time_s / speed, place)


def read_trace(path: Path) -> Trace:
    """Read a text file with one arrival a line: seconds, and optionally what it sends, with a space between them.

    Empty lines and those that begin with # are passed over. Times may start anywhere and stand in any order. Paths are
    relative to the folder of the trace.

    Raises:
        TraceFault: it cannot be read, has no arrival, a line is not of this form, or only some lines name a source.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceFault(f"cannot read {path}: {error}") from error
    found: list[tuple[float, str]] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        time, _, source = text.partition(" ")
        try:
            time_s = float(time)
        except ValueError:
            raise TraceFault(f"{path}, line {number}: {time!r} is not a number of seconds") from None
        if not math.isfinite(time_s):
            raise TraceFault(f"{path}, line {number}: {time!r} is not a time")
        found.append((time_s, source.strip()))
    if not found:
        raise TraceFault(f"{path} has no arrivals")
    # By time alone: arrivals of one moment keep their order.
    found.sort(key=lambda item: item[0])
    begin_s = found[0][0]
    named = [source for _, source in found if source]
    if named and len(named) < len(found):
        raise TraceFault(f"{path}: {len(named)} of {len(found)} lines name what they send; either all do, or none")
    return Trace(tuple(time_s - begin_s for time_s, _ in found), tuple(_beside(path, name) for name in named))


def _beside(trace: Path, name: str) -> str:
    return name if "://" in name or name.startswith("api:") else str(trace.parent / name)
