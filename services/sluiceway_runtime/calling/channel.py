"""The one place that makes channels to Sluiceway servers, so that limits, keepalive and security agree with theirs."""

from __future__ import annotations

from typing import Any

import grpc.aio

from sluiceway_runtime.calling.stage_token import stage_token_interceptors
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.windows import AHEAD_BYTES, window_options

__all__ = ["channel_options", "open_channel"]

# An idle connection is checked this often, so that a peer that vanished without a word is noticed within
# KEEPALIVE_INTERVAL_MS + KEEPALIVE_TIMEOUT_MS.
KEEPALIVE_INTERVAL_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
# A replica that comes back is used again within about a second instead of gRPC's two minutes.
MAX_RECONNECT_BACKOFF_MS = 1_000


def channel_options(max_message_bytes: int) -> list[tuple[str, Any]]:
    """Options of every channel to a Sluiceway server."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # Whatever a ping is for, it keeps the others back.
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
        *window_options(AHEAD_BYTES),
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
