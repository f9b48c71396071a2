"""Does interactive work wait behind bulk work? One client asks for an image at a time, another keeps 64 in flight.

    python benchmarks/priority.py [--json FILE]

The real orchestrator and the real detection server with 2 workers, then with 8; their detector sleeps instead of
computing, and eight workers sleep four times as long as two, so that the machine's cores are not what is measured: both
do 50 images a second. The times spread, as those of real images do: workers that all took equally long, and began
together, would also become free together, and eight would be as good as one. `--spread 0` measures that.

Latency unloaded and under load are taken in turns, so that what else happens on the machine meets both. A request
during which even a thread that only sleeps was held up is left out on both sides, and counted; `p99_ratio_of_all` has
them too. A request that is next in line waits for a worker to become free, so the best ratio is that wait and its own
time over its own time.

Exits 1 if a figure misses its bar: the ratios of the 99th percentiles, and whether bulk did keep the workers busy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import grpc
import grpc.aio
import numpy as np
from sluiceway_detection.types import ImageBgr, Region
from support.stage_process import ANY_PORT, LOG_TAIL, StageProcess

from sluiceway.common.v1 import model_pb2
from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

BULK_IN_FLIGHT = 64
BARS = {
    "p99_ratio_2_workers": ("<=", 2.2),
    "p99_ratio_8_workers": ("<", 1.5),
    "busy_2_workers": (">=", 0.8),
    "busy_8_workers": (">=", 0.8),
    "left_out_2_workers": ("<=", 0.4),
    "left_out_8_workers": ("<=", 0.4),
}
# How the workers hear of the options: they are started by the detection server.
SERVICE_VARIABLE, SPREAD_VARIABLE = "BENCH_PRIORITY_SERVICE_MS", "BENCH_PRIORITY_SPREAD"
START_TIMEOUT_S = 60.0
# A thread that sleeps for so long and wakes this much late was not given a core: nothing here was.
STALL_LOOK_S, STALL_S = 0.005, 0.025
# Bulk has filled every queue by then.
SETTLE_JOBS = 2 * BULK_IN_FLIGHT


class SleepingDetector:
    """Finds nothing, and takes its time."""

    classes = ("textline",)

    def setup(self, device: str) -> None:
        """Load nothing."""
        del device
        self._service_s = float(os.environ[SERVICE_VARIABLE]) / 1000
        self._spread = float(os.environ[SPREAD_VARIABLE])
        self._random = random.Random(os.getpid())

    def __call__(self, batch: list[ImageBgr]) -> list[list[Region]]:
        """Take as long as the images would."""
        for _ in batch:
            time.sleep(self._service_s * self._random.uniform(1 - self._spread, 1 + self._spread))
        return [[] for _ in batch]


# The processes.


@contextmanager
def server(name: str, environment: dict[str, str], **settings: object) -> Iterator[str]:
    """A server as `sluiceway serve` runs it; gives its address."""
    options = [part for key, value in (ANY_PORT | settings).items() for part in ("--set", f"{key}={value}")]
    process = StageProcess(name)
    try:
        process.start([sys.executable, "-m", f"sluiceway_{name}", *options], os.environ | environment)
        yield process.address
    except Exception:
        print(process.log[-LOG_TAIL:], file=sys.stderr, flush=True)
        raise
    finally:
        process.stop()


@contextmanager
def bulk(address: str, per_s: list[float]) -> Iterator[None]:
    """The bulk client in a process of its own, from when the queues are full; adds its rate to `per_s` at the end."""
    command = [sys.executable, __file__, "--bulk", address]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        if started.stdout.readline() != "full\n":
            raise RuntimeError("the bulk client failed")
        yield
        rate, _ = started.communicate("over\n", timeout=30)
        per_s.append(float(rate))
    finally:
        started.kill()
        started.wait()


class StallWatch(threading.Thread):
    """Knows when the machine had no core for this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stalls: list[tuple[float, float]] = []

    def run(self) -> None:
        """Sleep, and note when that took too long."""
        before_s = time.perf_counter()
        while True:
            time.sleep(STALL_LOOK_S)
            now_s = time.perf_counter()
            if now_s - before_s > STALL_LOOK_S + STALL_S:
                self._stalls.append((before_s, now_s))
            before_s = now_s

    def undisturbed(self, requests: Sequence[tuple[float, float]]) -> list[float]:
        """How long each took, in seconds, of those that met no stall."""
        return [
            end_s - start_s
            for start_s, end_s in requests
            if not any(start_s < stall_end_s and stall_s < end_s for stall_s, stall_end_s in self._stalls)
        ]


# The clients.


def request(priority: model_pb2.Priority.ValueType) -> pipeline_pb2.ProcessRequest:
    """One small image, for detection alone."""
    image = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    options = pipeline_pb2.ProcessOptions(priority=priority, detect_only=True)
    return pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=image)], options=options)


async def ask(stub: pipeline_pb2_grpc.PipelineServiceStub, job: pipeline_pb2.ProcessRequest) -> tuple[float, float]:
    """Run one job; returns when it began and ended."""
    started_s = time.perf_counter()
    call = stub.Process(job, timeout=30)
    events = [event async for event in call]  # type: ignore[attr-defined]  # the stub's type is that of the other API
    if not events or events[-1].job_done.succeeded != 1:
        raise RuntimeError(f"a job failed: {events!r}")
    return started_s, time.perf_counter()


async def keep_in_flight(address: str) -> None:
    """The bulk client: says when the queues are full, goes on until it is told to stop, says how many a second."""
    job = request(model_pb2.PRIORITY_BULK)
    done = 0
    full = asyncio.Event()

    async with grpc.aio.insecure_channel(address) as channel:
        stub = pipeline_pb2_grpc.PipelineServiceStub(channel)

        async def caller() -> None:
            nonlocal done
            while True:
                await ask(stub, job)
                done += 1
                if done >= SETTLE_JOBS:
                    full.set()

        async def conduct() -> None:
            await full.wait()
            before, started_s = done, time.monotonic()
            print("full", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            print((done - before) / (time.monotonic() - started_s), flush=True)

        callers = [asyncio.create_task(caller()) for _ in range(BULK_IN_FLIGHT)]
        conductor = asyncio.create_task(conduct())
        # A caller ends only by failing.
        finished, _ = await asyncio.wait((*callers, conductor), return_when=asyncio.FIRST_COMPLETED)
        for task in (*callers, conductor):
            task.cancel()
        for task in finished:
            task.result()


async def one_at_a_time(
    stub: pipeline_pb2_grpc.PipelineServiceStub, requests: int, per_s: float, thinking: random.Random
) -> list[tuple[float, float]]:
    """The interactive client: begin and end of each request, with pauses of about two images' time."""
    job = request(model_pb2.PRIORITY_INTERACTIVE)
    took = []
    for _ in range(requests):
        await asyncio.sleep(thinking.uniform(0.5, 3.5) / per_s)
        took.append(await ask(stub, job))
    return took


async def wait_until_served(stub: pipeline_pb2_grpc.PipelineServiceStub) -> None:
    """Return once a job succeeds."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            await ask(stub, request(model_pb2.PRIORITY_INTERACTIVE))
        except (grpc.aio.AioRpcError, RuntimeError):
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(0.2)
        else:
            return


def took_s(requests: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds of each."""
    return [end_s - start_s for start_s, end_s in requests]


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest rank."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


async def measure(workers: int, rounds: int, requests: int, per_s: float, spread: float) -> dict[str, float]:
    """Figures for so many workers, their names ending in it."""
    service_s = workers / per_s
    thinking = random.Random(9)
    environment = {
        SERVICE_VARIABLE: str(service_s * 1000),
        SPREAD_VARIABLE: str(spread),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))),
    }
    watch = StallWatch()
    watch.start()
    alone: list[tuple[float, float]] = []
    beside_bulk: list[tuple[float, float]] = []
    busy: list[float] = []
    with ExitStack() as stack:
        detector = f"{Path(__file__).stem}:{SleepingDetector.__name__}"
        detection = stack.enter_context(server("detection", environment, detector=detector, workers=workers))
        # Nobody serves recognition: jobs end after detection.
        settings = {"detection": detection, "recognition": "127.0.0.1:9"}
        without_http = {"SLUICEWAY_ORCHESTRATOR__HTTP__ENABLED": "false"}
        address = stack.enter_context(server("orchestrator", without_http, **settings))
        async with grpc.aio.insecure_channel(address) as channel:
            stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
            await wait_until_served(stub)
            for _ in range(rounds):
                # The first requests find cold caches, or what is left of the round before.
                await one_at_a_time(stub, 10, per_s, thinking)
                alone += await one_at_a_time(stub, requests, per_s, thinking)
                bulk_per_s: list[float] = []
                with bulk(address, bulk_per_s):
                    started_s = time.monotonic()
                    beside_bulk += await one_at_a_time(stub, requests, per_s, thinking)
                    own_per_s = requests / (time.monotonic() - started_s)
                busy.append((bulk_per_s[0] + own_per_s) / per_s)
    alone_s, beside_bulk_s = watch.undisturbed(alone), watch.undisturbed(beside_bulk)
    figures = {"p99_ratio": percentile(beside_bulk_s, 0.99) / percentile(alone_s, 0.99), "busy": min(busy)}
    figures["left_out"] = 1 - (len(alone_s) + len(beside_bulk_s)) / (len(alone) + len(beside_bulk))
    figures["p99_ratio_of_all"] = percentile(took_s(beside_bulk), 0.99) / percentile(took_s(alone), 0.99)
    for part in (50, 99, 100):
        figures[f"p{part}_alone_ms"] = percentile(alone_s, part / 100) * 1000
        figures[f"p{part}_beside_bulk_ms"] = percentile(beside_bulk_s, part / 100) * 1000
    figures["p50_ratio"] = figures["p50_beside_bulk_ms"] / figures["p50_alone_ms"]
    return {f"{name}_{workers}_workers": round(value, 3) for name, value in figures.items()}


def missed(figures: dict[str, float]) -> list[str]:
    """A line for each figure that misses its bar."""
    holds = {"<": float.__lt__, "<=": float.__le__, ">=": float.__ge__}
    return [
        f"{name} = {figures[name]} is not {sign} {bar}"
        for name, (sign, bar) in BARS.items()
        if not holds[sign](figures[name], bar)
    ]


def main() -> int:
    """Measure, print, and say by exit code whether every bar was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=50, help="of the interactive client, in each round")
    parser.add_argument("--per-s", type=float, default=50.0, help="images a second that the workers can do together")
    parser.add_argument("--spread", type=float, default=0.25, help="0.25: from 0.75 to 1.25 of the mean")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bulk", metavar="ADDRESS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bulk:
        asyncio.run(keep_in_flight(arguments.bulk))
        return 0
    load_before = os.getloadavg()[0]
    figures: dict[str, float] = {}
    for workers in (2, 8):
        figures |= asyncio.run(
            measure(workers, arguments.rounds, arguments.requests, arguments.per_s, arguments.spread)
        )
    found = {
        "figures": figures,
        "bars": {name: f"{sign} {bar}" for name, (sign, bar) in BARS.items()},
        "per_s": arguments.per_s,
        "spread": arguments.spread,
        "requests": arguments.rounds * arguments.requests,
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
    }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    failed = missed(figures)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
