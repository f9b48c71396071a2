"""How long messages are under way, and which places cannot be reached: the weather of a simulated network."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Weather", "Wire"]


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection between two machines of one cluster.

    Attributes:
        latency_s: of every message.
        jitter_s: mean of what is added to it, exponentially distributed.
        bytes_per_s: of one connection.
    """

    latency_s: float = 0.0002
    jitter_s: float = 0.0001
    bytes_per_s: float = 1.2e9


class Weather:
    """What the network does to messages at the moment; faults change it.

    Attributes:
        slow: by address, by how much longer messages from and to it take.
        cut: addresses whose messages vanish, while nobody is told.
    """

    def __init__(self, wire: Wire, chance: random.Random, note: Callable[[str], None]) -> None:
        self.note = note
        self.slow: dict[str, float] = {}
        self.cut: set[str] = set()
        self.messages = 0
        self._wire = wire
        self._chance = chance

    def delay_s(self, address: str, size_bytes: int) -> float:
        """Of one message; counts it."""
        self.messages += 1
        wire = self._wire
        late_s = self._chance.expovariate(1.0) * wire.jitter_s if wire.jitter_s else 0.0
        seconds = wire.latency_s + late_s + size_bytes / wire.bytes_per_s
        return seconds * self.slow[address] if address in self.slow else seconds
