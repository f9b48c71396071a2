"""The one place that makes gRPC servers and channels, so that limits, keepalive and security agree everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.stage_token import stage_token_interceptors

__all__ = ["bind", "channel_options", "make_server", "open_channel"]

# An idle connection is checked this often, so that a peer that vanished without a word is noticed within
# KEEPALIVE_INTERVAL_MS + KEEPALIVE_TIMEOUT_MS.
KEEPALIVE_INTERVAL_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
# Below the interval: a Python server otherwise ends connections with `too_many_pings`.
MIN_PING_INTERVAL_MS = 5_000
# A replica that comes back is used again within about a second instead of gRPC's two minutes.
MAX_RECONNECT_BACKOFF_MS = 1_000
# Of a request, what a client may send before the server asks for it. A larger one costs a round trip more.
UNASKED_BYTES = 512 * 2**10


def make_server(
    config: ServerConfig, interceptors: Sequence[grpc.aio.ServerInterceptor], *, waits: bool = False
) -> grpc.aio.Server:
    """An unstarted server with the limits of its configuration.

    Args:
        config: of the server.
        interceptors: what surrounds every call.
        waits: whether calls wait at its door, with what they may send without being asked.
    """
    # Otherwise the window follows the speed of the connection, up to a gigabyte for each call, and what calls that wait
    # at the door send is here although nobody has asked for it. Where none waits, large messages travel faster so.
    windows = [
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", UNASKED_BYTES),
        # What may come unasked comes in one frame, not in frames of 16 KiB.
        ("grpc.http2.max_frame_size", UNASKED_BYTES),
    ]
    age = config.max_connection_age_s
    # Calls that run on it go on for as long as they take: gRPC's own grace has no end.
    ages = [("grpc.max_connection_age_ms", int(age * 1000))] if age is not None else []
    return grpc.aio.server(
        interceptors=list(interceptors),
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            # Two servers on one port would share it silently; the second has to fail.
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
            *(windows if waits else []),
            *ages,
        ],
    )


def bind(server: grpc.aio.Server, config: ServerConfig, credentials: grpc.ServerCredentials | None = None) -> int:
    """Listen; returns the port, which the system chose if 0 was configured.

    Args:
        server: from `make_server`.
        config: says where.
        credentials: for TLS; None is plain text.

    Raises:
        StartupError: the address cannot be had.
    """
    address = f"[{config.host}]:{config.port}" if ":" in config.host else f"{config.host}:{config.port}"
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {address}: is another server running there?") from error
    if port == 0:
        raise StartupError(f"cannot listen on {address}")
    return port


def channel_options(max_message_bytes: int) -> list[tuple[str, Any]]:
    """Options of every channel to a Sluiceway server."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # Of the pings that measure a connection, which keep the others back.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MS),
        # Stages are in the orchestrator's own network; a proxy that the environment names is for what is outside.
        ("grpc.enable_http_proxy", 0),
        # Otherwise channels to the same address share one connection and with it one flow-control window and fate.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def open_channel(
    target: str,
    *,
    max_message_bytes: int = 64 * 2**20,
    security: Security | None = None,
    authority: str | None = None,
) -> grpc.aio.Channel:
    """A channel to a Sluiceway server; the caller closes it.

    Args:
        target: where to connect.
        max_message_bytes: largest message, both ways.
        security: for TLS, and for the stage token that calls then carry by themselves.
        authority: the name that the server's certificate has to be for, where `target` is the address of one replica.
    """
    options = channel_options(max_message_bytes)
    if authority is not None:
        options += [("grpc.default_authority", authority), ("grpc.ssl_target_name_override", authority)]
    security = security or Security()
    interceptors = stage_token_interceptors(security.call_metadata())
    credentials = security.channel_credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)
