"""How `sluiceway reload` finds the `sluiceway up` of its machine, and what they say to each other.

`up` listens at an abstract socket that is named by the port of its first orchestrator: there is one for each port and
network namespace, no file of it is left behind, and it takes nothing from other users. Both sides write lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

from sluiceway_runtime.errors import ConfigurationError, StartupError

from sluiceway_cluster.cluster import ClusterError
from sluiceway_cluster.reload.reloading import Tell

__all__ = ["NobodyThere", "ask", "controlled"]

log = logging.getLogger(__name__)

# To connect and to say what is wanted; what comes of it takes as long as servers take to start.
GREETING_S = 5.0
_PEER = struct.Struct("3i")

Reload = Callable[[Sequence[str], Tell], Awaitable[None]]


class NobodyThere(Exception):
    """No `sluiceway up` of this user has that port."""


def _name(port: str) -> str:
    return f"\0sluiceway/up/{port}"


@asynccontextmanager
async def controlled(port: str, reload: Reload) -> AsyncIterator[None]:
    """Do inside what `ask` asks for; what is under way when it is left is cancelled.

    Args:
        port: of the first orchestrator.
        reload: does it, and tells how far it is.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _answer(reader, writer, reload)
        finally:
            tasks.discard(task)
            writer.close()

    try:
        server = await asyncio.start_unix_server(answer, _name(port))
    except OSError as error:
        log.warning("`sluiceway reload` cannot be had: its socket is taken (%s)", error.strerror)
        yield
        return
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reload: Reload) -> None:
    def say(**what: object) -> None:
        # Whoever asked may have left; what was begun goes on.
        with suppress(OSError):
            writer.write(json.dumps(what).encode() + b"\n")

    try:
        async with asyncio.timeout(GREETING_S):
            asked = json.loads(await reader.readline())
        if _user_of(writer.get_extra_info("socket")) not in (0, os.getuid()):
            say(fault="this cluster belongs to another user")
            return
        stages = [str(name) for name in asked["reload"]]
    except (TimeoutError, ValueError, KeyError, TypeError):
        say(fault="this is not understood")
        return
    try:
        await reload(stages, lambda text: say(tell=text))
    except (StartupError, ClusterError) as error:
        say(fault=str(error), usage=isinstance(error, ConfigurationError))
    except Exception:
        log.exception("reload")
        say(fault="a fault of the program; its log says more")
    else:
        say(done=True)
    with suppress(OSError):
        await writer.drain()


def ask(port: str, stages: Sequence[str]) -> Iterator[str]:
    """Have the cluster of a port reload; gives what it tells meanwhile.

    Raises:
        NobodyThere: it does not run here.
        ConfigurationError, ClusterError: it could not, and nothing has changed.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(GREETING_S)
        try:
            connection.connect(_name(port))
        except OSError as error:
            raise NobodyThere(port) from error
        if os.getuid() and _user_of(connection) not in (0, os.getuid()):
            raise NobodyThere(port)
        connection.sendall(json.dumps({"reload": list(stages)}).encode() + b"\n")
        connection.settimeout(None)
        with connection.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                if "tell" in said:
                    yield said["tell"]
                elif "fault" in said:
                    raise (ConfigurationError if said.get("usage") else ClusterError)(said["fault"])
                else:
                    return
    raise ClusterError("`sluiceway up` ended meanwhile")


def _user_of(connection: socket.socket) -> int:
    """User id of the process at the other end."""
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(user)
