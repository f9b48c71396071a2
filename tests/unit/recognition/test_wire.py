"""Requests read in place are those that protobuf reads; texts written by hand are those that protobuf writes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from sluiceway_recognition.front import convert, wire
from sluiceway_recognition.types import ClassAnswer, EmbeddingAnswer, TextAnswer, WordAnswer
from sluiceway_runtime.errors import InvalidImage

from sluiceway.common.v1 import crop_pb2, value_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb

INT32 = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 300)
NAMES = st.sampled_from(["", "m", "a-model", "€" * 60, "x" * 127, "x" * 128, "x" * 20000, "\x1a\x05\x08\x01"])
RAW = st.builds(crop_pb2.RawImage, height=INT32, width=INT32, format=st.integers(0, 4), data=st.binary(max_size=300))
FRACTIONS = st.floats(0, 1, width=32)
ROTATIONS = st.sampled_from([0, 0, 90]) | INT32
# One label in most requests; pixels in most crops.
CROPS = NAMES.flatmap(
    lambda name: st.lists(
        st.builds(crop_pb2.Crop, id=INT32, spec=st.just(name) | NAMES, raw=RAW, rotation_degrees=ROTATIONS)
        | st.builds(crop_pb2.Crop, id=INT32, spec=st.just(name), encoded=st.binary(max_size=300)),
        max_size=5,
    )
)
REQUESTS = st.builds(
    pb.RecognizeRequest,
    options=st.none() | st.builds(pb.RecognizeOptions, model=NAMES, characters=st.booleans(), top_k=st.integers(0, 9)),
    priority=st.integers(0, 3),
    crops=CROPS,
)


def request(count: int = 3, spec: str = "", **raw: object) -> pb.RecognizeRequest:
    fields = {"height": 48, "width": 2, "format": 1, "data": bytes(288), **raw}
    crops = [crop_pb2.Crop(id=index, spec=spec, raw=crop_pb2.RawImage(**fields)) for index in range(count)]
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


def in_place(data):
    found = wire.read(data)
    assert found is not None
    assert all(isinstance(crop.data, memoryview) and crop.data.obj is data for crop in found.crops)
    assert convert.read_request(data) == convert.request_of(pb.RecognizeRequest.FromString(data))
    return found.crops


@pytest.mark.parametrize("spec", ["", "a-model", "ä" * 100, "x" * 20_000])
def test_what_clients_normally_send_is_not_copied_whatever_it_is_labelled(spec):
    assert [crop.id for crop in in_place(request(spec=spec).SerializeToString())] == [0, 1, 2]


def test_labels_may_change_from_crop_to_crop():
    crops = [crop_pb2.Crop(id=index, spec=f"of-{index}", raw=request().crops[0].raw) for index in range(200)]
    patterns = wire._crop.cache_info().misses
    assert len(in_place(pb.RecognizeRequest(crops=crops).SerializeToString())) == 200
    # To make a pattern of each would take a server longer than to copy the pixels.
    assert wire._crop.cache_info().misses <= patterns + 1


def test_turned_crops_are_not_copied_either():
    message = request()
    for crop, degrees in zip(message.crops, (90, 0, 270), strict=True):
        crop.rotation_degrees = degrees
    assert [crop.rotation_degrees for crop in in_place(message.SerializeToString())] == [90, 0, 270]


def test_a_file_is_not_copied():
    page = crop_pb2.Crop(spec="page", encoded=bytes(100_000))
    (crop,) = in_place(pb.RecognizeRequest(crops=[page]).SerializeToString())
    assert isinstance(crop, wire.EncodedCrop)
    assert (crop.id, len(crop.data)) == (0, 100_000)
    mixed = [page, *request(spec="page").crops, crop_pb2.Crop(id=9, encoded=b"")]
    assert len(in_place(pb.RecognizeRequest(crops=mixed).SerializeToString())) == 5


def test_a_label_that_is_no_text_is_refused():
    data = request(spec="a-model").SerializeToString()
    for broken in (data.replace(b"a-model", b"a-\xffodel"), data.replace(b"a-model", b"a-\xffodel", 1)):
        with pytest.raises(DecodeError):
            convert.read_request(broken)


def test_negative_numbers_are_left_to_the_parser():
    for message in (
        request(width=-2),
        request(format=-1),
        pb.RecognizeRequest(crops=[crop_pb2.Crop(id=-1, raw=request().crops[0].raw)]),
        pb.RecognizeRequest(priority=-1),
    ):
        data = message.SerializeToString()
        assert wire.read(data) is None
        assert convert.read_request(data) == convert.request_of(message)


def test_what_comes_otherwise_is_parsed():
    whole = request().SerializeToString()
    empty = request(count=0).SerializeToString()
    crop = request(count=1).crops[0]
    turned = crop_pb2.Crop(raw=crop.raw, to_image=crop_pb2.Transform(matrix=[1, 0, 0, 0, 1, 0, 0, 0, 1]))
    turned = pb.RecognizeRequest(crops=[turned]).SerializeToString()
    nothing = pb.RecognizeRequest(crops=[crop_pb2.Crop(id=1)]).SerializeToString()
    content_first = b"\x1a" + bytes([crop.raw.ByteSize() & 0x7F | 0x80, crop.raw.ByteSize() >> 7])
    content_first += crop.raw.SerializeToString() + b"\x08\x07"
    reordered = b"\x7a" + bytes([len(content_first) & 0x7F | 0x80, len(content_first) >> 7]) + content_first
    for data in (turned, nothing, reordered, whole + empty, whole + b"\xa0\x06\x01"):
        assert wire.read(data) is None
        assert convert.read_request(data) == convert.request_of(pb.RecognizeRequest.FromString(data))
    assert convert.read_request(reordered).crops[0].id == 7


def test_an_empty_request_is_read():
    assert convert.read_request(b"") == convert.request_of(pb.RecognizeRequest())


@settings(max_examples=200, deadline=None)
@given(
    crop_id=st.integers(0, 2**31 - 1) | st.integers(0, 300),
    text=st.text(),
    confidence=st.just(0.0) | st.floats(0, 1, width=32),
    listed=st.lists(st.tuples(st.text(max_size=3), st.floats(0, 1, width=32)), max_size=4),
    rotation=st.sampled_from([0, 90, 180, 270]),
    words=st.lists(st.tuples(st.text(max_size=9), FRACTIONS, st.tuples(*[FRACTIONS] * 4)), max_size=3),
)
def test_a_text_is_written_as_protobuf_writes_it(crop_id, text, confidence, listed, rotation, words):
    characters = (tuple(c for c, _ in listed), tuple(p for _, p in listed))
    result = TextAnswer(text, confidence, *characters, rotation, tuple(WordAnswer(*word) for word in words))
    expected = value_pb2.Text(text=text, confidence=confidence, rotation_degrees=rotation)
    expected.words.extend(value_pb2.Word(text=t, confidence=c, parts=parts) for t, c, parts in words)
    expected.characters.extend(value_pb2.Character(text=c, confidence=p) for c, p in listed)
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
