"""Jobs as messages of the contract."""

from __future__ import annotations

from typing import Any

from google.protobuf import duration_pb2
from sluiceway_runtime.priority import Priority

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from sluiceway_simulation.clients.heard import Ask

__all__ = ["cancel_message", "job_message", "request_message", "stub_of", "succeeded_of"]

_PRIORITIES = {
    Priority.INTERACTIVE: model_pb2.PRIORITY_INTERACTIVE,
    Priority.NORMAL: model_pb2.PRIORITY_NORMAL,
    Priority.BULK: model_pb2.PRIORITY_BULK,
}


def stub_of(channel: Any) -> Any:
    """The generated stub over a channel in memory; its calls are those of the channel."""
    return pipeline_pb2_grpc.PipelineServiceStub(channel)


def request_message(ask: Ask) -> pipeline_pb2.ProcessRequest:
    """A job as a call."""
    return pipeline_pb2.ProcessRequest(
        job_id=ask.job_id,
        sources=[
            pipeline_pb2.Source(source_id=str(picture.number), image=picture.encode(ask.source_bytes))
            for picture in ask.pictures
        ],
        options=pipeline_pb2.ProcessOptions(priority=_PRIORITIES[ask.priority]),
        pipeline=ask.pipeline,
    )


def succeeded_of(answer: bytes) -> int:
    """How many sources of a job succeeded, by its last message; none where it says nothing of that."""
    return pipeline_pb2.ProcessResponse.FromString(answer).job_done.succeeded


def job_message(ask: Ask) -> pipeline_pb2.ProcessStreamRequest:
    """A job of a stream, which says itself how long it may take."""
    job = request_message(ask)
    timeout = duration_pb2.Duration()
    timeout.FromMilliseconds(round(ask.timeout_s * 1000))
    job.timeout.CopyFrom(timeout)
    return pipeline_pb2.ProcessStreamRequest(job=job)


def cancel_message(job_id: str) -> pipeline_pb2.ProcessStreamRequest:
    """The wish that a job of the stream ends."""
    return pipeline_pb2.ProcessStreamRequest(cancel=pipeline_pb2.CancelJob(job_id=job_id))
