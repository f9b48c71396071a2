"""However many completions gRPC tells of, one turn of the loop hears of all."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

from sluiceway_runtime.server.loop import FrontLoop


class Poller:
    """gRPC's reader: takes one byte and then all that is there."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.turns = 0

    def _handle_events(self) -> None:
        self._end.recv(1)
        self.turns += 1


def test_many_completions_are_one_turn() -> None:
    here, there = socket.socketpair()
    poller = Poller(here)

    async def told() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(here, poller._handle_events)
        there.send(b"1" * 50)
        while not poller.turns:
            await asyncio.sleep(0)
        there.send(b"1")
        while poller.turns < 2:
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        loop.remove_reader(here)

    with here, there, asyncio.Runner(loop_factory=FrontLoop) as runner:
        runner.run(told())
    assert poller.turns == 2


def test_other_readers_are_called_as_ever() -> None:
    here, there = socket.socketpair()
    heard: list[bytes] = []

    async def told() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(here, lambda: heard.append(here.recv(1)))
        there.send(b"ab")
        while len(heard) < 2:
            await asyncio.sleep(0)
        loop.remove_reader(here)

    with here, there, asyncio.Runner(loop_factory=FrontLoop) as runner:
        runner.run(told())
    assert heard == [b"a", b"b"]


def test_the_reader_of_this_release_of_grpc_is_known() -> None:
    # In a process of its own: gRPC has one such reader, and here it may belong to another loop.
    program = """
import asyncio, socket
import grpc.aio
from sluiceway_runtime.server.loop import FrontLoop, _handle_all

found = []

class Loop(FrontLoop):
    def _add_reader(self, fd, callback, *args):
        found.append(getattr(callback, "func", None) is _handle_all)
        return super()._add_reader(fd, callback, *args)

async def serve():
    found.clear()
    grpc.aio.server()

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(serve())
print(found)
"""
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "[True]"
