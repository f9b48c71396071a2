"""Asks the replicas that took part in a request what they remember of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from sluiceway_runtime.clock import monotonic
from sluiceway_runtime.recorder import Recorder
from sluiceway_runtime.server.convert import error_to_proto
from sluiceway_runtime.server.status import from_rpc_error
from sluiceway_runtime.stories import SERVICE, call_story, error_of

from sluiceway.recorder.v1 import recorder_pb2 as pb
from sluiceway_orchestrator.explain.convert import job_story
from sluiceway_orchestrator.stages.stage import Stage
from sluiceway_orchestrator.story import JobLog, JobRow

__all__ = ["StoryTeller"]

# An answer is wanted within a fifth of a second, also where a replica does not answer.
ASK_TIMEOUT_S = 0.15
SERVER = "orchestrator"


class StoryTeller:
    """Tells stories of requests.

    Args:
        recorder: of this server.
        jobs: that it remembers.
        stages: by name, whose replicas are asked.
    """

    def __init__(
        self, recorder: Callable[[], Recorder], jobs: Callable[[], JobLog], stages: Mapping[str, Stage[Any]]
    ) -> None:
        self._recorder = recorder
        self._jobs = jobs
        self._stages = stages

    async def tell(self, request_id: str) -> pb.ExplainResponse:
        """Tell what is remembered of a request, here and by those who took part in it."""
        jobs = self._jobs().of(request_id)
        own = self._own(request_id, jobs, monotonic())
        asked = dict.fromkeys(
            (attempt.stage, attempt.address)
            for job in jobs
            for source in job.sources
            for attempt in source.attempts
            if attempt.sent_s
        )
        others = await asyncio.gather(*(self._ask(stage, address, request_id) for stage, address in asked))
        return pb.ExplainResponse(servers=[own, *others])

    def _own(self, request_id: str, jobs: list[JobRow], now_s: float) -> pb.ServerStory:
        recorder, log = self._recorder(), self._jobs()
        calls = {call.number: call for call in recorder.calls.of(request_id)}
        story = pb.ServerStory(server=SERVER, instance=recorder.instance)
        story.calls.extend(job_story(job, calls, now_s) for job in jobs)
        # Those that were refused, or failed before they were jobs.
        began = {job.call for job in jobs}
        story.calls.extend(call_story(call, (), now_s) for number, call in calls.items() if number not in began)
        oldest_s = [at_s for at_s in (log.oldest_s, recorder.calls.oldest_s) if at_s is not None]
        story.remembers_ms = (now_s - min(oldest_s)) * 1000 if oldest_s else 0.0
        return story

    async def _ask(self, name: str, address: str, request_id: str) -> pb.ServerStory:
        story = pb.ServerStory(server=name, address=address)
        replica = next((item for item in self._stages[name].replicas if item.address == address), None)
        if replica is None:
            story.error.CopyFrom(error_of("UNAVAILABLE", "the replica is not there any more"))
            return story
        explain = replica.channel.unary_unary(
            f"/{SERVICE}/Explain",
            request_serializer=pb.ExplainRequest.SerializeToString,
            response_deserializer=pb.ExplainResponse.FromString,
        )
        request = pb.ExplainRequest(request_id=request_id)
        said = (("sluiceway-request-bytes", str(request.ByteSize())),)
        try:
            answer: pb.ExplainResponse = await explain(request, timeout=ASK_TIMEOUT_S, metadata=said)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                text = "the replica is of a release that remembers no requests"
                story.error.CopyFrom(error_of("UNIMPLEMENTED", text, code="UNIMPLEMENTED"))
            else:
                story.error.CopyFrom(error_to_proto(from_rpc_error(error)))
            return story
        for told in answer.servers[:1]:
            story = told
            story.address = address
        return story
