"""A TCP connection that goes silent, as if the machine behind it had vanished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["wire"]


@asynccontextmanager
async def wire(address: str, cut: asyncio.Event) -> AsyncIterator[str]:
    """A way to a server whose first connection, once cut, carries nothing more and does not end."""
    wires: set[asyncio.Task[None]] = set()
    count = 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bool) -> None:
        try:
            while data := await reader.read(2**16):
                if first and cut.is_set():
                    await asyncio.Event().wait()
                writer.write(data)
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        to_server = await asyncio.open_connection(*address.split(":"))
        for ends in ((reader, to_server[1]), (to_server[0], writer)):
            wires.add(asyncio.create_task(carry(*ends, first=count == 1)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in wires:
            task.cancel()
        await asyncio.gather(*wires, return_exceptions=True)
