"""The detection server over real gRPC with real worker processes, on a tiny model."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.service import DetectionService
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.common.v1 import crop_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway.detection.v1 import detection_pb2_grpc

MODELS = Path(__file__).parents[1] / "unit" / "detection" / "models"
WEIGHTS = MODELS / "yolo11-pico.onnx"
LOW = pb.DetectOptions(confidence=0.4, iou=0.5)


def service_of(**options: Any) -> tuple[DetectionService, DetectionConfig]:
    values = {
        "port": 0,
        "operations_port": 0,
        "drain_notice_s": 0,
        "model": str(WEIGHTS),
        "shapes": ["96x64", "64x96"],
        "precision": "f32",
        "workers": 2,
        "max_image_pixels": 10**6,
    }
    config = DetectionConfig.model_validate(values | options)
    return DetectionService(config, Installation({}, Security(), {})), config


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


PICTURE = png(np.load(MODELS / "yolo11-pico.npz")["image"])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server(*service_of())
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def stub(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield detection_pb2_grpc.DetectionServiceStub(channel)


async def test_it_describes_itself(stub: Any) -> None:
    said = await stub.Describe(pb.DescribeRequest())
    assert said.model.name == "yolo11-pico"
    assert said.model.weights_sha256 == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert list(said.classes) == ["0", "1", "2"]
    assert list(said.image_sizes) == [96]
    assert (said.backend, said.precision, said.device, said.workers) == ("openvino", "f32", "cpu", 2)
    assert said.default_options.max_detections == 1000
    assert said.max_image_pixels == 10**6


async def test_it_detects_and_cuts(stub: Any) -> None:
    spec = crop_pb2.CropSpec(name="text", height=16, max_width=64, classes=["0"])
    response = await stub.Detect(pb.DetectRequest(image=PICTURE, options=LOW, crop_specs=[spec]))
    assert (response.width, response.height) == (64, 96)
    confidences = [detection.confidence for detection in response.detections]
    assert confidences == sorted(confidences, reverse=True)
    assert len(confidences) >= 3
    assert [detection.id for detection in response.detections] == list(range(len(confidences)))
    wanted = [detection.id for detection in response.detections if detection.class_name == "0"]
    assert wanted
    assert {crop.id for crop in response.crops} <= set(wanted)
    for crop in response.crops:
        assert crop.spec == "text"
        assert crop.raw.height == 16
        assert len(crop.raw.data) == crop.raw.height * crop.raw.width * 3
    assert response.timings.compute_ms > 0
    assert response.timings.total_ms >= response.timings.compute_ms
    assert response.load.capacity == 2
    assert response.model.name == "yolo11-pico"


BOMB = PICTURE[:16] + (50_000).to_bytes(4, "big") * 2 + PICTURE[24:]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.DetectRequest(), "INVALID_IMAGE"),
        (pb.DetectRequest(image=b"some text, not an image"), "INVALID_IMAGE"),
        (pb.DetectRequest(image=PICTURE[: len(PICTURE) // 2]), "INVALID_IMAGE"),
        (pb.DetectRequest(image=PICTURE[:60] + bytes(100) + PICTURE[160:]), "INVALID_IMAGE"),
        (pb.DetectRequest(image=BOMB), "IMAGE_TOO_LARGE"),
        (pb.DetectRequest(image=PICTURE, options=pb.DetectOptions(classes=["unknown"])), "INVALID_OPTION"),
        (pb.DetectRequest(image=PICTURE, options=pb.DetectOptions(confidence=2)), "INVALID_OPTION"),
        (pb.DetectRequest(image=PICTURE, options=pb.DetectOptions(image_size=640)), "INVALID_OPTION"),
        (pb.DetectRequest(image=PICTURE, priority=9), "INVALID_OPTION"),
    ],
    ids=["empty", "text", "truncated", "damaged", "bomb", "class", "confidence", "image-size", "priority"],
)
async def test_bad_requests_are_refused_and_the_next_is_served(
    stub: Any, request_: pb.DetectRequest, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Detect(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(caught.value).reason == reason
    assert len((await stub.Detect(pb.DetectRequest(image=PICTURE, options=LOW))).detections) >= 3


async def test_every_worker_serves(server: Server, stub: Any) -> None:
    answers = await asyncio.gather(*(stub.Detect(pb.DetectRequest(image=PICTURE, options=LOW)) for _ in range(60)))
    assert len({answer.detections[0].SerializeToString() for answer in answers}) == 1
    status = server._service.status()
    assert status["model"]["backend"] == "openvino"
    assert all(worker["items"] > 0 for worker in status["workers"])
    pids = {worker["pid"] for worker in status["workers"]}
    assert len(pids) == 2
    assert os.getpid() not in pids


async def test_a_detector_of_ones_own_is_served() -> None:
    service, config = service_of(detector="examples.detector:BlobDetector", workers=1, version="7")
    server = Server(service, config)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            page = np.full((60, 90, 3), 255, np.uint8)
            page[20:40, 30:60] = 0
            response = await stub.Detect(pb.DetectRequest(image=png(page)))
            (found,) = response.detections
            assert (found.class_name, found.geometry.box.x0, found.geometry.box.y1) == ("blob", 30, 40)
            assert (response.model.name, response.model.version) == ("examples.detector:BlobDetector", "7")
            assert (await stub.Describe(pb.DescribeRequest())).backend == "user"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Detect(pb.DetectRequest(image=png(page), options=pb.DetectOptions(image_size=640)))
            assert "decides by itself" in (caught.value.details() or "")
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": str(MODELS / "missing.onnx")}, "does not exist"),
        ({"detector": "examples.detector:Missing"}, "Missing"),
        ({"precision": "int8"}, "int8 needs quantised weights"),
        ({"model": str(MODELS / "yolo26-pico-nms-free.onnx"), "shapes": ["64x64"]}, "exported for 96x64 alone"),
        ({"backend": "onnx", "precision": "bf16"}, "onnx computes in f32"),
    ],
    ids=["missing", "user", "precision", "shape", "backend"],
)
async def test_a_start_that_cannot_succeed_says_why(options: dict[str, Any], message: str) -> None:
    service, _ = service_of(workers=1, **options)
    with pytest.raises(StartupError, match=message):
        await service.start()
    await service.close()
    assert not service.ready()


async def test_the_arithmetic_is_chosen_before_the_workers_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluiceway_detection.backends.precision.cpu_has_bf16", lambda: True)
    service, _ = service_of(precision="auto", workers=1)
    try:
        await service.start()
        model = service.status()["model"]
        assert model["precision"] in ("f32", "bf16")
        # Both were tried here, or this CPU was found to have no bf16 in the process that tried.
        assert " ms" in model["precision_reason"] or "no bf16" in model["precision_reason"]
    finally:
        await service.close()
