"""Requests whose images are found in place are those that protobuf reads."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from sluiceway_detection.front.convert import EncodedCrop, RawCrop, Request, read_request, request_of

from sluiceway.common.v1 import crop_pb2
from sluiceway.detection.v1 import detection_pb2 as pb

INT32 = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 300)
BYTES = st.binary(max_size=300) | st.sampled_from([b"", b"\x0a\x02ab", b"\x7a\x00"])
NAMES = st.sampled_from(["", "m", "€" * 60, "x" * 128, "\x1a\x05\x08\x01"])
RAW = st.builds(crop_pb2.RawImage, height=INT32, width=INT32, format=st.integers(-1, 4), data=BYTES)
MATRIX = st.none() | st.builds(crop_pb2.Transform, matrix=st.lists(st.floats(width=32, allow_nan=False), max_size=9))
CROPS = st.one_of(
    st.builds(crop_pb2.Crop, id=INT32, spec=NAMES, raw=RAW, to_image=MATRIX),
    st.builds(crop_pb2.Crop, id=INT32, spec=NAMES, encoded=BYTES, to_image=MATRIX),
    st.builds(crop_pb2.Crop, id=INT32, spec=NAMES, to_image=MATRIX),
)
SPECS = st.builds(
    crop_pb2.CropSpec,
    name=NAMES, height=INT32, max_width=INT32, resize_rule=st.integers(0, 5), classes=st.lists(NAMES, max_size=2),
)  # fmt: skip
REQUESTS = st.builds(
    pb.DetectRequest,
    image=BYTES,
    options=st.none() | st.builds(pb.DetectOptions, max_detections=INT32, classes=st.lists(NAMES, max_size=2)),
    crop_specs=st.lists(SPECS, max_size=3),
    priority=st.integers(-1, 4),
    crops=st.lists(CROPS, max_size=4),
)


def parsed(data: bytes) -> Request:
    """What the generated parser says."""
    return request_of(pb.DetectRequest.FromString(data))


def content(request: Request) -> tuple[object, ...]:
    """To compare by: a number that damage turned into NaN equals itself here."""
    return request.message.SerializeToString(deterministic=True), request.image, list(request.crops)


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_a_request_is_what_protobuf_says_it_is(message: pb.DetectRequest) -> None:
    data = message.SerializeToString()
    assert content(read_request(data)) == content(parsed(data))


@settings(max_examples=200, deadline=None)
@given(st.lists(REQUESTS, min_size=2, max_size=3))
def test_parts_of_a_request_are_put_together_as_protobuf_does(messages: list[pb.DetectRequest]) -> None:
    data = b"".join(message.SerializeToString() for message in messages)
    assert content(read_request(data)) == content(parsed(data))


@settings(max_examples=700, deadline=None)
@given(message=REQUESTS, data=st.data())
def test_damaged_bytes_are_what_protobuf_says_they_are(message: pb.DetectRequest, data: st.DataObject) -> None:
    damaged = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            at = data.draw(st.integers(0, len(damaged) - 1))
            if data.draw(st.booleans()):
                damaged[at] = data.draw(st.integers(0, 255))
            else:
                del damaged[at : at + data.draw(st.integers(1, 4))]
    try:
        expected = content(parsed(bytes(damaged)))
    except DecodeError:
        with pytest.raises(DecodeError):
            read_request(bytes(damaged))
    else:
        assert content(read_request(bytes(damaged))) == expected


def test_images_are_not_copied() -> None:
    file, pixels = bytes(range(256)) * 50, bytes(48 * 100 * 3)
    raw = crop_pb2.RawImage(height=48, width=100, format=1, data=pixels)
    where = crop_pb2.Transform(matrix=[1, 0, 0, 0, 1, 0, 0, 0, 1])
    options = pb.DetectOptions(confidence=0.5)
    with_image = pb.DetectRequest(image=file, options=options, priority=1).SerializeToString()
    with_crops = pb.DetectRequest(
        options=options,
        crops=[
            crop_pb2.Crop(id=3, spec="region", raw=raw, to_image=where),
            crop_pb2.Crop(id=4, encoded=file),
        ],
    ).SerializeToString()
    found = read_request(with_image)
    assert isinstance(found.image, memoryview)
    assert found.image.obj is with_image
    assert found.image == file
    assert found.message == pb.DetectRequest(options=options, priority=1)
    found = read_request(with_crops)
    assert found.crops == [RawCrop(3, 48, 100, 1, pixels), EncodedCrop(4, file)]
    for crop in found.crops:
        assert isinstance(crop.data, memoryview)
        assert crop.data.obj is with_crops
    assert found.message == pb.DetectRequest(options=options)


@pytest.mark.parametrize(
    "crop",
    [
        crop_pb2.Crop(id=1, encoded=b"a").SerializeToString() + crop_pb2.Crop(encoded=b"b").SerializeToString(),
        crop_pb2.Crop(raw=crop_pb2.RawImage(height=1)).SerializeToString()
        + crop_pb2.Crop(raw=crop_pb2.RawImage(width=2, data=b"c")).SerializeToString(),
        crop_pb2.Crop(encoded=b"a").SerializeToString() + crop_pb2.Crop(raw=crop_pb2.RawImage()).SerializeToString(),
        b"\xba\x3e\x06future",  # field 999
        b"\x0b\x0c",  # a group
    ],
    ids=["two files", "two pieces", "file and pixels", "unknown field", "group"],
)
def test_what_comes_otherwise_is_parsed(crop: bytes) -> None:
    data = b"\x7a" + bytes([len(crop)]) + crop
    assert content(read_request(data)) == content(parsed(data))


def test_an_empty_request_is_read() -> None:
    assert read_request(b"") == parsed(b"") == Request(pb.DetectRequest(), b"", [])


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05abc", b"\x0a\xff\xff\xff\xff", b"\x20\xff", b"\x0d\0\0", b"\x02\0"]
)
def test_what_ends_too_early_or_is_no_field_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read_request(data)
