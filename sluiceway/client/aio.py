"""The client for programs that use asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

from sluiceway.client.assembly import Assembly
from sluiceway.client.bulk import BulkRun
from sluiceway.client.connection import Connection, Headers
from sluiceway.client.convert import from_describe, from_response, from_watch, to_request
from sluiceway.client.description import Description
from sluiceway.client.events import Event
from sluiceway.client.files import MAX_SOURCE_BYTES, READ_TIMEOUT_S, UNASKED_BYTES
from sluiceway.client.options import OptionFields, Options, Tls, with_fields
from sluiceway.client.patience import Patience, RetryPolicy
from sluiceway.client.request_ids import named, request_id_of
from sluiceway.client.results import Result
from sluiceway.client.runs import AsyncResults
from sluiceway.client.sources import ApiCall, ChannelOrder, LoadedSource, SourceLike, load_source, path_of, with_calls
from sluiceway.client.stories.asking import ask_every_server
from sluiceway.client.stories.types import Explanation
from sluiceway.client.threads import in_thread
from sluiceway.client.traces import current_headers, traced
from sluiceway.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, SluicewayError, Unavailable
from sluiceway.figures import ClusterFigures

__all__ = ["DEFAULT_ADDRESS", "EXPLAIN_TIMEOUT_S", "PATIENCE_S", "AsyncClient"]

DEFAULT_ADDRESS = "localhost:50051"
_DEFAULT_OPTIONS = Options()
# For limits that are good to know; images wait for them meanwhile.
ADDRESS_VARIABLE = "SLUICEWAY_ADDRESS"
ASK_TIMEOUT_S = 5.0
# A node that is replaced, a rollout that pulls its images: what a run through the night should outlast.
PATIENCE_S = 300.0
# Of `explain`: servers answer at once, or are not there.
EXPLAIN_TIMEOUT_S = 2.0
Answer = TypeVar("Answer")


class AsyncClient:
    """Talks to one cluster: to its orchestrator, or to several of them in turns.

    Args:
        address: `host:port`, where a name or an address may stand for several orchestrators, or a list of `ip:port`
            with commas between: calls go to each of them in turn, as far as they were found. None takes that of the
            variable SLUICEWAY_ADDRESS, else `localhost:50051`.
        timeout_s: for each call that is given none of its own. A server that cannot be reached, or is on its way up or
            down, is waited for and asked again as long as there is time.
        tls: for an encrypted connection; None connects in the clear.
        token: sent with every call, for servers that ask for one.
        retry: when to try again.
        channels: order of the channels in arrays: "bgr" as OpenCV has them, "rgb" as Pillow, imageio, scikit-image and
            torchvision have them. Pictures of Pillow know theirs; `Source(array, channels=…)` says it for one.
        metadata: sent with every call, for proxies and the like; keys in small letters.

    Resource handling: `async with` closes the connections and cancels what is in flight. Belongs to one event loop;
    any number of calls may run at once.
    Error handling: every call raises a subclass of `sluiceway.errors.SluicewayError`.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout_s: float = 60.0,
        tls: Tls | None = None,
        token: str | None = None,
        retry: RetryPolicy | None = None,
        channels: ChannelOrder = "bgr",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()
        self._channels: ChannelOrder = channels
        self._connect = partial(_connect, tls, token, metadata)
        self._connection = self._connect(self.address, None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls in flight end with `Cancelled`."""
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
        request_id: str | None = None,
        **fields: Unpack[OptionFields],
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
            request_id: letters, digits and `._:-`, at most 128, by which the logs of the servers know it; by default
                one is made. Results and errors carry it.
            fields: those of `Options`, by themselves: they win over `options`.

        Returns:
            The result, its regions in reading order.

        Raises:
            SluicewayError: whatever kept the image from being processed.
        """
        asked = with_fields(options, fields)
        name = request_id_of(request_id)
        loaded = await self._load(with_calls(source, calls, params))

        async def once(remaining_s: float) -> Result:
            assembly = Assembly(loaded.name)
            stream = self._stream([loaded], asked, pipeline, remaining_s, name, headers=trace.headers)
            async with aclosing(stream):
                async for event in stream:
                    assembly.add(event)
            return replace(assembly.result(), request_id=name).raise_for_error()

        with named(name), traced("sluiceway process", name) as trace:
            return await self._with_retries(once, timeout_s)

    async def events(
        self,
        *sources: SourceLike,
        options: Options = _DEFAULT_OPTIONS,
        pipeline: str | None = None,
        calls: Sequence[ApiCall] = (),
        params: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **fields: Unpack[OptionFields],
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
            request_id: as in `process`.
            fields: as in `process`.

        Yields:
            Events; those of different sources interleave, and `JobDone` is the last. A source that fails gives
            `SourceFailed` and raises nothing.

        Raises:
            SluicewayError: the job as a whole could not run. It is tried again only while no event has come.
        """
        options, name = with_fields(options, fields), request_id_of(request_id)
        loaded = [await self._load(with_calls(source, calls, params)) for source in sources]
        patience, begun = self._patience(timeout_s), False
        with traced("sluiceway events", name) as trace:
            while True:
                left_s = patience.remaining_s
                stream = self._stream(loaded, options, pipeline, left_s, name, headers=trace.headers)
                try:
                    async with aclosing(stream):
                        async for event in stream:
                            begun = True
                            yield event
                except SluicewayError as error:
                    with named(name):
                        if begun:
                            raise
                        delay_s = patience.failed(error)
                else:
                    return
                await asyncio.sleep(delay_s)

    def process_many(
        self,
        sources: Iterable[SourceLike] | AsyncIterable[SourceLike],
        options: Options = _DEFAULT_OPTIONS,
        *,
        pipeline: str | None = None,
        timeout_s: float | None = None,
        patience_s: float = PATIENCE_S,
        in_flight: int = 16,
        ordered: bool = True,
        request_id: str | None = None,
        **fields: Unpack[OptionFields],
    ) -> AsyncResults:
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
            request_id: as in `process`; the logs know each source by this, a dot, and its position from 0.
            fields: as in `process`.

        Returns:
            An iterator over one result for each source. One that failed has `error` set; nothing is raised for it.
            `cancel(index)` of the iterator gives up one source.

        Raises:
            SluicewayError: the server could not be reached for `patience_s`.
        """
        asked, name = with_fields(options, fields), request_id_of(request_id)
        run = BulkRun(
            open_call=lambda: self._connection.bulk(asked, name, current_headers()),
            load=self._load,
            describe=self._ask,
            to_job=lambda source, job_id: to_request(
                [source], asked, pipeline=pipeline, job_id=job_id, timeout_s=timeout_s
            ),
            retry=self._retry,
            patience_s=patience_s,
            in_flight=in_flight,
            ordered=ordered,
            request_id=name,
        )
        return AsyncResults(run.results(sources), run.cancel)

    async def describe(self, *, timeout_s: float | None = None) -> Description:
        """Ask the server for its pipelines, stages, APIs and limits."""

        async def once(remaining_s: float) -> Description:
            return from_describe(await self._connection.describe(remaining_s))

        return await self._with_retries(once, timeout_s)

    async def explain(self, request_id: str, *, timeout_s: float = EXPLAIN_TIMEOUT_S) -> Explanation:
        """Ask every orchestrator of the address for the story of a request: where its time went, and why it failed.

        Servers remember the latest 10,000 requests, those that run among them. `critical_path` of
        `sluiceway.client.stories` says what a source of it waited for.

        Args:
            request_id: that of a result or an error, or of a log line.
            timeout_s: for all of it. There is nothing to be waited for: an answer takes some milliseconds.

        Returns:
            The story; `found` is False where no server remembers such a request.

        Raises:
            SluicewayError: no orchestrator answers.
        """
        return await ask_every_server(self.address, request_id, self._connect, timeout_s)

    async def watch(self, interval_s: float = 1.0) -> AsyncGenerator[ClusterFigures]:
        """Be told again and again how the cluster is, and what limits it; the first time after one interval.

        Args:
            interval_s: seconds between two of them, 0.2 to 60.

        Raises:
            SluicewayError: the server cannot be reached, or drains. It is not asked again by itself.
        """
        async with aclosing(self._connection.watch(interval_s)) as responses:
            async for response in responses:
                yield from_watch(response)

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
                return await self.check_ready(remaining_s, pipeline=pipeline)
            except (Unavailable, DeadlineExceeded) as error:
                last = error
            await asyncio.sleep(min(0.1, max(remaining_s, 0)))
        why = f": {last}" if last else ""
        raise Unavailable(f"{self.address} was not ready within {timeout_s:g} s{why}") from last

    async def check_ready(self, timeout_s: float, *, pipeline: str | None = None) -> Description:
        """Ask once whether every stage that a pipeline needs takes work; as `wait_ready`, without waiting for one.

        Raises:
            Unavailable: nobody listens, or stages have no replica that takes work: the message names them.
            DeadlineExceeded: there was no answer in time.
            UnknownPipeline: the server has no pipeline of this name.
        """
        description = from_describe(await self._connection.describe(timeout_s))
        if missing := description.missing(pipeline):
            raise Unavailable(f"no replica of {' and '.join(missing)} takes work")
        return description

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
        self,
        sources: list[LoadedSource],
        options: Options,
        pipeline: str | None,
        timeout_s: float,
        request_id: str,
        *,
        headers: Headers,
    ) -> AsyncGenerator[Event]:
        names = [source.name for source in sources]
        request = to_request(sources, options, pipeline=pipeline)
        responses = self._connection.process(request, options, timeout_s, request_id, headers=headers)
        async with aclosing(responses):
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


def _connect(
    tls: Tls | None, token: str | None, metadata: Mapping[str, str] | None, address: str, name: str | None
) -> Connection:
    return Connection(address, tls=tls, token=token, metadata=metadata, name=name)
