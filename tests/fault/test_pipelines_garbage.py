"""What a source that failed had is gone when it is over, and not when somebody looks for garbage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from sluiceway_orchestrator.job import Job
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from sluiceway_runtime.errors import InvalidImage, ModelFailed
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _bad_image(_number: int) -> None:
    raise InvalidImage("no image")


async def _bad_model(_number: int, _region: int) -> None:
    raise ModelFailed("it raised")


STEPS = [
    {"name": "text", "stage": "detection"},
    {"name": "words", "stage": "recognition", "of": "text", "on_error": "fail"},
    {"name": "page", "stage": "recognition", "on_error": "fail"},
]
FAULTS: dict[str, dict[str, Any]] = {
    "no stage is there": {"detectors": [], "readers": []},
    "detection refuses the image": {"detectors": [FakeDetection(before=_bad_image)]},
    "two steps fail at once": {"readers": [FakeRecognition(before=_bad_model)]},
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_job_is_left_after_it_failed(fault: str) -> None:
    async with Cluster(**FAULTS[fault], pipelines={"left": {"steps": STEPS}}) as cluster:
        for number in range(3):
            source = pipeline_pb2.Source(image=picture(number, size_bytes=100_000))
            heard = await cluster.process(
                source, pipeline="left", timeout_s=0.7 if fault == "no stage is there" else 20
            )
            assert heard["0"].error is not None
        await until(lambda: not _left())


async def _never(*_: int) -> None:
    await asyncio.Event().wait()


CANCELLED: dict[str, dict[str, Any]] = {
    "it waits for a stage": {"detectors": [], "readers": []},
    "it waits for detection": {"detectors": [FakeDetection(before=_never)]},
    "two steps wait": {"readers": [FakeRecognition(before=_never)]},
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("way", ["a source", "several sources", "a stream"])
@pytest.mark.parametrize("place", CANCELLED)
async def test_no_job_is_left_after_it_was_cancelled(place: str, way: str) -> None:
    async with Cluster(**CANCELLED[place], pipelines={"left": {"steps": STEPS}}) as cluster:
        for number in range(3):
            sources = [
                pipeline_pb2.Source(source_id=str(n), image=picture(number, size_bytes=100_000))
                for n in range(1 if way == "a source" else 3)
            ]
            request = pipeline_pb2.ProcessRequest(sources=sources, pipeline="left")
            call: Any
            if way == "a stream":
                call = cluster.stub.ProcessStream()
                await call.write(pipeline_pb2.ProcessStreamRequest(job=request))
            else:
                call = cluster.stub.Process(request)
            await until(_left)
            # So that it comes to what it waits for.
            await asyncio.sleep(0.05)
            call.cancel()
            await until(lambda: not _left())


def _left() -> int:
    """How many jobs there are: of this test alone, what others left is not its concern."""
    return sum(isinstance(found, Job) and found.pipeline == "left" for found in gc.get_objects())
