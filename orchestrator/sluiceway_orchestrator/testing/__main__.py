"""`python -m sluiceway_orchestrator.testing detection`: a stage without a model, in a process of its own."""

from __future__ import annotations

import argparse
import asyncio

from sluiceway_orchestrator.testing.stages import SERVICES, FakeDetection, FakeRecognition, FakeServer


async def _serve(kind: str, address: str, capacity: int, whole_crops: int) -> None:
    stage: FakeDetection | FakeRecognition
    if kind == "detection":
        stage = FakeDetection(capacity=capacity)
    else:
        stage = FakeRecognition(capacity=capacity, whole_crops=whole_crops)
    server = FakeServer(stage)
    print(await server.start(address), flush=True)  # noqa: T201 - whoever started this process reads the address
    await server.server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A stage without a model.")
    parser.add_argument("stage", choices=tuple(SERVICES))
    parser.add_argument("--address", default="127.0.0.1:0")
    parser.add_argument("--capacity", type=int, default=256)
    parser.add_argument("--whole-crops", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.stage, arguments.address, arguments.capacity, arguments.whole_crops))
