"""The asynchronous client against a scripted server over real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from sluiceway import errors
from sluiceway.client import (
    ApiCall,
    AsyncClient,
    JobDone,
    Options,
    Priority,
    Regions,
    RetryPolicy,
    Source,
    SourceDone,
    SourceFailed,
    SourceReady,
    StepOptions,
    Values,
)
from sluiceway.common.v1 import model_pb2

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
QUICK = RetryPolicy(attempts=4, first_delay_s=0.01)


@pytest.fixture
async def client(server: Any) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address, retry=QUICK, timeout_s=60, token="secret") as made:
        yield made


async def test_process_gives_regions_in_reading_order(client: AsyncClient, server: Any) -> None:
    result = await client.process(b"hello")
    assert [region.text for region in result.regions] == ["hello", "world"]
    first = result.regions[0]
    assert (first.id, first.box, first.class_name) == (1, (1, 2, 5, 4), "textline")
    assert (first.text_confidence, first.values["words"].model) == (0.75, "tiny")
    assert (first.step, first.parent_id, first.page) == ("text", None, 0)
    assert (result.source, result.width, result.height, result.ok) == ("5 bytes", 100, 50, True)
    assert result.timings.total_ms == 12.5
    assert result.models[0].weights_sha256 == "ab" * 32
    assert result.values == {"shop": {"price": 3, "sale": 0.5}}
    assert result.text == "hello\nworld"
    assert server.fake.metadata[0]["authorization"] == "Bearer secret"


async def test_options_reach_the_wire(client: AsyncClient, server: Any) -> None:
    options = Options(
        confidence=0.5, iou=0.6, classes=("a",), max_detections=9, image_size=640, characters=True,
        top_k=3, priority=Priority.BULK, return_images=True, detect_only=True, words=True, scale=0.5,
        text_layer="prefer",
    )  # fmt: skip
    await client.process(b"x", options)
    sent = server.fake.requests[0].options
    assert (sent.detection.confidence, sent.detection.max_detections, list(sent.detection.classes)) == (0.5, 9, ["a"])
    assert (sent.detection.image_size, sent.recognition.characters, sent.recognition.top_k) == (640, True, 3)
    assert (sent.priority, sent.return_images, sent.detect_only) == (model_pb2.PRIORITY_BULK, True, True)
    assert sent.recognition.words
    assert sent.detection.scale == "0.5"
    assert sent.text_layer == model_pb2.TEXT_LAYER_PREFER
    with pytest.raises(errors.InvalidOption, match="text_layer"):
        await client.process(b"x", text_layer="perhaps")  # type: ignore[arg-type]


async def test_defaults_are_left_to_the_server(client: AsyncClient, server: Any) -> None:
    await client.process(b"x")
    request = server.fake.requests[0]
    detection, recognition = request.options.detection, request.options.recognition
    assert not any(detection.HasField(name) for name in ("confidence", "iou", "max_detections", "image_size", "scale"))
    assert not any(recognition.HasField(name) for name in ("characters", "top_k", "words"))
    assert (request.pipeline, request.HasField("timeout"), dict(request.options.steps)) == ("", False, {})


async def test_options_of_single_steps(client: AsyncClient, server: Any) -> None:
    steps = {"plates": StepOptions(confidence=0.5), "number": StepOptions(top_k=2, characters=False)}
    await client.process(b"x", Options(steps=steps))
    sent = server.fake.requests[0].options.steps
    assert sent["plates"].detection.confidence == 0.5
    assert not sent["plates"].HasField("recognition")
    assert (sent["number"].recognition.top_k, sent["number"].recognition.HasField("characters")) == (2, True)
    assert not sent["number"].HasField("detection")


async def test_a_pipeline_its_parameters_and_further_calls(client: AsyncClient, server: Any) -> None:
    calls = [ApiCall("shop", {"id": "7"}), ApiCall("shop", {"id": "8"}, name="other")]
    await client.process(b"x", pipeline="parking", calls=calls, params={"country": "DE"})
    own = Source(ApiCall("archive"), calls[:1], {"country": "FR"})
    _ = [
        item
        async for item in client.events(own, Source(), pipeline="parking", calls=calls[1:], params={"country": "DE"})
    ]
    first, second = server.fake.requests
    assert (first.pipeline, second.pipeline) == ("parking", "parking")
    sent = first.sources[0]
    assert (sent.image, dict(sent.params)) == (b"x", {"country": "DE"})
    assert [(call.api, dict(call.params), call.name) for call in sent.calls] == [
        ("shop", {"id": "7"}, ""),
        ("shop", {"id": "8"}, "other"),
    ]
    sent = second.sources[0]
    assert (sent.api_call.api, dict(sent.params)) == ("archive", {"country": "FR"})
    assert [dict(call.params) for call in sent.calls] == [{"id": "7"}, {"id": "8"}]
    sent = second.sources[1]
    assert (sent.WhichOneof("content"), len(sent.calls), dict(sent.params)) == (None, 1, {"country": "DE"})


async def test_size_and_priority_are_told_before_the_request(client: AsyncClient, server: Any) -> None:
    await client.process(b"x" * 1000, Options(priority=Priority.INTERACTIVE))
    told, request = server.fake.metadata[0], server.fake.requests[0]
    assert told["sluiceway-request-bytes"] == str(request.ByteSize())
    assert told["sluiceway-priority"] == "interactive"
    await client.describe()
    assert server.fake.metadata_of_questions[0]["sluiceway-request-bytes"] == "0"


async def test_a_tree_of_regions(client: AsyncClient) -> None:
    """Events of many steps, pages and subjects become one result, whatever their order was."""
    result = await client.process(b"tree")
    assert [region.id for region in result.regions] == [0, 3, 1, 5]
    assert [region.id for region in result.roots] == [0, 5]
    assert [region.id for region in result.children(result.roots[0])] == [3, 1]
    assert result.depths == {0: 0, 3: 1, 1: 1, 5: 0}
    assert [(region.step, region.parent_id, region.page) for region in result.regions] == [
        ("vehicles", None, 0),
        ("plates", 0, 0),
        ("plates", 0, 0),
        ("vehicles", None, 1),
    ]
    assert [(page.index, page.width, page.rotation) for page in result.pages] == [(0, 100, 0), (1, 99, 90)]
    assert (result.width, result.height) == (100, 50)
    plate = result.regions[2]
    assert [reading.step for reading in plate.readings] == ["number", "owner"], "in the order of the pipeline"
    assert (plate.text, plate.box) == ("K-AB 1", pytest.approx((18, 15, 22, 25)))
    assert plate.values["owner"].data == {"name": "Köln", "cars": [1, 2.5], "due": None}
    assert isinstance(result.regions[1].values["number"].error, errors.UpstreamFailed)
    assert result.values == {"shop": {"price": 3, "sale": 0.5}, "book": {"id": 7}}
    assert [type(value) for value in result.values["shop"].values()] == [int, float]
    assert result.value_errors.keys() == {"mail"}
    assert result.page_values[1]["scene"].labels[0].class_name == "night"
    assert (result.lines[0].region_ids, result.blocks[0].lines) == ((3, 1), (0,))
    assert (result.notices[0].reason, result.notices[0].metadata, result.notices[0].page) == (
        "REGIONS_TRUNCATED",
        {"limit": "4"},
        1,
    )
    assert [(step.step, step.failed) for step in result.steps][2] == ("number", 1)
    assert [model.name for model in result.models] == ["one", "other"]
    assert list(result.timings.to_dict())[:5] == [
        "fetch",
        "vehicles_queue",
        "vehicles_compute",
        "vehicles",
        "plates_queue",
    ]


async def test_every_kind_of_source(client: AsyncClient, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 2), "red").save(path)
    for source in (path, str(path), Image.open(path), bytearray(b"x"), memoryview(b"y")):
        await client.process(source)
    await client.process("https://example.org/a.png")
    await client.process("api:shop?id=7&size=l")
    await client.process(ApiCall("shop", {"id": "8"}))
    sources = [request.sources[0] for request in server.fake.requests]
    assert sources[0].image == sources[1].image == path.read_bytes()
    assert sources[2].image.startswith(b"BM")
    assert (sources[3].image, sources[4].image) == (b"x", b"y")
    assert sources[5].url == "https://example.org/a.png"
    assert (sources[6].api_call.api, dict(sources[6].api_call.params)) == ("shop", {"id": "7", "size": "l"})
    assert dict(sources[7].api_call.params) == {"id": "8"}


async def test_a_failed_source_raises_its_error(client: AsyncClient) -> None:
    with pytest.raises(errors.InvalidImage, match="not an image") as caught:
        await client.process(b"bad")
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "INVALID_IMAGE")


async def test_a_missing_file_needs_no_server() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(errors.InvalidImage, match=r"cannot read nowhere\.png: No such file"):
            await client.process("nowhere.png")


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE", errors.ImageTooLarge),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_OPTION", errors.InvalidInput),
        (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_API", errors.UnknownApi),
        (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_MODEL", errors.UnknownModel),
        (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_PIPELINE", errors.UnknownPipeline),
        (grpc.StatusCode.INVALID_ARGUMENT, "FROM_THE_FUTURE", errors.InvalidInput),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_FAILED", errors.UpstreamFailed),
        (grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_REFUSED", errors.UpstreamRefused),
        (grpc.StatusCode.PERMISSION_DENIED, "URL_NOT_ALLOWED", errors.UrlNotAllowed),
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", errors.Unauthenticated),
        (grpc.StatusCode.INTERNAL, "QUARANTINED", errors.ServerFault),
        (grpc.StatusCode.INTERNAL, "MODEL_FAILED", errors.ServerFault),
        (grpc.StatusCode.DATA_LOSS, "", errors.SluicewayError),
    ],
)
async def test_every_refusal_has_its_class_and_is_not_repeated(
    code: grpc.StatusCode, reason: str, kind: type[Exception], client: AsyncClient, server: Any, refusal: Any
) -> None:
    server.fake.refusals = [refusal(code, reason)]
    with pytest.raises(kind) as caught:
        await client.process(b"x")
    error = caught.value
    assert isinstance(error, errors.SluicewayError)
    assert (error.code, error.message, error.metadata) == (code.name, "refused by the script", {"limit": "7"})
    assert error.reason == reason or not reason
    assert len(server.fake.requests) == 1


async def test_unavailable_is_tried_again(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(UNAVAILABLE, "UNAVAILABLE")] * 2
    assert (await client.process(b"x")).ok
    assert len(server.fake.requests) == 3


async def test_giving_up_after_all_attempts(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(UNAVAILABLE, "UNAVAILABLE")] * 9
    with pytest.raises(errors.Unavailable):
        await client.process(b"x")
    assert len(server.fake.requests) == QUICK.attempts


async def test_pushback_is_waited_for(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(EXHAUSTED, "QUEUE_FULL", retry_after_s=0.2)]
    begun = time.monotonic()
    assert (await client.process(b"x")).ok
    assert time.monotonic() - begun >= 0.2
    assert len(server.fake.requests) == 2


async def test_pushback_beyond_the_deadline_fails_at_once(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(EXHAUSTED, "QUEUE_FULL", retry_after_s=30)]
    begun = time.monotonic()
    with pytest.raises(errors.QueueFull) as caught:
        await client.process(b"x", timeout_s=25)
    assert time.monotonic() - begun < 20
    assert caught.value.retry_after_s == 30
    assert len(server.fake.requests) == 1


async def test_exhausted_without_pushback_is_final(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(EXHAUSTED, "")]
    with pytest.raises(errors.QueueFull):
        await client.process(b"x")
    assert len(server.fake.requests) == 1


async def test_deadline(client: AsyncClient, server: Any) -> None:
    await client.process(b"x")
    # Until one has reached the server, which a machine that stands still may keep the first ones from.
    for timeout_s in (0.3, 3, 20):
        with pytest.raises(errors.DeadlineExceeded):
            await client.process(b"hang", timeout_s=timeout_s)
        if server.fake.arrived.is_set():
            break
    await asyncio.wait_for(server.fake.cancelled.wait(), 30)


async def test_cancelling_reaches_the_server(client: AsyncClient, server: Any) -> None:
    task = asyncio.create_task(client.process(b"hang"))
    await asyncio.wait_for(server.fake.arrived.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.fake.cancelled.wait(), 30)


async def test_nobody_listens() -> None:
    async with AsyncClient("127.0.0.1:1", retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(errors.Unavailable, match=r"cannot reach 127\.0\.0\.1:1"):
            await client.process(b"x")


async def test_events_of_two_sources(client: AsyncClient) -> None:
    seen = [event async for event in client.events(b"hello", b"bad")]
    kinds = [type(event) for event in seen]
    assert kinds == [SourceReady, Regions, Values, Values, SourceDone, SourceFailed, JobDone]
    found = seen[1]
    assert isinstance(found, Regions)
    assert [region.text for region in found.regions] == [None, None]
    assert (found.source, found.step, found.recognizing) == ("5 bytes", "text", (0, 1))
    failed = seen[5]
    assert isinstance(failed, SourceFailed)
    assert isinstance(failed.error, errors.InvalidImage)


async def test_events_come_before_the_job_ends(client: AsyncClient, server: Any) -> None:
    async with aclosing(client.events(b"hang")) as stream:
        assert isinstance(await anext(stream), SourceReady)
        assert not server.fake.hold.is_set()
    await asyncio.wait_for(server.fake.cancelled.wait(), 30)


async def test_describe(client: AsyncClient) -> None:
    description = await client.describe()
    stage = description.stages[0]
    assert (stage.kind, stage.ready, stage.endpoints[0].group, stage.workers) == ("detection", True, "ab", 2)
    found = description.models[0]
    assert (found.stage, found.model.name, found.head) == ("detection", "text-nano", "regions")
    assert (found.classes, found.image_sizes) == (("textline", "image"), (640, 960))
    assert [pipeline.name for pipeline in description.pipelines] == ["read", "parking"]
    assert description.pipeline().name == description.default_pipeline == "read"
    detect, call, book = description.pipeline("parking").steps
    assert (detect.kind, detect.stage, detect.classes, detect.on_error) == ("detect", "plates", ("plate",), "fail")
    assert (call.kind, call.api, call.of, call.params) == ("call", "shop", "plate", ("country",))
    assert book.after == ("owner",)
    assert description.problems == ("the stage plates was never reached",)
    assert description.apis[0].params == ("id",)
    assert description.default_deadline_s == 30


async def test_wait_ready(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(UNAVAILABLE, "UNAVAILABLE")] * 3
    assert (await client.wait_ready(30)).server_version == "0.1.0"


async def test_wait_ready_in_vain() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(errors.Unavailable, match=r"was not ready within 0\.3 s: cannot reach 127\.0\.0\.1:1"):
            await client.wait_ready(0.3)


async def test_wait_ready_says_which_stage_is_missing(client: AsyncClient, server: Any) -> None:
    server.fake.ready_stages = {"recognition"}
    with pytest.raises(errors.Unavailable, match="no replica of detection takes work"):
        await client.wait_ready(1)


async def test_wait_ready_asks_only_for_the_stages_of_the_pipeline(client: AsyncClient, server: Any) -> None:
    assert (await client.wait_ready(30)).default_pipeline == "read"
    with pytest.raises(errors.Unavailable, match="no replica of plates takes work"):
        await client.wait_ready(1, pipeline="parking")
    server.fake.ready_stages = {"plates"}
    assert await client.wait_ready(30, pipeline="parking")
    with pytest.raises(errors.UnknownPipeline, match="no pipeline 'parkin', only read, parking"):
        await client.wait_ready(30, pipeline="parkin")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(max_detections=-1), "max_detections"),
        (Options(image_size=2**32), "image_size"),
        (Options(top_k=-1), "top_k"),
        (Options(max_detections=0), "max_detections"),
        (Options(steps={"plates": StepOptions(image_size=-1)}), "plates: image_size"),
        (Options(confidence="high"), "confidence"),  # type: ignore[arg-type]
        (Options(classes=("\ud800",)), "classes"),
        (Options(priority="soon"), "priority"),  # type: ignore[arg-type]
    ],
)
async def test_options_that_cannot_be_sent(options: Options, named: str, client: AsyncClient, server: Any) -> None:
    with pytest.raises(errors.InvalidOption, match=named):
        await client.process(b"x", options)
    with pytest.raises(errors.InvalidOption, match=named):
        await anext(client.events(b"x", options=options))
    assert server.fake.requests == []


@pytest.mark.parametrize(
    "source",
    [
        "https://example.org/\udcff",
        ApiCall("shop", {"id": "\udcff"}),
        ApiCall("shop", {"id": 7}),  # type: ignore[dict-item]
        Source(ApiCall("shop"), params={"id": 7}),  # type: ignore[dict-item]
        Source("https://example.org", calls=[ApiCall("shop", {"id": "\udcff"})]),
    ],
)
async def test_sources_that_cannot_be_sent(source: Any, client: AsyncClient) -> None:
    with pytest.raises(errors.InvalidOption, match=r"example\.org|api:shop"):
        await client.process(source)
