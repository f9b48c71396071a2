"""`externalscaler.ExternalScaler`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from sluiceway_orchestrator.scaler import external_scaler_pb2 as pb
from sluiceway_orchestrator.scaler import external_scaler_pb2_grpc as pb_grpc
from sluiceway_orchestrator.scaler.convert import METRIC, metric_answer, own_answer, spec_answer, target_ms_of
from sluiceway_orchestrator.scaler.reading import Reading, joined

__all__ = ["ScalerServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

# How soon a stage at zero is woken; every look asks the other orchestrators.
LOOK_S = 0.5


class ScalerServicer(pb_grpc.ExternalScalerServicer):
    """Answers KEDA, and the other orchestrators.

    Args:
        read: what this process knows of a stage; None for one that it does not have.
        ask: what all orchestrators know of it.
        refusing: set while the server ends; streams then end too, so that KEDA asks another one.
    """

    def __init__(
        self,
        read: Callable[[str], Reading | None],
        ask: Callable[[str], Awaitable[list[Reading]]],
        refusing: asyncio.Event,
    ) -> None:
        self._read = read
        self._ask = ask
        self._refusing = refusing

    async def IsActive(  # noqa: N802 - the contract's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> pb.IsActiveResponse:
        """Whether there is work for a stage."""
        return pb.IsActiveResponse(result=(await self._reading(request, context)).active)

    async def StreamIsActive(  # noqa: N802 - the contract's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """Say so at once and at each change."""
        told: bool | None = None
        while not self._refusing.is_set():
            active = (await self._reading(request, context)).active
            if active != told:
                told = active
                yield pb.IsActiveResponse(result=active)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._refusing.wait()
            except TimeoutError:
                continue

    async def GetMetricSpec(  # noqa: N802 - the contract's name
        self, request: pb.ScaledObjectRef, context: Context
    ) -> pb.GetMetricSpecResponse:
        """Name the metric and its target."""
        await self._known(request, context)
        try:
            return spec_answer(target_ms_of(dict(request.scalerMetadata)))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"targetMs: {error}")

    async def GetMetrics(  # noqa: N802 - the contract's name
        self, request: pb.GetMetricsRequest, context: Context
    ) -> pb.GetMetricsResponse:
        """How long work waits, or to another orchestrator all that is known here."""
        reference = request.scaledObjectRef
        if reference.scalerMetadata.get("scope") == "own":
            return own_answer(await self._known(reference, context))
        if request.metricName not in ("", METRIC):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"metricName: there is only {METRIC}")
        return metric_answer(await self._reading(reference, context))

    async def _known(self, reference: pb.ScaledObjectRef, context: Context) -> Reading:
        stage = reference.scalerMetadata.get("stage", "")
        reading = self._read(stage)
        if reading is None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"stage: no pipeline uses a stage that is called {stage!r}"
            )
        return reading

    async def _reading(self, reference: pb.ScaledObjectRef, context: Context) -> Reading:
        own = await self._known(reference, context)
        return joined((own, *await self._ask(reference.scalerMetadata["stage"])))
