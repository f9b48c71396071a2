"""The client for programs that do not use asyncio: the same client, run on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from sluiceway.client.aio import EXPLAIN_TIMEOUT_S, PATIENCE_S, AsyncClient
from sluiceway.client.description import Description
from sluiceway.client.events import Event
from sluiceway.client.options import OptionFields, Options, Tls
from sluiceway.client.patience import RetryPolicy
from sluiceway.client.results import Result
from sluiceway.client.runs import Results
from sluiceway.client.sources import ApiCall, ChannelOrder, SourceLike
from sluiceway.client.stories.types import Explanation
from sluiceway.errors import Cancelled, SluicewayError
from sluiceway.figures import ClusterFigures

__all__ = ["Client"]

_DEFAULT_OPTIONS = Options()
# An interrupt that comes in the very moment in which a thread begins to wait does not wake it, so it wakes by itself.
_LOOK_UP_S = 0.5
Answer = TypeVar("Answer")
Item = TypeVar("Item")


class _End:
    """Marks the end of an iterator; StopIteration cannot travel through a future."""


_END: Final = _End()


class LoopThread:
    """An event loop on a daemon thread; it ends with `close`, with its owner, or with the interpreter.

    Error handling: what runs when it is closed, or is to run later, raises `Cancelled`.
    """

    # The process that started the first one: gRPC's threads run in it alone.
    _pid: int | None = None

    def __init__(self) -> None:
        LoopThread._pid = LoopThread._pid or os.getpid()
        _require_process(LoopThread._pid)
        self._closed = False
        # Whatever was handed over before `_closed` is seen by `close`, so that nobody waits for a loop that has ended.
        # Reentrant, as the garbage collector may end an iterator while its thread is in here.
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="sluiceway-client", daemon=True)
        self._thread.start()
        self._stop = weakref.finalize(self, _stop, self._loop, self._thread)

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine to its end and return what it returns; an interrupt here cancels it there."""
        try:
            _require_process(self._pid)
        except SluicewayError:
            work.close()
            raise
        with self._lock:
            if self._closed:
                work.close()
                raise Cancelled("the client is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    return future.result(_LOOK_UP_S)
                except TimeoutError:
                    if future.done():  # it is the coroutine's own
                        raise
        except CancelledError as error:
            raise Cancelled("the client was closed") from error
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[Answer]) -> Generator[Answer]:
        """Draw from an asynchronous iterator; leaving the loop closes it."""
        turn = _Turn()
        try:
            while not isinstance(item := self.run(_next(items, turn)), _End):
                yield item
        finally:
            self._leave(_close(items, turn))

    def _leave(self, closing: Coroutine[Any, Any, None]) -> None:
        if threading.current_thread() is self._thread:
            # The garbage collector found a forgotten iterator on this thread, which cannot wait for itself.
            asyncio.run_coroutine_threadsafe(closing, self._loop)
            return
        # A thread that was closed has closed its iterators too.
        with contextlib.suppress(Cancelled):
            self.run(closing)

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel what runs, run `last`, and end the thread. May be called twice."""
        if self._pid != os.getpid():
            # A fork has nothing of it but memory.
            last.close()
            return
        with self._lock:
            if self._closed:
                last.close()
                return
            self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(_end_everything(), self._loop).result()
            asyncio.run_coroutine_threadsafe(last, self._loop).result()
        finally:
            self._stop()


async def _end_everything() -> None:
    """Cancel every task of this loop and close every iterator that nobody draws from at the moment."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _require_process(pid: int | None) -> None:
    """Refuse to work in a fork of the process that began: nothing there would ever answer."""
    if pid != os.getpid():
        raise SluicewayError(
            "gRPC does not work in a process that was forked after a client was made: start processes with "
            "multiprocessing's 'spawn' or 'forkserver', or make the first client after the fork",
            code="FAILED_PRECONDITION",
        )


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    # The garbage collector may find a forgotten client on the client's own thread.
    if thread is not threading.current_thread():
        thread.join()


class _Turn:
    """Of one iterator: who draws from it. The thread that did may have been interrupted and be about to close it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.drawing: asyncio.Task[Any] | None = None


async def _next(items: AsyncIterator[Answer], turn: _Turn) -> Answer | _End:
    async with turn.lock:
        turn.drawing = asyncio.current_task()
        try:
            return await anext(items, _END)
        finally:
            turn.drawing = None


async def _close(items: AsyncIterator[object], turn: _Turn) -> None:
    # One that an interrupt could not cancel any more, as it had just been begun; the others are being given up already.
    if turn.drawing is not None and not turn.drawing.cancelling():
        turn.drawing.cancel()
    async with turn.lock:
        close = getattr(items, "aclose", None)
        if close:
            await close()


async def _from_thread(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Draw from an iterable that may block, without holding up the loop."""
    iterator = iter(items)
    asked: queue.SimpleQueue[Future[Item | _End] | None] = queue.SimpleQueue()
    # One thread for the whole iterable: generators with open files or cursors must not change threads midway. Nobody
    # waits for it, neither who leaves early nor the interpreter's end: the iterable may never have a next item.
    threading.Thread(target=_draw, args=(iterator, asked), name="sluiceway-sources", daemon=True).start()
    try:
        while True:
            place: Future[Item | _End] = Future()
            asked.put(place)
            item = await asyncio.wrap_future(place)
            if isinstance(item, _End):
                return
            yield item
    finally:
        asked.put(None)


def _draw(iterator: Iterator[Item], asked: queue.SimpleQueue[Future[Item | _End] | None]) -> None:
    while place := asked.get():
        if not place.set_running_or_notify_cancel():
            continue
        try:
            place.set_result(next(iterator, _END))
        except Exception as error:  # of any kind: whoever draws raises it again
            place.set_exception(error)
        except BaseException as error:
            # `sys.exit` in a generator: raised again in the loop, it would end the loop, and its callers would wait.
            end = RuntimeError(f"the sources ended with {error!r}")
            end.__cause__ = error
            place.set_exception(end)


class Client:
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

    Resource handling: `with` closes the connections and ends the thread. May be used from many threads at once.
    Error handling: every call raises a subclass of `sluiceway.errors.SluicewayError`; `Cancelled` once it is closed.
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
        self._thread = LoopThread()

        async def connect() -> AsyncClient:
            return AsyncClient(
                address,
                timeout_s=timeout_s,
                tls=tls,
                token=token,
                retry=retry,
                channels=channels,
                metadata=metadata,
            )

        self._client = self._thread.run(connect())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client.address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls of other threads end with `Cancelled`. May be called twice."""
        self._thread.close(self._client.close())

    def process(
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
        """Process one image; see `AsyncClient.process`."""
        return self._thread.run(
            self._client.process(
                source,
                options,
                pipeline=pipeline,
                calls=calls,
                params=params,
                timeout_s=timeout_s,
                request_id=request_id,
                **fields,
            )
        )

    def events(
        self,
        *sources: SourceLike,
        options: Options = _DEFAULT_OPTIONS,
        pipeline: str | None = None,
        calls: Sequence[ApiCall] = (),
        params: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **fields: Unpack[OptionFields],
    ) -> Iterator[Event]:
        """Process images as one job and hand out what happens as it happens; see `AsyncClient.events`."""
        return self._thread.iterate(
            self._client.events(
                *sources,
                options=options,
                pipeline=pipeline,
                calls=calls,
                params=params,
                timeout_s=timeout_s,
                request_id=request_id,
                **fields,
            )
        )

    def process_many(
        self,
        sources: Iterable[SourceLike],
        options: Options = _DEFAULT_OPTIONS,
        *,
        pipeline: str | None = None,
        timeout_s: float | None = None,
        patience_s: float = PATIENCE_S,
        in_flight: int = 16,
        ordered: bool = True,
        request_id: str | None = None,
        **fields: Unpack[OptionFields],
    ) -> Results:
        """Process any number of images over one stream; see `AsyncClient.process_many`.

        The iterable is drawn from on a thread of its own and may block, for example while reading a directory.
        """
        results = self._client.process_many(
            _from_thread(sources),
            options,
            pipeline=pipeline,
            timeout_s=timeout_s,
            patience_s=patience_s,
            in_flight=in_flight,
            ordered=ordered,
            request_id=request_id,
            **fields,
        )

        async def cancel(index: int) -> None:
            results.cancel(index)

        return Results(self._thread.iterate(results), lambda index: self._thread.run(cancel(index)))

    def describe(self, *, timeout_s: float | None = None) -> Description:
        """Ask the server for its pipelines, stages, APIs and limits."""
        return self._thread.run(self._client.describe(timeout_s=timeout_s))

    def explain(self, request_id: str, *, timeout_s: float = EXPLAIN_TIMEOUT_S) -> Explanation:
        """Ask every orchestrator for the story of a request; see `AsyncClient.explain`."""
        return self._thread.run(self._client.explain(request_id, timeout_s=timeout_s))

    def watch(self, interval_s: float = 1.0) -> Generator[ClusterFigures]:
        """Be told again and again how the cluster is, and what limits it; see `AsyncClient.watch`."""
        return self._thread.iterate(self._client.watch(interval_s))

    def wait_ready(self, timeout_s: float, *, pipeline: str | None = None) -> Description:
        """Wait until every stage of a pipeline takes work; see `AsyncClient.wait_ready`."""
        return self._thread.run(self._client.wait_ready(timeout_s, pipeline=pipeline))

    def check_ready(self, timeout_s: float, *, pipeline: str | None = None) -> Description:
        """Ask once whether every stage of a pipeline takes work; see `AsyncClient.check_ready`."""
        return self._thread.run(self._client.check_ready(timeout_s, pipeline=pipeline))
