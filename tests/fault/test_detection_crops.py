"""What a crop does to a detection server is told of that crop, and its neighbours are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from ledger_models import Deed, draw
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.service import DetectionService
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security
from waiting import until

from sluiceway.common.v1 import crop_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway.detection.v1 import detection_pb2_grpc


def crop(number: int, deed: Deed = Deed.NOTHING) -> crop_pb2.Crop:
    return crop_pb2.Crop(id=number, encoded=draw(number, regions=2, deed=deed))


def server_of(**options: Any) -> Server:
    values = {
        "port": 0,
        "operations_port": 0,
        "drain_notice_s": 0,
        "detector": "ledger_models:LedgerDetector",
        "workers": 1,
        "max_batch": 4,
    }
    config = DetectionConfig.model_validate(values | options)
    return Server(DetectionService(config, Installation({}, Security(), {})), config)


async def test_what_one_crop_does_to_a_worker_is_told_and_its_neighbours_are_answered() -> None:
    server = server_of()
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            crops = [crop(11), crop(12, Deed.CRASH), crop(13), crop(14, Deed.RAISE), crop(15)]
            answer = await stub.Detect(pb.DetectRequest(crops=crops), timeout=60)
            assert {failure.crop_id: failure.error.reason for failure in answer.failures} == {
                12: "QUARANTINED",
                14: "MODEL_FAILED",
            }
            assert [(found.id, found.parent_id) for found in answer.detections] == [
                (0, 11), (1, 11), (2, 13), (3, 13), (4, 15), (5, 15),
            ]  # fmt: skip
            # It is known again, and the server still serves.
            answer = await stub.Detect(pb.DetectRequest(crops=[crop(12, Deed.CRASH), crop(11)]), timeout=60)
            assert [(failure.crop_id, failure.error.reason) for failure in answer.failures] == [(12, "QUARANTINED")]
            assert [found.parent_id for found in answer.detections] == [11, 11]
        pids = [worker["pid"] for worker in server._service.status()["workers"]]
    finally:
        await server.stop()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def test_crops_of_a_caller_that_leaves_are_not_computed() -> None:
    server = server_of(max_batch=1)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = detection_pb2_grpc.DetectionServiceStub(channel)
            slow = [crop_pb2.Crop(id=n, encoded=draw(n, deed=Deed.SLOW, argument=500)) for n in range(20)]
            call = stub.Detect(pb.DetectRequest(crops=slow))
            pool = server._service.pool  # type: ignore[attr-defined]
            await until(lambda: pool.load().running != 0)
            call.cancel()
            # Ten seconds of work were waiting before this one.
            answer = await stub.Detect(pb.DetectRequest(crops=[crop(1)]), timeout=5)
            assert len(answer.detections) == 2
            assert pool.load().queued == 0
            worker = server._service.status()["workers"][0]
            assert worker["items"] < 5
    finally:
        await server.stop()
