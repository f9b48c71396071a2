"""The Open Inference Protocol over HTTP on the stages themselves, with real workers."""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import grpc
import grpc.aio
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.service import DetectionService
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.service import RecognitionService
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.inference import http_json
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from sluiceway_runtime.inference.tensors import pack_bytes
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.calls import REQUEST_ID_KEY
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security, SecurityConfig
from waiting import until

MODELS = Path(__file__).parents[1] / "unit" / "detection" / "models"
PICTURE = cv2.imencode(".png", np.load(MODELS / "yolo11-pico.npz")["image"])[1].tobytes()
MODEL = "/v2/models/yolo11-pico"
OPEN = {"enabled": True, "port": 0}


class Stage:
    """A stage that runs, and both ways to it."""

    def __init__(self, server: Server, service: Any, session: aiohttp.ClientSession, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.service = service
        self.session = session
        self.stub = GRPCInferenceServiceStub(channel)
        self.url = f"http://127.0.0.1:{service.http.port}"

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=io.BytesIO(data), headers=headers) as response:
            return response.status, response.headers, await response.read()


@asynccontextmanager
async def running(service: Any, config: ServerConfig, security: Security) -> AsyncIterator[Stage]:
    server = Server(service, config, security, service.stage)
    try:
        await server.start()
        async with (
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield Stage(server, service, session, channel)
    finally:
        await server.close()


def detection(
    http: dict[str, Any] | None, security: Security | None = None, **options: Any
) -> tuple[DetectionService, DetectionConfig, Security]:
    values: dict[str, Any] = {
        "port": 0,
        "operations_port": 0,
        "drain_notice_s": 0,
        "model": str(MODELS / "yolo11-pico.onnx"),
        "shapes": ["96x64"],
        "precision": "f32",
        "workers": 1,
        "confidence": 0.4,
        "iou": 0.5,
    }
    if http is not None:
        values["http"] = http
    config = DetectionConfig.model_validate(values | options)
    secured = security or Security()
    return DetectionService(config, Installation({}, secured, {})), config, secured


def json_request(*images: bytes, **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images), 1]}
    data = [[base64.b64encode(image).decode()] for image in images]
    return {"inputs": [{**tensor, "parameters": {"content_type": "base64"}, "data": data}], "parameters": parameters}


async def test_detection_answers_by_http_what_it_answers_by_grpc() -> None:
    async with running(*detection(OPEN)) as stage:
        request = pb.ModelInferRequest(model_name="yolo11-pico")
        request.inputs.add(name="image", datatype="BYTES", shape=[2, 1])
        request.raw_input_contents.append(pack_bytes([PICTURE, PICTURE]))
        expected = await stage.stub.ModelInfer(request)
        # As tritonclient's HTTP library does it: tensors as bytes behind the JSON, both ways.
        packed = pack_bytes([PICTURE, PICTURE])
        tensor = {"name": "image", "datatype": "BYTES", "shape": [2, 1]}
        head = json.dumps(
            {
                "inputs": [{**tensor, "parameters": {"binary_data_size": len(packed)}}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        status, headers, body = await stage.post(f"{MODEL}/infer", head + packed, **{http_json.HEADER: str(len(head))})
        assert status == 200, body
        length = int(headers[http_json.HEADER])
        outputs = json.loads(body[:length])["outputs"]
        assert [output["name"] for output in outputs] == [output.name for output in expected.outputs]
        assert [output["shape"] for output in outputs] == [list(output.shape) for output in expected.outputs]
        assert body[length:] == b"".join(expected.raw_output_contents)
        assert outputs[0]["name"] == "num_detections"
        # In JSON alone, with an option of the stage.
        status, _, body = await stage.post(f"{MODEL}/infer", json_request(PICTURE, max_detections=1))
        assert status == 200, body
        told = {output["name"]: output for output in json.loads(body)["outputs"]}
        assert (told["num_detections"]["data"], told["boxes"]["shape"]) == ([1], [1, 1, 4])
        # What comes by either counts together, and nothing of it is held.
        (statistics,) = (await stage.get(f"{MODEL}/stats"))[1]["model_stats"]
        assert statistics["inference_stats"]["success"]["count"] == 3
        await until(lambda: not stage.server.budget.used_bytes)


async def test_it_says_what_it_is_and_refuses_in_words() -> None:
    async with running(*detection(OPEN)) as stage:
        assert (await stage.get("/v2/health/live"))[0] == 200
        assert (await stage.get("/v2/health/ready"))[0] == 200
        assert (await stage.get("/v2"))[1]["name"] == "sluiceway-detection"
        assert (await stage.get(MODEL))[1]["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
        assert (await stage.get(f"{MODEL}/config"))[1]["max_batch_size"] == 64
        status, told = await stage.get("/v2/models/other")
        assert (status, told["error"].startswith("Request for unknown model")) == (404, True)
        status, _, body = await stage.post(f"{MODEL}/infer", json_request(b"no image"))
        assert status == 400
        assert "error" in json.loads(body)
        assert (await stage.get("/v1/describe"))[0] == 404
        status, _, body = await stage.post(f"{MODEL}/infer", json_request(PICTURE, colour=1))
        assert (status, "colour" in json.loads(body)["error"]) == (400, True)


async def test_its_requests_have_a_story() -> None:
    async with running(*detection(OPEN)) as stage:
        for request_id, image in (("good", PICTURE), ("bad", b"no image")):
            await stage.post(f"{MODEL}/infer", json_request(image), **{REQUEST_ID_KEY: request_id})
        recorder = stage.server.recorder
        [good], [bad] = (recorder.calls.of(request_id) for request_id in ("good", "bad"))
        assert (good.method, good.code) == (f"POST {MODEL}/infer", "OK")
        assert (bad.code, bad.reason) == ("INVALID_ARGUMENT", "INVALID_IMAGE")
        [batch] = recorder.batches.of("good")
        assert [part.call for part in batch.parts] == [good.number]


async def test_it_does_not_listen_unless_it_is_told_to() -> None:
    async with running(*detection(None)) as stage:
        assert stage.service.http.port == 0


async def test_who_may_call_is_who_may_call_by_grpc() -> None:
    config = SecurityConfig.model_validate({"clients": {"someone": {"token_env": "TOKEN"}}})
    security = Security(config, {"TOKEN": "a-token"})
    async with running(*detection(OPEN, security)) as stage:
        assert (await stage.post(f"{MODEL}/infer", json_request(PICTURE)))[0] == 401
        assert (await stage.get(MODEL))[0] == 401
        # Load balancers have none.
        assert (await stage.get("/v2/health/ready", Host="10.0.0.1"))[0] == 200
        allowed = {"Authorization": "Bearer a-token"}
        assert (await stage.post(f"{MODEL}/infer", json_request(PICTURE), **allowed))[0] == 200
        status, _, body = await stage.post(f"{MODEL}/infer", json_request(PICTURE), **allowed, Host="other.example")
        assert (status, "detection.http.allow_hosts" in json.loads(body)["detail"]) == (421, True)
        page = {"Origin": "https://other.example"}
        assert (await stage.post(f"{MODEL}/infer", json_request(PICTURE), **allowed, **page))[0] == 403


async def test_a_stage_that_drains_takes_no_more() -> None:
    async with running(*detection(OPEN)) as stage:
        stage.service.refuse()
        status, headers, body = await stage.post(f"{MODEL}/infer", json_request(PICTURE))
        assert (status, headers["Retry-After"], "draining" in json.loads(body)["error"]) == (503, "1", True)
        assert await stage.service.drain(30)


async def test_a_body_above_the_limit() -> None:
    async with running(*detection(OPEN, max_message_bytes=2**20, max_image_bytes=2**19)) as stage:
        assert (await stage.post(f"{MODEL}/infer", bytes(2**21)))[0] == 413


async def test_an_address_that_cannot_be_had_is_told_by_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartupError, match=r"\(detection\.http\)"):
        async with running(*detection({"enabled": True, "port": taken.getsockname()[1]})):
            pass
    with pytest.raises(StartupError, match=r"detection\.http\.host: 0\.0\.0\.0 can be reached"):
        async with running(*detection({**OPEN, "host": "0.0.0.0"})):
            pass


def line(text: str) -> bytes:
    font = ImageFont.load_default(32)
    image = Image.new("RGB", (round(font.getlength(text)) + 12, 48), "white")
    ImageDraw.Draw(image).text((6, 5), text, fill="black", font=font)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


async def test_recognition_reads_by_http() -> None:
    config = RecognitionConfig.model_validate(
        {"port": 0, "operations_port": 0, "drain_notice_s": 0, "device": "cpu", "workers": 1, "http": OPEN}
    )
    service = RecognitionService(config, Installation({}, Security(), {}))
    async with running(service, config, Security()) as stage:
        ((name,),) = [[model["name"]] for model in json.loads((await stage.post("/v2/repository/index", b""))[2])]
        crops = [[base64.b64encode(line(text)).decode()] for text in ("Total: 1,299.00", "segmentation")]
        tensor = {"name": "crop", "datatype": "BYTES", "shape": [2, 1], "parameters": {"content_type": "base64"}}
        status, _, body = await stage.post(f"/v2/models/{name}/infer", {"inputs": [{**tensor, "data": crops}]})
        assert status == 200, body
        told = {output["name"]: output for output in json.loads(body)["outputs"]}
        assert (told["text"]["shape"], told["text"]["data"]) == ([2, 1], ["Total: 1,299.00", "segmentation"])
