"""A recognition server with real workers, and what is sent to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.service import RecognitionService
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway.recognition.v1 import recognition_pb2_grpc

__all__ = ["ALONE", "Stub", "ask", "line", "raw", "running", "serving"]


Stub = recognition_pb2_grpc.RecognitionServiceStub
ALONE = Installation({}, Security(), {})


@asynccontextmanager
async def running(
    installation: Installation = ALONE, **values: object
) -> AsyncIterator[tuple[RecognitionService, Server]]:
    """A server by keys of its section."""
    config = RecognitionConfig.model_validate(
        {"port": 0, "operations_port": 0, "device": "cpu", "workers": 1, "drain_notice_s": 0, **values}
    )
    service = RecognitionService(config, installation)
    server = Server(service, config)
    try:
        await server.start()
        yield service, server
    finally:
        await server.close()


@asynccontextmanager
async def serving(
    installation: Installation = ALONE, **values: object
) -> AsyncIterator[tuple[RecognitionService, Stub]]:
    """A server and a way to ask it."""
    async with (
        running(installation, **values) as (service, server),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield service, recognition_pb2_grpc.RecognitionServiceStub(channel)


def line(text: str) -> np.ndarray:
    font = ImageFont.load_default(32)
    image = Image.new("RGB", (round(font.getlength(text)) + 12, 48), "white")
    ImageDraw.Draw(image).text((6, 5), text, fill="black", font=font)
    return np.asarray(image)


def raw(crop_id: int, pixels: np.ndarray, **fields: object) -> crop_pb2.Crop:
    height, width = pixels.shape[:2]
    values = {"height": height, "width": width, "format": crop_pb2.PIXEL_FORMAT_RGB, "data": pixels.tobytes()}
    return crop_pb2.Crop(id=crop_id, raw=crop_pb2.RawImage(**{**values, **fields}))


async def ask(stub: Stub, *crops: crop_pb2.Crop, **fields: object) -> dict[int, pb.Recognition]:
    answers: dict[int, pb.Recognition] = {}
    async for response in stub.Recognize(pb.RecognizeRequest(crops=crops, **fields), timeout=60):
        for recognition in response.recognitions:
            assert recognition.crop_id not in answers
            answers[recognition.crop_id] = recognition
    return answers
