"""Requests read in place are those that protobuf reads; texts written by hand are those that protobuf writes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from sluiceway_recognition import convert, wire
from sluiceway_recognition.types import ClassAnswer, EmbeddingAnswer, TextAnswer
from sluiceway_runtime.errors import InvalidImage

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb

UINT32 = st.integers(0, 2**32 - 1) | st.integers(0, 300)
NAMES = st.sampled_from(["", "m", "a-model", "€" * 60, "x" * 127, "x" * 128, "\x1a\x05\x08\x01"])
RAW = st.builds(crop_pb2.RawImage, height=UINT32, width=UINT32, format=st.integers(0, 4), data=st.binary(max_size=300))
CROPS = st.lists(st.builds(crop_pb2.Crop, id=UINT32, model=NAMES, raw=RAW), max_size=5)
REQUESTS = st.builds(
    pb.RecognizeRequest,
    options=st.none() | st.builds(pb.RecognizeOptions, model=NAMES, characters=st.booleans(), top_k=st.integers(0, 9)),
    priority=st.integers(0, 3),
    crops=CROPS,
)


def request(count: int = 3, model: str = "", **raw: object) -> pb.RecognizeRequest:
    fields = {"height": 48, "width": 2, "format": 1, "data": bytes(288), **raw}
    crops = [crop_pb2.Crop(id=index, model=model, raw=crop_pb2.RawImage(**fields)) for index in range(count)]
    return pb.RecognizeRequest(options=pb.RecognizeOptions(model="m"), priority=1, crops=crops)


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_a_request_is_what_protobuf_says_it_is(message):
    data = message.SerializeToString()
    assert convert.read_request(data) == convert.request_of(message)


@settings(max_examples=500, deadline=None)
@given(message=REQUESTS, data=st.data())
def test_damaged_bytes_are_what_protobuf_says_they_are(message, data):
    damaged = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            at = data.draw(st.integers(0, len(damaged) - 1))
            if data.draw(st.booleans()):
                damaged[at] = data.draw(st.integers(0, 255))
            else:
                del damaged[at : at + data.draw(st.integers(1, 4))]
    try:
        expected = convert.request_of(pb.RecognizeRequest.FromString(bytes(damaged)))
    except DecodeError:
        with pytest.raises(DecodeError):
            convert.read_request(bytes(damaged))
    else:
        assert convert.read_request(bytes(damaged)) == expected


@pytest.mark.parametrize("model", ["", "a-model"])
def test_what_clients_normally_send_is_not_copied(model):
    data = request(model=model).SerializeToString()
    found = wire.read(data)
    assert found is not None
    assert [crop.id for crop in found.crops] == [0, 1, 2]
    assert all(isinstance(crop.data, memoryview) and crop.data.obj is data for crop in found.crops)


def test_what_comes_otherwise_is_parsed():
    whole = request().SerializeToString()
    empty = request(count=0).SerializeToString()
    crop = request(count=1).crops[0]
    encoded = pb.RecognizeRequest(crops=[crop_pb2.Crop(id=1, encoded=b"file")]).SerializeToString()
    several = request(count=1, model="a").SerializeToString() + request(count=1, model="b").SerializeToString()
    content_first = b"\x1a" + bytes([crop.raw.ByteSize() & 0x7F | 0x80, crop.raw.ByteSize() >> 7])
    content_first += crop.raw.SerializeToString() + b"\x08\x07"
    reordered = b"\x7a" + bytes([len(content_first) & 0x7F | 0x80, len(content_first) >> 7]) + content_first
    for data in (encoded, several, reordered, whole + empty, whole + b"\xa0\x06\x01"):
        assert wire.read(data) is None
        assert convert.read_request(data) == convert.request_of(pb.RecognizeRequest.FromString(data))
    assert convert.read_request(reordered).crops[0].id == 7


def test_an_empty_request_is_read():
    assert convert.read_request(b"") == convert.request_of(pb.RecognizeRequest())


@settings(max_examples=200, deadline=None)
@given(
    crop_id=UINT32 | st.integers(0, 300),
    text=st.text(),
    confidence=st.just(0.0) | st.floats(0, 1, width=32),
    listed=st.lists(st.tuples(st.text(max_size=3), st.floats(0, 1, width=32)), max_size=4),
)
def test_a_text_is_written_as_protobuf_writes_it(crop_id, text, confidence, listed):
    result = TextAnswer(text, confidence, tuple(c for c, _ in listed), tuple(p for _, p in listed))
    expected = pb.Text(text=text, confidence=confidence)
    expected.characters.extend(pb.Character(text=c, confidence=p) for c, p in listed)
    message = pb.RecognizeResponse(recognitions=[pb.Recognition(crop_id=crop_id, text=expected)])
    assert convert.recognition_bytes(crop_id, result) == message.SerializeToString()


def test_other_results_are_fields_of_a_response_too():
    results = [
        ClassAnswer(((3, "red", 0.5),)),
        EmbeddingAnswer(b"\0\0\x80\x3f"),
        InvalidImage("no", metadata={"a": "b"}),
        TextAnswer("", 0.0),
    ]
    joined = b"".join(convert.recognition_bytes(index, result) for index, result in enumerate(results))
    answers = pb.RecognizeResponse.FromString(joined).recognitions
    assert [answer.crop_id for answer in answers] == [0, 1, 2, 3]
    assert [answer.WhichOneof("result") for answer in answers] == ["classification", "embedding", "error", "text"]
    assert answers[0].classification.labels[0].class_name == "red"
    assert list(answers[1].embedding.values) == [1.0]
    assert answers[2].error.reason == "INVALID_IMAGE"
