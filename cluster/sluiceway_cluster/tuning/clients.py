"""Asks servers that run here how they are, and the system what their workers use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc.aio

from sluiceway.watch.v1 import sample_pb2, sample_pb2_grpc
from sluiceway_cluster.process import ServerSpec

__all__ = ["Sample", "Sampler", "sampling"]

# With its size a call needs none of the few places of those that do not tell it; see common/v1/error.proto.
_METADATA = (("sluiceway-request-bytes", "0"),)


class Sample(NamedTuple):
    """Totals of one server since its start.

    Attributes:
        front_s: CPU time of its front.
        items, batches: that its workers computed.
        busy_s: of all its workers together.
        cpu_s: CPU time of those.
        pids: of those.
    """

    front_s: float
    items: int
    batches: int
    busy_s: float
    cpu_s: float
    pids: tuple[int, ...]

    def since(self, before: Sample) -> Sample:
        """What came in between."""
        return Sample(
            self.front_s - before.front_s,
            self.items - before.items,
            self.batches - before.batches,
            self.busy_s - before.busy_s,
            self.cpu_s - before.cpu_s,
            self.pids,
        )

    def worker_memory_mb(self) -> float:
        """Of one worker: what it has to itself, and its part of what it shares."""
        return sum(map(_pss_mb, self.pids)) / max(1, len(self.pids))


class Sampler:
    """Of servers by name; see `sampling`."""

    def __init__(self, stubs: Mapping[str, sample_pb2_grpc.SampleServiceAsyncStub]) -> None:
        self._stubs = stubs

    async def __call__(self) -> dict[str, Sample]:
        """Ask all of them. Raises AioRpcError."""
        found = {}
        for name, stub in self._stubs.items():
            told = await stub.Sample(sample_pb2.SampleRequest(), metadata=_METADATA)
            workers = told.pool.workers
            found[name] = Sample(
                told.front.process_cpu_s,
                sum(worker.items for worker in workers),
                sum(worker.batches for worker in workers),
                sum(worker.busy_s for worker in workers),
                sum(_cpu_s(worker.pid) for worker in workers),
                tuple(worker.pid for worker in workers if worker.pid),
            )
        return found


@asynccontextmanager
async def sampling(servers: Sequence[ServerSpec]) -> AsyncIterator[Sampler]:
    """Connect to servers without certificates."""
    async with AsyncExitStack() as stack:
        stubs = {}
        for server in servers:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
            stubs[server.name] = sample_pb2_grpc.SampleServiceStub(channel)
        yield Sampler(stubs)


def _cpu_s(pid: int) -> float:
    """Of a process, with all its threads; see proc_pid_stat(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
