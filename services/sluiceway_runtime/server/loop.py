"""The event loop of a front, which hears of everything that gRPC has done in one turn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["FrontLoop"]

# What gRPC's asyncio layer calls the function that looks at what its other thread has found.
GRPC_EVENTS = "_handle_events"
MOST_TOLD = 4096


class FrontLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, but for how it hears of gRPC.

    The thread that waits for gRPC's completions writes a byte for each. gRPC's reader takes one byte, and then every
    completion that there is; for each further byte the loop would turn once more, and find nothing. With 24 calls
    beside each other that were seven of nine turns.
    """

    # The stubs tie the arguments to the callback by type variables.
    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """See `asyncio.loop.add_reader`."""
        if isinstance(fd, socket.socket) and _name_of(callback) == GRPC_EVENTS:
            callback = partial(_handle_all, fd, callback)
        super().add_reader(fd, callback, *args)


def _name_of(callback: Callable[..., Any]) -> str:
    function = callback.func if isinstance(callback, partial) else callback
    return getattr(function, "__name__", "")


def _handle_all(told: socket.socket, handle: Callable[[], None]) -> None:
    # Those of completions that come meanwhile stay: they are for the next turn.
    if (more := len(told.recv(MOST_TOLD, socket.MSG_PEEK)) - 1) > 0:
        told.recv(more)
    handle()
