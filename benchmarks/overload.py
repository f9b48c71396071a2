"""Three times the load that the cluster can carry: does it go on serving what it can, and refuse the rest at once?

One run, real models: the capacity is measured (callers that wait for each answer), then clients arrive three times as
fast as that whatever happens (open loop), then the capacity is measured again; it counts as the mean of both. Each
image is a request of its own with its own deadline. The bars:

    goodput    images answered in time, a second                   at least 0.9 of the capacity
    refusals   RESOURCE_EXHAUSTED with RetryInfo, told within      50 ms (99 of 100)
    accepted   of what was not refused, answered in time           at least 99 of 100
    memory     of all processes, growth during the overload        less than 5 % and 32 MB, whichever is more

    make bench-overload
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import psutil
from sluiceway_cluster import Cluster, plan_cluster
from sluiceway_runtime import weights
from sluiceway_runtime.errors import QueueFull, SluicewayError
from sluiceway_runtime.server.status import from_rpc_error

from sluiceway.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc

FACTOR = 3.0
MIN_GOODPUT = 0.9
MAX_REFUSAL_MS = 50.0
MIN_IN_TIME = 0.99
MAX_GROWTH, MAX_GROWTH_MB = 0.05, 32.0
CLOSED_LOOP_CALLERS = 12
# Not counted at the beginning of the overload: until its queue has filled, there is nothing to refuse.
RAMP_S = 4.0


@dataclass(frozen=True)
class Outcome:
    """One request as its client saw it; `arrived_s` since the phase began."""

    kind: str  # ok, refused, refused without RetryInfo, or the name of the error
    arrived_s: float
    took_s: float


async def ask(stub: pipeline_pb2_grpc.PipelineServiceStub, image: bytes, deadline_s: float, begun_s: float) -> Outcome:
    """Send one image and wait for its end."""
    source = pipeline_pb2.Source(source_id="s", image=image)
    started_s = time.monotonic()
    call = stub.Process(pipeline_pb2.ProcessRequest(sources=[source]), timeout=deadline_s)
    kind = "no answer"
    try:
        async for response in call:
            if response.HasField("done"):
                kind = "regions failed" if any(report.failed for report in response.done.steps) else "ok"
            elif response.HasField("failed"):
                kind = response.failed.error.reason
    except grpc.aio.AioRpcError as error:
        kind = kind_of(from_rpc_error(error))
    return Outcome(kind, started_s - begun_s, time.monotonic() - started_s)


def kind_of(error: SluicewayError) -> str:
    """Name of an end that came as a status."""
    if isinstance(error, QueueFull):
        return "refused" if error.retry_after_s else "refused without RetryInfo"
    return error.reason


async def closed_loop(stub: pipeline_pb2_grpc.PipelineServiceStub, images: list[bytes], seconds: float) -> float:
    """Images a second that the cluster answers to callers that wait for each answer."""
    begun_s = time.monotonic()
    end_s = begun_s + seconds

    async def caller(number: int) -> int:
        done = 0
        while time.monotonic() < end_s:
            number += 1
            outcome = await ask(stub, images[number % len(images)], 30.0, begun_s)
            if outcome.kind != "ok":
                raise SystemExit(f"a request failed while the capacity was measured: {outcome}")
            done += outcome.arrived_s + outcome.took_s <= seconds
        return done

    return sum(await asyncio.gather(*(caller(number) for number in range(CLOSED_LOOP_CALLERS)))) / seconds


async def open_loop(
    stub: pipeline_pb2_grpc.PipelineServiceStub, images: list[bytes], rate: float, seconds: float, deadline_s: float
) -> list[Outcome]:
    """Arrivals at random, so many a second on average, whatever becomes of those before."""
    arrivals = random.Random(9)
    begun_s = time.monotonic()
    tasks: list[asyncio.Task[Outcome]] = []
    due_s = 0.0
    while due_s < seconds:
        await asyncio.sleep(max(0.0, begun_s + due_s - time.monotonic()))
        tasks.append(asyncio.create_task(ask(stub, images[len(tasks) % len(images)], deadline_s, begun_s)))
        due_s += arrivals.expovariate(rate)
    return await asyncio.gather(*tasks)


def memory_mb(pids: list[int | None]) -> float:
    """Resident memory of the servers and their workers."""
    fronts = [psutil.Process(pid) for pid in pids if pid]
    return sum(p.memory_info().rss for front in fronts for p in (front, *front.children(recursive=True))) / 2**20


def percentile(values: list[float], part: float) -> float:
    """The nearest rank."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


async def measure(images: list[bytes], seconds: float, deadline_s: float) -> dict[str, object]:
    """Run the three phases on a cluster of its own."""
    plan = plan_cluster(None, os.environ, free_ports=True)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with Cluster(plan.servers) as cluster, grpc.aio.insecure_channel(plan.address, options=options) as channel:
        stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
        await closed_loop(stub, images, 3.0)  # warm
        before = await closed_loop(stub, images, seconds / 2)
        rate = FACTOR * before
        pids = list(cluster.pids.values())
        running = asyncio.create_task(open_loop(stub, images, rate, RAMP_S + seconds, deadline_s))
        await asyncio.sleep(RAMP_S)
        memory_before = memory_mb(pids)
        await asyncio.sleep(seconds)
        memory_after = memory_mb(pids)
        outcomes = await running
        after = await closed_loop(stub, images, seconds / 2)
    return summary(
        outcomes, capacities=(before, after), rate=rate, seconds=seconds, deadline_s=deadline_s,
        memory=(memory_before, memory_after),
    )  # fmt: skip


def summary(
    outcomes: list[Outcome],
    *,
    capacities: tuple[float, float],
    rate: float,
    seconds: float,
    deadline_s: float,
    memory: tuple[float, float],
) -> dict[str, object]:
    """Figures and verdicts."""
    capacity = sum(capacities) / 2
    counted = [outcome for outcome in outcomes if outcome.arrived_s >= RAMP_S]
    window = (RAMP_S, RAMP_S + seconds)
    in_time = [outcome for outcome in outcomes if outcome.kind == "ok" and outcome.took_s <= deadline_s]
    goodput = sum(window[0] <= outcome.arrived_s + outcome.took_s < window[1] for outcome in in_time) / seconds
    refusals_ms = [outcome.took_s * 1000 for outcome in counted if outcome.kind == "refused"]
    accepted = [outcome for outcome in counted if not outcome.kind.startswith("refused")]
    accepted_in_time = sum(outcome.kind == "ok" and outcome.took_s <= deadline_s for outcome in accepted)
    share_in_time = accepted_in_time / max(1, len(accepted))
    accepted_s = [outcome.took_s for outcome in accepted]
    growth_mb = memory[1] - memory[0]
    allowed_mb = max(MAX_GROWTH_MB, MAX_GROWTH * memory[0])
    bars = {
        "goodput": goodput >= MIN_GOODPUT * capacity,
        "refusals": bool(refusals_ms) and percentile(refusals_ms, 0.99) < MAX_REFUSAL_MS
        and not any(outcome.kind == "refused without RetryInfo" for outcome in counted),
        "accepted": share_in_time >= MIN_IN_TIME,
        "memory": growth_mb < allowed_mb,
    }  # fmt: skip
    return {
        "capacity_before_per_s": capacities[0],
        "capacity_after_per_s": capacities[1],
        "capacity_per_s": capacity,
        "offered_per_s": rate,
        "deadline_s": deadline_s,
        "seconds": seconds,
        "goodput_per_s": goodput,
        "goodput_of_capacity": goodput / capacity,
        "outcomes": dict(Counter(outcome.kind for outcome in counted)),
        "refusal_ms": {name: percentile(refusals_ms, part) for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1))},
        "accepted_in_time": share_in_time,
        "accepted_s": {name: percentile(accepted_s, part) for name, part in (("p50", 0.5), ("p99", 0.99))},
        "memory_mb": {"before": memory[0], "after": memory[1], "allowed_growth": allowed_mb},
        "bars": bars,
        "passed": all(bars.values()),
    }


def report(found: dict[str, object]) -> None:
    """For people."""
    refusal, accepted, memory = found["refusal_ms"], found["accepted_s"], found["memory_mb"]
    bars = found["bars"]
    assert isinstance(refusal, dict)
    assert isinstance(accepted, dict)
    assert isinstance(memory, dict)
    assert isinstance(bars, dict)
    print(
        f"capacity   {found['capacity_per_s']:.1f} images/s ({found['capacity_before_per_s']:.1f} before, "
        f"{found['capacity_after_per_s']:.1f} after); offered {found['offered_per_s']:.1f}/s, "
        f"deadline {found['deadline_s']:g} s, {found['seconds']:g} s long"
    )
    lines = {
        "goodput": f"{found['goodput_per_s']:.1f} images/s, {found['goodput_of_capacity']:.2f} of the capacity",
        "refusals": f"p50 {refusal['p50']:.1f} ms, p99 {refusal['p99']:.1f} ms, slowest {refusal['max']:.1f} ms",
        "accepted": f"{found['accepted_in_time']:.3f} in time, p50 {accepted['p50']:.2f}, p99 {accepted['p99']:.2f} s",
        "memory": f"{memory['before']:.0f} MB, then {memory['after']:.0f} MB",
    }
    for name, text in lines.items():
        print(f"{name:<10} {text:<62} {'passed' if bars[name] else 'FAILED'}")
    print(f"outcomes   {found['outcomes']}")


def main() -> int:
    """Measure, print, and say by exit code whether every bar was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of overload")
    parser.add_argument("--deadline", type=float, default=5.0, help="of each request, seconds")
    parser.add_argument("--samples", nargs="+", default=["bus.jpg", "page.png"])
    parser.add_argument("--json", type=Path, default=Path("out/bench-overload.json"))
    arguments = parser.parse_args()
    images = [path.read_bytes() for path in weights.pull_samples(tuple(arguments.samples)).values()]
    found = asyncio.run(measure(images, arguments.seconds, arguments.deadline))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1))
    report(found)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
