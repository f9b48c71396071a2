"""Ports for servers that have to be told theirs, as others are told of it before they listen, or after they died."""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_ports"]

# Below those that the system gives to outgoing connections: one of these could take the port of a server that restarts.
PORTS = range(15_000, 32_000)
# Each is given once, as a server may not be listening yet when the next one is asked for. Not the generator that tests
# may seed: two runs on one machine must not pick alike.
_untried = iter(random.SystemRandom().sample(PORTS, len(PORTS)))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    found: list[int] = []
    while len(found) < count:
        port = next(_untried)
        with contextlib.suppress(OSError):
            # On every address, as servers may listen on more than this one.
            socket.create_server(("", port)).close()
            found.append(port)
    return found
