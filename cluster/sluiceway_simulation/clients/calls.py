"""Clients with a call for each job."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import grpc.aio
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway_simulation.clients.convert import request_message, stub_of, succeeded_of
from sluiceway_simulation.clients.heard import Ask, Heard
from sluiceway_simulation.network.network import Network
from sluiceway_simulation.stages.pictures import Picture

__all__ = ["PATIENCE_S", "Client", "Timed"]

# How much longer than its time a call waits for what the server says of it.
PATIENCE_S = 0.2


class Timed(NamedTuple):
    """A job of one picture: when it was asked for, when it was over, and whether it is done."""

    asked_s: float
    ended_s: float
    succeeded: bool

    @property
    def took_s(self) -> float:
        """From the call to its end."""
        return self.ended_s - self.asked_s


class Client:
    """One client of one orchestrator."""

    def __init__(self, network: Network, address: str, name: str) -> None:
        self.name = name
        self._channel = network.dial(address, peer=name)
        self._stub = stub_of(self._channel)

    async def ask(self, ask: Ask) -> Heard:
        """Run a job to its end, whatever that is."""
        loop = asyncio.get_running_loop()
        heard = Heard(ask, loop.time())
        request = request_message(ask)
        metadata = [("x-request-id", ask.job_id)]
        if ask.with_size:
            metadata.append(("sluiceway-request-bytes", str(request.ByteSize())))
            metadata.append(("sluiceway-priority", ask.priority.name.lower()))
        call = self._stub.Process(request, timeout=ask.timeout_s + PATIENCE_S, metadata=metadata)
        leaving = None if ask.leave_after_s is None else loop.call_later(ask.leave_after_s, call.cancel)
        try:
            async for response in call:
                if heard.first_s is None:
                    heard.first_s = loop.time()
                heard.take(response)
                if ask.pause_s:
                    await asyncio.sleep(ask.pause_s)
        except grpc.aio.AioRpcError as error:
            heard.reason = from_rpc_error(error).reason
        except asyncio.CancelledError:
            if leaving is None or not call.cancelled_here:
                raise
            heard.reason = "left"
        finally:
            call.cancel()
            if leaving is not None:
                leaving.cancel()
        heard.ended_s = loop.time()
        return heard

    async def time(self, picture: Picture, timeout_s: float) -> Timed:
        """Send one picture, and keep account of nothing but the time."""
        loop = asyncio.get_running_loop()
        asked_s, answers = loop.time(), [b""]
        request = request_message(Ask(f"image {picture.number}", (picture,)))
        metadata = (("sluiceway-request-bytes", str(request.ByteSize())), ("sluiceway-priority", "normal"))
        call = self._stub.Process(request, timeout=timeout_s + PATIENCE_S, metadata=metadata)
        # The last says how many sources succeeded.
        await call.listen(lambda answer: answers.__setitem__(0, answer))
        return Timed(asked_s, loop.time(), succeeded=succeeded_of(answers[0]) == 1)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
