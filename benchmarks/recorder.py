"""What remembering requests costs, and what traces cost: CPU time an image of the orchestrator, in alternating pairs.

The orchestrator between stages that answer at once, as in `benchmarks/orchestrator.py`, is the server where this counts
the most: nothing else does so little for an image. Servers that remember nothing (`remember_requests = 0`), that
remember (as by default), and that remember and send a tenth of the traces to a collector, run at once, and each is
loaded in turn, forwards in one round and backwards in the next. There are several of each, as two processes of one
program differ by a percent or two by chance. What counts is the mean of the ratios of the rounds, with the upper end of
its 95 % interval.

What a user pays is asked by `seeing.py`, of a whole cluster; this finds a note that has become dear.

Exits 1 if that is above the bar.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import grpc.aio
import psutil

from orchestrator import OPTIONS, PROCESS, metadata_of, orchestrator, process, process_request, wait_until_served

# Of CPU time an image, over that of a server that remembers nothing: the upper end of the interval. An image takes a
# millisecond here, and the SDK of OpenTelemetry 60 us for each span that it encodes.
BARS = {"remembering": 1.03, "tracing a tenth": 1.07}
IN_FLIGHT = 16
CORES = sorted(os.sched_getaffinity(0))
# One-sided, of Student's t, by the number of rounds less one: that of the next smaller number holds.
T_95 = {
    1: 6.314,
    2: 2.920,
    3: 2.353,
    4: 2.132,
    5: 2.015,
    7: 1.895,
    9: 1.833,
    14: 1.761,
    19: 1.729,
    29: 1.699,
    59: 1.671,
}


def upper(ratios: Sequence[float]) -> tuple[float, float]:
    """Mean, and the upper end of its interval."""
    mean = statistics.fmean(ratios)
    degrees = len(ratios) - 1
    quantile = next((value for known, value in sorted(T_95.items(), reverse=True) if known <= degrees), 6.314)
    return mean, mean + quantile * statistics.stdev(ratios) / math.sqrt(len(ratios))


def cpu_s(server: psutil.Process) -> float:
    """CPU time of all its threads so far, to the nanosecond: `psutil` tells hundredths of a second."""
    tasks = Path(f"/proc/{server.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def cpu_ms(server: psutil.Process, channel: grpc.aio.Channel, images: int) -> float:
    """CPU time an image, while it is loaded with so many."""
    request = process_request()
    said = metadata_of(request)
    call_process = channel.unary_stream(PROCESS)
    left = iter(range(images))

    async def client() -> None:
        for _ in left:
            events = [event async for event in call_process(request, timeout=30, metadata=said)]
            if len(events) < 5:
                raise RuntimeError(f"a job gave {len(events)} events")

    before_s = cpu_s(server)
    await asyncio.gather(*(client() for _ in range(IN_FLIGHT)))
    return (cpu_s(server) - before_s) * 1000 / images


async def measure(copies: int, rounds: int, images: int) -> dict[str, list[float]]:
    """Ratios over the servers that remember nothing, by variant, a round each."""
    middle, others = CORES[0], CORES[1]
    with ExitStack() as stack:
        _, detection = stack.enter_context(process("--role", "detection", core=others))
        _, recognition = stack.enter_context(process("--role", "recognition", core=others))
        _, collector = stack.enter_context(process("--role", "collector", core=others))
        traces = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
        }
        variants: dict[str, tuple[dict[str, object], dict[str, str]]] = {
            "nothing": ({"remember_requests": 0}, {}),
            "remembering": ({}, {}),
            "tracing a tenth": ({}, traces),
        }
        quiet = {"SLUICEWAY_ORCHESTRATOR__LOG_LEVEL": "warning"}
        servers = []
        for _ in range(copies):
            for name, (settings, variables) in variants.items():
                running = orchestrator(detection, recognition, middle, settings, quiet | variables)
                servers.append((name, *stack.enter_context(running)))
        channels = {}
        for _, server, address in servers:
            await wait_until_served(address)
            channels[address] = grpc.aio.insecure_channel(address, options=OPTIONS)
            # What is done once only: connections, methods that are specialised.
            await cpu_ms(server, channels[address], 3 * images)
        ratios: dict[str, list[float]] = {name: [] for name in BARS}
        for number in range(rounds):
            found = dict.fromkeys(variants, 0.0)
            for name, server, address in servers[:: 1 if number % 2 else -1]:
                found[name] += await cpu_ms(server, channels[address], images) / copies
            for name in BARS:
                ratios[name].append(found[name] / found["nothing"])
        print(", ".join(f"{name} {value:.3f} ms" for name, value in found.items()), "in the last round", flush=True)
        for channel in channels.values():
            await channel.close()
        return ratios


def judge(ratios: Mapping[str, Sequence[float]], bars: Mapping[str, float], file: Path | None) -> int:
    """Print what was found, write it, and give the exit code: 1 if the upper end of an interval is above its bar."""
    figures = {name: dict(zip(("mean", "upper_95"), upper(values), strict=True)) for name, values in ratios.items()}
    text = json.dumps(
        {"figures": figures, "bars": {name: f"upper_95 <= {bar}" for name, bar in bars.items()}}, indent=2
    )
    print(text)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    failed = [name for name, bar in bars.items() if figures[name]["upper_95"] > bar]
    for name in failed:
        print(f"{name}: {figures[name]['upper_95']:.3f} is above {bars[name]}", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    """Measure, print, and say whether it is within the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=4, help="servers of each kind")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--images", type=int, default=40, help="in each turn of a server")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if len(CORES) < 2:
        raise SystemExit("needs two cores")
    os.sched_setaffinity(0, {CORES[1]})
    ratios = asyncio.run(measure(arguments.copies, arguments.rounds, arguments.images))
    return judge(ratios, BARS, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
