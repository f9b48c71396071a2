"""Sources of a job: those that do not say themselves where their image is."""

from __future__ import annotations

import pytest
from sluiceway_orchestrator.convert.job import JobLimits, job_from_request
from sluiceway_orchestrator.convert.request import Request
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.pipelines.load import ApiFacts, load_pipelines
from sluiceway_runtime.deadline import Deadline

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


@pytest.mark.parametrize("pipeline", ["bringing", "read"])
def test_whether_a_source_that_has_nothing_gets_its_image_is_not_judged_here(pipeline: str) -> None:
    """The pipeline's own calls may bring it; where they do not, that is the end of this source and no other."""
    (source,) = job_of(pipeline_pb2.Source(source_id="7"), pipeline).sources
    assert (source.image, source.url, source.api_call, source.calls) == (None, None, None, ())
