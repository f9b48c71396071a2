"""Clients with many jobs over one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway_simulation.clients.convert import cancel_message, job_message, stub_of
from sluiceway_simulation.clients.heard import Ask, Heard
from sluiceway_simulation.network.network import Network

__all__ = ["Stream"]

# A job of a stream has its time from when it is read, and is read when there is room for it: after this, never.
NEVER_S = 300.0


class Stream:
    """One call of `ProcessStream`, from its first job to `finish`."""

    def __init__(self, network: Network, address: str, name: str) -> None:
        self.name = name
        self._channel = network.dial(address, peer=name)
        self._to_send: asyncio.Queue[Any] = asyncio.Queue()
        self._waiting: dict[str, tuple[Heard, asyncio.Future[None]]] = {}
        self._pause_s = 0.0
        self.faults: list[str] = []
        self._reader = asyncio.create_task(self._read(), name=f"stream of {name}")

    async def ask(self, ask: Ask) -> Heard:
        """Run a job to its end, whatever that is."""
        loop = asyncio.get_running_loop()
        heard = Heard(ask, loop.time(), streamed=True)
        over: asyncio.Future[None] = loop.create_future()
        self._waiting[ask.job_id] = heard, over
        # One slow reader slows all jobs of its stream.
        self._pause_s = max(self._pause_s, ask.pause_s)
        self._to_send.put_nowait(job_message(ask))
        leaving = None if ask.leave_after_s is None else loop.call_later(ask.leave_after_s, self._cancel, heard)
        try:
            async with asyncio.timeout(NEVER_S):
                await over
        except TimeoutError:
            heard.faults.append("its end was never told")
        if leaving is not None:
            leaving.cancel()
        heard.ended_s = loop.time()
        return heard

    async def finish(self) -> None:
        """Say that no further job comes, and hear the call to its end."""
        self._to_send.put_nowait(None)
        try:
            async with asyncio.timeout(NEVER_S):
                await asyncio.shield(self._reader)
        except TimeoutError:
            self.faults.append(f"{self._reader.get_name()}: it does not end after its last job")
            self._reader.cancel()
            await asyncio.wait((self._reader,))
        await self._channel.close()

    def _cancel(self, heard: Heard) -> None:
        if heard.ask.job_id in self._waiting:
            heard.was_cancelled = True
            self._to_send.put_nowait(cancel_message(heard.ask.job_id))

    async def _requests(self) -> AsyncIterator[Any]:
        while (message := await self._to_send.get()) is not None:
            yield message

    async def _read(self) -> None:
        call = stub_of(self._channel).ProcessStream(
            self._requests(), metadata=[("x-request-id", f"stream of {self.name}")]
        )
        reason = "UNAVAILABLE"
        try:
            async for response in call:
                self._take(response.event)
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
        except grpc.aio.AioRpcError as error:
            reason = from_rpc_error(error).reason
            self.faults.append(f"{self._reader.get_name()}: it ended with {reason}")
        finally:
            call.cancel()
            for heard, over in self._waiting.values():
                heard.reason = reason
                if not over.done():
                    over.set_result(None)

    def _take(self, event: Any) -> None:
        waiting = self._waiting.get(event.job_id)
        if waiting is None:
            self.faults.append(f"{event.WhichOneof('event')} came for {event.job_id}, which has ended or is not ours")
            return
        heard, over = waiting
        if event.HasField("job_refused"):
            heard.reason = event.job_refused.error.reason
        else:
            heard.take(event)
        if heard.reason or heard.job_done is not None:
            del self._waiting[event.job_id]
            if not over.done():
                over.set_result(None)
