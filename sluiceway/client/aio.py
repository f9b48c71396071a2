"""The client for programs that use asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

from sluiceway.client.assembly import Assembly
from sluiceway.client.bulk import BulkRun
from sluiceway.client.connection import Connection
from sluiceway.client.convert import from_describe, from_response, to_request
from sluiceway.client.description import Description
from sluiceway.client.events import Event
from sluiceway.client.files import MAX_SOURCE_BYTES, READ_TIMEOUT_S, UNASKED_BYTES
from sluiceway.client.options import Options, Tls
from sluiceway.client.patience import Patience, RetryPolicy
from sluiceway.client.results import Result
from sluiceway.client.sources import ApiCall, ChannelOrder, LoadedSource, SourceLike, load_source, path_of, with_calls
from sluiceway.client.threads import in_thread
from sluiceway.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, SluicewayError, Unavailable

__all__ = ["DEFAULT_ADDRESS", "PATIENCE_S", "AsyncClient"]

DEFAULT_ADDRESS = "localhost:50051"
_DEFAULT_OPTIONS = Options()
# For limits that are good to know; images wait for them meanwhile.
ASK_TIMEOUT_S = 5.0
# A node that is replaced, a rollout that pulls its images: what a run through the night should outlast.
PATIENCE_S = 300.0
Answer = TypeVar("Answer")


class AsyncClient:
    """Talks to one Sluiceway server (the orchestrator) over one connection.

    Args:
        address: `host:port`.
        timeout_s: for each call that is given none of its own. A server that cannot be reached, or is on its way up or
            down, is waited for and asked again as long as there is time.
        tls: for an encrypted connection; None connects in the clear.
        token: sent with every call, for servers that ask for one.
        retry: when to try again.
        channels: order of the channels in arrays; "bgr" is OpenCV's.

    Resource handling: `async with` closes the connection and cancels what is in flight. Belongs to one event loop;
    any number of calls may run at once.
    Error handling: every call raises a subclass of `sluiceway.errors.SluicewayError`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = 60.0,
        tls: Tls | None = None,
        token: str | None = None,
        retry: RetryPolicy | None = None,
        channels: ChannelOrder = "bgr",
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()
        self._channels: ChannelOrder = channels
        self._connection = Connection(address, tls=tls, token=token)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight end with `Cancelled`."""
        await self._connection.close()

    async def process(
        self,
        source: SourceLike,
        options: Options = _DEFAULT_OPTIONS,
        *,
        pipeline: str | None = None,
        calls: Sequence[ApiCall] = (),
        params: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Process one image.

        Args:
            source: path, bytes of an image file, numpy array, Pillow picture, URL, `api:NAME?k=v`, `ApiCall`, or any of
                them in a `Source`.
            options: how to process it.
            pipeline: the steps to run, by name; None for the server's default.
            calls: further APIs to ask about the source.
            params: for the call steps of the pipeline, by name.
            timeout_s: for this call.

        Returns:
            The result, its regions in reading order.

        Raises:
            SluicewayError: whatever kept the image from being processed.
        """
        loaded = await self._load(with_calls(source, calls, params))

        async def once(remaining_s: float) -> Result:
            assembly = Assembly(loaded.name)
            async with aclosing(self._stream([loaded], options, pipeline, remaining_s)) as stream:
                async for event in stream:
                    assembly.add(event)
            return assembly.result().raise_for_error()

        return await self._with_retries(once, timeout_s)

    async def events(
        self,
        *sources: SourceLike,
        options: Options = _DEFAULT_OPTIONS,
        pipeline: str | None = None,
        calls: Sequence[ApiCall] = (),
        params: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Event]:
        """Process images as one job and hand out what happens as it happens.

        Leaving the loop early cancels the job; wrap the iterator in `contextlib.aclosing` where that must be at once.

        Args:
            sources: one or more, each as in `process`.
            options: for all of them.
            pipeline: the steps to run, by name; None for the server's default.
            calls: further APIs to ask about each of them.
            params: for the call steps of the pipeline, by name, for each of them.
            timeout_s: for the whole job.

        Yields:
            Events; those of different sources interleave, and `JobDone` is the last. A source that fails gives
            `SourceFailed` and raises nothing.

        Raises:
            SluicewayError: the job as a whole could not run. It is tried again only while no event has come.
        """
        loaded = [await self._load(with_calls(source, calls, params)) for source in sources]
        patience, begun = self._patience(timeout_s), False
        while True:
            try:
                async with aclosing(self._stream(loaded, options, pipeline, patience.remaining_s)) as stream:
                    async for event in stream:
                        begun = True
                        yield event
            except SluicewayError as error:
                if begun:
                    raise
                delay_s = patience.failed(error)
            else:
                return
            await asyncio.sleep(delay_s)

    async def process_many(
        self,
        sources: Iterable[SourceLike] | AsyncIterable[SourceLike],
        options: Options = _DEFAULT_OPTIONS,
        *,
        pipeline: str | None = None,
        timeout_s: float | None = None,
        patience_s: float = PATIENCE_S,
        in_flight: int = 16,
        ordered: bool = True,
    ) -> AsyncGenerator[Result]:
        """Process any number of images over one stream.

        Sources are taken only as fast as the server works and as results are consumed, so an endless iterable is
        fine. A broken connection is opened again and what was unfinished is sent again, for as long as `patience_s`.

        Args:
            sources: each as in `process`; calls and parameters of its own come in a `Source`. A plain iterable must not
                block for long; `Client` takes any.
            options: for all of them.
            pipeline: the steps to run, by name; None for the server's default.
            timeout_s: for each image, from when the server has read it; None leaves it to the server. There is no limit
                for all of them together.
            patience_s: how long to go on while the server cannot be reached and nothing is finished, and for how long a
                single image is tried again that the server has no room or no replica for.
            in_flight: at most this many images are on their way, or finished and not yet handed out.
            ordered: hand results out in the order of the sources; otherwise as they finish.

        Yields:
            One result for each source. One that failed has `error` set; nothing is raised for it.

        Raises:
            SluicewayError: the server could not be reached for `patience_s`.
        """
        run = BulkRun(
            open_call=lambda: self._connection.bulk(options),
            load=self._load,
            describe=self._ask,
            to_job=lambda source, job_id: to_request(
                [source], options, pipeline=pipeline, job_id=job_id, timeout_s=timeout_s
            ),
            retry=self._retry,
            patience_s=patience_s,
            in_flight=in_flight,
            ordered=ordered,
        )
        async with aclosing(run.results(sources)) as results:
            async for result in results:
                yield result

    async def describe(self, *, timeout_s: float | None = None) -> Description:
        """Ask the server for its pipelines, stages, APIs and limits."""

        async def once(remaining_s: float) -> Description:
            return from_describe(await self._connection.describe(remaining_s))

        return await self._with_retries(once, timeout_s)

    async def _ask(self) -> Description:
        """Describe in one quick try."""
        return from_describe(await self._connection.describe(ASK_TIMEOUT_S))

    async def wait_ready(self, timeout_s: float, *, pipeline: str | None = None) -> Description:
        """Wait until the server answers and every stage that a pipeline needs has a replica that takes work.

        Args:
            timeout_s: how long.
            pipeline: its name; None for the server's default.

        Raises:
            Unavailable: it did not in time; the message has the last reason.
            UnknownPipeline: the server has no pipeline of this name.
        """
        deadline_s = time.monotonic() + timeout_s
        last: SluicewayError | None = None
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            try:
                description = from_describe(await self._connection.describe(remaining_s))
            except (Unavailable, DeadlineExceeded) as error:
                last = error
            else:
                ready = {stage.name for stage in description.stages if stage.ready}
                waiting = [name for name in description.stages_of(pipeline) if name not in ready]
                if not waiting:
                    return description
                last = Unavailable(f"no replica of {' and '.join(waiting)} takes work")
            await asyncio.sleep(min(0.1, max(remaining_s, 0)))
        why = f": {last}" if last else ""
        raise Unavailable(f"{self.address} was not ready within {timeout_s:g} s{why}") from last

    async def _load(self, source: SourceLike) -> LoadedSource:
        if isinstance(source, bytes):
            return load_source(source)
        # Disk and encoders would hold up every other call of this loop.
        path = path_of(source)
        if path is None:
            return await asyncio.to_thread(load_source, source, channels=self._channels)

        def load(most_bytes: int) -> LoadedSource:
            return load_source(source, channels=self._channels, most_bytes=most_bytes)

        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                try:
                    return await in_thread(lambda: load(UNASKED_BYTES))
                except ImageTooLarge:
                    most_bytes = await self._most_image_bytes()
                return await in_thread(lambda: load(most_bytes))
        except TimeoutError:
            raise InvalidImage(f"cannot read {path}: it was not there to its end within {READ_TIMEOUT_S:g} s") from None

    async def _most_image_bytes(self) -> int:
        """The server's limit, so that no file is read for nothing; if it does not tell, all that can be sent."""
        try:
            return (await self._ask()).max_image_bytes or MAX_SOURCE_BYTES
        except SluicewayError:
            return MAX_SOURCE_BYTES

    async def _stream(
        self, sources: list[LoadedSource], options: Options, pipeline: str | None, timeout_s: float
    ) -> AsyncGenerator[Event]:
        names = [source.name for source in sources]
        request = to_request(sources, options, pipeline=pipeline)
        async with aclosing(self._connection.process(request, options, timeout_s)) as responses:
            async for response in responses:
                event = from_response(response, names)
                if event is not None:
                    yield event

    def _patience(self, timeout_s: float | None) -> Patience:
        return Patience(self._retry, self._timeout_s if timeout_s is None else timeout_s)

    async def _with_retries(self, once: Callable[[float], Awaitable[Answer]], timeout_s: float | None) -> Answer:
        patience = self._patience(timeout_s)
        while True:
            try:
                return await once(patience.remaining_s)
            except SluicewayError as error:
                delay_s = patience.failed(error)
            await asyncio.sleep(delay_s)
