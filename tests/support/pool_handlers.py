"""Handlers for the tests of pools. They run in worker processes and, but for the deadly ones, in threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.errors import InvalidImage, SluicewayError
from sluiceway_runtime.pool.handler import WorkerBroken
from sluiceway_runtime.pool.payload import Payload
from sluiceway_runtime.pool.testing import Crash


class Scripted:
    """Does what the meta of each item says (see `_obey`); the answer tells what was computed, where and with whom.

    Config:
        fail_setup: message to raise in setup.
        die_in_setup: exit code to end with in setup.
        hang_in_setup: seconds to wait in setup.
        in_process: crash by exception, as in a thread.
        leak_mb: memory to keep for each batch.
        journal: file to which a line is added for each item begun.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._leaked: list[bytearray] = []

    def setup(self, placement: Placement) -> Mapping[str, Any]:
        if message := self._config.get("fail_setup"):
            raise RuntimeError(message)
        if (code := self._config.get("die_in_setup")) is not None:
            self._die(code)
        time.sleep(self._config.get("hang_in_setup", 0))
        return {"index": placement.index, "threads": placement.threads}

    def run(self, batch: Sequence[Payload]) -> Sequence[Payload | SluicewayError]:
        if leak_mb := self._config.get("leak_mb"):
            self._leaked.append(bytearray(b"x") * (leak_mb * 2**20))
        return [self._obey(payload, len(batch)) for payload in batch]

    def _obey(self, payload: Payload, batch_size: int) -> Payload | SluicewayError:
        meta = payload.meta
        if journal := self._config.get("journal"):
            with Path(journal).open("a", encoding="utf-8") as file:
                file.write(f"{meta.get('id')} {batch_size} {os.getpid()}\n")
        if wait_for := meta.get("wait_for"):
            while not Path(wait_for).exists():
                time.sleep(0.002)
        if pause := meta.get("pause"):
            time.sleep(pause)
        if meta.get("raise"):
            raise ValueError("scripted fault")
        if meta.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if meta.get("crash"):
            self._die(1)
        if meta.get("hang"):
            time.sleep(meta["hang"])
        if meta.get("spin"):
            ctypes.PyDLL(None).sleep(meta["spin"])  # PyDLL keeps the interpreter's lock
        if meta.get("hang_up"):
            # Closes the worker's socket behind its back.
            for descriptor in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()).startswith("socket:"):
                        socket.socket(fileno=int(descriptor.name)).shutdown(socket.SHUT_RDWR)
            time.sleep(30)
        if meta.get("refuse"):
            return InvalidImage("scripted refusal", metadata={"id": str(meta["id"])})
        if meta.get("unpicklable"):
            return Payload({"bad": lambda: None})
        answer = {"id": meta.get("id"), "pid": os.getpid(), "batch": batch_size}
        if size := meta.get("answer_bytes"):
            return Payload(answer, (bytes(size),))
        return Payload(answer, payload.buffers if meta.get("echo", True) else ())

    def _die(self, code: int) -> None:
        if self._config.get("in_process"):
            raise Crash
        os._exit(code)


class Overlapping(Scripted):
    """Does it when a batch is finished; the journal says what is launched and what is finished, too."""

    def launch(self, batch: Sequence[Payload]) -> Callable[[], Sequence[Payload | SluicewayError]]:
        self._note("launch", batch)
        for meta in (payload.meta for payload in batch):
            if meta.get("broken") or Path(meta.get("broken_while", "/nowhere")).exists():
                raise WorkerBroken("scripted")

        def finish() -> Sequence[Payload | SluicewayError]:
            self._note("finish", batch)
            return self.run(batch)

        return finish

    def _note(self, what: str, batch: Sequence[Payload]) -> None:
        with Path(self._config["overlap_journal"]).open("a", encoding="utf-8") as file:
            file.write(f"{what} {','.join(str(payload.meta['id']) for payload in batch)} {os.getpid()}\n")
