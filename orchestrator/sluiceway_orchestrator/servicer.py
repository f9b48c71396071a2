"""The pipeline's RPCs: convert, run, convert back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc.aio
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import InvalidOption, SluicewayError
from sluiceway_runtime.server.calls import deadline_of, request_id_of
from sluiceway_runtime.server.security import ANONYMOUS, current_client

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.convert import event_to_proto, job_from_proto
from sluiceway_orchestrator.events import JobDone
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.jobs import Jobs, read_by
from sluiceway_orchestrator.outbox import Outbox
from sluiceway_orchestrator.plan import targets
from sluiceway_orchestrator.stages.clients import DetectionDescription, RecognitionDescription
from sluiceway_orchestrator.stages.stage import Stage

__all__ = ["PipelineServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class PipelineServicer(pipeline_pb2_grpc.PipelineServiceServicer):
    """Answers the calls of clients. Each call owns one runner task, which it ends before it ends itself."""

    def __init__(
        self,
        config: OrchestratorConfig,
        jobs: Jobs,
        *,
        detection: Stage[DetectionDescription],
        recognition: Stage[RecognitionDescription],
        apis: Callable[[], dict[str, tuple[str, ...]]],
        version: str,
    ) -> None:
        self._config = config
        self._jobs = jobs
        self._detection = detection
        self._recognition = recognition
        self._apis = apis
        self._version = version

    async def Process(  # noqa: N802 - the contract's name
        self, request: pipeline_pb2.ProcessRequest, context: Context
    ) -> AsyncIterator[pipeline_pb2.ProcessResponse]:
        """Run one job."""
        # Before the images are copied out of the message.
        self._jobs.check()
        deadline = deadline_of(context, self._config)
        job = self._job(request, context, deadline, request_id_of(context))
        del request
        runner, outbox = self._jobs.start(job)
        # The generator may be left lying when the client goes while a message is being written: this is not.
        _cancel_when_over(context, runner)
        async with read_by(runner, outbox):
            async for addressed in outbox:
                yield event_to_proto(addressed)

    async def ProcessStream(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pipeline_pb2.ProcessStreamRequest], context: Context
    ) -> AsyncIterator[pipeline_pb2.ProcessStreamResponse]:
        """Run many jobs; the next is read when there is room for it."""
        outbox = self._jobs.outbox()
        runner = asyncio.create_task(self._run_stream(request_iterator, context, outbox), name="stream of jobs")
        _cancel_when_over(context, runner)
        async with read_by(runner, outbox):
            async for addressed in outbox:
                yield pipeline_pb2.ProcessStreamResponse(event=event_to_proto(addressed))

    async def Describe(  # noqa: N802 - the contract's name
        self, request: pipeline_pb2.DescribeRequest, context: Context
    ) -> pipeline_pb2.DescribeResponse:
        """Say what this server offers."""
        del request, context
        return self.description()

    def description(self) -> pipeline_pb2.DescribeResponse:
        """Return what this server offers."""
        config = self._config
        return pipeline_pb2.DescribeResponse(
            server_version=self._version,
            stages=[_stage(self._detection), _stage(self._recognition)],
            detection=self._detection.description,
            recognition=self._recognition.description,
            routes=self._routes(),
            apis=[pipeline_pb2.Api(name=name, params=params) for name, params in sorted(self._apis().items())],
            url_sources=config.url_sources,
            max_sources=config.max_sources,
            max_image_bytes=config.max_image_bytes,
            max_message_bytes=config.max_message_bytes,
            default_deadline_ms=round(config.default_deadline_s * 1000),
            max_deadline_ms=round(config.max_deadline_s * 1000),
        )

    def _routes(self) -> list[pipeline_pb2.Route]:
        routes = []
        for name, route in self._config.routes.items():
            models = targets(route) or ("",)
            routes += [pipeline_pb2.Route(detection_class=name, model=model) for model in models]
        return routes

    def _job(self, request: pipeline_pb2.ProcessRequest, context: Context, deadline: Deadline, request_id: str) -> Job:
        return job_from_proto(
            request, client=_client(context), deadline=deadline, request_id=request_id, config=self._config
        )

    async def _run_stream(
        self,
        requests: AsyncIterator[pipeline_pb2.ProcessStreamRequest],
        context: Context,
        outbox: Outbox,
    ) -> None:
        """Read and run jobs until the client has said its last; cancelling ends them all."""
        slots = asyncio.Semaphore(self._config.max_jobs_per_stream)
        running: set[str] = set()
        request_id = request_id_of(context)
        number = 0

        def ended(job_id: str, task: asyncio.Task[None]) -> None:
            del task
            running.discard(job_id)
            slots.release()

        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                request = await anext(requests, None)
                if request is None:
                    break
                number += 1
                try:
                    # From now, not from the beginning of the stream, which may be open for hours.
                    deadline = deadline_of(context, self._config)
                    job = self._job(request.job, context, deadline, f"{request_id}.{number}")
                    if job.job_id in running:
                        raise InvalidOption("job_id: a job of this name is still running")
                    task = self._jobs.begin(job, outbox, group.create_task)
                except SluicewayError as error:
                    slots.release()
                    name = request.job.job_id[:128] or f"{request_id}.{number}"
                    await outbox.put(name, "", JobDone(0, 0, error))
                    continue
                running.add(job.job_id)
                task.add_done_callback(partial(ended, job.job_id))
                # Not kept while the next job is waited for: they hold the images.
                del request, job, task


def _client(context: Context) -> str:
    """Who shares fairly with whom: clients by name where they show tokens, connections otherwise."""
    name = current_client.get()
    return context.peer() if name == ANONYMOUS else name


def _cancel_when_over(context: Context, runner: asyncio.Task[None]) -> None:
    def over(context: Context) -> None:
        del context
        runner.cancel()

    context.add_done_callback(over)  # type: ignore[arg-type]  # the stubs want a class of their own


def _stage(stage: Stage[Any]) -> pipeline_pb2.Stage:
    endpoints = []
    for replica in stage.replicas:
        report = replica.occupancy.report
        load = model_pb2.Load(
            queued=report.queued, running=report.running, capacity=report.capacity, queue_ms=report.queue_ms
        )
        endpoints.append(pipeline_pb2.Endpoint(address=replica.address, ready=replica.ready, load=load))
    return pipeline_pb2.Stage(name=stage.name, target=stage.target.text, endpoints=endpoints)
