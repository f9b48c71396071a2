"""`inference.GRPCInferenceService`: convert, ask the stage, convert back."""

# ruff: noqa: N802, ARG002 - the methods have the names and the arguments of the protocol

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, NoReturn

import grpc.aio

from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.inference import convert, open_inference_pb2_grpc
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.models import EXTENSIONS, NO_MODEL_CONTROL, NO_STREAMS, Models
from sluiceway_runtime.inference.stage import InferenceStage, Inferred, Parameter
from sluiceway_runtime.inference.tensors import ModelCard, Tensor
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.release import release
from sluiceway_runtime.server.calls import caller_of

__all__ = ["SERVICE", "InferenceServicer", "add_inference"]

SERVICE = "inference.GRPCInferenceService"
Context = grpc.aio.ServicerContext[Any, Any]


def add_inference(
    server: grpc.aio.Server, stage: InferenceStage, config: ServerConfig, models: Models | None = None
) -> None:
    """Let a stage be reached through the protocol; its service's `names` must have `SERVICE`, too.

    Args:
        server: that is not started.
        stage: to be reached.
        config: how long calls may take.
        models: of the stage, where something else serves them, too, and counts with these.
    """
    servicer = InferenceServicer(stage, config, models or Models(stage))
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers calls; between them it holds nothing but counts."""

    def __init__(self, stage: InferenceStage, config: ServerConfig, models: Models) -> None:
        self._stage = stage
        self._config = config
        self._models = models

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Say that the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Say whether the stage takes work."""
        return pb.ServerReadyResponse(ready=self._stage.ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Say whether a model takes work; one that is not served does not."""
        return pb.ModelReadyResponse(ready=self._models.ready(request.name, request.version))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Say what the server is."""
        return pb.ServerMetadataResponse(name=self._stage.name, version=release(), extensions=EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Say what a model takes and gives."""
        return convert.metadata_of(self._models.card(request.name, request.version))

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """Say the same as Triton's clients ask for it."""
        return convert.config_of(self._models.card(request.name, request.version))

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        """Say what became of requests."""
        return self._models.statistics(request.name, request.version)

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        """Say which models there are."""
        return self._models.index(ready_only=request.ready)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Run a model."""
        return await self._models.infer(request, partial(self._run, context))

    async def _run(
        self,
        context: Context,
        card: ModelCard,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Parameter],
        priority: Priority,
    ) -> Inferred:
        return await self._stage.infer(card, inputs, parameters, priority, caller_of(context, self._config))

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Refuse."""
        # In an answer, where Triton's clients look for it; a status would end their stream without a word.
        async for _ in requests:
            yield pb.ModelStreamInferResponse(error_message=NO_STREAMS)

    async def RepositoryModelLoad(self, request: pb.RepositoryModelLoadRequest, context: Context) -> NoReturn:
        """Refuse."""
        raise InvalidOption(NO_MODEL_CONTROL)

    async def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest, context: Context) -> NoReturn:
        """Refuse."""
        raise InvalidOption(NO_MODEL_CONTROL)

    async def SystemSharedMemoryStatus(
        self, request: pb.SharedMemoryRequest, context: Context
    ) -> pb.SharedMemoryResponse:
        """Say that there is none; taking away what is not there succeeds, as clients begin with that."""
        return pb.SharedMemoryResponse()

    async def SystemSharedMemoryRegister(self, request: pb.SharedMemoryRequest, context: Context) -> NoReturn:
        """Refuse."""
        raise InvalidOption(convert.NO_SHARED_MEMORY)

    SystemSharedMemoryUnregister = CudaSharedMemoryStatus = CudaSharedMemoryUnregister = SystemSharedMemoryStatus
    CudaSharedMemoryRegister = SystemSharedMemoryRegister
