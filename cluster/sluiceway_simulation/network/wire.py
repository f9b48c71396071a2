"""How long messages are under way, and which places cannot be reached: the weather of a simulated network."""

from __future__ import annotations

import math
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
        note: told of every message; None where nobody wants to know.
        slow: by address, by how much longer messages from and to it take.
        messages: that went out.
    """

    def __init__(self, wire: Wire, chance: random.Random, note: Callable[[str], None] | None = None) -> None:
        self.note = note
        self.slow: dict[str, float] = {}
        self.messages = 0
        # What was sent into each cut; TCP sends it again once there is a way.
        self._held: dict[str, list[Callable[[], None]]] = {}
        self._wire = wire
        self._chance = chance

    def cut(self, address: str) -> None:
        """From now on messages from and to this address get no further, and nobody is told."""
        self._held.setdefault(address, [])

    def heal(self, address: str) -> None:
        """The way is there again, and with it all that was sent meanwhile, in its order."""
        for go_on in self._held.pop(address, []):
            go_on()

    def is_cut(self, address: str) -> bool:
        """Whether messages get no further."""
        return address in self._held

    def hold(self, address: str, go_on: Callable[[], None]) -> bool:
        """Keep a message until the way is there again; False if it is."""
        if address not in self._held:
            return False
        self._held[address].append(go_on)
        return True

    def delay_s(self, address: str, size_bytes: int) -> float:
        """Of one message; counts it."""
        self.messages += 1
        wire = self._wire
        # Exponentially distributed with a mean of 1, as `expovariate` has it: the network is asked most of all.
        late_s = -math.log(1.0 - self._chance.random()) * wire.jitter_s if wire.jitter_s else 0.0
        seconds = wire.latency_s + late_s + size_bytes / wire.bytes_per_s
        return seconds * self.slow[address] if address in self.slow else seconds
