"""The places of a simulated cluster: who listens where, and which names stand for which addresses."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from sluiceway_simulation.network.channel import MemoryChannel
from sluiceway_simulation.network.server import MemoryServer
from sluiceway_simulation.network.wire import Weather, Wire

__all__ = ["Network"]


class Network:
    """Addresses, names and the weather between them.

    Attributes:
        servers: by address; one that is gone may still stand here, and does not listen.
        names: of stages, to hosts.
        unknown: names that cannot be resolved now.
        remembered: what a resolver answers instead, for names that it has in its cache.
    """

    def __init__(self, wire: Wire, chance: random.Random, note: Callable[[str], None] | None = None) -> None:
        self.weather = Weather(wire, chance, note)
        self.servers: dict[str, MemoryServer] = {}
        self.names: dict[str, list[str]] = {}
        self.unknown: set[str] = set()
        self.remembered: dict[str, tuple[str, ...]] = {}
        self._hosts = 0

    def __repr__(self) -> str:
        return f"<Network names={self.names}>"

    def new_host(self) -> str:
        """An address that nobody has had."""
        self._hosts += 1
        return f"10.{self._hosts >> 16}.{self._hosts >> 8 & 255}.{self._hosts & 255}"

    async def look_up(self, name: str, port: int) -> tuple[str, ...]:
        """The addresses of a stage. Raises OSError if the name cannot be resolved."""
        del port
        if name in self.unknown:
            raise OSError(f"{name} cannot be resolved")
        return self.remembered.get(name, tuple(self.names[name]))

    def dial(self, target: str, authority: str | None = None, *, peer: str = "orchestrator") -> Any:
        """Open a channel. `Any` as it is no `grpc.aio.Channel`, but what is used of one."""
        del authority
        return MemoryChannel(self.weather, self.servers, target, (("peer", peer),))
