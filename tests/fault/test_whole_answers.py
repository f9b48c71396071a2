"""Crops that are asked for in one answer: when they are, and what happens when it does not come as it should."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from sluiceway_orchestrator.testing import Cluster, FakeRecognition, picture
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

Source = pipeline_pb2.Source
Answer = recognition_pb2.RecognizeResponse


class Faulty(FakeRecognition):
    """Its first whole answers go wrong."""

    wrong: Callable[[Any, Any], Awaitable[Answer]]
    times = 1

    async def RecognizeWhole(self, request: Any, context: Any) -> Answer:
        if self.wholes < self.times:
            self.wholes += 1
            return await self.wrong(request, context)
        return await super().RecognizeWhole(request, context)


def faulty(wrong: Callable[[Any, Any], Awaitable[Answer]], times: int = 1) -> Faulty:
    stage = Faulty(whole_crops=8)
    stage.wrong, stage.times = wrong, times
    return stage


async def breaks_off(_request: Any, context: Any) -> Answer:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
    raise AssertionError


async def says_half(request: Any, _context: Any) -> Answer:
    answer = Answer()
    for crop in request.crops[::2]:
        answer.recognitions.add(crop_id=crop.id).text.text = f"7:{crop.id}"
    return answer


async def is_older(_request: Any, context: Any) -> Answer:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    raise AssertionError


@pytest.mark.parametrize(("regions", "wholes"), [(1, 1), (8, 1), (9, 0), (30, 0)])
async def test_as_many_crops_as_are_done_together_are_asked_for_in_one_answer(regions: int, wholes: int) -> None:
    reader = FakeRecognition(whole_crops=8)
    async with Cluster(readers=[reader]) as cluster:
        (source,) = (await cluster.process(Source(image=picture(7, regions=regions)))).values()
    assert source.texts == {f"7:{region}": 1 for region in range(regions)}
    assert reader.wholes == wholes


async def test_a_server_that_says_nothing_of_it_is_not_asked() -> None:
    reader = FakeRecognition()
    async with Cluster(readers=[reader]) as cluster:
        (source,) = (await cluster.process(Source(image=picture(7, regions=4)))).values()
    assert source.texts == {f"7:{region}": 1 for region in range(4)}
    assert reader.wholes == 0


@pytest.mark.parametrize("wrong", [breaks_off, says_half, is_older])
async def test_what_goes_wrong_is_asked_for_again_and_nothing_comes_twice(
    wrong: Callable[[Any, Any], Awaitable[Answer]],
) -> None:
    reader = faulty(wrong)
    async with Cluster(readers=[reader]) as cluster:
        (source,) = (await cluster.process(Source(image=picture(7, regions=4)))).values()
    assert source.texts == {f"7:{region}": 1 for region in range(4)}
    assert reader.seen.total() == (2 if wrong is says_half else 4)


async def test_an_older_server_behind_the_same_address_is_asked_for_a_stream() -> None:
    """It has the version of the one that described itself, and not its methods."""
    reader = faulty(is_older, times=100)
    async with Cluster(readers=[reader]) as cluster:
        sources = await cluster.process(*(Source(source_id=str(n), image=picture(n)) for n in range(5)))
    for number in range(5):
        assert sources[str(number)].texts == {f"{number}:{region}": 1 for region in range(2)}
    # Told once for each, and not again.
    assert reader.wholes == 5


async def test_a_source_that_is_cancelled_ends_its_whole_call() -> None:
    begun = asyncio.Event()

    async def hang(_number: int, _region: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    reader = FakeRecognition(whole_crops=8, before=hang)
    async with Cluster(readers=[reader]) as cluster:
        job = asyncio.create_task(cluster.process(Source(image=picture(7, regions=4))))
        await begun.wait()
        job.cancel()
        await until(lambda: reader.cancelled)
    assert reader.running == 0
