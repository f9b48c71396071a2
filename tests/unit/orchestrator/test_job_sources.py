"""Sources of a job: what must bring their image."""

from __future__ import annotations

import pytest
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.convert.request import Request
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.pipelines.load import ApiFacts, load_pipelines
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import InvalidOption

from sluiceway.pipeline.v1 import pipeline_pb2

STAGES = {"detection": "detection", "recognition": "recognition"}
BRINGING = [{"name": "bring", "api": "files", "params": {"id": "{source_id}"}}, {"name": "text", "stage": "detection"}]


def job_of(source: pipeline_pb2.Source, pipeline: str) -> Job:
    tables = {"pipelines": {"bringing": {"steps": BRINGING}}}
    limits = JobLimits(load_pipelines(tables, STAGES, {"files": ApiFacts(("id",), True)}), "read", max_sources=1)
    message = pipeline_pb2.ProcessRequest(sources=[source], pipeline=pipeline)
    return job_from_request(
        Request(message, {}), client="c", deadline=Deadline.after(60), request_id="r", limits=limits
    )


def test_a_pipeline_that_calls_an_api_first_may_bring_the_image_of_a_source_that_has_nothing() -> None:
    (source,) = job_of(pipeline_pb2.Source(source_id="7"), "bringing").sources
    assert (source.image, source.url, source.api_call, source.calls) == (None, None, None, ())


def test_where_nothing_is_called_a_source_must_say_where_its_image_is() -> None:
    with pytest.raises(InvalidOption, match="must be set"):
        job_of(pipeline_pb2.Source(source_id="7", params={"id": "7"}), "read")
    assert job_of(pipeline_pb2.Source(calls=[pipeline_pb2.ApiCall(api="files")]), "read").sources[0].calls
