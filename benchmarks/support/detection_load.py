"""A client of a detection server that keeps so many requests in flight: `run SECONDS IN_FLIGHT`.

    python detection_load.py ADDRESS IMAGE

The request is serialised once, and only the number of regions is read of an answer: the client shares the cores with
what it measures.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

# The first folder on the path is this one.
from contestant import obey, repeat
from grpc import aio

from sluiceway.detection.v1 import detection_pb2 as pb

__all__: list[str] = []

METHOD = "/sluiceway.detection.v1.DetectionService/Detect"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
CALL_TIMEOUT_S = 120.0
RAMP_SHARE = 0.2


def alone(call: Callable[..., bytes], request: bytes, seconds: float) -> dict[str, Any]:
    """One request after the other by a plain blocking stub, as whoever has only one would write it."""
    answers: list[bytes] = []

    def ask() -> None:
        answers[:] = [call(request, timeout=CALL_TIMEOUT_S)]

    found = repeat(seconds, ask)
    return found | {"regions": len(pb.DetectResponse.FromString(answers[0]).detections)}


async def load(channel: aio.Channel, request: bytes, seconds: float, in_flight: int) -> dict[str, Any]:
    """Keep requests in flight for so long. What ends while the queues fill is left out."""
    took_ms: list[float] = []
    regions = 0
    begun_s = time.perf_counter()
    counted_s, end_s = begun_s + RAMP_SHARE * seconds, begun_s + seconds
    # Bytes as they are, both ways.
    call = channel.unary_unary(METHOD)

    async def caller() -> None:
        nonlocal regions
        start_s = time.perf_counter()
        while True:
            answer = await call(request, timeout=CALL_TIMEOUT_S)
            now_s = time.perf_counter()
            if counted_s <= now_s <= end_s:
                took_ms.append((now_s - start_s) * 1000)
            if not regions:
                regions = len(pb.DetectResponse.FromString(answer).detections)
            start_s = time.perf_counter()
            if start_s >= end_s:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return {"per_s": len(took_ms) / (end_s - counted_s), "took_ms": took_ms, "regions": regions}


def main() -> None:
    """Read the image, obey."""
    address, image = sys.argv[1:]
    request = pb.DetectRequest(image=Path(image).read_bytes()).SerializeToString()
    with asyncio.Runner() as runner, grpc.insecure_channel(address, options=OPTIONS) as blocking:

        async def connect() -> aio.Channel:
            return aio.insecure_channel(address, options=OPTIONS)

        def run(seconds: float, in_flight: float) -> dict[str, Any]:
            if in_flight == 1:
                return alone(blocking.unary_unary(METHOD), request, seconds)
            return runner.run(load(channel, request, seconds, int(in_flight)))

        channel = runner.run(connect())
        obey(run)
        runner.run(channel.close())


if __name__ == "__main__":
    main()
