"""The channel to one server and the calls on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self

import grpc

from sluiceway.client.convert import error_from_rpc
from sluiceway.client.options import Tls
from sluiceway.errors import SluicewayError, Unavailable
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

__all__ = ["BulkCall", "Connection"]

_OPTIONS = (
    # The server's limits decide; its refusal says which one was exceeded.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A cluster that is just starting should be found within a second, not after a minute of back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Retries are this library's: it knows the server's pushback and what can be repeated.
    ("grpc.enable_retries", 0),
)

# What gRPC raises for writing to a stream that is over, or that ends at this moment.
_ENDED = (asyncio.InvalidStateError, grpc.aio.InternalError)


class Connection:
    """One HTTP/2 connection, reused by every call.

    Resource handling: belongs to the event loop that it was made in; `close` cancels what is in flight.
    Error handling: calls raise `SluicewayError`, never a gRPC exception.
    """

    def __init__(self, address: str, *, tls: Tls | None, token: str | None) -> None:
        self.address = address
        self._closed = False
        options = list(_OPTIONS)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))  # type: ignore[arg-type]
            self._channel = grpc.aio.secure_channel(address, _credentials(tls), options=options)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._stub = pipeline_pb2_grpc.PipelineServiceStub(self._channel)

    async def process(
        self, request: pipeline_pb2.ProcessRequest, timeout_s: float | None
    ) -> AsyncGenerator[pipeline_pb2.ProcessResponse]:
        """Run one job."""
        call = self._stub.Process(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            # An abandoned call would hold its memory until the channel closes.
            call.cancel()

    def bulk(self, timeout_s: float | None) -> BulkCall:
        """Open one stream for many jobs."""
        return BulkCall(self._stub.ProcessStream(timeout=timeout_s, metadata=self._metadata), self._error)

    async def describe(self, timeout_s: float | None) -> pipeline_pb2.DescribeResponse:
        """Ask what the server offers."""
        try:
            response: pipeline_pb2.DescribeResponse = await self._stub.Describe(
                pipeline_pb2.DescribeRequest(), timeout=timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        return response

    async def close(self) -> None:
        """Close the channel."""
        self._closed = True
        await self._channel.close()

    def _error(self, error: grpc.aio.AioRpcError) -> SluicewayError:
        return error_from_rpc(error, self.address, closed=self._closed)


class BulkCall:
    """One `ProcessStream`; leaving the `async with` cancels it."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[pipeline_pb2.ProcessStreamRequest, pipeline_pb2.ProcessStreamResponse],
        error: Callable[[grpc.aio.AioRpcError], SluicewayError],
    ) -> None:
        self._call = call
        self._error = error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    async def write(self, job: pipeline_pb2.ProcessRequest) -> None:
        """Send one job; waits while the server's flow control has no room.

        Raises:
            SluicewayError: the stream has ended; `read` says why.
        """
        try:
            await self._call.write(pipeline_pb2.ProcessStreamRequest(job=job))
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        except _ENDED as error:
            raise Unavailable("the stream has ended") from error

    async def done_writing(self) -> None:
        """Say that no job follows.

        Raises:
            SluicewayError: as `write`.
        """
        try:
            await self._call.done_writing()
        except _ENDED as error:
            raise Unavailable("the stream has ended") from error

    async def read(self) -> AsyncGenerator[pipeline_pb2.ProcessResponse]:
        """Receive events until the server ends the stream."""
        try:
            async for response in self._call:
                yield response.event
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes() if tls.ca else None,
        private_key=tls.key.read_bytes() if tls.key else None,
        certificate_chain=tls.certificate.read_bytes() if tls.certificate else None,
    )
