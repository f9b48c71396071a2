"""The Open Inference Protocol on a real server, in front of a stage that computes nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import QueueFull, SluicewayError
from sluiceway_runtime.inference import (
    SERVICE,
    Inferred,
    ModelCard,
    Parameter,
    Tensor,
    TensorSpec,
    add_inference,
    convert,
)
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from sluiceway_runtime.inference.tensors import pack_bytes, unpack_bytes
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.calls import Caller
from sluiceway_runtime.server.status import from_rpc_error

CARD = ModelCard(
    name="echo",
    version="2",
    platform="test",
    inputs=(TensorSpec("numbers", "FP32", (-1, 2)), TensorSpec("names", "BYTES", (-1,))),
    outputs=(TensorSpec("numbers", "FP32", (-1, 2)), TensorSpec("names", "BYTES", (-1,))),
    max_elements=1000,
    parameters=("scale", "flag"),
    properties=(("note", "for tests"),),
)
FLOATS = [1.5, -2.0, 0.25, 3.0]
NAMES = [b"a", "é".encode()]
CODE = grpc.StatusCode
CONFIG = ServerConfig(port=0, operations_port=0, drain_notice_s=0)


class Echo:
    """Gives back what it got; also the service of the runtime."""

    names = (SERVICE,)
    name = "test-server"

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.error: SluicewayError | None = None
        self.priority: Priority | None = None
        self.hold: asyncio.Event | None = None
        self.is_ready = True

    def register(self, server: grpc.aio.Server) -> None:
        add_inference(server, self, CONFIG)

    def cards(self) -> Sequence[ModelCard]:
        return (CARD,)

    async def infer(
        self,
        card: ModelCard,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Parameter],
        priority: Priority,
        caller: Caller,
    ) -> Inferred:
        self.parameters, self.priority = dict(parameters), priority
        if self.error is not None:
            raise self.error
        if self.hold is not None:
            await self.hold.wait()
        labels = [b"one", b"two"]
        scores = [0.25, 0.75]
        numbers = replace(inputs["numbers"], labels=labels)
        return Inferred([numbers, replace(inputs["names"], labels=NAMES, scores=scores)], 20, 30)

    async def start(self) -> None: ...

    def collectors(self, registry: CollectorRegistry) -> None: ...

    def ready(self) -> bool:
        return self.is_ready

    def status(self) -> Mapping[str, Any]:
        return {}

    def refuse(self) -> None: ...

    async def drain(self, grace_s: float) -> bool:
        return True

    async def close(self) -> None: ...


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def channel(echo: Echo) -> AsyncIterator[grpc.aio.Channel]:
    server = Server(echo, CONFIG)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel
    await server.close()


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


def request(*, raw: bool = False, **fields: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="echo", id="mine", **fields)
    numbers = message.inputs.add(name="numbers", datatype="FP32", shape=[2, 2])
    names = message.inputs.add(name="names", datatype="BYTES", shape=[2])
    if raw:
        message.raw_input_contents.extend((struct.pack("<4f", *FLOATS), pack_bytes(NAMES)))
    else:
        numbers.contents.fp32_contents.extend(FLOATS)
        names.contents.bytes_contents.extend(NAMES)
    return message


async def test_typed_contents_come_back_typed(stub: GRPCInferenceServiceStub) -> None:
    answer = await stub.ModelInfer(request())
    assert (answer.model_name, answer.model_version, answer.id) == ("echo", "2", "mine")
    assert [(output.name, output.datatype, list(output.shape)) for output in answer.outputs] == [
        ("numbers", "FP32", [2, 2]),
        ("names", "BYTES", [2]),
    ]
    assert list(answer.outputs[0].contents.fp32_contents) == FLOATS
    assert list(answer.outputs[1].contents.bytes_contents) == NAMES
    assert not answer.raw_output_contents


async def test_raw_contents_come_back_raw(stub: GRPCInferenceServiceStub) -> None:
    answer = await stub.ModelInfer(request(raw=True))
    assert struct.unpack("<4f", answer.raw_output_contents[0]) == tuple(FLOATS)
    assert unpack_bytes(answer.raw_output_contents[1], 2) == tuple(NAMES)
    assert not answer.outputs[0].HasField("contents")


async def test_only_the_outputs_that_are_asked_for(stub: GRPCInferenceServiceStub) -> None:
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name="names")]
    answer = await stub.ModelInfer(request(raw=True, outputs=wanted))
    assert [output.name for output in answer.outputs] == ["names"]
    assert len(answer.raw_output_contents) == 1


async def test_parameters_reach_the_stage(stub: GRPCInferenceServiceStub, echo: Echo) -> None:
    parameters = {"scale": pb.InferParameter(double_param=0.5), "flag": pb.InferParameter(bool_param=True)}
    await stub.ModelInfer(request(parameters=parameters))
    assert echo.parameters == {"scale": 0.5, "flag": True}


def broken(change: str) -> pb.ModelInferRequest:
    message = request(raw=change.startswith("raw"))
    match change:
        case "model":
            message.model_name = "other"
        case "version":
            message.model_version = "3"
        case "input":
            message.inputs[0].name = "other"
        case "twice":
            message.inputs[1].name = "numbers"
        case "missing":
            del message.inputs[1]
        case "datatype":
            message.inputs[0].datatype = "FP64"
        case "rank":
            message.inputs[0].shape[:] = [4]
        case "length":
            message.inputs[0].shape[:] = [2, 3]
        case "negative":
            message.inputs[0].shape[:] = [-2, 2]
        case "count":
            message.inputs[0].contents.fp32_contents.append(1)
        case "parameter":
            message.parameters["other"].bool_param = True
        case "output":
            message.outputs.add(name="other")
        case "raw count":
            del message.raw_input_contents[1]
        case "raw bytes":
            message.raw_input_contents[0] += b"x"
        case "raw element":
            message.raw_input_contents[1] = b"\xff\xff\xff\xff" + b"a"
        case "raw length":
            message.raw_input_contents[1] += b"\x01"
    return message


CHANGES = (
    *("model", "version", "input", "twice", "missing", "datatype", "rank", "length", "negative", "count", "parameter"),
    *("output", "raw count", "raw bytes", "raw element", "raw length"),
)


@pytest.mark.parametrize("change", CHANGES)
async def test_what_does_not_fit_is_refused_and_the_next_is_served(stub: GRPCInferenceServiceStub, change: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(broken(change))
    assert caught.value.code() is CODE.INVALID_ARGUMENT
    expected = "UNKNOWN_MODEL" if change in ("model", "version") else "INVALID_OPTION"
    assert from_rpc_error(caught.value).reason == expected
    assert (await stub.ModelInfer(request())).id == "mine"


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("shape", "message"), [(1001, "at most 1000 elements"), (1000, "elements of its shape")], ids=["shape", "contents"]
)
async def test_too_many_elements_are_refused_before_they_are_read(
    stub: GRPCInferenceServiceStub, monkeypatch: pytest.MonkeyPatch, shape: int, message: str, *, raw: bool
) -> None:
    """Empty elements take a few bytes of a message each, and the server's only thread for every one."""

    def never(*_: object) -> None:
        raise AssertionError("the contents of a refused request were made a tensor")

    wanted = request(raw=raw)
    wanted.inputs[1].shape[:] = [shape]
    if raw:
        wanted.raw_input_contents[1] = bytes(4 * 100_000)
    else:
        wanted.inputs[1].contents.bytes_contents.extend([b""] * 100_000)
    tensor = convert.Tensor
    monkeypatch.setattr(convert, "Tensor", lambda name, *rest: (never if name == "names" else tensor)(name, *rest))
    with pytest.raises(grpc.aio.AioRpcError, match=message):
        await stub.ModelInfer(wanted)


async def test_errors_of_the_stage_carry_their_details(stub: GRPCInferenceServiceStub, echo: Echo) -> None:
    echo.error = QueueFull("full", retry_after_s=0.5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request())
    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED
    assert from_rpc_error(caught.value).retry_after_s == 0.5


async def test_metadata_and_readiness(stub: GRPCInferenceServiceStub, echo: Echo, channel: grpc.aio.Channel) -> None:
    told = await stub.ModelMetadata(pb.ModelMetadataRequest(name="echo"))
    assert (told.name, list(told.versions), told.platform) == ("echo", ["2"], "test")
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in told.inputs] == [
        ("numbers", "FP32", [-1, 2]),
        ("names", "BYTES", [-1]),
    ]
    assert dict(told.properties) == {"note": "for tests"}
    assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "test-server"
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    health = health_pb2_grpc.HealthStub(channel)
    known = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert known.status == health_pb2.HealthCheckResponse.SERVING
    for ready in (True, False):
        echo.is_ready = ready
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready is ready
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="echo"))).ready is ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="echo", version="1"))).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="other"))).ready
