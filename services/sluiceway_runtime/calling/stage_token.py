"""Client interceptors that add the stage token to every call of a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio

__all__ = ["stage_token_interceptors"]

Metadata = tuple[tuple[str, str], ...]


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with(client_call_details, self._metadata), request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with(client_call_details, self._metadata), request)


def _with(details: grpc.aio.ClientCallDetails, metadata: Metadata) -> grpc.aio.ClientCallDetails:
    present = tuple(details.metadata or ())
    return grpc.aio.ClientCallDetails(
        details.method,
        details.timeout,
        grpc.aio.Metadata(*present, *metadata),
        details.credentials,
        details.wait_for_ready,
    )


def stage_token_interceptors(metadata: Metadata) -> Sequence[grpc.aio.ClientInterceptor]:
    """The interceptors for a channel; none without metadata, since each costs time on every call."""
    return [_UnaryUnary(metadata), _UnaryStream(metadata)] if metadata else []
