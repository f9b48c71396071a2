"""The calls of one client, and the errors that they end with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.message import EncodeError

from sluiceway.client.addresses import place_of, places_of, require_address, spreads_itself
from sluiceway.client.convert import JobRequest, call_metadata, error_from_rpc, from_explain, is_named, to_watch
from sluiceway.client.encryption import speaks_tls
from sluiceway.client.lines import ChannelMaker, Lines
from sluiceway.client.options import Options, Tls, require_metadata
from sluiceway.client.stories.types import ServerStory
from sluiceway.errors import ImageTooLarge, InvalidOption, SluicewayError, Unavailable, make_error
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from sluiceway.recorder.v1 import recorder_pb2, recorder_pb2_grpc
from sluiceway.watch.v1 import watch_pb2, watch_pb2_grpc

__all__ = ["BulkCall", "Connection"]

REQUEST_ID_KEY = "x-request-id"
Headers = tuple[tuple[str, str], ...]
# Calls to a server that is not there fail again and again; why is looked at once in so many seconds.
LOOK_EVERY_S = 5.0
_PROCESS = f"/{pipeline_pb2.DESCRIPTOR.services_by_name['PipelineService'].full_name}/Process"

# What gRPC raises for writing to a stream that is over, or that ends at this moment.
_ENDED = (asyncio.InvalidStateError, grpc.aio.InternalError)


class Connection:
    """The way to a cluster, reused by every call: a connection to each orchestrator behind the address.

    Args:
        address: of the cluster, or of one of its servers.
        tls: for an encrypted connection.
        token: sent with every call.
        metadata: likewise.
        name: that the certificate is for, where the address is that of one server behind it.

    Resource handling: belongs to the event loop that it was made in; `close` cancels what is in flight.
    Error handling: calls raise `SluicewayError`, never a gRPC exception.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: Tls | None,
        token: str | None,
        metadata: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        if token and not (token.isascii() and token.isprintable()):
            raise InvalidOption("the token has characters other than printable ASCII, such as the end of a line")
        self.address = require_address(address)
        self._closed = False
        channels = ChannelMaker(address, tls=tls, name=name)
        self._metadata = require_metadata(metadata or {})
        if token:
            self._metadata += (("authorization", f"Bearer {token}"),)
        places = None if spreads_itself(address) else partial(places_of, address)
        self._lines = Lines(channels.open, places, self._metadata)
        self._in_the_clear = tls is None
        self._looked_s = -LOOK_EVERY_S
        self._look: asyncio.Task[bool] | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """Ids of the servers that calls are spread over, as far as they are known."""
        return self._lines.servers

    async def process(
        self,
        request: JobRequest,
        options: Options,
        timeout_s: float | None,
        request_id: str,
        *,
        headers: Headers = (),
    ) -> AsyncGenerator[pipeline_pb2.ProcessResponse]:
        """Run one job; `options` are those of the request, logs know it by `request_id`, traces by `headers`."""
        try:
            data = request.SerializeToString()
        except (EncodeError, ValueError) as error:
            raise ImageTooLarge(
                "the sources are larger together than a request can be: send them one by one"
            ) from error
        metadata = self._metadata + call_metadata(options, len(data)) + ((REQUEST_ID_KEY, request_id), *headers)
        with self._lines.line() as channel:
            # The stub would serialise the request once more, after it was done to know its size.
            method: grpc.aio.UnaryStreamMultiCallable[bytes, pipeline_pb2.ProcessResponse] = channel.unary_stream(
                _PROCESS, response_deserializer=pipeline_pb2.ProcessResponse.FromString
            )
            call = method(data, timeout=timeout_s, metadata=metadata)
            try:
                async for response in call:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise await self._error(error) from error
            finally:
                # An abandoned call would hold its memory until the channel closes.
                call.cancel()

    def bulk(self, options: Options, request_id: str, headers: Headers = ()) -> BulkCall:
        """Open one stream for many jobs, all with these options, and without a deadline of its own."""
        # The largest of them is not known: sources are drawn from an iterable while the stream runs.
        metadata = self._metadata + call_metadata(options, None) + ((REQUEST_ID_KEY, request_id), *headers)
        return BulkCall(self._lines.line(), metadata, self._error)

    async def describe(self, timeout_s: float | None) -> pipeline_pb2.DescribeResponse:
        """Ask what the server offers."""
        metadata = self._metadata + call_metadata(Options(), 0)
        with self._lines.line() as channel:
            stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
            try:
                response: pipeline_pb2.DescribeResponse = await stub.Describe(
                    pipeline_pb2.DescribeRequest(), timeout=timeout_s, metadata=metadata
                )
            except grpc.aio.AioRpcError as error:
                raise await self._error(error) from error
        return response

    async def explain(self, request_id: str, timeout_s: float | None) -> tuple[ServerStory, ...]:
        """Ask what a server remembers of a request, and what those do that it asks."""
        request = recorder_pb2.ExplainRequest(request_id=request_id)
        metadata = self._metadata + call_metadata(Options(), request.ByteSize())
        with self._lines.line() as channel:
            stub = recorder_pb2_grpc.RecorderServiceStub(channel)
            try:
                response: recorder_pb2.ExplainResponse = await stub.Explain(
                    request, timeout=timeout_s, metadata=metadata
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    text = f"{self.address} is of a release that remembers no requests"
                    raise make_error("UNIMPLEMENTED", "", text) from error
                raise await self._error(error) from error
        return from_explain(response)

    async def watch(self, interval_s: float) -> AsyncGenerator[watch_pb2.WatchResponse]:
        """Be told again and again how the cluster is."""
        request = to_watch(interval_s)
        metadata = self._metadata + call_metadata(Options(), request.ByteSize())
        with self._lines.line() as channel:
            call = watch_pb2_grpc.WatchServiceStub(channel).Watch(request, metadata=metadata)
            try:
                async for response in call:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise await self._error(error) from error
            finally:
                call.cancel()

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await self._lines.close()

    async def _error(self, error: grpc.aio.AioRpcError) -> SluicewayError:
        said = error_from_rpc(error, self.address, closed=self._closed)
        if said.code == "UNAVAILABLE" and not is_named(error) and await self._wants_tls():
            # gRPC says no more than that nobody answers, and waiting would not help.
            return SluicewayError(
                f"{self.address} speaks TLS, and was called in the clear: "
                "--tls, with --ca for a certificate of your own (in Python tls=Tls())",
                code="FAILED_PRECONDITION",
            )
        return said

    async def _wants_tls(self) -> bool:
        """Look, now and then, whether a server that does not answer wants to be spoken to in TLS."""
        now_s = time.monotonic()
        place = place_of(self.address)
        if not self._in_the_clear or self._closed or place is None:
            return False
        if self._look is None or now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look = asyncio.create_task(speaks_tls(*place))
        # For all that fail meanwhile, whichever of them is given up.
        return await asyncio.shield(self._look)


class BulkCall:
    """One `ProcessStream`, from entering the `async with` on; leaving cancels it."""

    _call: grpc.aio.StreamStreamCall[pipeline_pb2.ProcessStreamRequest, pipeline_pb2.ProcessStreamResponse]

    def __init__(
        self,
        line: AbstractContextManager[grpc.aio.Channel],
        metadata: Headers,
        error: Callable[[grpc.aio.AioRpcError], Awaitable[SluicewayError]],
    ) -> None:
        self._line = line
        self._metadata = metadata
        self._error = error

    async def __aenter__(self) -> Self:
        channel = self._line.__enter__()
        self._call = pipeline_pb2_grpc.PipelineServiceStub(channel).ProcessStream(metadata=self._metadata)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        self._line.__exit__(kind, error, trace)

    async def write(self, job: pipeline_pb2.ProcessRequest) -> None:
        """Send one job; waits while the server's flow control has no room.

        Raises:
            SluicewayError: the stream has ended; `read` says why.
        """
        await self._write(pipeline_pb2.ProcessStreamRequest(job=job))

    async def cancel(self, job_id: str) -> None:
        """Tell the server that a job is not wanted any more.

        Raises:
            SluicewayError: as `write`.
        """
        await self._write(pipeline_pb2.ProcessStreamRequest(cancel=pipeline_pb2.CancelJob(job_id=job_id)))

    async def _write(self, message: pipeline_pb2.ProcessStreamRequest) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from error
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
            raise await self._error(error) from error
