"""A detector that looks at crops, over real gRPC with real worker processes, on a tiny model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
import pytest_asyncio
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.service import DetectionService
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.common.v1 import crop_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway.detection.v1 import detection_pb2_grpc

MODELS = Path(__file__).parents[1] / "unit" / "detection" / "models"
PIXELS = np.load(MODELS / "yolo11-pico.npz")["image"]
LOW = pb.DetectOptions(confidence=0.4, iou=0.5)
WHOLE = crop_pb2.CropSpec(name="inner", max_width=1280, resize_rule=crop_pb2.RESIZE_RULE_FIT_LONGEST)


def server_of(**options: Any) -> Server:
    values = {
        "port": 0,
        "operations_port": 0,
        "drain_notice_s": 0,
        "model": str(MODELS / "yolo11-pico.onnx"),
        "shapes": ["96x64", "64x96"],
        "precision": "f32",
        "workers": 1,
        "max_image_pixels": 10**6,
        "max_crops": 8,
    }
    config = DetectionConfig.model_validate(values | options)
    return Server(DetectionService(config, Installation({}, Security(), {})), config)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    made = server_of()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield detection_pb2_grpc.DetectionServiceStub(channel)


pytestmark = pytest.mark.asyncio(loop_scope="module")


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


PICTURE = png(PIXELS)


def raw(crop_id: int, pixels: np.ndarray = PIXELS, **fields: Any) -> crop_pb2.Crop:
    known = {"height": pixels.shape[0], "width": pixels.shape[1], "format": 1, "data": pixels.tobytes()}
    return crop_pb2.Crop(id=crop_id, spec="text", raw=crop_pb2.RawImage(**(known | fields)))


async def refused(stub: Any, request: pb.DetectRequest) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Detect(request)
    return from_rpc_error(caught.value)


async def test_it_says_what_it_wants(server: Server, stub: Any) -> None:
    said = await stub.Describe(pb.DescribeRequest())
    assert said.crop_spec == crop_pb2.CropSpec(
        max_width=96, format=crop_pb2.PIXEL_FORMAT_BGR, resize_rule=crop_pb2.RESIZE_RULE_FIT_LONGEST
    )
    assert said.max_crops == 8
    assert len(said.group) == 16
    assert said.group == server._service.group == server._service.status()["model"]["group"]  # type: ignore[attr-defined]


async def test_every_crop_is_an_image_of_its_own(stub: Any) -> None:
    alone = await stub.Detect(pb.DetectRequest(image=PICTURE, options=LOW, crop_specs=[WHOLE]))
    turned = np.ascontiguousarray(np.rot90(PIXELS))
    alone_turned = await stub.Detect(pb.DetectRequest(image=png(turned), options=LOW, crop_specs=[WHOLE]))
    rgb = np.ascontiguousarray(PIXELS[:, :, ::-1])
    crops = [
        raw(40),
        crop_pb2.Crop(id=7, encoded=PICTURE),
        raw(0, turned),
        raw(3, np.full((40, 40, 3), 128, np.uint8)),
        raw(9, rgb, format=crop_pb2.PIXEL_FORMAT_RGB),
        raw(5, format=crop_pb2.PIXEL_FORMAT_UNSPECIFIED),
    ]
    answer = await stub.Detect(pb.DetectRequest(options=LOW, crops=crops, crop_specs=[WHOLE]))
    assert not answer.failures
    assert (answer.width, answer.height) == (0, 0)
    assert [found.id for found in answer.detections] == list(range(len(answer.detections)))
    # Crop after crop, as in the request.
    parents = list(dict.fromkeys(found.parent_id for found in answer.detections))
    assert parents == [parent for parent in (40, 7, 0, 3, 9, 5) if parent in parents]
    for parent, expected in {40: alone, 7: alone, 0: alone_turned, 9: alone, 5: alone}.items():
        its = [found for found in answer.detections if found.parent_id == parent]
        assert len(its) == len(expected.detections) >= 3
        first_id = its[0].id
        for found, other in zip(its, expected.detections, strict=True):
            assert (found.geometry, found.class_id, found.confidence) == (
                other.geometry,
                other.class_id,
                other.confidence,
            )
        cut = [crop for crop in answer.crops if first_id <= crop.id < first_id + len(its)]
        assert cut
        for crop, other in zip(cut, expected.crops, strict=True):
            assert (crop.id - first_id, crop.spec, crop.to_image, crop.raw) == (
                other.id,
                "inner",
                other.to_image,
                other.raw,
            )
            assert len(crop.to_image.matrix) == 9
    assert answer.timings.total_ms >= answer.timings.compute_ms > 0
    assert answer.load.capacity == 1
    assert answer.model.name == "yolo11-pico"


async def test_what_it_cut_can_be_looked_at_again(stub: Any) -> None:
    found = await stub.Detect(pb.DetectRequest(image=PICTURE, options=LOW, crop_specs=[WHOLE]))
    forwarded = found.crops[:8]
    # The bytes of the field as they are: both messages have the same number for it.
    request = pb.DetectRequest(options=LOW).SerializeToString()
    request += pb.DetectResponse(crops=forwarded).SerializeToString()
    again = await stub.Detect(pb.DetectRequest.FromString(request))
    assert not again.failures
    assert {detection.parent_id for detection in again.detections} <= {crop.id for crop in forwarded}


async def test_the_most_confident_of_each_crop_are_kept(stub: Any) -> None:
    options = pb.DetectOptions(confidence=0.4, iou=0.5, max_detections=2)
    answer = await stub.Detect(pb.DetectRequest(options=options, crops=[raw(1), raw(2)]))
    assert [(found.id, found.parent_id) for found in answer.detections] == [(0, 1), (1, 1), (2, 2), (3, 2)]


BROKEN = {
    1: (raw(1, data=PIXELS.tobytes()[:-1]), "INVALID_IMAGE"),
    2: (raw(2, format=9), "INVALID_IMAGE"),
    3: (raw(3, height=0, data=b""), "INVALID_IMAGE"),
    4: (raw(4, width=-64), "INVALID_IMAGE"),
    5: (raw(5, height=100_000, width=100_000), "IMAGE_TOO_LARGE"),
    6: (crop_pb2.Crop(id=6, encoded=b"no image"), "INVALID_IMAGE"),
    7: (crop_pb2.Crop(id=7, encoded=PICTURE[:60] + bytes(100) + PICTURE[160:]), "INVALID_IMAGE"),
    8: (crop_pb2.Crop(id=8), "INVALID_IMAGE"),
    9: (crop_pb2.Crop(id=9, encoded=PICTURE[:16] + (50_000).to_bytes(4, "big") * 2 + PICTURE[24:]), "IMAGE_TOO_LARGE"),
}


@pytest.mark.parametrize("numbers", [(1, 2, 3, 4, 5), (6, 7, 8, 9)])
async def test_a_crop_that_cannot_be_looked_at_leaves_the_others(stub: Any, numbers: tuple[int, ...]) -> None:
    crops = [raw(100), *[BROKEN[number][0] for number in numbers], raw(50)]
    answer = await stub.Detect(pb.DetectRequest(options=LOW, crops=crops))
    assert {failure.crop_id: failure.error.reason for failure in answer.failures} == {
        number: BROKEN[number][1] for number in numbers
    }
    assert {failure.error.code for failure in answer.failures} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}
    by_parent = [[found.geometry for found in answer.detections if found.parent_id == parent] for parent in (100, 50)]
    assert len(by_parent[0]) >= 3
    assert by_parent[0] == by_parent[1]
    assert len(answer.detections) == 2 * len(by_parent[0])


async def test_a_crop_whose_answer_is_too_large_fails_alone(stub: Any) -> None:
    huge = crop_pb2.CropSpec(name="huge", height=4096, max_width=16_384, resize_rule=crop_pb2.RESIZE_RULE_STRETCH)
    sure = pb.DetectOptions(confidence=0.95, iou=0.5)  # of nothing in a grey area
    crops = [raw(1), raw(2, np.full((40, 40, 3), 128, np.uint8))]
    answer = await stub.Detect(pb.DetectRequest(options=sure, crops=crops, crop_specs=[huge]))
    assert [(failure.crop_id, failure.error.reason) for failure in answer.failures] == [(1, "INVALID_OPTION")]


async def test_crops_that_do_not_fit_into_one_answer_are_refused(stub: Any) -> None:
    # Each has room for its own, all of them together have not.
    spec = crop_pb2.CropSpec(name="large", height=1024, max_width=3400, resize_rule=crop_pb2.RESIZE_RULE_STRETCH)
    options = pb.DetectOptions(confidence=0.4, iou=0.5, max_detections=4)
    error = await refused(stub, pb.DetectRequest(options=options, crops=[raw(1), raw(2), raw(3)], crop_specs=[spec]))
    assert (error.reason, error.metadata["limit"]) == ("INVALID_OPTION", "max_crop_bytes")


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (pb.DetectRequest(image=PICTURE, crops=[raw(1)]), "either"),
        (pb.DetectRequest(crops=[raw(1), raw(2), raw(1)]), "distinct"),
        (pb.DetectRequest(crops=[raw(1), raw(-2)]), "negative"),
        (pb.DetectRequest(crops=[raw(number) for number in range(9)]), "at most 8"),
        (pb.DetectRequest(crops=[raw(1)], options=pb.DetectOptions(max_detections=-1)), "max_detections"),
        (pb.DetectRequest(crops=[raw(1)], priority=-1), "priority"),
    ],
    ids=["both", "ids", "negative", "many", "option", "priority"],
)
async def test_requests_that_make_no_sense_are_refused_whole(stub: Any, request_: pb.DetectRequest, what: str) -> None:
    error = await refused(stub, request_)
    assert error.reason == "INVALID_OPTION"
    assert what in error.message


async def test_a_call_whose_crops_find_no_room_fails_whole() -> None:
    server = server_of(queue_items=3, batch_timeout_s=5)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            # What can never find room is not offered.
            assert (await stub.Describe(pb.DescribeRequest())).max_crops == 3
            request = pb.DetectRequest(options=LOW, crops=[raw(number) for number in range(3)])
            calls = [stub.Detect(request) for _ in range(30)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            answers = [end for end in ends if isinstance(end, pb.DetectResponse)]
            errors = [from_rpc_error(end) for end in ends if isinstance(end, grpc.aio.AioRpcError)]
            assert len(answers) + len(errors) == 30
            assert answers
            assert {error.reason for error in errors} == {"QUEUE_FULL"}
            assert all(error.retry_after_s for error in errors)
            assert not any(answer.failures for answer in answers)
            # What was withdrawn is gone: the next one finds all of the queue.
            assert not (await stub.Detect(request)).failures
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Detect(request, timeout=0.0001)
            # Told before it is over where the queue knows that it would be.
            assert from_rpc_error(caught.value).reason in {"DEADLINE_EXCEEDED", "QUEUE_FULL"}
    finally:
        await server.stop()
