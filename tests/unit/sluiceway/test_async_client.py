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
    Detected,
    ImageReady,
    JobDone,
    Options,
    Priority,
    Recognized,
    RetryPolicy,
    SourceDone,
    SourceFailed,
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
    assert (first.text_confidence, first.readings[0].model) == (0.75, "tiny")
    assert (result.source, result.width, result.height, result.ok) == ("5 bytes", 100, 50, True)
    assert result.timings.total_ms == 12.5
    assert result.models[0].weights_sha256 == "ab" * 32
    assert result.metadata == {"shop.price": "3"}
    assert result.text == "hello\nworld"
    assert server.fake.metadata[0]["authorization"] == "Bearer secret"


async def test_options_reach_the_wire(client: AsyncClient, server: Any) -> None:
    options = Options(
        confidence=0.5, iou=0.6, classes=("a",), max_detections=9, image_size=640, characters=True,
        top_k=3, priority=Priority.BULK, return_images=True, detect_only=True,
    )  # fmt: skip
    await client.process(b"x", options)
    sent = server.fake.requests[0].options
    assert (sent.detect.confidence, sent.detect.max_detections, list(sent.detect.classes)) == (0.5, 9, ["a"])
    assert (sent.detect.image_size, sent.recognize.characters, sent.recognize.top_k) == (640, True, 3)
    assert (sent.priority, sent.return_images, sent.detect_only) == (model_pb2.PRIORITY_BULK, True, True)


async def test_defaults_are_left_to_the_server(client: AsyncClient, server: Any) -> None:
    await client.process(b"x")
    detect = server.fake.requests[0].options.detect
    assert not any(detect.HasField(name) for name in ("confidence", "iou", "max_detections", "image_size"))


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
    assert kinds == [ImageReady, Detected, Recognized, Recognized, SourceDone, SourceFailed, JobDone]
    detected = seen[1]
    assert isinstance(detected, Detected)
    assert [region.text for region in detected.regions] == [None, None]
    assert detected.source == "5 bytes"
    failed = seen[5]
    assert isinstance(failed, SourceFailed)
    assert isinstance(failed.error, errors.InvalidImage)


async def test_events_come_before_the_job_ends(client: AsyncClient, server: Any) -> None:
    async with aclosing(client.events(b"hang")) as stream:
        assert isinstance(await anext(stream), ImageReady)
        assert not server.fake.hold.is_set()
    await asyncio.wait_for(server.fake.cancelled.wait(), 30)


async def test_describe(client: AsyncClient) -> None:
    description = await client.describe()
    assert description.stages[0].endpoints[0].ready
    assert (description.stages[0].workers, description.models[0].model.name) == (2, "text-nano")
    assert (description.routes, description.apis[0].params) == ({"*": "tiny"}, ("id",))
    assert description.default_deadline_s == 30


async def test_wait_ready(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.refusals = [refusal(UNAVAILABLE, "UNAVAILABLE")] * 3
    assert (await client.wait_ready(30)).server_version == "0.1.0"


async def test_wait_ready_in_vain() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(errors.Unavailable, match=r"was not ready within 0\.3 s: cannot reach 127\.0\.0\.1:1"):
            await client.wait_ready(0.3)


async def test_wait_ready_says_which_stage_is_missing(client: AsyncClient, server: Any) -> None:
    server.fake.replica_ready = False
    with pytest.raises(errors.Unavailable, match="no replica of detection takes work"):
        await client.wait_ready(1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(max_detections=-1), "max_detections"),
        (Options(image_size=2**32), "image_size"),
        (Options(top_k=-1), "top_k"),
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
    ["https://example.org/\udcff", ApiCall("shop", {"id": "\udcff"}), ApiCall("shop", {"id": 7})],  # type: ignore[dict-item]
)
async def test_sources_that_cannot_be_sent(source: str | ApiCall, client: AsyncClient) -> None:
    with pytest.raises(errors.InvalidOption, match=r"example\.org|api:shop"):
        await client.process(source)
