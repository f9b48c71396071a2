"""The splice against the real protobuf library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.convert.specs import head_fields
from sluiceway_orchestrator.wire import Buffers, bytes_field, span_buffers, split_crops, split_field
from sluiceway_runtime.errors import Internal

from sluiceway.common.v1 import crop_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

crops = st.lists(
    st.builds(
        crop_pb2.Crop,
        id=st.integers(0, 2**31 - 1),
        spec=st.sampled_from(["", "reader", "ä" * 100]),
        raw=st.none() | st.builds(crop_pb2.RawImage, height=st.integers(0, 300), data=st.binary(max_size=300)),
    ),
    max_size=8,
)


@given(
    crops=crops,
    detections=st.lists(st.builds(detection_pb2.Detection, id=st.integers(0, 2**31 - 1)), max_size=4),
    width=st.integers(0, 2**31 - 1),
)
def test_crops_move_from_one_message_into_the_other(
    crops: list[crop_pb2.Crop], detections: list[detection_pb2.Detection], width: int
) -> None:
    whole = detection_pb2.DetectResponse(crops=crops, detections=detections, width=width)
    message = whole.SerializeToString()
    rest, spans = split_crops(message)
    without = detection_pb2.DetectResponse(detections=detections, width=width)
    assert detection_pb2.DetectResponse.FromString(rest) == without
    assert [(span.crop_id, span.spec) for span in spans] == [(crop.id, crop.spec) for crop in crops]
    head = head_fields("reader")
    for chosen in (spans, spans[::2], spans[1:], list(reversed(spans))):
        request = recognition_pb2.RecognizeRequest.FromString(Buffers((head, *span_buffers(message, chosen))).join())
        assert request.options.model == "reader"
        by_position = {span.start: crop for span, crop in zip(spans, crops, strict=True)}
        assert list(request.crops) == [by_position[span.start] for span in chosen]


def test_fields_of_a_newer_release_are_passed_over() -> None:
    crop = crop_pb2.Crop(id=7, spec="m").SerializeToString()
    newer = b"\xa1\x06" + bytes(8) + b"\xa5\x06" + bytes(4) + b"\xa8\x06\x96\x01" + b"\xb2\x06\x03abc"
    message = b"\x08\x05" + newer + bytes_field(15, len(crop) + len(newer)) + newer + crop + newer
    rest, (span,) = split_crops(message)
    assert (span.crop_id, span.spec) == (7, "m")
    assert detection_pb2.DetectResponse.FromString(rest).width == 5


def test_interleaved_crops_are_found() -> None:
    crop = crop_pb2.Crop(id=1).SerializeToString()
    field = bytes_field(15, len(crop)) + crop
    rest, spans = split_crops(field + b"\x08\x05" + field + b"\x10\x06")
    assert rest == b"\x08\x05\x10\x06"
    assert len(spans) == 2


@given(st.binary(max_size=80))
def test_damaged_bytes_are_an_error_or_what_protobuf_reads(message: bytes) -> None:
    try:
        rest, spans = split_crops(message)
    except Internal:
        return
    assert len(rest) + sum(span.end - span.start for span in spans) == len(message)


@pytest.mark.parametrize(
    "message", [b"\x7a", b"\x7a\x05ab", b"\x7a\xff", b"\x0a\x05a", b"\x7b", b"\x08" + b"\xff" * 11]
)
def test_truncated_bytes_are_an_error(message: bytes) -> None:
    with pytest.raises(Internal):
        split_crops(message)
    with pytest.raises(Internal):
        split_field(message, 15)


def test_an_image_is_put_before_the_other_fields() -> None:
    image = bytes(range(256)) * 500
    tail = detection_pb2.DetectRequest(options=detection_pb2.DetectOptions(confidence=0.5)).SerializeToString()
    request = detection_pb2.DetectRequest.FromString(bytes_field(1, len(image)) + image + tail)
    assert request.image == image
    assert request.options.confidence == 0.5


def test_a_head_merges_the_options_of_the_job_with_the_model() -> None:
    options = recognition_pb2.RecognizeOptions(characters=True, top_k=3)
    fields = recognition_pb2.RecognizeRequest(options=options).SerializeToString()
    request = recognition_pb2.RecognizeRequest.FromString(fields + head_fields("logos"))
    assert (request.options.model, request.options.characters, request.options.top_k) == ("logos", True, 3)


def test_a_crop_says_where_it_was_cut_from() -> None:
    matrix = (1.0, 0.0, 10.0, 0.0, 2.0, 20.0, 0.0, 0.0, 1.0)
    crop = crop_pb2.Crop(id=3, spec="inner", raw=crop_pb2.RawImage(data=b"abc"))
    crop.to_image.matrix.extend(matrix)
    message = detection_pb2.DetectResponse(crops=[crop, crop_pb2.Crop(id=4)]).SerializeToString()
    _, (first, second) = split_crops(message)
    assert (first.crop_id, first.spec, first.to_image) == (3, "inner", matrix)
    assert (second.crop_id, second.to_image) == (4, None)


@given(
    detections=st.lists(st.builds(detection_pb2.Detection, id=st.integers(0, 2**31 - 1)), max_size=4),
    width=st.integers(0, 2**31 - 1),
)
def test_regions_are_split_from_the_rest_of_an_answer(detections: list[detection_pb2.Detection], width: int) -> None:
    whole = detection_pb2.DetectResponse(detections=detections, width=width).SerializeToString()
    taken, rest = split_field(whole, 3)
    assert list(detection_pb2.DetectResponse.FromString(taken).detections) == detections
    assert detection_pb2.DetectResponse.FromString(rest) == detection_pb2.DetectResponse(width=width)
    assert [region.id for region in pipeline_pb2.Regions.FromString(taken).regions] == [item.id for item in detections]


@given(st.binary(max_size=80))
def test_splitting_damaged_bytes_is_an_error_or_loses_none(message: bytes) -> None:
    try:
        taken, rest = split_field(message, 3)
    except Internal:
        return
    assert len(taken) + len(rest) == len(message)
