"""Calls of APIs as steps: before detection, for each region, and once for the source."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fetching import given_by
from sluiceway_orchestrator.fetch import Answer, Call, DetectionChoice
from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from sluiceway_runtime.errors import UpstreamRefused

from sluiceway.pipeline.v1 import pipeline_pb2

Source, ApiCall = pipeline_pb2.Source, pipeline_pb2.ApiCall
TEXT = {"name": "text", "stage": "detection"}
WORDS = {"name": "words", "stage": "recognition", "of": "text"}


def steps(*tables: dict[str, Any]) -> dict[str, Any]:
    return {"p": {"steps": list(tables)}}


class Book:
    """An API of a test: what it was called with, and what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, params: tuple[str, ...] = ("item",)) -> None:
        self.calls: list[Call] = []
        self.answer: Callable[[Call], Awaitable[Answer]] | None = None
        self.running = self.most = 0
        self.apis = {"book": {"caller": given_by(monkeypatch, self._answer, params)}}

    async def _answer(self, call: Call) -> Answer:
        self.calls.append(call)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.answer(call) if self.answer is not None else Answer(None, {"item": call.params["item"]})
        finally:
            self.running -= 1


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    return Book(monkeypatch)


def owner(**more: Any) -> dict[str, Any]:
    return {"name": "owner", "api": "book", "of": "words", "params": {"item": "{text}/{class}/{id}"}} | more


async def test_an_api_is_called_once_for_each_region_with_what_was_read_in_it(book: Book) -> None:
    async with Cluster(pipelines=steps(TEXT, WORDS, owner()), apis=book.apis) as cluster:
        source = (await cluster.process(Source(image=picture(4, regions=3)), pipeline="p"))["0"]
    assert source.done is not None
    assert Counter(call.params["item"] for call in book.calls) == {f"4:{r}/textline/{r}": 1 for r in range(3)}
    for call in book.calls:
        assert call.region is not None
        assert call.region.text == f"4:{call.region.id}"
        assert (call.name, call.region.step, call.region.class_name) == ("owner", "text", "textline")
        left, top, right, bottom = call.region.box_xyxy_px
        assert (left, right, bottom - top) == (10, 90, 16)
        assert call.deadline.remaining_s() > 0
        assert call.request_id
    for region in range(3):
        assert source.values["owner", region].data["item"] == f"4:{region}/textline/{region}"
    assert {report.step: report.failed for report in source.done.steps} == {"text": 0, "words": 0, "owner": 0}


async def test_an_api_is_called_with_regions_as_they_were_found(book: Book) -> None:
    tables = steps(TEXT, owner(of="text", params={"item": "{class}-{confidence}"}, classes=["image"]))
    detector = FakeDetection(class_of=lambda region: region % 2)
    async with Cluster([detector], pipelines=tables, apis=book.apis) as cluster:
        source = (await cluster.process(Source(image=picture(4, regions=4)), pipeline="p"))["0"]
    assert [call.params["item"] for call in book.calls] == ["image-0.9000"] * 2
    assert set(source.values) == {("owner", 1), ("owner", 3)}


async def test_what_was_not_read_is_not_asked_for(book: Book) -> None:
    async def refuse(_number: int, region: int) -> None:
        if region == 1:
            raise UpstreamRefused("no")

    async with Cluster(
        readers=[FakeRecognition(before=refuse)], pipelines=steps(TEXT, WORDS, owner()), apis=book.apis
    ) as cluster:
        source = (await cluster.process(Source(image=picture(4, regions=2)), pipeline="p"))["0"]
    assert [call.params["item"] for call in book.calls] == ["4:0/textline/0"]
    assert source.values["words", 1].HasField("error")
    assert ("owner", 1) not in source.values


@pytest.mark.parametrize("of", ["words", "text"])
async def test_64_regions_are_asked_for_at_once(book: Book, of: str) -> None:
    """As many as `max_in_flight` lets, which is 64 unless it is said otherwise."""
    there = asyncio.Event()

    async def answer(call: Call) -> Answer:
        if book.running >= 64:
            there.set()
        # None is answered before 64 are here.
        await there.wait()
        return Answer(None, {"item": call.params["item"]})

    book.answer = answer
    async with Cluster(pipelines=steps(TEXT, WORDS, owner(of=of)), apis=book.apis) as cluster:
        source = (await cluster.process(Source(image=picture(1, regions=200)), pipeline="p", timeout_s=60))["0"]
    assert source.done is not None
    assert book.most == 64
    assert sum(key[0] == "owner" for key in source.values) == 200


async def test_64_sources_are_fetched_at_once_by_an_api(book: Book) -> None:
    there = asyncio.Event()

    async def answer(call: Call) -> Answer:
        if book.running >= 64:
            there.set()
        await there.wait()
        return Answer(picture(int(call.params["item"]), size_bytes=100_000))

    book.answer = answer
    sources = [Source(source_id=str(n), api_call=ApiCall(api="book", params={"item": str(n)})) for n in range(100)]
    async with Cluster(apis=book.apis) as cluster:
        heard = await cluster.process(*sources, timeout_s=60)
    assert book.most == 64
    assert all(source.done is not None for source in heard.values())


async def test_an_api_is_called_once_for_the_source_when_all_that_it_waits_for_has_ended(book: Book) -> None:
    """Two chains: the ledger hears of every owner, and the last call of the ledger's answer having come."""
    tables = steps(
        {"name": "last", "api": "book", "after": ["ledger", "words"], "params": {"item": "last"}},
        {"name": "ledger", "api": "book", "after": ["owner", "deep"], "params": {"item": "{values}"}},
        TEXT, WORDS, owner(),
        {"name": "inside", "stage": "inner", "of": "text"},
        {"name": "deep", "stage": "recognition", "of": "inside"},
    )  # fmt: skip
    async with Cluster(stages={"inner": [FakeDetection()]}, pipelines=tables, apis=book.apis) as cluster:
        source = (await cluster.process(Source(image=picture(4, regions=3)), pipeline="p"))["0"]
    assert source.done is not None
    names = [call.name for call in book.calls]
    assert Counter(names) == {"owner": 3, "ledger": 1, "last": 1}
    assert names[-2:] == ["ledger", "last"]
    ledger = book.calls[-2]
    assert ledger.region is None
    regions = {region.id: region for region in ledger.regions}
    assert sorted(regions) == list(range(9))
    for region in regions.values():
        if region.step == "text":
            assert set(region.values) == {"words", "owner"}
            assert region.values["owner"]["item"].startswith(region.values["words"]["text"])
        else:
            assert set(region.values) == {"deep"}
            assert region.parent_id in regions
    assert {name: value.WhichOneof("result") for name, value in source.source_values.items()} == {
        "ledger": "data", "last": "data",
    }  # fmt: skip
    assert source.order[-1] == "done"


async def test_a_call_after_a_step_without_any_work_is_made(book: Book) -> None:
    tables = steps(TEXT, WORDS, owner(), {"name": "ledger", "api": "book", "after": ["owner"], "params": {"item": "x"}})
    async with Cluster(pipelines=tables, apis=book.apis) as cluster:
        source = (await cluster.process(Source(image=picture(4, regions=0)), pipeline="p"))["0"]
    assert [call.name for call in book.calls] == ["ledger"]
    assert source.source_values["ledger"].data["item"] == "x"


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("step", ["first", "owner", "ledger"])
async def test_failed_calls(book: Book, step: str, on_error: str) -> None:
    async def answer(call: Call) -> Answer:
        if call.name == step and call.params["item"] != "4:1":
            raise UpstreamRefused("no such thing")
        return Answer(None, {"item": call.params["item"]})

    book.answer = answer
    tables = [
        {"name": "first", "api": "book", "params": {"item": "f"}},
        TEXT,
        WORDS,
        owner(params={"item": "{text}"}),
        {"name": "ledger", "api": "book", "after": ["owner"], "params": {"item": "l"}},
    ]
    chosen = steps(*[table | {"on_error": on_error} if table["name"] == step else table for table in tables])
    async with Cluster(pipelines=chosen, apis=book.apis) as cluster:
        source = (await cluster.process(Source(image=picture(4)), pipeline="p"))["0"]
    assert source.finished
    if on_error == "fail":
        assert source.error is not None
        assert source.error.reason == "UPSTREAM_REFUSED"
        return
    assert source.done is not None
    assert source.ready is not None
    failed = {report.step: report.failed for report in source.done.steps}
    if step == "first":
        assert source.ready.call_errors["first"].reason == "UPSTREAM_REFUSED"
    elif step == "owner":
        assert source.values["owner", 0].error.reason == "UPSTREAM_REFUSED"
        assert source.values["owner", 1].data["item"] == "4:1"
        assert failed["owner"] == 1
    else:
        assert source.source_values["ledger"].error.reason == "UPSTREAM_REFUSED"
        assert failed["ledger"] == 1
    assert source.texts == {"4:0": 1, "4:1": 1}


async def test_several_calls_of_one_api_before_detection_keep_their_answers_by_name(book: Book) -> None:
    tables = steps({"name": "own", "api": "book"}, TEXT, WORDS)
    source = Source(image=picture(2), params={"item": "0"})
    source.calls.add(api="book", params={"item": "1"})
    source.calls.add(api="book", params={"item": "2"})
    source.calls.add(api="book", params={"item": "3"}, name="third")
    async with Cluster(pipelines=tables, apis=book.apis) as cluster:
        heard = (await cluster.process(source, pipeline="p"))["0"]
    assert heard.ready is not None
    assert {name: values["item"] for name, values in heard.ready.values.items()} == {
        "own": "0", "book": "1", "book_2": "2", "third": "3",
    }  # fmt: skip
    assert heard.texts == {"2:0": 1, "2:1": 1}


async def test_a_call_of_the_pipelines_own_brings_the_image(book: Book) -> None:
    async def answer(call: Call) -> Answer:
        return Answer(picture(int(call.params["item"])), {"item": call.params["item"]})

    book.answer = answer
    tables = steps({"name": "scan", "api": "book"}, TEXT, WORDS)
    async with Cluster(pipelines=tables, apis=book.apis) as cluster:
        heard = await cluster.process(Source(params={"item": "8"}), Source(params={"other": "8"}), pipeline="p")
        # A call of the source's own does it as well.
        source = Source()
        source.calls.add(api="book", params={"item": "9"})
        alone = await cluster.process(source)
    assert heard["0"].texts == {"8:0": 1, "8:1": 1}
    assert heard["1"].error is not None
    assert heard["1"].error.reason == "INVALID_OPTION"
    assert "item" in heard["1"].error.message
    assert alone["0"].texts == {"9:0": 1, "9:1": 1}


async def test_an_answer_chooses_how_to_detect_and_the_job_has_the_last_word(book: Book) -> None:
    seen: list[tuple[float, list[str]]] = []

    class Listening(FakeDetection):
        async def Detect(self, request: Any, context: Any) -> Any:
            seen.append((round(request.options.confidence, 4), list(request.options.classes)))
            return await super().Detect(request, context)

    async def answer(_call: Call) -> Answer:
        return Answer(None, {}, DetectionChoice(confidence=0.75, classes=("image",)))

    book.answer = answer
    source = Source(image=picture(2))
    source.calls.add(api="book", params={"item": "1"})
    tables = steps(TEXT | {"options": {"confidence": 0.5}}, WORDS)
    async with Cluster([Listening()], pipelines=tables, apis=book.apis) as cluster:
        await cluster.process(Source(image=picture(1)), pipeline="p")
        await cluster.process(source, pipeline="p")
        await cluster.process(source, pipeline="p", detection=pipeline_pb2.DetectionOptions(confidence=0.25))
    assert seen == [(0.5, []), (0.75, ["image"]), (0.25, ["image"])]


async def test_a_source_may_leave_out_what_stands_in_a_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[Call] = []

    async def answer(call: Call) -> Answer:
        called.append(call)
        return Answer(values={})

    steps = [
        {"name": "text", "stage": "detection"},
        {"name": "owner", "api": "registry", "of": "text", "params": {"item": "{param.country}/{class}"}},
    ]
    detector = FakeDetection()
    apis = {"registry": {"caller": given_by(monkeypatch, answer)}}
    async with Cluster([detector], pipelines={"p": {"steps": steps}}, apis=apis) as cluster:
        assert (await cluster.process(Source(image=picture(1)), pipeline="p"))["0"].done is not None
        assert {call.params["item"] for call in called} == {"/textline"}
        called.clear()
        source = Source(image=picture(1), params={"country": "NL"})
        assert (await cluster.process(source, pipeline="p"))["0"].done is not None
    assert {call.params["item"] for call in called} == {"NL/textline"}
