"""`inference.GRPCInferenceService`: convert, ask the stage, convert back."""

# ruff: noqa: N802 - the methods have the names of the protocol

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import grpc.aio

from sluiceway_runtime.errors import UnknownModel
from sluiceway_runtime.inference import convert, open_inference_pb2_grpc
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference.stage import InferenceStage
from sluiceway_runtime.inference.tensors import ModelCard

__all__ = ["SERVICE", "InferenceServicer", "add_inference"]

SERVICE = "inference.GRPCInferenceService"
Context = grpc.aio.ServicerContext[Any, Any]


def add_inference(server: grpc.aio.Server, stage: InferenceStage) -> None:
    """Let a stage be reached through the protocol; its service's `names` must have `SERVICE`, too."""
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceServicer(stage), server)


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers calls; holds nothing between them."""

    def __init__(self, stage: InferenceStage) -> None:
        self._stage = stage

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Say that the process answers."""
        del request, context
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Say whether the stage takes work."""
        del request, context
        return pb.ServerReadyResponse(ready=self._stage.ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Say whether a model takes work; one that is not served does not."""
        del context
        known = self._find(request.name, request.version) is not None
        return pb.ModelReadyResponse(ready=known and self._stage.ready())

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Say what the server is."""
        del request, context
        return pb.ServerMetadataResponse(name=self._stage.name, version=version("sluiceway"))

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Say what a model takes and gives."""
        del context
        return convert.metadata_of(self._card(request.name, request.version))

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Run a model."""
        card = self._card(request.model_name, request.model_version)
        inputs = convert.inputs_of(request, card)
        parameters = convert.parameters_of(request, card)
        outputs = await self._stage.infer(card, inputs, parameters, context)
        return convert.response_of(request, card, outputs)

    def _card(self, name: str, wanted_version: str) -> ModelCard:
        card = self._find(name, wanted_version)
        if card is None:
            known = ", ".join(f"{card.name} {card.version}".strip() for card in self._stage.cards())
            raise UnknownModel(
                f"no model {f'{name} {wanted_version}'.strip()} is served", metadata={"model": name, "models": known}
            )
        return card

    def _find(self, name: str, wanted_version: str) -> ModelCard | None:
        return next(
            (card for card in self._stage.cards() if card.name == name and wanted_version in ("", card.version)), None
        )
