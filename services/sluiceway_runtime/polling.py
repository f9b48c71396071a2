"""Which threads wait for a server's connections. Imports nothing of gRPC, which looks once, when it is imported."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib.metadata import version

__all__ = ["poll_in_one_thread"]

EXPERIMENTS = "GRPC_EXPERIMENTS"
# Threads of gRPC's own that read and write sockets, for outgoing and for incoming connections. gRPC uses them in Python
# by default since the beginning of 2026.
OWN_THREADS = "-event_engine_client,-event_engine_listener"
# The last release that is known to do without them; it would call the names unknown in the log if it could not.
LAST_RELEASE = (1, 85)


def poll_in_one_thread(environment: MutableMapping[str, str]) -> None:
    """Let the thread that wakes the event loop wait for the sockets itself. Call this before gRPC is imported.

    Otherwise a message passes from a thread that reads the socket to that one and from there to the event loop: two
    changes of threads where one will do, a tenth of all that a front computes (docs/adr/0014). What an operator has set
    stays as it is.
    """
    release = tuple(int(part) for part in version("grpcio").split(".")[:2])
    if release <= LAST_RELEASE:
        environment.setdefault(EXPERIMENTS, OWN_THREADS)
