"""What the Python library adds to bare stubs: time for one image, and images a second.

The server answers as an orchestrator at its best does: a photograph with 17 regions, 400 images a second at most. It
runs in a process of its own; bare stub and library alternate within one run.

    make bench-client
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from sluiceway import AsyncClient, Client
from sluiceway.common.v1 import geometry_pb2, value_pb2
from sluiceway.pipeline.v1 import pipeline_pb2 as pb
from sluiceway.pipeline.v1 import pipeline_pb2_grpc

# The bars.
MAX_ADDED_MS = 1.0
MIN_THROUGHPUT = 0.95
IMAGE = bytes(100_000)
REGIONS = 17
# What one orchestrator process reaches with stages that answer at once.
IMAGES_PER_S = 400
IN_FLIGHT = 16


def answer(job_id: str, source_id: str) -> list[pb.ProcessResponse]:
    """The events of one image."""
    regions = [
        pb.Region(
            id=index,
            geometry=geometry_pb2.Geometry(box=geometry_pb2.Box(x0=index, y0=index, x1=index + 40, y1=index + 12)),
            class_name="textline",
            confidence=0.9,
        )
        for index in range(REGIONS)
    ]
    values = [
        pb.Value(region_id=index, text=value_pb2.Text(text="emisiones", confidence=0.9)) for index in range(REGIONS)
    ]
    page = pb.Page(width=810, height=1080)

    def event(**content: Any) -> pb.ProcessResponse:
        return pb.ProcessResponse(job_id=job_id, source_id=source_id, **content)

    return [
        event(source_ready=pb.SourceReady(size_bytes=len(IMAGE))),
        event(regions=pb.Regions(page=page, step="text", regions=regions, recognizing=range(REGIONS))),
        event(values=pb.Values(values=values[:1], step="words", model="ppocrv6-tiny")),
        event(values=pb.Values(values=values[1:], step="words", model="ppocrv6-tiny")),
        event(
            done=pb.SourceDone(
                reading_order=range(REGIONS), steps=[pb.StepReport(step="text"), pb.StepReport(step="words")]
            )
        ),
        pb.ProcessResponse(job_id=job_id, job_done=pb.JobDone(succeeded=1)),
    ]


class Instant(pipeline_pb2_grpc.PipelineServiceServicer):
    """Answers every image at once, but no more of them than an orchestrator could."""

    def __init__(self) -> None:
        self._free_at_s = 0.0
        self._ready: dict[str, list[pb.ProcessResponse]] = {}

    async def Process(self, request: pb.ProcessRequest, context: Any) -> AsyncIterator[pb.ProcessResponse]:  # noqa: ARG002, N802
        """See the contract."""
        source_id = request.sources[0].source_id
        now_s = time.monotonic()
        self._free_at_s = max(self._free_at_s, now_s) + 1 / IMAGES_PER_S
        if self._free_at_s - now_s > 2 / IMAGES_PER_S:
            await asyncio.sleep(self._free_at_s - now_s)
        # Built once: what is measured is the client.
        for event in self._ready.setdefault(source_id, answer("", source_id)):
            yield event


async def serve() -> None:
    server = grpc.aio.server()
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(Instant(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


Call = Callable[[], Awaitable[None]]


async def latency_ms(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median time of each call, alone, taken in turns."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 20):
        for name, call in calls.items():
            start = time.perf_counter()
            await call()
            if turn >= 20:
                took[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(times) for name, times in took.items()}


async def throughput(call: Call, seconds: float) -> float:
    """Images a second with `IN_FLIGHT` at a time."""
    done = 0
    end = time.perf_counter() + seconds

    async def loop() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(IN_FLIGHT)))
    return done / (time.perf_counter() - start)


async def measure(address: str, rounds: int) -> dict[str, float]:
    async with grpc.aio.insecure_channel(address) as channel, AsyncClient(address) as client:
        stub = pipeline_pb2_grpc.PipelineServiceStub(channel)

        async def bare() -> None:
            request = pb.ProcessRequest(sources=[pb.Source(source_id="0", image=IMAGE)])
            texts = 0
            async for event in stub.Process(request, timeout=60):
                texts += len(event.values.values)
            assert texts == REGIONS

        async def library() -> None:
            assert len((await client.process(IMAGE)).regions) == REGIONS

        with Client(address) as blocking:

            async def blocked() -> None:
                assert len(blocking.process(IMAGE).regions) == REGIONS

            alone = await latency_ms({"bare": bare, "library": library, "blocking": blocked}, rounds)
        rates: dict[str, list[float]] = {"bare": [], "library": []}
        for _ in range(3):
            rates["bare"].append(await throughput(bare, 3))
            rates["library"].append(await throughput(library, 3))
    bare_rate, library_rate = statistics.median(rates["bare"]), statistics.median(rates["library"])
    return {
        "bare_ms": alone["bare"],
        "added_ms": alone["library"] - alone["bare"],
        "added_blocking_ms": alone["blocking"] - alone["bare"],
        "bare_images_per_s": bare_rate,
        "library_images_per_s": library_rate,
        "throughput_ratio": library_rate / bare_rate,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", type=Path, default=Path("out/bench-client.json"))
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return 0
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        results = asyncio.run(measure(f"127.0.0.1:{int(server.stdout.readline())}", arguments.rounds))
    finally:
        server.terminate()
        server.wait()
    for name, value in results.items():
        print(f"{name:<22}{value:10.3f}")
    passed = (
        max(results["added_ms"], results["added_blocking_ms"]) <= MAX_ADDED_MS
        and results["throughput_ratio"] >= MIN_THROUGHPUT
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results | {"passed": passed}, indent=1))
    print(f"bars: added <= {MAX_ADDED_MS} ms, throughput >= {MIN_THROUGHPUT}: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
