"""Requests are read where they lie: as the generated parser reads them, and without a copy of their images."""

from __future__ import annotations

import tracemalloc

import pytest
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.convert.request import Request, read_action, read_request
from sluiceway_runtime.errors import InvalidOption

from sluiceway.pipeline.v1 import pipeline_pb2

texts = st.text(max_size=6)
# Sizes about the border above which images are cut out; what is in them is no matter.
images = st.integers(0, 40_000).map(lambda size: b"\x12\x0a" * (size // 2)) | st.binary(max_size=20)
calls = st.builds(pipeline_pb2.ApiCall, api=texts, params=st.dictionaries(texts, texts, max_size=2), name=texts)
sources = st.one_of(
    st.builds(pipeline_pb2.Source, source_id=texts, image=images, calls=st.lists(calls, max_size=2)),
    st.builds(pipeline_pb2.Source, source_id=texts, url=texts, params=st.dictionaries(texts, texts, max_size=2)),
    st.builds(pipeline_pb2.Source, api_call=calls),
    st.builds(pipeline_pb2.Source),
)
requests = st.builds(
    pipeline_pb2.ProcessRequest,
    job_id=texts,
    sources=st.lists(sources, max_size=4),
    pipeline=texts,
    timeout=st.none() | st.builds(duration_pb2.Duration, seconds=st.integers(0, 9)),
    options=st.none() | st.builds(pipeline_pb2.ProcessOptions, return_images=st.booleans()),
)


def whole(request: Request) -> pipeline_pb2.ProcessRequest:
    """The message as it would be with its images in it; each source says what kind it is without them."""
    message = pipeline_pb2.ProcessRequest()
    message.CopyFrom(request.message)
    for number, source in enumerate(message.sources):
        if source.WhichOneof("content") == "image" and number in request.images:
            source.image = bytes(request.images[number])
    return message


@given(requests)
def test_a_request_is_what_the_parser_makes_of_it(message: pipeline_pb2.ProcessRequest) -> None:
    request = read_request(message.SerializeToString())
    assert whole(request) == message
    assert request.size_bytes >= sum(len(source.image) for source in message.sources)


@given(parts=st.lists(requests, min_size=2, max_size=3), job=requests)
def test_fields_that_come_in_any_order_and_several_times(
    parts: list[pipeline_pb2.ProcessRequest], job: pipeline_pb2.ProcessRequest
) -> None:
    """Serialised messages behind each other are one: what is repeated adds up, of all else the last counts."""
    data = b"".join(part.SerializeToString() for part in parts)
    assert whole(read_request(data)) == pipeline_pb2.ProcessRequest.FromString(data)
    jobs = [pipeline_pb2.ProcessStreamRequest(job=part) for part in (*parts, job)]
    stream = b"".join(part.SerializeToString() for part in jobs)
    action = read_action(stream)
    assert action.job is not None
    assert whole(action.job) == pipeline_pb2.ProcessStreamRequest.FromString(stream).job


@given(first=images, second=images, between=st.sampled_from(["", "url", "api"]))
def test_of_several_contents_of_a_source_the_last_counts(first: bytes, second: bytes, between: str) -> None:
    parts = [pipeline_pb2.Source(image=first)]
    if between == "url":
        parts.append(pipeline_pb2.Source(url="http://x"))
    elif between == "api":
        parts.append(pipeline_pb2.Source(api_call=pipeline_pb2.ApiCall(api="a")))
    for last in ([], [pipeline_pb2.Source(image=second)]):
        source = b"".join(part.SerializeToString() for part in parts + last)
        holder = pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source.FromString(source)])
        # Long names before it, so that it is no small request.
        data = pipeline_pb2.ProcessRequest(pipeline="p" * 20_000).SerializeToString() + field(0x12, source)
        holder.pipeline = "p" * 20_000
        assert whole(read_request(data)) == holder


def field(tag: int, content: bytes, *, long_tag: bool = False) -> bytes:
    size, number = b"", len(content)
    while number > 0x7F:
        size, number = size + bytes((number & 0x7F | 0x80,)), number >> 7
    name = bytes((tag | 0x80, 0)) if long_tag else bytes((tag,))
    return name + size + bytes((number,)) + content


def test_tags_that_are_written_longer_than_need_be_are_the_same_tags() -> None:
    """No serialiser does it, and every parser reads it: images must not move from one source to another for it."""
    image = b"\xff" * 20_000
    data = b"".join(
        field(0x12, field(0x12, image[:size], long_tag=longer), long_tag=outer)
        for size, outer, longer in [(19_000, True, False), (20_000, False, True), (18_000, False, False)]
    )
    message = pipeline_pb2.ProcessRequest.FromString(data)
    assert [len(source.image) for source in message.sources] == [19_000, 20_000, 18_000]
    assert whole(read_request(data)) == message


@given(message=requests, data=st.data())
def test_damaged_requests_are_refused_and_nothing_else_happens(
    message: pipeline_pb2.ProcessRequest, data: st.DataObject
) -> None:
    damaged = bytearray(message.SerializeToString() or b"\x00")
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, min(len(damaged), 200) - 1))] = data.draw(st.integers(0, 255))
    sent = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        expected = pipeline_pb2.ProcessRequest.FromString(sent)
    except DecodeError:
        with pytest.raises(InvalidOption, match="no message of the contract"):
            read_request(sent)
        return
    try:
        found = whole(read_request(sent))
    except InvalidOption:
        # Groups, which are gone from proto3: parsers pass them over, and nobody sends them.
        assert len(sent) >= 16 * 1024
        return
    assert found == expected


def test_images_are_views_into_the_request() -> None:
    sources = [pipeline_pb2.Source(image=bytes([number]) * 3_000_000) for number in range(3)]
    message = pipeline_pb2.ProcessRequest(job_id="a", sources=sources)
    for data, read in [
        (message.SerializeToString(), read_request),
        (pipeline_pb2.ProcessStreamRequest(job=message).SerializeToString(), lambda data: read_action(data).job),
    ]:
        tracemalloc.start()
        request = read(data)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert request is not None
        assert most < 100_000
        assert [image.obj is data for image in request.images.values()] == [True] * 3
        assert [bytes(image[:1]) for image in request.images.values()] == [b"\x00", b"\x01", b"\x02"]
        assert [source.WhichOneof("content") for source in request.message.sources] == ["image"] * 3
        assert request.message.ByteSize() < 100


def test_what_a_client_says_on_a_stream() -> None:
    cancel = pipeline_pb2.ProcessStreamRequest(cancel=pipeline_pb2.CancelJob(job_id="a"))
    assert read_action(cancel.SerializeToString()) == (None, "a")
    for nothing in (b"", b"\x00", b"\xff" * 3, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" + b"x" * 20_000):
        with pytest.raises(InvalidOption):
            read_action(nothing)
