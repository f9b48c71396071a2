"""Which threads wait for a server's connections, and how. Imports nothing of gRPC, which looks once, when imported."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib.metadata import version

__all__ = ["leisurely_threads", "poll_in_one_thread"]

EXPERIMENTS = "GRPC_EXPERIMENTS"
# Threads of gRPC's own that read and write sockets, for outgoing and for incoming connections. gRPC uses them in Python
# by default since the beginning of 2026.
OWN_THREADS = "-event_engine_client,-event_engine_listener"
# The last release that is known to do without them; it would call the names unknown in the log if it could not.
LAST_RELEASE = (1, 85)
# From Linux' prctl.h.
PR_SET_TIMERSLACK, PR_GET_TIMERSLACK = 29, 30


def poll_in_one_thread(environment: MutableMapping[str, str]) -> None:
    """Let the thread that wakes the event loop wait for the sockets itself. Call this before gRPC is imported.

    Otherwise a message passes from a thread that reads the socket to that one and from there to the event loop: two
    changes of threads where one will do, a tenth of all that a front computes (docs/adr/0014). What an operator has set
    stays as it is.
    """
    release = tuple(int(part) for part in version("grpcio").split(".")[:2])
    if release <= LAST_RELEASE:
        environment.setdefault(EXPERIMENTS, OWN_THREADS)


@contextmanager
def leisurely_threads(slack_s: float) -> Iterator[None]:
    """Let threads that are started in this block, and by those in turn, be so much late where they wait for a time.

    What wakes them they hear at once, as ever. It is for gRPC's, which look for work by themselves several times a
    second. Its timers are such waits, too, and late by up to as much (docs/adr/0033).
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or slack_s <= 0:
        yield
        return
    before_ns = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
    prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(int(slack_s * 1e9)), 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(max(0, before_ns)), 0, 0, 0)
