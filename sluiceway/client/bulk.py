"""Many jobs over one stream: a bounded window, results in order, and a stream that is opened again when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial

from sluiceway.client import events
from sluiceway.client.assembly import Assembly
from sluiceway.client.connection import BulkCall
from sluiceway.client.convert import JobRequest, from_response, size_fault
from sluiceway.client.description import Description
from sluiceway.client.patience import Patience, RetryPolicy
from sluiceway.client.results import Result
from sluiceway.client.sources import LoadedSource, SourceLike, describe_source
from sluiceway.errors import Cancelled, InvalidOption, SluicewayError, Unavailable

__all__ = ["BulkRun"]

# Every server takes messages of this size, whatever its limits; so most runs never have to ask for them.
ALWAYS_TAKEN_BYTES = 2**16 - 2**10


@dataclass(slots=True)
class _Job:
    """One source on its way. `assembly` starts anew with every try, so that no event counts twice."""

    index: int
    job_id: str
    request: JobRequest
    assembly: Assembly
    # From its first failure on.
    patience: Patience | None = None
    # Whether the server of the stream that is open has it.
    sent: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _Cancel:
    """Tell the server that a job which it has is not wanted any more."""

    job_id: str


class BulkRun:
    """One `process_many`.

    A place in the window is taken when a source is drawn and given back when its result is handed out, so at most
    `in_flight` images and results exist at any time.
    """

    def __init__(
        self,
        *,
        open_call: Callable[[], BulkCall],
        load: Callable[[SourceLike], Awaitable[LoadedSource]],
        describe: Callable[[], Awaitable[Description]],
        to_job: Callable[[LoadedSource, str], JobRequest],
        retry: RetryPolicy,
        patience_s: float,
        in_flight: int,
        ordered: bool,
        request_id: str,
    ) -> None:
        if in_flight < 1:
            raise InvalidOption(f"in_flight must be at least 1, not {in_flight}")
        self._open_call = open_call
        self._load = load
        self._describe = describe
        self._to_job = to_job
        self._retry = retry
        self._patience_s = patience_s
        self._ordered = ordered
        self._request_id = request_id
        self._window = asyncio.Semaphore(in_flight)
        self._jobs: dict[str, _Job] = {}
        # Both queues hold at most a window of items, as many cancellations, and one end mark.
        self._to_send: asyncio.Queue[_Job | _Cancel | None] = asyncio.Queue()
        self._finished: asyncio.Queue[tuple[int, Result] | BaseException | None] = asyncio.Queue()
        self._drawn = 0
        self._loading: set[int] = set()
        self._completed = 0
        self._exhausted = False
        self._timers: set[asyncio.TimerHandle] = set()
        # Sources that nobody wants, by number, and that are not on their way yet.
        self._unwanted: set[int] = set()

    def cancel(self, index: int) -> None:
        """End one source before its time; what has ended stays as it is."""
        job = self._jobs.get(self._job_id(index))
        if job is None:
            if index >= self._drawn or index in self._loading:
                self._unwanted.add(index)
        elif not job.sent:
            self._end(job, _cancelled(job.assembly.source))
        elif not job.cancelled:
            job.cancelled = True
            self._to_send.put_nowait(_Cancel(job.job_id))

    def _job_id(self, index: int) -> str:
        """Also what the logs of the servers know the job by."""
        return f"{self._request_id}.{index}"

    async def results(self, sources: Iterable[SourceLike] | AsyncIterable[SourceLike]) -> AsyncGenerator[Result]:
        """Yield one result for each source."""
        halves: tuple[Callable[[], Awaitable[None]], ...] = (lambda: self._draw(sources), self._talk)
        tasks = [asyncio.create_task(self._guard(half)) for half in halves]
        waiting: dict[int, Result] = {}
        handed_out = 0
        try:
            while (item := await self._finished.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                waiting[item[0]] = item[1]
                while waiting and (not self._ordered or handed_out in waiting):
                    key = handed_out if self._ordered else next(iter(waiting))
                    result = waiting.pop(key)
                    handed_out += 1
                    self._window.release()
                    yield result
        finally:
            for timer in self._timers:
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Hand a failure of one part to whoever iterates; it cancels the others."""
        try:
            await work()
        except Exception as error:  # of any kind: `results` raises it again
            self._finished.put_nowait(error)

    async def _draw(self, sources: Iterable[SourceLike] | AsyncIterable[SourceLike]) -> None:
        # Side by side, so that a file on a mount that does not answer holds up nothing but itself.
        loading: set[asyncio.Task[None]] = set()
        try:
            async for source in _as_async(sources):
                await self._window.acquire()
                index, self._drawn = self._drawn, self._drawn + 1
                self._loading.add(index)
                task = asyncio.create_task(self._guard(partial(self._prepare, index, source)))
                loading.add(task)
                task.add_done_callback(loading.discard)
            self._exhausted = True
            self._end_if_complete()
            await asyncio.gather(*loading)
        finally:
            for task in loading:
                task.cancel()

    async def _prepare(self, index: int, source: SourceLike) -> None:
        try:
            loaded = None if index in self._unwanted else await self._load(source)
            request = self._to_job(loaded, self._job_id(index)) if loaded else None
        except SluicewayError as error:
            self._finish(index, Result(describe_source(source), error=error))
            return
        finally:
            self._loading.discard(index)
            unwanted = index in self._unwanted
            self._unwanted.discard(index)
        if loaded is None or request is None or unwanted:
            self._finish(index, _cancelled(describe_source(source)))
            return
        job = _Job(index, self._job_id(index), request, Assembly(loaded.name))
        self._jobs[job.job_id] = job
        self._to_send.put_nowait(job)

    def _finish(self, index: int, result: Result) -> None:
        result = replace(result, request_id=self._job_id(index))
        if result.error is not None:
            result.error.request_id = result.error.request_id or result.request_id
        self._finished.put_nowait((index, result))
        self._completed += 1
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if self._exhausted and self._completed == self._drawn:
            self._to_send.put_nowait(None)
            self._finished.put_nowait(None)

    async def _talk(self) -> None:
        patience: Patience | None = None
        while not (self._exhausted and self._completed == self._drawn):
            before = self._completed
            try:
                await self._talk_once()
                error: SluicewayError = Unavailable("the server ended the stream before every job was finished")
            except SluicewayError as caught:
                error = caught
            _heed_cancelling()
            if self._exhausted and self._completed == self._drawn:
                return
            # It begins with a break, and anew with the next one if something came in between, or nothing was to come.
            if patience is None or self._completed > before or not self._jobs:
                patience = Patience(self._retry, self._patience_s)
            await asyncio.sleep(patience.failed(error))
            self._send_again()

    async def _talk_once(self) -> None:
        async with self._open_call() as call:
            writer = asyncio.create_task(self._guard(partial(self._write, call)))
            try:
                async with aclosing(call.read()) as responses:
                    async for response in responses:
                        job = self._jobs.get(response.job_id)
                        event = from_response(response, [job.assembly.source]) if job else None
                        if job and event:
                            self._receive(job, event)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, call: BulkCall) -> None:
        server: Description | None = None
        asked = False
        # A stream that ends meanwhile is the reader's affair: it learns why, and everything unfinished is sent again.
        with suppress(SluicewayError):
            while (job := await self._to_send.get()) is not None:
                if isinstance(job, _Cancel):
                    if job.job_id in self._jobs:
                        await call.cancel(job.job_id)
                    continue
                if job.job_id not in self._jobs:
                    continue
                if not asked and job.request.ByteSize() > ALWAYS_TAKEN_BYTES:
                    # Once for each stream: the next one may lead to a server with other limits.
                    asked, server = True, await self._ask()
                if server and (error := size_fault(job.request, server)):
                    self._end(job, Result(job.assembly.source, error=error))
                else:
                    # From now on it may be there.
                    job.sent = True
                    await call.write(job.request)
                    _heed_cancelling()
            await call.done_writing()

    async def _ask(self) -> Description | None:
        """What the server says of itself; None if it does not: then its own refusals have to do."""
        try:
            return await self._describe()
        except SluicewayError:
            return None

    def _receive(self, job: _Job, event: events.Event) -> None:
        job.assembly.add(event)
        if not isinstance(event, events.JobDone):
            return
        result = job.assembly.result()
        if result.error is not None and not job.cancelled:
            job.patience = job.patience or Patience(self._retry, self._patience_s)
            try:
                delay_s = job.patience.failed(result.error)
            except SluicewayError as final:
                result = replace(result, error=final)
            else:
                self._later(delay_s, job)
                return
        self._end(job, result)

    def _end(self, job: _Job, result: Result) -> None:
        del self._jobs[job.job_id]
        self._finish(job.index, result)

    def _later(self, delay_s: float, job: _Job) -> None:
        job.assembly, job.sent = Assembly(job.assembly.source), False

        def send() -> None:
            self._timers.discard(timer)
            self._to_send.put_nowait(job)

        timer = asyncio.get_running_loop().call_later(delay_s, send)
        self._timers.add(timer)

    def _send_again(self) -> None:
        """After a break, everything unfinished goes to the new stream, in order and once."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        while not self._to_send.empty():
            self._to_send.get_nowait()
        for job in list(self._jobs.values()):
            if job.cancelled:
                self._end(job, _cancelled(job.assembly.source))
                continue
            job.assembly, job.sent = Assembly(job.assembly.source), False
            self._to_send.put_nowait(job)


def _heed_cancelling() -> None:
    """End this task if it was cancelled: grpc.aio keeps that to itself where it meets a call that is being opened."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _cancelled(source: str) -> Result:
    return Result(source, error=Cancelled("it was cancelled"))


async def _as_async(sources: Iterable[SourceLike] | AsyncIterable[SourceLike]) -> AsyncIterator[SourceLike]:
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield source
    else:
        for source in sources:
            yield source
