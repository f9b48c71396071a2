"""The one place that makes gRPC servers, so that limits and keepalive are the same everywhere.

Its counterpart for who calls is `calling.channel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio

from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.windows import AHEAD_BYTES, window_options

__all__ = ["SharedPorts", "bind", "make_server"]

# Below the interval of `calling.channel`: a Python server otherwise ends connections with `too_many_pings`.
MIN_PING_INTERVAL_MS = 5_000
# Of a request, what a client may send before the server asks for it. A larger one costs a round trip more. Where calls
# wait, what they send is here although nobody has asked for it.
UNASKED_BYTES = 512 * 2**10
# Calls that have come and that Python has not looked at yet, those whose clients have left among them. Further ones are
# ended by gRPC itself, as CANCELLED, which nobody asked for. Unless told otherwise it does so by chance from 1,000 on:
# so many are here when a few thousand calls come at once, or when this process gets no time for some seconds. Each
# takes about 13 KB.
MOST_UNSEEN_CALLS = 10_000
# Likewise it ends those that have waited for longer than this: 30 s, unless told otherwise. How long a call may wait is
# said by its own deadline, which gRPC watches while Python sees nothing of it.
LONGEST_UNSEEN_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class SharedPorts:
    """Where a server listens together with the one that it replaces, while both run: the kernel deals out connections.

    One that starts in the place of another has ports of its own besides, by which it is told from that.

    Attributes:
        port: of gRPC.
        operations_port: of probes and metrics.
    """

    port: int
    operations_port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PORT,OPERATIONS_PORT`. Raises ValueError."""
        port, operations_port = map(int, text.split(","))
        return cls(port, operations_port)


def make_server(
    config: ServerConfig,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    *,
    waits: bool = False,
    shares_port: bool = False,
) -> grpc.aio.Server:
    """An unstarted server with the limits of its configuration.

    Args:
        config: of the server.
        interceptors: what surrounds every call.
        waits: whether calls wait at its door, with what they may send without being asked.
        shares_port: whether another server that says so as well may listen at the same address.
    """
    age = config.max_connection_age_s
    # Calls that run on it go on for as long as they take: gRPC's own grace has no end.
    ages = [("grpc.max_connection_age_ms", int(age * 1000))] if age is not None else []
    server = grpc.aio.server(
        interceptors=list(interceptors),
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            # Unless they are meant to, two servers on one port would share it silently; the second has to fail.
            ("grpc.so_reuseport", int(shares_port)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.server.max_pending_requests", MOST_UNSEEN_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", MOST_UNSEEN_CALLS),
            ("grpc.server_max_unrequested_time_in_server", LONGEST_UNSEEN_S),
            *window_options(UNASKED_BYTES if waits else AHEAD_BYTES),
            *ages,
        ],
    )
    # Of each method that it registers with its core gRPC's asyncio server keeps a task that waits for a call, and at
    # every call it looks at all of them. What is not registered is found by its name.
    server.add_registered_method_handlers = _leave_unregistered  # type: ignore[method-assign]  # no option says so
    return server


def _leave_unregistered(service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
    """Stands in for what generated code calls besides `add_generic_rpc_handlers`."""
    del service_name, method_handlers


def bind(
    server: grpc.aio.Server,
    config: ServerConfig,
    credentials: grpc.ServerCredentials | None = None,
    *,
    port: int | None = None,
) -> int:
    """Listen; returns the port, which the system chose if it is 0.

    Args:
        server: from `make_server`.
        config: says where.
        credentials: for TLS; None is plain text.
        port: another one than the configured.

    Raises:
        StartupError: the address cannot be had.
    """
    port = config.port if port is None else port
    address = f"[{config.host}]:{port}" if ":" in config.host else f"{config.host}:{port}"
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {address}: is another server running there?") from error
    if bound == 0:
        raise StartupError(f"cannot listen on {address}")
    return bound
