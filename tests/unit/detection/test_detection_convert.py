"""Requests to jobs and answers to messages."""

import dataclasses

import numpy as np
import pytest
from sluiceway_detection.crops import MAX_CROPS, Crop, CropPlan
from sluiceway_detection.front.convert import Defaults, add_answer, job_of, model_message, priority_of
from sluiceway_detection.front.identity import Identity
from sluiceway_detection.job import DetectionAnswer, DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.types import Detections, Polygon, RotatedBox
from sluiceway_runtime.documents.pages import DocumentPage
from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.images.decode import DecodedImage
from sluiceway_runtime.images.notices import IMAGE_END_MISSING
from sluiceway_runtime.pool import Outcome, Priority

from sluiceway.common.v1 import crop_pb2, model_pb2
from sluiceway.detection.v1 import detection_pb2 as pb

DEFAULTS = Defaults(0.25, 0.7, 1000, ("textline", "image"), (640, 1280))

BLANK = DocumentPage(DecodedImage(np.zeros((100, 120, 3), np.uint8)), 0)


def test_what_is_left_out_is_the_configurations() -> None:
    assert job_of(pb.DetectRequest(), DEFAULTS) == DetectionJob(Selection(0.25, 0.7, 1000, None), None, ())


def test_what_is_given_counts() -> None:
    request = pb.DetectRequest(
        options=pb.DetectOptions(
            confidence=0.5, iou=1, classes=["image", "image"], max_detections=10_000, image_size=1280
        ),
        crop_specs=[
            crop_pb2.CropSpec(name="a", height=48, max_width=320, classes=["textline", "of another model"]),
            crop_pb2.CropSpec(
                name="b",
                height=4096,
                max_width=16384,
                format=crop_pb2.PIXEL_FORMAT_GRAY,
                resize_rule=crop_pb2.RESIZE_RULE_STRETCH,
            ),
        ],
    )
    assert job_of(request, DEFAULTS) == DetectionJob(
        Selection(0.5, 1, 10_000, frozenset({1})),
        1280,
        (
            CropPlan("a", 48, 320, class_ids=frozenset({0})),
            CropPlan("b", 4096, 16384, pixel_format="gray", rule="stretch"),
        ),
    )


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"confidence": 0}, "confidence"),
        ({"confidence": -0.1}, "confidence"),
        ({"confidence": 1.01}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"confidence": float("inf")}, "confidence"),
        ({"iou": 0}, "iou"),
        ({"iou": 2}, "iou"),
        ({"classes": ["dog"]}, "classes"),
        ({"max_detections": 0}, "max_detections"),
        ({"max_detections": 10_001}, "max_detections"),
        ({"max_detections": -1}, "max_detections"),
        ({"image_size": -640}, "image_size"),
        ({"image_size": 641}, "image_size"),
        ({"image_size": 0}, "image_size"),
        ({"scale": "slow"}, "scale"),
        ({"scale": ""}, "scale"),
        ({"scale": "0"}, "scale"),
        ({"scale": "nan"}, "scale"),
        ({"scale": "4.5"}, "scale"),
        ({"scale": "auto"}, "scale: auto is for models of boxes or maps"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], option: str) -> None:
    with pytest.raises(InvalidOption, match=option) as caught:
        job_of(pb.DetectRequest(options=pb.DetectOptions(**options)), DEFAULTS)
    assert caught.value.metadata == {"option": option.partition(":")[0]}


@pytest.mark.parametrize(("given", "scale"), [(None, "auto"), ("fast", "fast"), ("auto", "auto"), ("0.5", 0.5)])
def test_how_large_an_image_is_shown(given: str | None, scale: object) -> None:
    of_text = dataclasses.replace(DEFAULTS, scale="auto", scales=True)
    request = pb.DetectRequest(options=pb.DetectOptions(scale=given))
    assert job_of(request, of_text).scale == scale
    assert job_of(pb.DetectRequest(options=pb.DetectOptions(scale="fast")), DEFAULTS).scale == "fast"


@pytest.mark.parametrize(
    "specs",
    [
        [{"height": 0, "max_width": 320}],
        [{"height": 4097, "max_width": 320}],
        [{"height": -48, "max_width": 320}],
        [{"height": 48, "max_width": -320}],
        [{"height": 48, "max_width": 32, "format": -1}],
        [{"height": 48, "max_width": 0, "resize_rule": crop_pb2.RESIZE_RULE_FIT_LONGEST}],
        [{"height": 48, "max_width": 0}],
        [{"height": 48, "max_width": 16_385}],
        [{"height": 48, "max_width": 32, "format": 77}],
        [{"height": 48, "max_width": 32, "resize_rule": 77}],
        [{"height": 48, "max_width": 32, "turn_ratio": 0.5}],
        [{"height": 48, "max_width": 32, "turn_ratio": -1.5}],
        [{"height": 48, "max_width": 32, "turn_ratio": float("nan")}],
        [{"height": 48, "max_width": 32, "turn_ratio": float("inf")}],
        [{"height": 48, "max_width": 32}] * 2,
        [{"name": str(number), "height": 48, "max_width": 32} for number in range(33)],
        [{"name": "m" * 101, "height": 48, "max_width": 32}],
    ],
)
def test_bad_crop_specs_are_refused(specs: list[dict[str, object]]) -> None:
    with pytest.raises(InvalidOption, match="crop_specs"):
        job_of(pb.DetectRequest(crop_specs=[crop_pb2.CropSpec(**spec) for spec in specs]), DEFAULTS)


def test_a_height_means_nothing_where_a_region_keeps_its_size() -> None:
    for height in (0, -7, 10_000):
        spec = crop_pb2.CropSpec(height=height, max_width=1280, resize_rule=crop_pb2.RESIZE_RULE_FIT_LONGEST)
        (plan,) = job_of(pb.DetectRequest(crop_specs=[spec]), DEFAULTS).crops
        assert (plan.rule, plan.max_width_px) == ("fit_longest", 1280)


def test_the_name_in_every_crop_is_bounded() -> None:
    # As recognition bounds the names of its models: an answer may hold thousands of copies.
    spec = crop_pb2.CropSpec(name="m" * 100, height=48, max_width=32)
    assert job_of(pb.DetectRequest(crop_specs=[spec]), DEFAULTS).crops == (CropPlan("m" * 100, 48, 32),)
    spec.name += "m"
    with pytest.raises(InvalidOption, match="101") as caught:
        job_of(pb.DetectRequest(crop_specs=[spec]), DEFAULTS)
    assert caught.value.metadata == {"option": "crop_specs.name"}


def test_an_error_does_not_repeat_all_that_was_sent() -> None:
    # It travels in the trailers of the call, of which gRPC takes some kilobytes.
    with pytest.raises(InvalidOption, match="unknown class 'ddd") as caught:
        job_of(pb.DetectRequest(options=pb.DetectOptions(classes=["d" * 2**20])), DEFAULTS)
    assert len(str(caught.value)) < 500


def test_priorities() -> None:
    assert priority_of(model_pb2.PRIORITY_UNSPECIFIED) is Priority.NORMAL
    assert priority_of(model_pb2.PRIORITY_INTERACTIVE) is Priority.INTERACTIVE
    assert priority_of(model_pb2.PRIORITY_BULK) is Priority.BULK
    for unknown in (99, -1):
        with pytest.raises(InvalidOption):
            priority_of(unknown)


def test_every_geometry_reaches_the_client() -> None:
    found = Detections(
        np.array([[1, 2, 3, 4.5], [5, 6, 70, 80], [0, 0, 9, 9]], np.float32),
        np.array([1, 0, 5], np.int32),
        np.array([0.9, 0.8, 0.7], np.float32),
        {1: RotatedBox((30, 40), 20, 10, 190), 2: Polygon(((0, 0), (9, 0), (9, 9)))},
    )
    crops = [Crop(0, 0, np.full((2, 3, 3), 7, np.uint8)), Crop(2, 0, np.full((2, 1, 3), 8, np.uint8))]
    payload = DetectionAnswer.payload(BLANK, found, crops, 1.5)
    plans = (CropPlan("text", 2, 9, pixel_format="rgb"),)
    response = pb.DetectResponse(model=model_message(Identity("m", "1", "ab")))
    add_answer(response, Outcome(payload, 2.0, 30.0, 0), plans, ("textline", "image"))
    assert (response.width, response.height) == (120, 100)
    first, second, third = response.detections
    assert [detection.id for detection in response.detections] == [0, 1, 2]
    assert (first.geometry.box.x0, first.geometry.box.y1) == (1, 4.5)
    assert (first.class_id, first.class_name) == (1, "image")
    assert first.confidence == pytest.approx(0.9)
    assert not first.HasField("parent_id")
    assert second.geometry.rotated_box.angle_degrees == -170
    assert second.geometry.rotated_box.center.y == 40
    assert len(third.geometry.polygon.points) == 3
    assert third.class_name == "class5"
    assert [(crop.id, crop.spec, crop.raw.height, crop.raw.width) for crop in response.crops] == [
        (0, "text", 2, 3),
        (2, "text", 2, 1),
    ]
    assert response.crops[0].raw.data == b"\x07" * 18
    assert response.crops[0].raw.format == crop_pb2.PIXEL_FORMAT_RGB
    assert not response.crops[0].HasField("to_image")
    assert (response.timings.queue_ms, response.timings.compute_ms, response.timings.decode_ms) == (2, 30, 1.5)
    assert response.model.weights_sha256 == "ab"


def outcome(count: int, crops: list[Crop], queue_ms: float = 1.0) -> Outcome:
    found = Detections(
        np.tile(np.array([[1, 2, 3, 4]], np.float32), (count, 1)),
        np.zeros(count, np.int32),
        np.linspace(0.9, 0.1, count, dtype=np.float32),
    )
    return Outcome(DetectionAnswer.payload(BLANK, found, crops, 1.5), queue_ms, 30.0, 0)


def noted(
    *,
    scale: float = 1.0,
    left_out: bool = False,
    too_small: bool = False,
    crops: tuple[int, ...] = (),
    notices: tuple[str, ...] = (),
) -> dict[str, dict[str, str]]:
    made = outcome(2, [])
    facts = made.payload.meta._replace(scale=scale, left_out=left_out, too_small=too_small, notices=notices)
    payload = made.payload._replace(meta=facts)
    response = pb.DetectResponse()
    for crop in crops or (None,):
        add_answer(response, made._replace(payload=payload), (), ("text",), crop)
    reasons = [notice.reason for notice in response.notices]
    assert len(set(reasons)) == len(reasons)
    assert all(notice.message for notice in response.notices)
    return {notice.reason: dict(notice.metadata) for notice in response.notices}


def test_what_was_given_up_is_said() -> None:
    assert noted() == {}
    assert noted(scale=0.25) == {}
    assert noted(scale=0.2) == {"IMAGE_SCALED": {"scale": "0.2", "least_px": "40"}}
    truncated = {"REGIONS_TRUNCATED": {"limit": "max_detections", "max": "2"}}
    assert noted(left_out=True) == truncated
    assert noted(left_out=True, scale=0.1).keys() == {"IMAGE_SCALED", "REGIONS_TRUNCATED"}
    assert noted(scale=0.5, too_small=True) == {"IMAGE_SCALED": {"scale": "0.5", "least_px": "16"}}
    assert noted(notices=(IMAGE_END_MISSING,), crops=(4, 7)) == {IMAGE_END_MISSING: {}}
    # Crops were cut to what the detector wants, so their scale says nothing.
    assert noted(left_out=True, scale=0.1, crops=(4, 7)) == truncated


def test_answers_to_several_crops_follow_each_other() -> None:
    response = pb.DetectResponse()
    pixels = np.zeros((2, 3, 3), np.uint8)
    where = (1.0, 0.0, 7.0, 0.0, 1.0, 8.0, 0.0, 0.0, 1.0)
    plans = (CropPlan("inner", 0, 9, rule="fit_longest"),)
    add_answer(response, outcome(2, [Crop(1, 0, pixels, where)], 5.0), plans, ("x",), parent_id=40)
    add_answer(response, outcome(0, []), plans, ("x",), parent_id=0)
    add_answer(response, outcome(1, [Crop(0, 0, pixels, where)]), plans, ("x",), parent_id=7)
    assert [(found.id, found.parent_id) for found in response.detections] == [(0, 40), (1, 40), (2, 7)]
    assert all(found.HasField("parent_id") for found in response.detections)
    assert [(crop.id, crop.spec) for crop in response.crops] == [(1, "inner"), (2, "inner")]
    assert tuple(response.crops[1].to_image.matrix) == where
    assert (response.width, response.height) == (0, 0)
    assert response.timings.queue_ms == 5


def test_an_answer_to_several_crops_holds_no_more_crops_than_to_an_image() -> None:
    pixels = np.zeros((1, 1, 3), np.uint8)
    plans, many = (CropPlan("a", 1, 1),), outcome(1, [Crop(0, 0, pixels)] * (MAX_CROPS // 2))
    response = pb.DetectResponse()
    for number in range(2):
        add_answer(response, many, plans, ("x",), parent_id=number)
    with pytest.raises(InvalidOption) as caught:
        add_answer(response, outcome(1, [Crop(0, 0, pixels)]), plans, ("x",), parent_id=2)
    assert caught.value.metadata == {"limit": "max_crops", "max": "32768"}
