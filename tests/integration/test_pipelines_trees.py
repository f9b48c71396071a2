"""Pipelines of stages: regions inside of regions, several steps at once, whole pages read, failures as steps say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, SourceEvents, picture
from sluiceway_runtime.errors import InvalidImage, ModelFailed

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source
TEXT = {"name": "text", "stage": "detection"}
WORDS = {"name": "words", "stage": "recognition", "of": "text"}
INSIDE = {"name": "inside", "stage": "inner", "of": "text"}


def steps(*tables: dict[str, Any]) -> dict[str, Any]:
    return {"p": {"steps": list(tables)}}


def box(region: pipeline_pb2.Region) -> tuple[float, ...]:
    shape = region.geometry.box
    return shape.x0, shape.y0, shape.x1, shape.y1


async def one(cluster: Cluster, image: bytes, **options: Any) -> SourceEvents:
    heard = await cluster.process(Source(image=image), pipeline="p", **options)
    source = heard["0"]
    assert source.finished
    return source


@pytest.mark.parametrize("at_once", [64, 2])
async def test_regions_of_regions_of_regions(at_once: int) -> None:
    """Three detectors in a row, and a reader of the last: coordinates are of the page, ids of the source."""
    deep = {"name": "deep", "stage": "deepest", "of": "inside"}
    read = {"name": "words", "stage": "recognition", "of": "deep"}
    inner, deepest = FakeDetection(inside=3), FakeDetection(inside=2)
    async with Cluster(
        stages={"inner": [inner], "deepest": [deepest]},
        pipelines=steps(TEXT, INSIDE, deep, read),
        max_crops_per_call=at_once,
    ) as cluster:
        source = await one(cluster, picture(7, regions=3))
    assert source.error is None
    assert sorted(source.regions) == list(range(3 + 9 + 18)), "ids follow each other, each once"
    by_step = {name: [region for event in events for region in event.regions] for name, events in source.found.items()}
    assert {name: len(regions) for name, regions in by_step.items()} == {"text": 3, "inside": 9, "deep": 18}
    assert (inner.crops_seen, deepest.crops_seen) == (3, 9)
    assert not any(region.HasField("parent_id") for region in by_step["text"])
    texts = {region.id: box(region) for region in by_step["text"]}
    assert sorted(texts.values()) == [(10, 0, 90, 16), (10, 20, 90, 36), (10, 40, 90, 56)]
    inside: dict[int, tuple[float, ...]] = {}
    for parent, (left, top, _, _) in texts.items():
        children = [region for region in by_step["inside"] if region.parent_id == parent]
        assert sorted(map(box, children)) == [(left, top + n, left + 1, top + n + 1) for n in range(3)]
        inside |= {region.id: box(region) for region in children}
    for parent, (left, top, _, _) in inside.items():
        children = [region for region in by_step["deep"] if region.parent_id == parent]
        assert sorted(map(box, children)) == [(left, top + n, left + 1, top + n + 1) for n in range(2)]
    # Each of the deepest is read once, and says which it is by the crops that it came through.
    assert {key[1] for key in source.values} == {region.id for region in by_step["deep"]}
    expected = {f"7:{(text * 100 + a) * 100 + b}": 1 for text in range(3) for a in range(3) for b in range(2)}
    assert source.texts == expected
    assert source.done is not None
    order = list(source.done.reading_order)
    assert sorted(order) == list(range(30))
    # A region, and all that is in it, before the next.
    page = [region_id for region_id in order if region_id in texts]
    assert page == [2, 1, 0]
    for region_id in (*texts, *inside):
        below = {r.id for r in by_step["inside"] + by_step["deep"] if is_in(r.id, region_id, source)}
        start = order.index(region_id) + 1
        assert set(order[start : start + len(below)]) == below
    assert [report.step for report in source.done.steps] == ["text", "inside", "deep", "words"]


def is_in(region_id: int, other: int, source: SourceEvents) -> bool:
    region = source.regions[region_id]
    while region.HasField("parent_id"):
        if region.parent_id == other:
            return True
        region = source.regions[region.parent_id]
    return False


async def test_independent_steps_on_the_page_run_at_once() -> None:
    both, here = asyncio.Event(), set[str]()

    def arrived(name: str) -> Any:
        async def before(_number: int) -> None:
            here.add(name)
            if len(here) == 2:
                both.set()
            # Each waits for the other: one after the other they would wait for ever.
            await both.wait()

        return before

    second = {"name": "figures", "stage": "inner"}
    async with Cluster(
        [FakeDetection(before=arrived("text"))],
        stages={"inner": [FakeDetection(before=arrived("figures"))]},
        pipelines=steps(TEXT, second, WORDS),
    ) as cluster:
        source = await one(cluster, picture(3))
    assert {name: len(events) for name, events in source.found.items()} == {"text": 1, "figures": 1}
    assert sorted(source.regions) == [0, 1, 2, 3]
    read = {region.id for region in source.found["text"][0].regions}
    assert {key[1] for key in source.values} == read
    assert set(source.found["text"][0].recognizing) == read
    assert not source.found["figures"][0].recognizing
    assert source.texts == {"3:0": 1, "3:1": 1}


async def test_a_whole_page_is_read_beside_its_regions_and_alone() -> None:
    page = {"name": "page", "stage": "recognition"}
    async with Cluster(pipelines=steps(TEXT, page) | {"alone": {"steps": [page]}}) as cluster:
        source = await one(cluster, picture(5))
        assert source.page_values["page"].text.text == "5:0"
        assert sorted(source.regions) == [0, 1]
        alone = (await cluster.process(Source(image=picture(6, size_bytes=100_000)), pipeline="alone"))["0"]
    assert alone.page_values["page"].text.text == "6:0"
    assert alone.order == ["source_ready", "values", "done"]
    assert alone.done is not None
    assert not alone.done.reading_order


async def test_steps_choose_regions_by_class() -> None:
    """Of the page's regions one step wants lines, one pictures, and one all but pictures."""
    tables = steps(
        TEXT,
        WORDS | {"name": "lines", "classes": ["textline"]},
        WORDS | {"name": "pictures", "classes": ["image"]},
        WORDS | {"name": "rest", "except_classes": ["image"]},
        INSIDE | {"except_classes": ["textline"]},
    )
    inner = FakeDetection(inside=1)
    detector = FakeDetection(class_of=lambda region: region % 2)
    async with Cluster([detector], stages={"inner": [inner]}, pipelines=tables) as cluster:
        source = await one(cluster, picture(1, regions=4))
    said: dict[str, set[int]] = {}
    for step, region_id in source.values:
        said.setdefault(step, set()).add(region_id)
    assert said == {"lines": {0, 2}, "pictures": {1, 3}, "rest": {0, 2}}
    assert sorted(source.found["text"][0].recognizing) == [0, 1, 2, 3]
    parents = [region.parent_id for event in source.found["inside"] for region in event.regions]
    assert sorted(parents) == [1, 3]


FAILS = ["fail", "skip"]


@pytest.mark.parametrize("on_error", FAILS)
async def test_a_failed_detection_of_the_page(on_error: str) -> None:
    async def refuse(_number: int) -> None:
        raise InvalidImage("no image")

    tables = steps(TEXT | {"on_error": on_error}, WORDS, {"name": "page", "stage": "recognition"})
    async with Cluster([FakeDetection(before=refuse)], pipelines=tables) as cluster:
        source = await one(cluster, picture(1))
    if on_error == "fail":
        assert source.error is not None
        assert source.error.reason == "INVALID_IMAGE"
        return
    assert source.done is not None
    assert source.page_values["text"].error.reason == "INVALID_IMAGE"
    assert source.page_values["page"].text.text == "1:0"
    assert {report.step: report.failed for report in source.done.steps} == {"text": 1, "page": 0}


@pytest.mark.parametrize("on_error", FAILS)
async def test_a_failed_detection_inside_of_regions(on_error: str) -> None:
    async def refuse(_number: int) -> None:
        raise ModelFailed("it raised")

    tables = steps(TEXT, INSIDE | {"on_error": on_error}, WORDS | {"of": "inside"})
    async with Cluster(stages={"inner": [FakeDetection(before=refuse)]}, pipelines=tables) as cluster:
        source = await one(cluster, picture(1))
    if on_error == "fail":
        assert source.error is not None
        assert source.error.reason == "MODEL_FAILED"
        return
    assert source.done is not None
    assert sorted(source.regions) == [0, 1]
    assert {key: value.error.reason for key, value in source.values.items()} == {
        ("inside", 0): "MODEL_FAILED", ("inside", 1): "MODEL_FAILED",
    }  # fmt: skip


@pytest.mark.parametrize("on_error", FAILS)
async def test_a_failed_reading(on_error: str) -> None:
    async def refuse(_number: int, region: int) -> None:
        if region == 1:
            raise ModelFailed("it raised")

    tables = steps(TEXT, WORDS | {"on_error": on_error}, WORDS | {"name": "others", "model": "other"})
    reader = FakeRecognition(models=("fake-reader", "other"), before=refuse)
    async with Cluster(readers=[reader], pipelines=tables) as cluster:
        source = await one(cluster, picture(1))
    if on_error == "fail":
        assert source.error is not None
        assert source.error.reason == "MODEL_FAILED"
        return
    assert source.done is not None
    assert source.values["words", 0].text.text == "1:0"
    assert source.values["words", 1].error.reason == "MODEL_FAILED"
    assert {report.step: report.failed for report in source.done.steps} == {"text": 0, "words": 1, "others": 1}


async def test_a_page_without_regions_is_done() -> None:
    async with Cluster(stages={"inner": [FakeDetection()]}, pipelines=steps(TEXT, INSIDE, WORDS)) as cluster:
        source = await one(cluster, picture(1, regions=0))
    assert source.order == ["source_ready", "regions", "done"]
    assert source.done is not None
    assert [report.step for report in source.done.steps] == ["text"]


async def test_regions_alone_are_found_at_every_depth_and_nothing_is_read() -> None:
    reader, inner = FakeRecognition(), FakeDetection()
    tables = steps(TEXT, WORDS, INSIDE, WORDS | {"name": "deep", "of": "inside"})
    async with Cluster(readers=[reader], stages={"inner": [inner]}, pipelines=tables) as cluster:
        source = await one(cluster, picture(1), detect_only=True)
        assert sorted(source.regions) == list(range(6))
        assert not source.values
        assert not any(event.recognizing for events in source.found.values() for event in events)
        assert not reader.seen
        # Crops are cut for what looks at them alone.
        assert inner.crops_seen == 2
        # And the whole of it after that.
        assert len((await one(cluster, picture(1))).values) == 6


async def test_crops_that_do_not_say_where_they_lie_are_not_looked_at() -> None:
    """Rather than regions with coordinates that are not those of the page."""

    class Silent(FakeDetection):
        async def Detect(self, request: Any, context: Any) -> Any:
            answer = await super().Detect(request, context)
            for crop in answer.crops:
                crop.ClearField("to_image")
            return answer

    tables = {"p": {"steps": [
        {"name": "text", "stage": "detection"},
        {"name": "inside", "stage": "inner", "of": "text"},
    ]}}  # fmt: skip
    inner = FakeDetection()
    async with Cluster([Silent()], stages={"inner": [inner]}, pipelines=tables) as cluster:
        source = (await cluster.process(Source(image=picture(1)), pipeline="p"))["0"]
    assert source.error is not None
    assert source.error.reason == "INTERNAL"
    assert "where its crops lie" in source.error.message
    assert not inner.crops_seen


async def test_a_detector_gets_no_more_crops_at_a_time_than_it_takes() -> None:
    asked: list[int] = []

    class Narrow(FakeDetection):
        async def Detect(self, request: Any, context: Any) -> Any:
            asked.append(len(request.crops))
            return await super().Detect(request, context)

        async def Describe(self, request: Any, context: Any) -> Any:
            described = await super().Describe(request, context)
            described.max_crops = 3
            return described

    async with Cluster(stages={"inner": [Narrow()]}, pipelines=steps(TEXT, INSIDE)) as cluster:
        source = await one(cluster, picture(1, regions=8))
    assert source.error is None
    assert sorted(asked) == [2, 3, 3]
