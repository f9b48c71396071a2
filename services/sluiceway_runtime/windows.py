"""How much of a message may be on its way before its receiver asks for it."""

from __future__ import annotations

__all__ = ["AHEAD_BYTES", "window_options"]

# Where messages are read as they come: what nearly all of them are, as crops of a dense page are some megabytes.
AHEAD_BYTES = 4 * 2**20


def window_options(ahead_bytes: int) -> list[tuple[str, int]]:
    """Options of a server or channel that receives.

    Otherwise the window follows the speed of the connection, up to a gigabyte for each call, and to find that out both
    ends send a ping and its answer with every message: four wake-ups for each.
    """
    return [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", ahead_bytes)]
