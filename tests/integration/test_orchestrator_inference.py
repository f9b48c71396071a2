"""Pipelines as models of the Open Inference Protocol, over gRPC and over HTTP, with stages without models."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluiceway_orchestrator.testing import Cluster, FakeDetection, picture
from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.inference import SERVICE, http_json
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from sluiceway_runtime.inference.tensors import pack_bytes, unpack_bytes
from waiting import until

from sluiceway.common.v1 import model_pb2

HTTP = {"enabled": True, "port": 0}
PIPELINES = {
    "read": {
        "steps": [{"name": "text", "stage": "detection"}, {"name": "words", "stage": "recognition", "of": "text"}]
    },
    "find": {"steps": [{"name": "text", "stage": "detection"}]},
}
NAMES = ["num_regions", "texts", "text_confidences", "boxes", "confidences", "class_names"]


class Served:
    """An orchestrator and both ways to its models."""

    def __init__(self, cluster: Cluster, channel: grpc.aio.Channel, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.channel = channel
        self.stub = GRPCInferenceServiceStub(channel)
        self.session = session
        self.url = f"http://127.0.0.1:{cluster.service.http.port}"

    async def until_free(self) -> None:
        await until(lambda: not self.cluster.service.budget.used_bytes)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            return response.status, response.headers, await response.read()


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    detector = options.pop("detector", None) or FakeDetection()
    async with (
        Cluster([detector], http=HTTP, pipelines=PIPELINES, **options) as cluster,
        cluster.connect() as channel,
        aiohttp.ClientSession() as session,
    ):
        yield Served(cluster, channel, session)


def request(*images: bytes, model: str = "read", shape: Sequence[int] | None = None) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, id="mine")
    message.inputs.add(name="image", datatype="BYTES", shape=shape or [len(images), 1])
    message.raw_input_contents.append(pack_bytes(images))
    return message


def tensors(answer: pb.ModelInferResponse) -> dict[str, Any]:
    found = {}
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        shape, count = tuple(output.shape), 1
        for side in shape:
            count *= side
        if output.datatype == "BYTES":
            data: list[Any] = [element.decode() for element in unpack_bytes(raw, count)]
        else:
            data = list(struct.unpack(f"<{count}{'i' if output.datatype == 'INT32' else 'f'}", raw))
        found[output.name] = (shape, data)
    return found


async def test_one_call_runs_the_whole_of_a_pipeline() -> None:
    async with served() as here:
        answer = await here.stub.ModelInfer(request(picture(1, regions=2), picture(2, regions=1)))
        assert (answer.model_name, answer.model_version, answer.id) == ("read", "1", "mine")
        found = tensors(answer)
        assert list(found) == NAMES
        assert found["num_regions"] == ((2, 1), [2, 1])
        # In reading order, which in these pictures is not that of the ids.
        assert found["texts"] == ((2, 2), ["1:1", "1:0", "2:0", ""])
        assert found["boxes"][0] == (2, 2, 4)
        assert found["boxes"][1][12:] == [0, 0, 0, 0]
        assert found["class_names"] == ((2, 2), ["textline"] * 3 + [""])
        assert found["text_confidences"][1][3] == 0
        assert all(0 < value <= 1 for value in found["confidences"][1][:3])
        await here.until_free()


async def test_every_pipeline_is_a_model() -> None:
    async with served(default_pipeline="read") as here:
        index = await here.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        assert [model.name for model in index.models] == ["read", "find"]
        metadata = await here.stub.ModelMetadata(pb.ModelMetadataRequest(name="find", version="1"))
        assert dict(metadata.properties)["steps"] == "text"
        found = tensors(await here.stub.ModelInfer(request(picture(1), model="find")))
        assert found["texts"] == ((1, 2), ["", ""])
        assert found["num_regions"] == ((1, 1), [2])
        assert (await here.stub.ServerMetadata(pb.ServerMetadataRequest())).name == "sluiceway-orchestrator"
        health = await health_pb2_grpc.HealthStub(here.channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_options_and_priority_reach_the_stage() -> None:
    detector = FakeDetection()
    async with served(detector=detector) as here:
        message = request(picture(1))
        message.parameters["max_detections"].int64_param = 1
        message.parameters["detect_only"].bool_param = True
        message.parameters["priority"].uint64_param = 3
        await here.stub.ModelInfer(message)
        assert detector.priorities == [model_pb2.PRIORITY_BULK]
        message.parameters["confidence"].double_param = 2
        with pytest.raises(grpc.aio.AioRpcError, match="confidence") as caught:
            await here.stub.ModelInfer(message)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_image_that_fails_is_the_error_of_the_request_and_ends_the_others() -> None:
    async def judge(number: int) -> None:
        if number == 2:
            raise InvalidImage("no image")
        await asyncio.Event().wait()

    async with served(detector=FakeDetection(before=judge)) as here, asyncio.timeout(30):
        with pytest.raises(grpc.aio.AioRpcError, match="no image") as caught:
            await here.stub.ModelInfer(request(picture(1), picture(2)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: not here.cluster.detection[0].stage.running and not here.cluster.service.budget.used_bytes)


@pytest.mark.parametrize("images", [0, 65])
async def test_a_request_has_one_to_64_images(images: int) -> None:
    async with served() as here:
        with pytest.raises(grpc.aio.AioRpcError, match=r"one image|at most 64") as caught:
            await here.stub.ModelInfer(request(*[picture(1)] * images, shape=[images, 1]))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_page_without_regions_is_a_normal_answer() -> None:
    async with served() as here:
        found = tensors(await here.stub.ModelInfer(request(picture(1, regions=0))))
    assert found["num_regions"] == ((1, 1), [0])
    assert found["boxes"] == ((1, 0, 4), [])


async def test_the_protocol_over_http() -> None:
    async with served(default_pipeline="read") as here:
        assert (await here.get("/v2/health/live"))[0] == 200
        assert (await here.get("/v2/health/ready"))[0] == 200
        status, about = await here.get("/v2")
        assert (status, about["name"]) == (200, "sluiceway-orchestrator")
        assert "binary_tensor_data" in about["extensions"]
        status, metadata = await here.get("/v2/models/read")
        assert (status, metadata["name"], metadata["versions"]) == (200, "read", ["1"])
        assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
        assert [output["name"] for output in metadata["outputs"]] == NAMES
        assert (await here.get("/v2/models/read/versions/1/ready"))[0] == 200
        status, config = await here.get("/v2/models/read/config")
        assert (status, config["max_batch_size"], config["input"]) == (
            200,
            64,
            [{"name": "image", "data_type": "TYPE_STRING", "dims": [1]}],
        )
        status, _, index = await here.post("/v2/repository/index", {"ready": True})
        assert (status, [model["name"] for model in json.loads(index)]) == (200, ["read", "find"])
        assert (await here.post("/v2/repository/index", b""))[0] == 200
        status, stats = await here.get("/v2/models/stats")
        assert (status, [entry["name"] for entry in stats["model_stats"]]) == (200, ["read", "find"])


async def test_images_go_as_bytes_behind_the_json_or_in_base64() -> None:
    async with served() as here:
        image = picture(1, regions=2)
        packed = pack_bytes([image])
        tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES"}
        asked = {
            "id": "mine",
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(packed)}}],
            "outputs": [{"name": "texts"}, {"name": "num_regions", "parameters": {"binary_data": True}}],
        }
        head = json.dumps(asked).encode()
        status, headers, body = await here.post(
            "/v2/models/read/infer", head + packed, **{http_json.HEADER: str(len(head))}
        )
        assert status == 200, body
        length = int(headers[http_json.HEADER])
        answer = json.loads(body[:length])
        assert answer["id"] == "mine"
        assert answer["outputs"] == [
            {"name": "texts", "datatype": "BYTES", "shape": [1, 2], "data": ["1:1", "1:0"]},
            {"name": "num_regions", "datatype": "INT32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
        ]
        assert body[length:] == struct.pack("<i", 2)
        encoded = [{**tensor, "parameters": {"content_type": "base64"}, "data": [[base64.b64encode(image).decode()]]}]
        ranked = [{"name": "texts", "parameters": {"classification": 1}}]
        status, headers, body = await here.post("/v2/models/read/infer", {"inputs": encoded, "outputs": ranked})
        assert http_json.HEADER not in headers
        (output,) = json.loads(body)["outputs"]
        assert output["shape"] == [1, 1]
        assert output["data"][0].endswith(":0:1:1")
        status, headers, body = await here.post(
            "/v2/models/read/versions/1/infer", {"inputs": encoded, "parameters": {"binary_data_output": True}}
        )
        assert status == 200
        assert len(json.loads(body[: int(headers[http_json.HEADER])])["outputs"]) == len(NAMES)
        (stats,) = (await here.get("/v2/models/read/stats"))[1]["model_stats"]
        assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == (3, 3)
        await here.until_free()


GOOD = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}
BASE64 = {**GOOD, "parameters": {"content_type": "base64"}}
SHARED = {"shared_memory_region": "r"}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v2/models/other/infer", {"inputs": [GOOD]}, 404, "Request for unknown model"),
        ("/v2/models/read/versions/9/infer", {"inputs": [GOOD]}, 404, "Request for unknown model"),
        ("/v2/models/read/infer", b"{", 400, "not JSON"),
        ("/v2/models/read/infer", b"[" * 9000, 400, "not JSON"),
        ("/v2/models/read/infer", [], 400, "inputs: must be a list"),
        ("/v2/models/read/infer", {"inputs": ["image"]}, 400, "inputs: must be a list"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "name": 1}]}, 400, "must be a text"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "name": "\ud800"}]}, 400, "must be a text"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "shape": ["1"]}]}, 400, "the shape must"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "shape": [10**12]}]}, 400, "the shape must"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "data": [1]}]}, 400, "no BYTES"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "data": []}]}, 400, "elements of its shape"),
        ("/v2/models/read/infer", {"inputs": [{**BASE64, "data": ["%"]}]}, 400, "no BYTES"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "parameters": {"binary_data_size": 9}}]}, 400, "fewer bytes"),
        ("/v2/models/read/infer", {"inputs": [{**GOOD, "parameters": SHARED}]}, 400, "shared memory"),
        ("/v2/models/read/infer", {"inputs": [GOOD], "parameters": {"colour": 1}}, 400, "colour"),
        ("/v2/models/read/infer", {"inputs": [GOOD], "parameters": {"colour": [1]}}, 400, "colour"),
        ("/v2/models/read/infer", {"inputs": [GOOD], "outputs": [{"name": "other"}]}, 400, "other"),
        ("/v2/repository/models/read/load", {}, 400, "neither loaded nor unloaded"),
        ("/v2/repository/models/read/unload", {}, 400, "neither loaded nor unloaded"),
        ("/v2/systemsharedmemory/region/r/register", {}, 400, "shared memory is not supported"),
        ("/v2/cudasharedmemory/region/r/register", {}, 400, "shared memory is not supported"),
        ("/v2/trace/setting", {}, 400, "configuration"),
        ("/v2/repository/index", [1], 400, "JSON table"),
    ],
)  # fmt: skip
async def test_failures_over_http_are_in_the_form_of_the_protocol(
    path: str, body: Any, status: int, words: str
) -> None:
    async with served() as here:
        told = await here.post(path, body)
        assert told[0] == status, told
        error = json.loads(told[2])["error"]
        assert words in error
        assert len(error) < 1000
        assert (await here.get("/v2/systemsharedmemory/status")) == (200, [])
        assert (await here.post("/v2/cudasharedmemory/region/r/unregister", b""))[0] == 200


@pytest.mark.parametrize("header", ["9", "-1", "x"])
async def test_a_length_of_the_json_that_cannot_be(header: str) -> None:
    async with served() as here:
        status, _, body = await here.post("/v2/models/read/infer", b"{}", **{http_json.HEADER: header})
    assert (status, http_json.HEADER in json.loads(body)["error"]) == (400, True)


async def test_the_timeout_of_a_request_over_http() -> None:
    async def hold(_: int) -> None:
        await asyncio.Event().wait()

    async with served(detector=FakeDetection(before=hold)) as here:
        encoded = {**GOOD, "parameters": {"content_type": "base64"}, "data": [base64.b64encode(picture(1)).decode()]}
        body = {"inputs": [encoded], "parameters": {"timeout": 20_000}}
        status, _, answer = await here.post("/v2/models/read/infer", body)
    assert (status, json.loads(answer)["error"]) == (504, "the timeout of the request is over")
