"""Load for recognition servers: client processes that each keep requests of raw crops in flight.

    with Clients(Load(targets=("127.0.0.1:50053",))) as clients:
        sample = clients.measure(seconds=5)
    print(sample.crops_per_s)

The requests are made and serialised once, so that a client costs little beside what it drives.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_bool, c_int64
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb

__all__ = ["Clients", "Load", "Sample", "cpu_s", "main_thread_s", "switches"]

METHOD = "/sluiceway.recognition.v1.RecognitionService/Recognize"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MAX_MESSAGE_BYTES = 64 * 2**20
# How often a request is made anew for other pixels and widths, before the same ones are sent again.
DISTINCT_REQUESTS = 4
WARM_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Load:
    """What the clients send.

    Attributes:
        targets: servers; client n starts with server n and each takes them in turn, request by request.
        sizes: (height, width) of the crops in pixels, taken in turn.
        crops: in a request.
        in_flight: requests that each client keeps open.
        clients: processes.
        model: name of the model; empty for the server's default.
        pages: file of `page_crops` with the crops to send instead of noise, all stretched to the width of the first of
            `sizes`; as they are if `sizes` is empty.
    """

    targets: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...] = ((48, 160),)
    crops: int = 64
    in_flight: int = 4
    clients: int = 2
    model: str = ""
    pages: Path | None = None


@dataclass(frozen=True)
class Sample:
    """What the clients received in one stretch of time.

    Attributes:
        request_ms: mean time of a request, from its start to the last of its answers, over the stretch.
        first_ms: mean time to a request's first answers.
        refused: requests that found the queue full (each is sent again later).
        spent_s: what `meter` measured, by its names.
        gpu_share: of the time in which the GPU computed, where somebody watched it.
    """

    seconds: float
    crops: int
    requests: int
    refused: int
    request_ms: float
    first_ms: float
    spent_s: Mapping[str, float] = field(default_factory=dict)
    gpu_share: float | None = None

    @property
    def crops_per_s(self) -> float:
        """Answers to crops, a second."""
        return self.crops / self.seconds


@dataclass(slots=True)
class _Counts:
    """Shared with one client process, which alone writes them."""

    crops: Synchronized[int]
    requests: Synchronized[int]
    refused: Synchronized[int]
    request_us: Synchronized[int]
    first_us: Synchronized[int]


class Clients:
    """Client processes from `start` to `stop`, or as a context.

    Resource handling:
        They end when told to, and with this process.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        context = multiprocessing.get_context("spawn")
        self._over = context.Value(c_bool, False)
        self._counts = [_Counts(*(context.Value(c_int64, 0) for _ in range(5))) for _ in range(load.clients)]
        self._processes = [
            context.Process(target=_client, args=(load, number, self._counts[number], self._over), daemon=True)
            for number in range(load.clients)
        ]

    def start(self) -> None:
        """Start, and return when each client has had answers to as many requests as it keeps open.

        Raises:
            RuntimeError: a client ended, or had no answer in a minute.
        """
        for process in self._processes:
            process.start()
        end_s = time.monotonic() + WARM_TIMEOUT_S
        while any(counts.requests.value < self._load.in_flight for counts in self._counts):
            self._check()
            if time.monotonic() > end_s:
                raise RuntimeError("the clients have no answers")
            time.sleep(0.01)

    def stop(self) -> None:
        """Tell the clients to end and wait for them."""
        self._over.value = True
        for process in self._processes:
            if process.pid is not None:
                process.join(10)
                process.kill()
                process.join()

    def measure(self, seconds: float, meter: Callable[[], Mapping[str, float]] = dict) -> Sample:
        """Watch the clients for a while.

        Args:
            seconds: how long.
            meter: called before and after; what its figures grew by comes back in the sample.
        """
        before, spent, begun_s = self._read(), meter(), time.monotonic()
        time.sleep(seconds)
        after, spent_after, took_s = self._read(), meter(), time.monotonic() - begun_s
        self._check()
        crops, requests, refused, request_us, first_us = (b - a for a, b in zip(before, after, strict=True))
        return Sample(
            seconds=took_s,
            crops=crops,
            requests=requests,
            refused=refused,
            request_ms=request_us / max(requests, 1) / 1000,
            first_ms=first_us / max(requests, 1) / 1000,
            spent_s={name: spent_after[name] - value for name, value in spent.items()},
        )

    def _read(self) -> tuple[int, ...]:
        return tuple(
            sum(getattr(counts, name).value for counts in self._counts)
            for name in ("crops", "requests", "refused", "request_us", "first_us")
        )

    def _check(self) -> None:
        if any(process.exitcode is not None for process in self._processes):
            raise RuntimeError("a client has failed")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, its threads included, its children not."""
    return _cpu_s(Path(f"/proc/{pid}/stat"))


def main_thread_s(pid: int) -> float:
    """CPU time of a process's main thread: of a front the event loop, which only one core can run."""
    return _cpu_s(Path(f"/proc/{pid}/task/{pid}/stat"))


def _cpu_s(stat: Path) -> float:
    fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def switches(pid: int) -> int:
    """How often threads of a process gave up the processor by themselves, so far."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        text = status.read_text(encoding="ascii")
        total += int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def _client(load: Load, number: int, counts: _Counts, over: Synchronized[bool]) -> None:
    asyncio.run(_drive(load, number, counts, over))


async def _drive(load: Load, number: int, counts: _Counts, over: Synchronized[bool]) -> None:
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    targets = [load.targets[(number + index) % len(load.targets)] for index in range(len(load.targets))]
    channels = [grpc.aio.insecure_channel(target, options=options) for target in targets]
    calls = [
        channel.unary_stream(METHOD, request_serializer=None, response_deserializer=pb.RecognizeResponse.FromString)
        for channel in channels
    ]
    requests = _requests(load, number)
    try:
        async with asyncio.TaskGroup() as group:
            for index in range(load.in_flight):
                group.create_task(_keep(calls, requests, index, counts, over))
    finally:
        for channel in channels:
            await channel.close()


async def _keep(
    calls: Sequence[grpc.aio.UnaryStreamMultiCallable[Any, Any]],
    requests: Sequence[bytes],
    turn: int,
    counts: _Counts,
    over: Synchronized[bool],
) -> None:
    while not over.value:
        turn += 1
        begun_s, first_s = time.monotonic(), 0.0
        try:
            async for response in calls[turn % len(calls)](requests[turn % len(requests)], timeout=60):
                first_s = first_s or time.monotonic()
                counts.crops.value += len(response.recognitions)
                if any(item.HasField("error") for item in response.recognitions):
                    raise RuntimeError(f"a crop failed: {response.recognitions}")
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            counts.refused.value += 1
            await asyncio.sleep(0.01)
            continue
        counts.requests.value += 1
        counts.request_us.value += round((time.monotonic() - begun_s) * 1e6)
        counts.first_us.value += round((first_s - begun_s) * 1e6)


def _requests(load: Load, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    pixels = _page_crops(load.pages, load.sizes) if load.pages else _noise(load, chance)
    # A client begins somewhere else than the others, and goes round.
    start = chance.randrange(len(pixels)) if load.pages else 0
    made = []
    for number in range(-(-len(pixels) // load.crops)):
        crops = []
        for index in range(load.crops):
            height, width, data = pixels[(start + number * load.crops + index) % len(pixels)]
            crops.append(crop_pb2.Crop(id=index, raw=crop_pb2.RawImage(height=height, width=width, data=data)))
        made.append(pb.RecognizeRequest(options=pb.RecognizeOptions(model=load.model), crops=crops).SerializeToString())
    return made


def _noise(load: Load, chance: random.Random) -> list[tuple[int, int, bytes]]:
    sizes = [load.sizes[index % len(load.sizes)] for index in range(DISTINCT_REQUESTS * load.crops)]
    return [(height, width, chance.randbytes(height * width * 3)) for height, width in sizes]


def _page_crops(path: Path, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int, bytes]]:
    import page_crops

    crops = page_crops.load(path)
    if sizes:
        crops = page_crops.fitted(crops, sizes[0][1])
    return [(crop.shape[0], crop.shape[1], crop.tobytes()) for crop in crops]
