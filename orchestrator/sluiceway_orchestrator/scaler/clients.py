"""What the other orchestrators know: KEDA asks one of them, and a job may wait at another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc.aio
from sluiceway_runtime.clock import monotonic

from sluiceway_orchestrator.scaler import external_scaler_pb2 as pb
from sluiceway_orchestrator.scaler import external_scaler_pb2_grpc as pb_grpc
from sluiceway_orchestrator.scaler.convert import own_reading, own_request
from sluiceway_orchestrator.scaler.reading import Reading
from sluiceway_orchestrator.stages.resolver import Lookup, Target

__all__ = ["Peers"]

log = logging.getLogger(__name__)

# One that is gone for longer than this is left out of an answer.
ANSWER_S = 1.0
RESOLVE_S = 2.0


class Peers:
    """Asks every orchestrator that a name stands for, this one among them.

    Args:
        target: their name, of the port that scalers ask.
        lookup: names to addresses.
        dial: opens a channel to an address.
    """

    def __init__(self, target: str, lookup: Lookup, dial: Callable[[str], grpc.aio.Channel]) -> None:
        self._target = Target.parse(target)
        self._lookup = lookup
        self._dial = dial
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._looked_s = float("-inf")
        self._lock = asyncio.Lock()

    async def readings(self, stage: str) -> list[Reading]:
        """What each says of a stage; without those that do not answer."""
        async with self._lock:
            await self._look()
        found = await asyncio.gather(*(self._ask(address, stage) for address in tuple(self._channels)))
        return [reading for reading in found if reading is not None]

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        self._channels.clear()

    async def _look(self) -> None:
        if monotonic() - self._looked_s < RESOLVE_S:
            return
        resolution = await self._target.resolve(self._lookup)
        self._looked_s = monotonic()
        addresses = resolution.addresses
        for address in [address for address in self._channels if address not in addresses and resolution.complete]:
            await self._channels.pop(address).close()
        for address in addresses:
            if address not in self._channels:
                self._channels[address] = self._dial(address)

    async def _ask(self, address: str, stage: str) -> Reading | None:
        stub = pb_grpc.ExternalScalerStub(self._channels[address])
        try:
            answer: pb.GetMetricsResponse = await stub.GetMetrics(own_request(stage), timeout=ANSWER_S)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
            # It starts, ends, or was found gone in this moment; the others know enough.
            log.debug("the orchestrator at %s says nothing of %s: %r", address, stage, error)
            return None
        return own_reading(answer)
