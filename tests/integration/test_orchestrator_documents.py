"""Documents through the orchestrator: ranges over replicas, pages as they come, each once, each failing for itself."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from sluiceway_orchestrator.stages.detection import MAX_SENDS
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, SourceEvents, document, picture
from sluiceway_runtime.errors import InvalidImage, Unavailable
from waiting import until

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2

MIB = 2**20


def source(data: bytes, name: str = "d") -> pipeline_pb2.Source:
    return pipeline_pb2.Source(source_id=name, image=data)


def pages_of(events: SourceEvents) -> list[int]:
    """Numbers of the pages that were told, in the order in which they were."""
    return [regions.page.index for regions in events.found.get("text", [])]


def require_whole(events: SourceEvents, pages: int, *, number: int = 1, regions: int = 2) -> None:
    """Every page was told once, and every region of it read once."""
    assert events.error is None, events.error
    assert sorted(pages_of(events)) == list(range(pages))
    assert events.texts == Counter(
        f"{1000 * number + page}:{region}" for page in range(pages) for region in range(regions)
    )


async def test_every_page_comes_once_and_out_of_order() -> None:
    detector = FakeDetection(workers=4)
    async with Cluster([detector]) as cluster:
        events = (await cluster.process(source(document(1, 30))))["d"]
    require_whole(events, 30)
    assert pages_of(events) != sorted(pages_of(events))
    assert detector.documents == 1
    assert events.done is not None
    # Read page by page, whatever the order in which they came.
    page_of = {region.id: found.page.index for found in events.found["text"] for region in found.regions}
    assert [page_of[key] for key in events.done.reading_order] == sorted(page_of.values())
    assert [line.page for line in events.done.lines] == sorted(page_of.values())
    for block in events.done.blocks:
        assert {events.done.lines[line].page for line in block.lines} == {block.page}
    assert all(page_of[key] == line.page for line in events.done.lines for key in line.region_ids)


async def test_values_say_of_which_page_they_are() -> None:
    async with Cluster([FakeDetection(workers=3)]) as cluster:
        request = pipeline_pb2.ProcessRequest(sources=[source(document(1, 12))])
        page_of: dict[int, int] = {}
        async for response in cluster.stub.Process(request, timeout=20):
            page_of |= {region.id: response.regions.page.index for region in response.regions.regions}
            assert {page_of[value.region_id] for value in response.values.values} <= {response.values.page}
    assert sorted(page_of.values()) == sorted([*range(12)] * 2)


async def test_ranges_are_spread_and_no_replica_gets_a_document_more_than_twice() -> None:
    detectors = [FakeDetection() for _ in range(4)]
    data = document(1, 60, size_bytes=MIB)
    async with Cluster(detectors) as cluster:
        await until(lambda: len([item for item in cluster.service.stages["detection"].replicas if item.ready]) >= 4)
        events = (await cluster.process(source(data), detect_only=True))["d"]
    assert sorted(pages_of(events)) == list(range(60))
    assert sum(detector.documents for detector in detectors) == len(detectors) + 1
    for detector in detectors:
        assert 1 <= detector.documents <= MAX_SENDS
        assert detector.document_bytes == detector.documents * len(data)


async def test_a_replica_that_breaks_off_costs_no_page_and_doubles_none() -> None:
    broken = 0

    async def break_off(number: int) -> None:
        nonlocal broken
        if number % 10 == 7 and broken < 1:
            broken += 1
            raise Unavailable("gone")

    detectors = [FakeDetection(before=break_off) for _ in range(2)]
    async with Cluster(detectors) as cluster:
        events = (await cluster.process(source(document(1, 40))))["d"]
    require_whole(events, 40)
    assert broken == 1
    # What had been answered was not asked for again.
    assert sum((detector.pages_seen for detector in detectors), Counter()).total() == 40


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_damaged_page_fails_alone(replicas: int) -> None:
    damaged = frozenset({0, 5, 11})
    async with Cluster([FakeDetection(damaged=damaged) for _ in range(replicas)]) as cluster:
        events = (await cluster.process(source(document(1, 12))))["d"]
    assert events.error is None
    assert sorted(pages_of(events)) == [page for page in range(12) if page not in damaged]
    assert set(events.page_values) == {"text", "text/5", "text/11"}
    assert all(value.error.reason == "INVALID_IMAGE" for value in events.page_values.values())
    assert events.done is not None
    assert events.done.steps[0].failed == 3


async def test_a_document_without_any_page_that_can_be_read_fails() -> None:
    async with Cluster([FakeDetection(damaged=frozenset(range(3)))]) as cluster:
        events = (await cluster.process(source(document(1, 3))))["d"]
    assert events.error is not None
    assert events.error.reason == "INVALID_IMAGE"


async def test_a_document_that_is_refused_fails_in_the_words_of_the_stage() -> None:
    async def refuse(_number: int) -> None:
        raise InvalidImage("the PDF is encrypted: it opens with a password alone")

    async with Cluster([FakeDetection(before=refuse) for _ in range(2)]) as cluster:
        answers = await cluster.process(source(document(1, 3)), source(picture(2), "p"), detect_only=True)
    assert answers["d"].error is not None
    assert "encrypted" in answers["d"].error.message


async def test_pages_wait_for_a_reader_that_is_slow() -> None:
    # Recognition stands still: detection may not go on through the whole document.
    gate = asyncio.Event()

    async def wait(_number: int, _region: int) -> None:
        await gate.wait()

    detector = FakeDetection()
    data = document(1, 200, regions=10, crop_bytes=30_000)
    async with Cluster([detector], [FakeRecognition(before=wait)]) as cluster:
        task = asyncio.create_task(cluster.process(source(data), timeout_s=60))
        seen = -1
        while seen != detector.pages_seen.total() or not seen:
            seen = detector.pages_seen.total()
            await asyncio.sleep(0.5)
        # Those that are gone on with, and what fits into gRPC's own windows on the way: 300 kB are a page.
        assert seen < 100
        gate.set()
        events = (await task)["d"]
    require_whole(events, 200, regions=10)


async def test_text_that_pages_hold_is_handed_out_where_that_is_asked_for() -> None:
    detectors, reader = [FakeDetection(with_text=frozenset({1, 2})) for _ in range(2)], FakeRecognition()
    async with Cluster(detectors, [reader]) as cluster:
        for text_layer in (model_pb2.TEXT_LAYER_UNSPECIFIED, model_pb2.TEXT_LAYER_IGNORE):
            events = (await cluster.process(source(document(1, 4)), text_layer=text_layer))["d"]
            require_whole(events, 4)
        reader.seen.clear()
        events = (await cluster.process(source(document(1, 4)), text_layer=model_pb2.TEXT_LAYER_PREFER))["d"]
        alone = (await cluster.process(source(document(1, 4)), text_layer=2, detect_only=True))["d"]
    assert sorted(pages_of(events)) == [0, 1, 2, 3]
    said = [f"said {page}:{region}" for page in (1, 2) for region in (0, 1)]
    read = [f"{1000 + page}:{region}" for page in (0, 3) for region in (0, 1)]
    assert events.texts == Counter(said + read)
    # Each region was promised, and nothing else was read.
    promised = {key for found in events.found["text"] for key in found.recognizing}
    assert promised == set(events.regions) == {key for _, key in events.values}
    assert reader.seen.total() == 4
    assert events.done is not None
    assert len(events.done.lines) == 8
    # Whoever reads nothing has no use for it.
    assert sorted(pages_of(alone)) == [0, 1, 2, 3]
    assert not alone.texts


async def test_what_a_document_holds_is_given_back() -> None:
    async with Cluster([FakeDetection(workers=2) for _ in range(2)]) as cluster:
        for _ in range(3):
            events = (await cluster.process(source(document(1, 20, size_bytes=MIB))))["d"]
            require_whole(events, 20)
        budget = cluster.service.budget
        await until(lambda: not budget.used_bytes)


async def test_a_cancelled_document_ends_its_calls() -> None:
    gate = asyncio.Event()

    async def wait(number: int) -> None:
        if number % 1000 >= 3:
            await gate.wait()

    detectors = [FakeDetection(before=wait) for _ in range(2)]
    async with Cluster(detectors) as cluster:
        call = cluster.stub.Process(pipeline_pb2.ProcessRequest(sources=[source(document(1, 50))]), timeout=20)
        async for response in call:
            if response.WhichOneof("event") == "regions":
                break
        call.cancel()
        await until(lambda: not any(detector.running for detector in detectors))


async def test_a_version_that_goes_away_is_followed_by_the_other_and_no_page_comes_twice() -> None:
    old, new = FakeDetection(version="1"), FakeDetection(version="2")
    gone = asyncio.Event()

    async def hold(number: int) -> None:
        if number % 1000 == 6:
            gone.set()
            await asyncio.Event().wait()

    old.before = hold
    async with Cluster([old]) as cluster:
        task = asyncio.create_task(cluster.process(source(document(1, 10)), timeout_s=20))
        await gone.wait()
        address = cluster.detection[0].address
        await cluster.detection[0].stop()
        from sluiceway_orchestrator.testing import FakeServer

        replacement = FakeServer(new)
        await replacement.start(address)
        events = (await task)["d"]
        await replacement.stop()
    require_whole(events, 10)
    assert old.pages_seen
    assert new.pages_seen


async def test_documents_and_images_share_a_cluster() -> None:
    async with Cluster([FakeDetection(workers=2) for _ in range(2)]) as cluster:
        sources = [source(document(1, 30)), *(source(picture(number), str(number)) for number in range(20, 40))]
        answers = await cluster.process(*sources)
    require_whole(answers["d"], 30)
    assert all(answers[str(number)].texts == {f"{number}:0": 1, f"{number}:1": 1} for number in range(20, 40))


async def test_a_document_without_a_deadline_has_the_longest() -> None:
    slow = FakeDetection(workers=1)
    began = asyncio.Event()

    async def wait(number: int) -> None:
        began.set()
        if number == 1002:
            await asyncio.sleep(1.2)

    slow.before = wait
    async with Cluster([slow], default_deadline_s=0.6, max_deadline_s=60) as cluster:

        async def requests():  # type: ignore[no-untyped-def]
            for name, data in (("d", document(1, 4)), ("p", picture(1002))):
                job = pipeline_pb2.ProcessRequest(job_id=name, sources=[source(data, name)])
                yield pipeline_pb2.ProcessStreamRequest(job=job)

        ends = {}
        async for response in cluster.stub.ProcessStream(requests()):
            kind = response.event.WhichOneof("event")
            if kind in ("done", "failed"):
                ends[response.event.source_id] = kind
    assert ends == {"d": "done", "p": "failed"}
