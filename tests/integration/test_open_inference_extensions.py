"""What Triton's clients ask for beside the protocol: configuration, index, statistics, ranks, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import Internal, InvalidOption, SluicewayError
from sluiceway_runtime.inference import (
    SERVICE,
    Inferred,
    ModelCard,
    Parameter,
    Tensor,
    TensorSpec,
    add_inference,
)
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.classification import classified
from sluiceway_runtime.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from sluiceway_runtime.inference.tensors import unpack_bytes
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.calls import Caller
from sluiceway_runtime.server.status import from_rpc_error

CARD = ModelCard(
    name="reader",
    version="2",
    platform="test",
    inputs=(TensorSpec("crop", "BYTES", (-1, 1)),),
    outputs=(TensorSpec("text", "BYTES", (-1, 1)), TensorSpec("probabilities", "FP32", (-1, 3))),
    max_elements=8,
    max_batch=8,
    parameters=("top_k",),
)
CONFIG = ServerConfig(port=0, operations_port=0, drain_notice_s=0)


class Reader:
    """Reads crops as themselves; also the service of the runtime."""

    names = (SERVICE,)
    name = "test-server"

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Parameter], Priority]] = []
        self.error: SluicewayError | None = None
        self.is_ready = True
        self.hold: asyncio.Event | None = None
        self.cancelled = False

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
        self.asked.append((dict(parameters), priority))
        if self.error is not None:
            raise self.error
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        crops = inputs["crop"]
        count = crops.shape[0]
        texts = [element.decode() for element in crops.elements]
        probabilities = Tensor.floats("probabilities", (count, 3), [0.1, 0.7, 0.2] * count, [b"a", b"b", b"c"] * count)
        return Inferred((Tensor.texts("text", crops.shape, texts, [0.5] * count), probabilities), 20, 30)

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
def reader() -> Reader:
    return Reader()


@pytest.fixture
async def stub(reader: Reader) -> AsyncIterator[GRPCInferenceServiceStub]:
    server = Server(reader, CONFIG)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield GRPCInferenceServiceStub(channel)
    await server.close()


def request(*texts: bytes, shape: Sequence[int] | None = None, **parameters: Any) -> pb.ModelInferRequest:
    texts = texts or (b"one",)
    message = pb.ModelInferRequest(model_name="reader", id="mine")
    crops = message.inputs.add(name="crop", datatype="BYTES", shape=shape or [len(texts), 1])
    crops.contents.bytes_contents.extend(texts)
    for name, value in parameters.items():
        match value:
            case bool():
                message.parameters[name].bool_param = value
            case int():
                message.parameters[name].int64_param = value
            case float():
                message.parameters[name].double_param = value
            case _:
                message.parameters[name].string_param = value
    return message


async def refused(call: Any, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_configuration_agrees_with_the_metadata(stub: GRPCInferenceServiceStub) -> None:
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="reader"))).config
    assert (config.name, config.platform, config.max_batch_size) == ("reader", "test", 8)
    assert config.HasField("dynamic_batching")
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="reader"))
    for told, described in ((config.input, metadata.inputs), (config.output, metadata.outputs)):
        # The first dimension is that of the batch, which the configuration leaves out.
        assert [(item.name, [-1, *item.dims]) for item in told] == [(item.name, list(item.shape)) for item in described]
    assert [pb.DataType.Name(item.data_type) for item in config.output] == ["TYPE_STRING", "TYPE_FP32"]


@pytest.mark.parametrize("shape", [[2, 1], [2]])
async def test_outputs_have_the_shape_that_the_inputs_came_in(stub: GRPCInferenceServiceStub, shape: list[int]) -> None:
    answer = await stub.ModelInfer(request(b"a", b"b", shape=shape))
    assert [list(output.shape) for output in answer.outputs] == [shape, [2, 3]]


@pytest.mark.parametrize("shape", [[1, 2], [2, 1, 1], [1, 1], []])
async def test_other_shapes_are_refused(stub: GRPCInferenceServiceStub, shape: list[int]) -> None:
    message = request(b"a", b"b")
    message.inputs[0].shape[:] = shape
    await refused(stub.ModelInfer(message), "shape")


@pytest.mark.parametrize(
    ("given", "priority"),
    [(0, Priority.NORMAL), (1, Priority.INTERACTIVE), (2, Priority.NORMAL), (3, Priority.BULK), (9, Priority.BULK)],
)
async def test_the_standard_parameters(
    stub: GRPCInferenceServiceStub, reader: Reader, given: int, priority: Priority
) -> None:
    parameters = {"priority": given, "timeout": 0, "sequence_id": 7, "sequence_start": True, "sequence_end": False}
    await stub.ModelInfer(request(**parameters, top_k=2))
    await stub.ModelInfer(request(priority=str(given), sequence_id="mine", triton_enable_empty_final_response=False))
    assert reader.asked == [({"top_k": 2}, priority), ({}, priority)]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"priority": "high"}, "priority must be"),
        ({"priority": -1}, "priority must be"),
        ({"priority": True}, "priority must be"),
        ({"timeout": 0.5}, "timeout must be"),
        ({"colour": 1}, "colour is no parameter"),
        ({"x" * 9000: 1}, "is no parameter"),
    ],
)
async def test_parameters_that_cannot_be(
    stub: GRPCInferenceServiceStub, parameters: dict[str, Any], words: str
) -> None:
    await refused(stub.ModelInfer(request(**parameters)), words)


async def test_the_timeout_of_a_request_ends_it(stub: GRPCInferenceServiceStub, reader: Reader) -> None:
    reader.hold = asyncio.Event()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request(timeout=20_000))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reader.cancelled


async def test_an_unknown_model_is_told_in_the_words_that_clients_look_for(stub: GRPCInferenceServiceStub) -> None:
    other = request()
    other.model_name = "no-such-model"
    for call in (
        stub.ModelInfer(other),
        stub.ModelMetadata(pb.ModelMetadataRequest(name="no-such-model")),
        stub.ModelConfig(pb.ModelConfigRequest(name="no-such-model")),
        stub.ModelStatistics(pb.ModelStatisticsRequest(name="no-such-model")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.details() == "Request for unknown model: 'no-such-model' is not served"
        assert from_rpc_error(caught.value).reason == "UNKNOWN_MODEL"


async def test_the_index_of_models(stub: GRPCInferenceServiceStub, reader: Reader) -> None:
    ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert [(model.name, model.version, model.state) for model in ready.models] == [("reader", "2", "READY")]
    reader.is_ready = False
    assert not (await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models
    (model,) = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
    assert (model.state, model.reason) == ("UNAVAILABLE", "the server takes no work now")


async def test_statistics_count_what_became_of_requests(stub: GRPCInferenceServiceStub, reader: Reader) -> None:
    (nothing,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
    assert (nothing.name, nothing.version, nothing.inference_count, nothing.last_inference) == ("reader", "2", 0, 0)
    await stub.ModelInfer(request(b"a", b"b", b"c"))
    await stub.ModelInfer(request(b"a"))
    reader.error = Internal("broken")
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.ModelInfer(request())
    (stats,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest(name="reader"))).model_stats
    assert (stats.inference_count, stats.execution_count) == (4, 2)
    assert stats.last_inference > 1_700_000_000_000
    told = stats.inference_stats
    assert (told.success.count, told.fail.count) == (2, 1)
    assert told.success.ns > 0
    assert told.fail.ns > 0
    assert (told.queue.count, told.queue.ns, told.compute_infer.ns) == (2, 40_000_000, 60_000_000)


@pytest.mark.parametrize("raw", [False, True])
async def test_outputs_are_ranked_where_that_is_asked_for(stub: GRPCInferenceServiceStub, raw: bool) -> None:
    message = request(b"a:b", b"c")
    if raw:
        message.raw_input_contents.append(b"\x03\0\0\0a:b\x01\0\0\0c")
        message.inputs[0].ClearField("contents")
    for name in ("probabilities", "text"):
        message.outputs.add(name=name).parameters["classification"].int64_param = 2
    answer = await stub.ModelInfer(message)
    assert [(output.name, output.datatype, list(output.shape)) for output in answer.outputs] == [
        ("probabilities", "BYTES", [2, 2]),
        ("text", "BYTES", [2, 1]),
    ]
    if raw:
        ranked = [unpack_bytes(data, count) for data, count in zip(answer.raw_output_contents, (4, 2), strict=True)]
    else:
        ranked = [tuple(output.contents.bytes_contents) for output in answer.outputs]
    assert ranked[0] == (b"0.700000:1:b", b"0.200000:2:c") * 2
    assert ranked[1] == (b"0.500000:0:a:b", b"0.500000:0:c")


def test_ranks_of_tensors_of_all_kinds() -> None:
    whole = Tensor.integers("n", (2,), [5, -3])
    assert classified(whole, 3) == Tensor("n", "BYTES", (2, 1), (b"5.000000:0", b"-3.000000:0"))
    grouped = Tensor.floats("boxes", (1, 2, 2), [1, 2, 4, 3], [b"x", b"y"])
    assert classified(grouped, 9).elements == (b"4.000000:2:y", b"3.000000:3:y", b"2.000000:1:x", b"1.000000:0:x")
    assert classified(Tensor.floats("none", (1, 0), []), 3) == Tensor("none", "BYTES", (1, 0), ())
    for unordered in (Tensor.texts("t", (1,), ["a"]), Tensor("h", "FP16", (1,), b"\0\0")):
        with pytest.raises(InvalidOption, match="have no order"):
            classified(unordered, 1)


async def test_ranks_that_cannot_be(stub: GRPCInferenceServiceStub) -> None:
    for value in (0, -1):
        message = request()
        message.outputs.add(name="text").parameters["classification"].int64_param = value
        await refused(stub.ModelInfer(message), "classification must be")


async def test_shared_memory_is_refused_in_words(stub: GRPCInferenceServiceStub) -> None:
    none = pb.SharedMemoryRequest()
    for status in (
        stub.SystemSharedMemoryStatus,
        stub.CudaSharedMemoryStatus,
        stub.SystemSharedMemoryUnregister,
        stub.CudaSharedMemoryUnregister,
    ):
        assert await status(none) == pb.SharedMemoryResponse()
    for register in (stub.SystemSharedMemoryRegister, stub.CudaSharedMemoryRegister):
        await refused(register(none), "shared memory is not supported")
    for side in ("inputs", "outputs"):
        message = request()
        tensor = message.inputs[0] if side == "inputs" else message.outputs.add(name="text")
        tensor.parameters["shared_memory_region"].string_param = "region"
        await refused(stub.ModelInfer(message), "shared memory is not supported")


async def test_streams_and_model_control_are_refused_in_words(stub: GRPCInferenceServiceStub) -> None:
    stream = stub.ModelStreamInfer(iter([request(), request()]))
    answers = [answer.error_message async for answer in stream]
    assert len(answers) == 2
    assert "call ModelInfer for each request" in answers[0]
    load = pb.RepositoryModelLoadRequest(model_name="reader")
    await refused(stub.RepositoryModelLoad(load), "configuration")
    await refused(stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="reader")), "configuration")
