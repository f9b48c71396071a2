"""The channel to one server and the calls on it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.message import EncodeError

from sluiceway.client.addresses import first_of, is_local, place_of, require_address, target_of
from sluiceway.client.convert import JobRequest, call_metadata, error_from_rpc, is_named, to_watch
from sluiceway.client.encryption import speaks_tls
from sluiceway.client.options import Options, Tls, require_metadata
from sluiceway.errors import ImageTooLarge, InvalidOption, SluicewayError, Unavailable
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from sluiceway.watch.v1 import watch_pb2, watch_pb2_grpc

__all__ = ["BulkCall", "Connection"]

_OPTIONS = (
    # The server's limits decide; its refusal says which one was exceeded.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A cluster that is just starting should be found within a second, not after a minute of back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A machine that vanished says nothing, and calls without a deadline, as those of `process_many`, would wait on.
    # The ping that measures the connection keeps others back, so it has a limit as well. All of them are long, because
    # on a slow line a ping stands behind the images that are being sent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Retries are this library's: it knows the server's pushback and what can be repeated.
    ("grpc.enable_retries", 0),
    # Where a name or a list stands for several servers, each gets its share of the calls.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
)

REQUEST_ID_KEY = "x-request-id"
# Calls to a server that is not there fail again and again; why is looked at once in so many seconds.
LOOK_EVERY_S = 5.0
_PROCESS = f"/{pipeline_pb2.DESCRIPTOR.services_by_name['PipelineService'].full_name}/Process"

# What gRPC raises for writing to a stream that is over, or that ends at this moment.
_ENDED = (asyncio.InvalidStateError, grpc.aio.InternalError)


class Connection:
    """The channel to a cluster, reused by every call: a connection to each orchestrator of the address.

    Resource handling: belongs to the event loop that it was made in; `close` cancels what is in flight.
    Error handling: calls raise `SluicewayError`, never a gRPC exception.
    """

    def __init__(
        self, address: str, *, tls: Tls | None, token: str | None, metadata: Mapping[str, str] | None = None
    ) -> None:
        if token and not (token.isascii() and token.isprintable()):
            raise InvalidOption("the token has characters other than printable ASCII, such as the end of a line")
        self.address = require_address(address)
        self._closed = False
        options = list(_OPTIONS)
        if is_local(address):
            # As everybody expects of curl's `localhost`; gRPC would ask the proxy for it. Elsewhere gRPC goes by
            # `grpc_proxy`, `https_proxy`, `http_proxy` and `no_grpc_proxy`, `no_proxy`.
            options.append(("grpc.enable_http_proxy", 0))
        target = target_of(address)
        if (first := first_of(address)) is not None:
            options.append(("grpc.default_authority", first))
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self._channel = grpc.aio.secure_channel(target, _credentials(tls), options=options)
        self._metadata = require_metadata(metadata or {})
        if token:
            self._metadata += (("authorization", f"Bearer {token}"),)
        self._stub = pipeline_pb2_grpc.PipelineServiceStub(self._channel)
        self._watch = watch_pb2_grpc.WatchServiceStub(self._channel)
        self._in_the_clear = tls is None
        self._looked_s = -LOOK_EVERY_S
        self._look: asyncio.Task[bool] | None = None
        # The stub would serialise the request once more, after it was done to know its size.
        self._process: grpc.aio.UnaryStreamMultiCallable[bytes, pipeline_pb2.ProcessResponse] = (
            self._channel.unary_stream(_PROCESS, response_deserializer=pipeline_pb2.ProcessResponse.FromString)
        )

    async def process(
        self, request: JobRequest, options: Options, timeout_s: float | None, request_id: str
    ) -> AsyncGenerator[pipeline_pb2.ProcessResponse]:
        """Run one job; `options` are those of the request, and logs know it by `request_id`."""
        try:
            data = request.SerializeToString()
        except (EncodeError, ValueError) as error:
            raise ImageTooLarge(
                "the sources are larger together than a request can be: send them one by one"
            ) from error
        metadata = self._metadata + call_metadata(options, len(data)) + ((REQUEST_ID_KEY, request_id),)
        call = self._process(data, timeout=timeout_s, metadata=metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from error
        finally:
            # An abandoned call would hold its memory until the channel closes.
            call.cancel()

    def bulk(self, options: Options, request_id: str) -> BulkCall:
        """Open one stream for many jobs, all with these options, and without a deadline of its own."""
        # The largest of them is not known: sources are drawn from an iterable while the stream runs.
        metadata = self._metadata + call_metadata(options, None) + ((REQUEST_ID_KEY, request_id),)
        return BulkCall(self._stub.ProcessStream(metadata=metadata), self._error)

    async def describe(self, timeout_s: float | None) -> pipeline_pb2.DescribeResponse:
        """Ask what the server offers."""
        metadata = self._metadata + call_metadata(Options(), 0)
        try:
            response: pipeline_pb2.DescribeResponse = await self._stub.Describe(
                pipeline_pb2.DescribeRequest(), timeout=timeout_s, metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from error
        return response

    async def watch(self, interval_s: float) -> AsyncGenerator[watch_pb2.WatchResponse]:
        """Be told again and again how the cluster is."""
        request = to_watch(interval_s)
        metadata = self._metadata + call_metadata(Options(), request.ByteSize())
        call = self._watch.Watch(request, metadata=metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel."""
        self._closed = True
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await self._channel.close()

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
    """One `ProcessStream`; leaving the `async with` cancels it."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[pipeline_pb2.ProcessStreamRequest, pipeline_pb2.ProcessStreamResponse],
        error: Callable[[grpc.aio.AioRpcError], Awaitable[SluicewayError]],
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


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if tls.ca:
        try:
            # What gRPC cannot use it tells its own log, and the caller that nobody answers.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(tls.ca)
        except ssl.SSLError as error:
            raise InvalidOption(f"there are no certificates in {tls.ca} (PEM): {error.reason}") from error
        except OSError as error:
            raise InvalidOption(f"cannot read {tls.ca}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca), private_key=_read(tls.key), certificate_chain=_read(tls.certificate)
    )


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise InvalidOption(f"cannot read {path}: {error.strerror}") from error
