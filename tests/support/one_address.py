"""One address behind which several servers are, as a service of Kubernetes has it: by connections, at random."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Self

__all__ = ["OneAddress"]


class OneAddress:
    """Listens, and leads each connection to one of some servers by chance; what is said on it is passed on as it is.

    Args:
        servers: `host:port` of each.
        seed: of chance.

    Attributes:
        servers: likewise; connections that come are for those that are here now.
        address: where it listens.
        made: connections that came.
        open: those that there are.
    """

    def __init__(self, *servers: str, seed: int = 0) -> None:
        self.servers = list(servers)
        self.address = ""
        self.made = 0
        self.open = 0
        self._chance = random.Random(seed)
        self._carrying: set[asyncio.Task[None]] = set()
        self._closing = False

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._closing = True
        while self._carrying:
            for task in self._carrying:
                task.cancel()
            await asyncio.gather(*self._carrying, return_exceptions=True)
        # What was closed is gone a turn of the loop later, and not in the midst of another test.
        for _ in range(3):
            await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:
            writer.close()
            return
        # A task of our own: Python 3.11 takes it for a fault if one of its own is cancelled.
        task = asyncio.create_task(self._carry_on(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        # Also of one that is cancelled before it has begun.
        task.add_done_callback(lambda _: writer.close())

    async def _carry_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        self.open += 1
        try:
            # Of a server that is gone, the connection ends as soon as it has begun.
            host, port = self._chance.choice(self.servers).split(":")
            behind_reader, behind_writer = await asyncio.open_connection(host, int(port))
            ways = (_carry(reader, behind_writer), _carry(behind_reader, writer))
            carrying = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in carrying:
                    way.cancel()
                await asyncio.gather(*carrying, return_exceptions=True)
                behind_writer.close()
        except OSError:
            return
        finally:
            self.open -= 1


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
