"""Many images over one stream."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from typing import Any, Self

import grpc
import pytest
from PIL import Image
from wires import wire

from sluiceway import errors
from sluiceway.client import ApiCall, AsyncClient, Options, Priority, RetryPolicy, Source
from sluiceway.client.connection import BulkCall, Connection
from sluiceway.client.lines import channels

QUICK = RetryPolicy(attempts=4, first_delay_s=0.01)


@pytest.fixture
async def client(server: Any) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address, retry=QUICK) as made:
        yield made


def texts(count: int) -> list[bytes]:
    return [f"image {index}".encode() for index in range(count)]


async def read_first_texts(client: AsyncClient, sources: Any, **settings: Any) -> list[str | None]:
    return [result.regions[0].text async for result in client.process_many(sources, **settings)]


async def test_results_come_in_the_order_of_the_sources(client: AsyncClient, server: Any) -> None:
    assert await read_first_texts(client, texts(40), in_flight=4) == [f"image {index}" for index in range(40)]
    assert len(server.fake.requests) == 40


async def test_unordered_gives_all(client: AsyncClient) -> None:
    found = await read_first_texts(client, texts(20), ordered=False)
    assert sorted(map(str, found)) == sorted(f"image {index}" for index in range(20))


async def test_no_sources(client: AsyncClient) -> None:
    assert await read_first_texts(client, []) == []


async def test_an_asynchronous_iterable(client: AsyncClient) -> None:
    async def sources() -> AsyncIterator[bytes]:
        for text in texts(3):
            await asyncio.sleep(0)
            yield text

    assert await read_first_texts(client, sources()) == ["image 0", "image 1", "image 2"]


async def test_failures_are_results_and_leave_the_others_alone(client: AsyncClient) -> None:
    results = [item async for item in client.process_many([b"one", b"bad", "missing.png", b"two"])]
    assert [item.ok for item in results] == [True, False, False, True]
    assert isinstance(results[1].error, errors.InvalidImage)
    assert "cannot read missing.png" in str(results[2].error)
    with pytest.raises(errors.InvalidImage):
        results[1].raise_for_error()


async def test_sources_are_drawn_no_faster_than_results_are_taken(client: AsyncClient) -> None:
    drawn: list[int] = []

    def endless() -> Iterator[bytes]:
        for index in range(10_000):
            drawn.append(index)
            yield b"x"

    async with aclosing(client.process_many(endless(), in_flight=3)) as results:
        for _ in range(5):
            await anext(results)
        # One more than the window is drawn: it waits for its place.
        assert len(drawn) <= 5 + 3 + 1


async def test_a_broken_stream_is_opened_again_and_nothing_is_lost_or_doubled(client: AsyncClient, server: Any) -> None:
    """It breaks in the middle of an image: what was heard of that one is forgotten, and heard once all the same."""
    server.fake.break_stream_after = [3, 1, 2, 0]
    results = [result async for result in client.process_many(texts(20), in_flight=5)]
    assert [[[reading.text for reading in region.readings] for region in result.regions] for result in results] == [
        [[f"image {index}"], ["world"]] for index in range(20)
    ]
    assert all(result.ok for result in results)
    assert server.fake.break_stream_after == []


async def test_a_server_whose_machine_vanished_is_given_up_and_nothing_is_lost(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = {"grpc.keepalive_time_ms": 500, "grpc.keepalive_timeout_ms": 500, "grpc.http2.ping_timeout_ms": 500}
    options = tuple((name, hasty.get(name, value)) for name, value in channels._OPTIONS)
    monkeypatch.setattr(channels, "_OPTIONS", options)
    cut = asyncio.Event()
    async with wire(server.address, cut) as address, AsyncClient(address, retry=QUICK) as client:
        reading = asyncio.create_task(read_first_texts(client, [b"one", b"hang", b"two"]))
        await asyncio.wait_for(server.fake.arrived.wait(), 30)
        cut.set()
        server.fake.hold.set()
        assert await asyncio.wait_for(reading, 30) == ["one", "hang", "two"]


async def test_a_server_that_never_answers_ends_it() -> None:
    async with AsyncClient("127.0.0.1:1", retry=QUICK) as lost:
        with pytest.raises(errors.Unavailable):
            await read_first_texts(lost, texts(3))


async def test_a_refused_job_comes_back_after_the_pushback(client: AsyncClient, server: Any, refusal: Any) -> None:
    full = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_after_s=0.05)
    server.fake.job_refusals = [full, full]
    assert await read_first_texts(client, texts(4)) == [f"image {index}" for index in range(4)]
    assert len(server.fake.requests) == 6


async def test_a_source_that_failed_for_want_of_a_replica_comes_back(
    client: AsyncClient, server: Any, refusal: Any
) -> None:
    """As `process` does it."""
    server.fake.source_failures = [refusal(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")] * 2
    assert await read_first_texts(client, texts(4)) == [f"image {index}" for index in range(4)]
    assert len(server.fake.requests) == 6
    server.fake.source_failures = [refusal(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_FAILED")]
    results = [item async for item in client.process_many(texts(2))]
    assert [type(item.error) for item in results] == [errors.UpstreamFailed, type(None)]
    assert len(server.fake.requests) == 8


async def test_a_job_refused_for_good_is_a_failed_result(client: AsyncClient, server: Any, refusal: Any) -> None:
    server.fake.job_refusals = [refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_OPTION")]
    results = [item async for item in client.process_many(texts(2))]
    assert isinstance(results[0].error, errors.InvalidInput)
    assert results[1].ok


async def test_each_job_names_its_pipeline_and_has_its_own_time(client: AsyncClient, server: Any) -> None:
    sources = [b"one", Source(b"two", [ApiCall("shop")], {"country": "DE"})]
    options = Options(priority=Priority.BULK)
    found = await read_first_texts(client, sources, options=options, pipeline="parking", timeout_s=1.5)
    assert found == ["one", "two"]
    assert [(job.pipeline, job.timeout.ToMilliseconds()) for job in server.fake.requests] == [("parking", 1500)] * 2
    assert dict(server.fake.requests[1].sources[0].params) == {"country": "DE"}
    told = server.fake.metadata[0]
    assert told["sluiceway-priority"] == "bulk"
    assert "sluiceway-request-bytes" not in told, "the largest is not known when the stream begins"
    assert "grpc-timeout" not in told


async def test_jobs_without_a_time_have_that_of_the_server(client: AsyncClient, server: Any) -> None:
    await read_first_texts(client, texts(1))
    assert not server.fake.requests[0].HasField("timeout")


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
async def test_a_time_that_is_none(timeout_s: float, client: AsyncClient, server: Any) -> None:
    results = [item async for item in client.process_many(texts(1), timeout_s=timeout_s)]
    assert [type(item.error) for item in results] == [errors.InvalidOption]
    assert "timeout_s" in str(results[0].error)
    assert server.fake.requests == []


async def test_leaving_early_cancels(client: AsyncClient, server: Any) -> None:
    async with aclosing(client.process_many([b"a", b"hang", b"c"])) as results:
        await anext(results)
        await asyncio.wait_for(server.fake.arrived.wait(), 30)
    await asyncio.wait_for(server.fake.cancelled.wait(), 30)


async def test_an_iterable_that_raises(client: AsyncClient) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        await read_first_texts(client, broken())


async def test_an_option_that_cannot_be_sent_fails_every_source(client: AsyncClient, server: Any) -> None:
    async with asyncio.timeout(30):
        results = [item async for item in client.process_many(texts(3), Options(max_detections=-1))]
    assert [type(item.error) for item in results] == [errors.InvalidOption] * 3
    assert "max_detections" in str(results[0].error)
    assert server.fake.requests == []


async def test_a_source_that_cannot_be_sent_leaves_the_others_alone(client: AsyncClient) -> None:
    sources = [b"one", "https://example.org/\udcff", ApiCall("shop", {"id": "\udcff"}), b"two"]
    async with asyncio.timeout(30):
        results = [item async for item in client.process_many(sources)]
    assert [type(item.error) for item in results] == [
        type(None),
        errors.InvalidOption,
        errors.InvalidOption,
        type(None),
    ]


def cut_off_picture() -> Image.Image:
    """As `Image.open` gives it: what is missing is found when the pixels are wanted."""
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(whole, "PNG")
    return Image.open(io.BytesIO(whole.getvalue()[:2000]))


async def test_a_source_that_cannot_be_read_leaves_the_others_alone(client: AsyncClient) -> None:
    sources = [b"one", cut_off_picture(), "a\0b.jpg", "api://[shop", b"two"]
    async with asyncio.timeout(30):
        results = [item async for item in client.process_many(sources)]
    assert [type(item.error) for item in results] == [
        type(None),
        errors.InvalidImage,
        errors.InvalidImage,
        errors.InvalidInput,
        type(None),
    ]


@pytest.mark.parametrize("in_flight", [0, -1])
async def test_a_window_for_nothing_is_refused(in_flight: int, client: AsyncClient) -> None:
    with pytest.raises(errors.InvalidOption, match=f"at least 1, not {in_flight}"):
        async with asyncio.timeout(30):
            await read_first_texts(client, texts(1), in_flight=in_flight)


async def test_a_writer_that_fails_ends_it(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(call: BulkCall, job: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(BulkCall, "write", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        async with asyncio.timeout(30):
            await read_first_texts(client, texts(3))


# What the scripted server itself takes: gRPC's default.
MESSAGE_BYTES = 4 * 2**20
BIG = b"x" * (MESSAGE_BYTES + 1)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"max_image_bytes": 2**20, "max_message_bytes": MESSAGE_BYTES}, {"max_image_bytes": "1048576"}),
        ({"max_message_bytes": MESSAGE_BYTES}, {"max_message_bytes": "4194304"}),
    ],
)
async def test_an_image_above_the_servers_limit_leaves_the_others_alone(
    limits: dict[str, int], named: dict[str, str], client: AsyncClient, server: Any
) -> None:
    for name, value in limits.items():
        setattr(server.fake, name, value)
    sources = [*texts(3), BIG, b"y" * 2**18, BIG, *texts(2)]
    results = [item async for item in client.process_many(sources, in_flight=2)]
    assert [item.ok for item in results] == [True, True, True, False, True, False, True, True]
    error = results[3].error
    assert isinstance(error, errors.ImageTooLarge)
    assert (error.code, error.reason, error.metadata) == ("INVALID_ARGUMENT", "IMAGE_TOO_LARGE", named)
    assert all(value in str(error) for value in named.values())
    assert server.fake.descriptions == 1


async def test_small_sources_need_no_limits(client: AsyncClient, server: Any) -> None:
    await read_first_texts(client, texts(3))
    assert server.fake.descriptions == 0


async def test_a_server_that_does_not_tell_its_limits_is_sent_everything(
    client: AsyncClient, server: Any, refusal: Any
) -> None:
    server.fake.refusals = [refusal(grpc.StatusCode.UNIMPLEMENTED, "")]
    results = [item async for item in client.process_many([b"y" * 2**18, b"z" * 2**18])]
    assert [item.ok for item in results] == [True, True]
    assert server.fake.descriptions == 1


class Opening:
    """A call that is being opened, and keeps a cancellation to itself, as those of grpc.aio do at that moment."""

    def __init__(self, opened: asyncio.Event) -> None:
        self._opened = opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def write(self, _: object) -> None:
        await self._open()

    async def done_writing(self) -> None: ...

    async def read(self) -> AsyncGenerator[Any]:
        await self._open()
        raise errors.Unavailable("the call was cancelled before it was open")
        yield

    async def _open(self) -> None:
        async def prepare() -> None:
            self._opened.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        await asyncio.create_task(prepare())


async def test_a_cancellation_that_meets_a_call_that_is_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = asyncio.Event()
    monkeypatch.setattr(Connection, "bulk", lambda *_, **__: Opening(opened))
    async with AsyncClient("127.0.0.1:1") as client:
        reading = asyncio.create_task(anext(client.process_many([b"x"])))  # type: ignore[arg-type]
        await opened.wait()
        reading.cancel()
        # Not awaited: whoever waits in vain would cancel it once more.
        await asyncio.wait({reading}, timeout=20)
        assert reading.cancelled()
