"""Which connection the next call takes, and when others are looked for. Pure: no I/O, no clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

from sluiceway.client.addresses import Place

__all__ = ["CALLS_A_LOOK", "LOOK_EVERY_S", "MOST_SERVERS", "Spread"]

# A look makes a connection, which mostly leads to a server that is known. Where chance decides, behind one address, one
# look in k + 1 meets a server that is new beside k. So with each server there are more looks: however many there are, a
# new one is found within a few of these seconds.
LOOK_EVERY_S = 2.0
# And not more often than this, so that looking stays cheap beside what is done by those calls.
CALLS_A_LOOK = 4
# Connections of one client. Where there are more servers, clients differ in those that they have met.
MOST_SERVERS = 16

Line = TypeVar("Line")


class Spread(Generic[Line]):
    """The connections whose servers are known: calls go to each in turn.

    Args:
        draws: where to look again.
    """

    def __init__(self, draws: random.Random) -> None:
        self._draws = draws
        # By the id of the server.
        self._lines: dict[str, Line] = {}
        # Where each of them was met. It may have several addresses, and an address may stand for several servers.
        self._places: dict[str, set[Place]] = {}
        self._turn = 0
        self._looking = False
        self._eager = True
        self._next_look_s = 0.0
        self._calls = 0

    def __repr__(self) -> str:
        return f"<Spread {', '.join(self._lines)}>"

    @property
    def servers(self) -> tuple[str, ...]:
        """Ids of those that are connected."""
        return tuple(self._lines)

    def take(self) -> Line | None:
        """The connection whose turn it is; None while no server is known."""
        if not self._lines:
            return None
        self._turn = (self._turn + 1) % len(self._lines)
        return list(self._lines.values())[self._turn]

    def met(self, server: str, line: Line, place: Place | None) -> bool:
        """A new connection leads to this server.

        Args:
            server: its id.
            line: the connection.
            place: where it was made to; None for wherever the address led.

        Returns:
            Whether it is to be kept: not if there is one to the same server.
        """
        if place is not None:
            self._places.setdefault(server, set()).add(place)
        if server in self._lines:
            return False
        self._lines[server] = line
        return True

    def lost(self, line: Line) -> None:
        """A connection is no more; what it led to may still be there, and is looked for at once."""
        for server in [server for server, kept in self._lines.items() if kept == line]:
            del self._lines[server]
            self._places.pop(server, None)
        self._eager = True

    def look_due(self, now_s: float) -> bool:
        """Count a call, and say whether to look around now; `looked` is owed then."""
        self._calls += 1
        if self._looking or not 0 < len(self._lines) < MOST_SERVERS:
            return False
        if not self._eager and (now_s < self._next_look_s or self._calls < CALLS_A_LOOK):
            return False
        self._looking, self._eager, self._calls = True, False, 0
        return True

    def to_try(self, places: Sequence[Place]) -> list[Place]:
        """Where to look: at each place where nobody was met, else at any, as another server may be behind it."""
        held = set().union(*(self._places.get(server, set()) for server in self._lines))
        free = [place for place in places if place not in held]
        if free:
            return free[: MOST_SERVERS - len(self._lines)]
        return [self._draws.choice(places)] if places else []

    def looked(self, now_s: float, *, found: bool) -> None:
        """The look is over. Where there was one more there may be another one."""
        self._looking = False
        self._eager |= found
        self._next_look_s = now_s + LOOK_EVERY_S / max(1, len(self._lines))
