"""The pipeline's RPCs: convert, run, convert back. Requests are read where they lie, without a copy of their images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
from sluiceway_runtime.account import Account, MemoryBudget, phase_of_request
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import Cancelled, DeadlineExceeded, InvalidOption, SluicewayError
from sluiceway_runtime.server.calls import deadline_of, request_id_of
from sluiceway_runtime.server.security import ANONYMOUS, current_client
from sluiceway_runtime.server.status import code_of, trailers
from sluiceway_runtime.together import nursery

from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.convert.events import event_to_proto
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.convert.request import Request, read_action, read_request
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.jobs import Jobs, read_by
from sluiceway_orchestrator.outbox import Outbox

__all__ = ["PipelineServicer"]

# A client that has not read everything so long after the time of its job is given up.
UNREAD_S = 0.5

Context = grpc.aio.ServicerContext[Any, Any]


class PipelineServicer:
    """Answers the calls of clients. Each call owns one runner task, which it ends before it ends itself."""

    def __init__(
        self,
        config: OrchestratorConfig,
        jobs: Jobs,
        limits: JobLimits,
        budget: MemoryBudget,
        describe: Callable[[], pipeline_pb2.DescribeResponse],
    ) -> None:
        self._config = config
        self._jobs = jobs
        self._limits = limits
        self._budget = budget
        self._describe = describe
        self._unread: set[asyncio.Task[None]] = set()

    def register(self, server: grpc.aio.Server) -> None:
        """Serve the contract. As the generated function for this does, but requests come as bytes."""
        service = pipeline_pb2.DESCRIPTOR.services_by_name["PipelineService"].full_name
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Process": grpc.unary_stream_rpc_method_handler(
                self.process,
                request_deserializer=_as_it_is,
                response_serializer=pipeline_pb2.ProcessResponse.SerializeToString,
            ),
            "ProcessStream": grpc.stream_stream_rpc_method_handler(
                self.process_stream,
                request_deserializer=_as_it_is,
                response_serializer=pipeline_pb2.ProcessStreamResponse.SerializeToString,
            ),
            "Describe": grpc.unary_unary_rpc_method_handler(
                self.describe,
                request_deserializer=pipeline_pb2.DescribeRequest.FromString,
                response_serializer=pipeline_pb2.DescribeResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    async def process(self, data: bytes, context: Context) -> AsyncIterator[pipeline_pb2.ProcessResponse]:
        """Run one job."""
        self._jobs.check()
        deadline = deadline_of(context, self._config)
        job = self._job(read_request(data), context, _client(context), deadline, request_id_of(context))
        runner, outbox = self._jobs.start(job)
        # The generator may be left lying when the client goes while a message is being written: this is not.
        _cancel_when_over(context, runner)
        unread = asyncio.get_running_loop().call_later(
            max(0.0, job.deadline.remaining_s()) + UNREAD_S, self._give_up, context, asyncio.current_task()
        )
        try:
            async with read_by(runner, outbox):
                async for addressed in outbox:
                    yield event_to_proto(addressed)
        finally:
            unread.cancel()

    async def process_stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[pipeline_pb2.ProcessStreamResponse]:
        """Run many jobs; the next is read when there is room for it."""
        # Asked for while the call runs: of one that has ended, gRPC would end the process.
        client = _client(context)
        outbox = self._jobs.outbox(client)
        runner = asyncio.create_task(self._run_stream(requests, context, client, outbox), name="stream of jobs")
        _cancel_when_over(context, runner)
        async with read_by(runner, outbox):
            async for addressed in outbox:
                yield pipeline_pb2.ProcessStreamResponse(event=event_to_proto(addressed))

    async def describe(self, request: pipeline_pb2.DescribeRequest, context: Context) -> pipeline_pb2.DescribeResponse:
        """Say what this server offers."""
        del request, context
        return self._describe()

    def _give_up(self, context: Context, call: asyncio.Task[Any] | None) -> None:
        """End a call whose client does not read, and has set no deadline that gRPC would end it at.

        The status waits behind the message that is not read; nothing here waits for it.
        """
        error = DeadlineExceeded("the time ran out before the client had read it")
        status = asyncio.create_task(context.abort(code_of(error), error.message, trailers(error)))
        self._unread.add(status)
        status.add_done_callback(self._forget)
        if call is not None:
            call.cancel()

    def _forget(self, status: asyncio.Task[None]) -> None:
        self._unread.discard(status)
        if not status.cancelled():
            # It always ends with one.
            status.exception()

    def _job(self, request: Request, context: Context, client: str, deadline: Deadline, request_id: str) -> Job:
        return job_from_request(
            request,
            client=client,
            deadline=deadline,
            request_id=request_id,
            limits=self._limits,
            longest=None if context.time_remaining() is not None else Deadline.after(self._config.max_deadline_s),
        )

    async def _run_stream(self, requests: AsyncIterator[bytes], context: Context, client: str, outbox: Outbox) -> None:
        """Read and run jobs until the client has said its last; cancelling ends them all."""
        stream = _Stream(self._config.max_jobs_per_stream, outbox)
        request_id = request_id_of(context)
        number = 0
        async with nursery() as group:
            while True:
                data = await anext(requests, None)
                if data is None:
                    break
                number += 1
                name = f"{request_id}.{number}"
                account = self._budget.account(client=client)
                try:
                    action, fault = read_action(data), None
                except SluicewayError as error:
                    action, fault = None, error
                if action is not None and action.job is None:
                    # However many jobs run: it makes room.
                    stream.cancel(action.cancel or "")
                    continue
                await stream.slots.acquire()
                await stream.reserve(account, len(data))
                try:
                    if action is None or action.job is None:
                        assert fault is not None
                        raise fault
                    name = action.job.message.job_id or name
                    # From now, not from the beginning of the stream, which may be open for hours.
                    job = self._job(action.job, context, client, deadline_of(context, self._config), name)
                    stream.require_free(job.job_id)
                    task = self._jobs.begin(job, outbox, group.create_task)
                except SluicewayError as error:
                    account.close()
                    outbox.refuse(name, error, stream.slots.release)
                    continue
                stream.add(job, task, account)
                # Not kept while the next job is waited for: they hold the images.
                del data, action, job, task, account


class _Stream:
    """The jobs of one stream that run, or whose end the client has not heard of.

    A client that does not read has no more than so many, and no name stands for two of them.
    """

    def __init__(self, most: int, outbox: Outbox) -> None:
        self.slots = asyncio.Semaphore(most)
        self._outbox = outbox
        self._running: dict[str, asyncio.Task[None]] = {}

    async def reserve(self, account: Account, size_bytes: int) -> None:
        """Wait for room for a job that has been read; the next is not read before. One at a time always has it."""
        if self._running:
            await account.reserve(size_bytes, phase_of_request(size_bytes))
        else:
            account.add(size_bytes, phase_of_request(size_bytes))

    def require_free(self, job_id: str) -> None:
        """Raise InvalidOption if a job of this name runs."""
        if job_id in self._running:
            raise InvalidOption("job_id: a job of this name is still running")

    def add(self, job: Job, task: asyncio.Task[None], account: Account) -> None:
        """A job runs, and its request is held until it has ended."""
        self._running[job.job_id] = task
        task.add_done_callback(partial(self._ended, job, account))
        self._outbox.when_told(job.job_id, partial(self._told, job.job_id))

    def cancel(self, job_id: str) -> None:
        """End a job; nothing if none of this name runs."""
        if job_id in self._running:
            self._running[job_id].cancel()

    def _told(self, job_id: str) -> None:
        del self._running[job_id]
        self.slots.release()

    def _ended(self, job: Job, account: Account, task: asyncio.Task[None]) -> None:
        account.close()
        if task.cancelled():
            names = [source.source_id for source in job.sources]
            self._outbox.expire(job.job_id, names, Cancelled("the job was cancelled"))


def _as_it_is(message: bytes) -> bytes:
    return message


def _client(context: Context) -> str:
    """Who shares fairly with whom: clients by name where they show tokens, connections otherwise."""
    name = current_client.get()
    return context.peer() if name == ANONYMOUS else name


def _cancel_when_over(context: Context, runner: asyncio.Task[None]) -> None:
    # The context keeps its callbacks, and gRPC may keep the context of a call that was cancelled for good. What ended
    # by being cancelled knows the frames that this came through, and their image.
    running = [runner]
    runner.add_done_callback(lambda _: running.clear())

    def over(context: Context) -> None:
        del context
        for task in running:
            task.cancel()

    context.add_done_callback(over)  # type: ignore[arg-type]  # the stubs want a class of their own
