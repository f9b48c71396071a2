"""Messages taken apart and joined without being parsed, against the parser that the contract generates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.wire import Buffers, bytes_field, span_buffers, split_crops, split_field
from sluiceway_runtime.errors import Internal

from sluiceway.common.v1 import crop_pb2, geometry_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

int32s = st.integers(-(2**31), 2**31 - 1)
matrices = st.lists(st.floats(width=32, allow_nan=False), min_size=9, max_size=9)
crops = st.lists(
    st.builds(
        crop_pb2.Crop,
        id=st.integers(0, 2**31 - 1),
        spec=st.sampled_from(["", "reader", "ä" * 100]),
        raw=st.none() | st.builds(crop_pb2.RawImage, height=st.integers(0, 300), data=st.binary(max_size=300)),
        to_image=st.none() | st.builds(crop_pb2.Transform, matrix=matrices),
    ),
    max_size=8,
)
detections = st.lists(
    st.builds(
        detection_pb2.Detection,
        id=int32s,
        class_name=st.text(max_size=4),
        confidence=st.floats(0, 1, width=32),
        parent_id=st.none() | int32s,
        geometry=st.builds(geometry_pb2.Geometry, box=st.builds(geometry_pb2.Box, x0=st.floats(0, 9, width=32))),
    ),
    max_size=5,
)


@given(crops=crops, detections=detections, width=int32s)
def test_crops_are_found_where_they_lie_and_move_on_untouched(
    crops: list[crop_pb2.Crop], detections: list[detection_pb2.Detection], width: int
) -> None:
    whole = detection_pb2.DetectResponse(crops=crops, detections=detections, width=width)
    message = whole.SerializeToString()
    rest, spans = split_crops(message)
    assert detection_pb2.DetectResponse.FromString(rest) == detection_pb2.DetectResponse(
        detections=detections, width=width
    )
    assert [(span.crop_id, span.spec) for span in spans] == [(crop.id, crop.spec) for crop in crops]
    for crop, span in zip(crops, spans, strict=True):
        expected = tuple(crop.to_image.matrix) if crop.HasField("to_image") else None
        assert span.to_image == expected
    chosen = spans[::2]
    head = recognition_pb2.RecognizeRequest(options=recognition_pb2.RecognizeOptions(model="m")).SerializeToString()
    request = Buffers((head, *span_buffers(message, chosen)))
    joined = request.join()
    assert request.size_bytes == len(joined)
    parsed = recognition_pb2.RecognizeRequest.FromString(joined)
    assert list(parsed.crops) == crops[::2]
    assert parsed.options.model == "m"
    assert list(detection_pb2.DetectRequest.FromString(joined[len(head) :]).crops) == crops[::2]


@given(detections=detections, width=int32s, sizes=st.lists(int32s, max_size=3))
def test_one_field_is_taken_out_and_is_that_of_the_message_that_hands_it_on(
    detections: list[detection_pb2.Detection], width: int, sizes: list[int]
) -> None:
    whole = detection_pb2.DetectResponse(width=width, detections=detections)
    whole.failures.extend(detection_pb2.CropFailure(crop_id=size) for size in sizes)
    taken, rest = split_field(whole.SerializeToString(), 3)
    regions = pipeline_pb2.Regions.FromString(taken).regions
    assert [region.SerializeToString() for region in regions] == [d.SerializeToString() for d in detections]
    del whole.detections[:]
    assert detection_pb2.DetectResponse.FromString(rest) == whole


@given(crops=crops, detections=detections, data=st.data())
def test_damaged_messages_are_refused_or_read_as_the_parser_reads_them(
    crops: list[crop_pb2.Crop], detections: list[detection_pb2.Detection], data: st.DataObject
) -> None:
    message = bytearray(detection_pb2.DetectResponse(crops=crops, detections=detections, width=7).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(message[: data.draw(st.integers(0, len(message)))])
    try:
        _, spans = split_crops(damaged)
        split_field(damaged, 3)
    except Internal:
        return
    # Each lies inside of it, one behind the other.
    ends = [0, *(span.end for span in spans)]
    assert all(ends[index] <= span.start < span.end for index, span in enumerate(spans))
    assert ends[-1] <= len(damaged)


@pytest.mark.parametrize(
    "message", [b"\x1a", b"\x1a\x05ab", b"\x7a\x03\x08", b"\x7a\x02\x0a", b"\x0b", b"\x08" + b"\xff" * 11]
)
def test_messages_that_end_early_are_refused(message: bytes) -> None:
    with pytest.raises(Internal, match="damaged"):
        split_crops(message)
    if message[0] != 0x7A:
        with pytest.raises(Internal, match="damaged"):
            split_field(message, 3)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_a_field_in_pieces(size: int) -> None:
    data = b"x" * size
    assert detection_pb2.DetectRequest.FromString(bytes_field(1, size) + data).image == data
