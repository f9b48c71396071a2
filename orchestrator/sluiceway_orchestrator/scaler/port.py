"""The port that an autoscaler asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc.aio
from sluiceway_runtime.calling.channel import channel_options
from sluiceway_runtime.server.listening import bind, make_server

from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.scaler import external_scaler_pb2_grpc as pb_grpc
from sluiceway_orchestrator.scaler.clients import Peers
from sluiceway_orchestrator.scaler.reading import Reading
from sluiceway_orchestrator.scaler.servicer import ScalerServicer
from sluiceway_orchestrator.stages.resolver import Lookup

__all__ = ["ScalerPort"]

log = logging.getLogger(__name__)

# For the calls that run as it closes; streams end by themselves.
CLOSE_S = 0.5
MESSAGE_BYTES = 2**16


class ScalerPort:
    """Serves KEDA's contract, in the clear and without tokens as metrics are: KEDA has none to show.

    Args:
        config: of the orchestrator.
        read: what this process knows of a stage.
        lookup: names to addresses.

    Attributes:
        port: where it listens; 0 where it does not.
    """

    def __init__(self, config: OrchestratorConfig, read: Callable[[str], Reading | None], lookup: Lookup) -> None:
        self._config = config
        self._refusing = asyncio.Event()
        peers = config.scaler.peers
        self._peers = Peers(peers, lookup, _dial) if config.scaler.enabled and peers else None
        self._servicer = ScalerServicer(read, self._others, self._refusing)
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen, unless the configuration says not to. Raises StartupError."""
        scaler = self._config.scaler
        if not scaler.enabled:
            return
        where = self._config.model_copy(update={"host": scaler.host, "port": scaler.port})
        self._server = make_server(where, ())
        pb_grpc.add_ExternalScalerServicer_to_server(self._servicer, self._server)
        self.port = bind(self._server, where)
        await self._server.start()
        log.info("scaler on %s:%d", scaler.host, self.port)

    def refuse(self) -> None:
        """Let those that follow ask another orchestrator."""
        self._refusing.set()

    async def close(self) -> None:
        """End every call and listen no more."""
        self.refuse()
        if self._server is not None:
            await self._server.stop(CLOSE_S)
        if self._peers is not None:
            await self._peers.close()

    async def _others(self, stage: str) -> list[Reading]:
        return await self._peers.readings(stage) if self._peers is not None else []


def _dial(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=channel_options(MESSAGE_BYTES))
