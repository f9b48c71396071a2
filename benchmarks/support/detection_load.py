"""A client of a detection server that keeps so many requests in flight: `run SECONDS IN_FLIGHT`.

    python detection_load.py ADDRESS IMAGE

The request is serialised once, and only the number of regions is read of an answer: the client shares the cores with
what it measures.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

# The first folder on the path is this one.
from contestant import obey
from grpc import aio

from sluiceway.detection.v1 import detection_pb2 as pb

__all__: list[str] = []

METHOD = "/sluiceway.detection.v1.DetectionService/Detect"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
CALL_TIMEOUT_S = 120.0
RAMP_SHARE = 0.2


async def load(channel: aio.Channel, request: bytes, seconds: float, in_flight: int) -> dict[str, Any]:
    """Keep requests in flight for so long, at least one for each place. What ends while the queues fill is left out."""
    took_ms: list[float] = []
    regions = 0
    begun_s = time.perf_counter()
    ramp_s = RAMP_SHARE * seconds if in_flight > 1 else 0.0
    counted_s, end_s = begun_s + ramp_s, begun_s + seconds
    # Bytes as they are, both ways.
    call = channel.unary_unary(METHOD)

    async def caller() -> None:
        nonlocal regions
        start_s = time.perf_counter()
        while True:
            answer = await call(request, timeout=CALL_TIMEOUT_S)
            now_s = time.perf_counter()
            if counted_s <= now_s <= end_s or seconds == 0:
                took_ms.append((now_s - start_s) * 1000)
            if not regions:
                regions = len(pb.DetectResponse.FromString(answer).detections)
            start_s = time.perf_counter()
            if start_s >= end_s:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    elapsed_s = (end_s - counted_s) or (time.perf_counter() - begun_s)
    return {"per_s": len(took_ms) / elapsed_s, "took_ms": took_ms, "regions": regions}


def main() -> None:
    """Read the image, obey."""
    address, image = sys.argv[1:]
    request = pb.DetectRequest(image=Path(image).read_bytes()).SerializeToString()
    with asyncio.Runner() as runner:

        async def connect() -> aio.Channel:
            return aio.insecure_channel(address, options=OPTIONS)

        channel = runner.run(connect())
        obey(lambda seconds, in_flight: runner.run(load(channel, request, seconds, int(in_flight))))
        runner.run(channel.close())


if __name__ == "__main__":
    main()
