"""What a whole machine carries: `sluiceway up`, images from several client processes, one orchestrator or more.

    python benchmarks/machine.py [--device cuda] [--scale orchestrator=4 ...] [--in-flight 1 60 120] [--image PATH ...]

Prints images a second and latencies at the clients, how full each server is: seconds of CPU for each second, in
percent, and for which share of the time a GPU computed. Clients call the orchestrators in turns. Anything that is not
answered is an error and ends the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "support"))

import grpc.aio
import psutil
from gpu_meter import GpuMeter, gpu_name

from sluiceway.pipeline.v1 import pipeline_pb2

PROCESS = "/sluiceway.pipeline.v1.PipelineService/Process"
START_S = 900.0
# Not counted: connections open, and what is compiled or allocated for a first request is.
WARM_UP_S = 1.0


# A client process.


async def keep_in_flight(addresses: Sequence[str], image: bytes, in_flight: int, seconds: float) -> list[float]:
    """Keep jobs of one image file in flight; returns latencies, in seconds, of those that began within the time."""
    request = pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(image=image)])
    data = request.SerializeToString()
    metadata = (("sluiceway-request-bytes", str(len(data))),)
    channels = [grpc.aio.insecure_channel(address) for address in addresses]
    calls: list[grpc.aio.UnaryStreamMultiCallable[bytes, pipeline_pb2.ProcessResponse]] = [
        channel.unary_stream(PROCESS, response_deserializer=pipeline_pb2.ProcessResponse.FromString)
        for channel in channels
    ]
    counted_s = time.monotonic() + WARM_UP_S
    end_s = counted_s + seconds
    found: list[float] = []

    async def client(number: int) -> None:
        process = calls[number % len(calls)]
        while (began_s := time.monotonic()) < end_s:
            answers = [answer async for answer in process(data, timeout=60, metadata=metadata)]
            if answers[-1].job_done.succeeded != 1:
                raise RuntimeError(f"an image failed: {answers[-2]}")
            if began_s >= counted_s:
                found.append(time.monotonic() - began_s)

    await asyncio.gather(*(client(number) for number in range(in_flight)))
    for channel in channels:
        await channel.close()
    return found


# The measurement.


@contextmanager
def cluster(config: str, scale: Sequence[str]) -> Iterator[tuple[list[str], dict[str, psutil.Process]]]:
    """`sluiceway up`; gives the addresses of its orchestrators, and its processes by what they are."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sluiceway.toml").write_text(config, encoding="utf-8")
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "sluiceway.cli", "up", *(word for item in scale for word in ("--scale", item))]
        began_s = time.monotonic()
        with log.open("w") as out:
            up = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
        try:
            while "ready on " not in log.read_text():
                if up.poll() is not None or time.monotonic() - began_s > START_S:
                    raise SystemExit(f"the cluster did not start:\n{log.read_text()[-4000:]}")
                time.sleep(0.2)
            print(f"ready after {time.monotonic() - began_s:.0f} s")
            line = next(line for line in log.read_text().splitlines() if "ready on " in line)
            addresses = line.partition("ready on ")[2].partition(";")[0].split(", ")
            yield addresses, _processes(up.pid)
        finally:
            up.send_signal(signal.SIGINT)
            try:
                up.wait(60)
            except subprocess.TimeoutExpired:
                up.kill()


def _processes(pid: int) -> dict[str, psutil.Process]:
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process(pid).children(recursive=True):
        words = process.cmdline()
        module = words[words.index("-m") + 1] if "-m" in words else process.name()
        found[f"{module.removeprefix('sluiceway_')} {process.pid}"] = process
    return found


def measure(
    addresses: Sequence[str], image: Path, in_flight: int, seconds: float, processes: Mapping[str, psutil.Process]
) -> dict[str, Any]:
    """One figure, from as many client processes as that many jobs are worth."""
    count = max(1, min(in_flight, len(os.sched_getaffinity(0)) // 2, 6))
    each = max(1, in_flight // count)
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    began_s = time.monotonic()
    clients = [
        subprocess.Popen(
            [sys.executable, __file__, "--client", json.dumps([_turned(addresses, number), str(image), each, seconds])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    with GpuMeter() if gpu_name() else nullcontext() as meter:
        outputs = [client.communicate()[0] for client in clients]
        gpu_share = None if meter is None else meter.take()[1]
    took_s = time.monotonic() - began_s
    if any(client.returncode for client in clients):
        raise SystemExit("a client failed")
    latencies = sorted(latency for output in outputs for latency in json.loads(output))
    busy = {
        name: round(100 * (sum(process.cpu_times()[:2]) - before[name]) / took_s) for name, process in processes.items()
    }
    return {
        "image": image.name,
        "in_flight": each * count,
        "orchestrators": len(addresses),
        "images_per_s": len(latencies) / seconds,
        "p50_ms": statistics.median(latencies) * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "gpu_share": gpu_share,
        "busy_percent": {name: share for name, share in sorted(busy.items()) if share > 2},
    }


def _turned(addresses: Sequence[str], number: int) -> list[str]:
    """The same addresses, beginning with another one for each client."""
    start = number % len(addresses)
    return [*addresses[start:], *addresses[:start]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="of detection; recognition takes a GPU if there is one")
    parser.add_argument("--model", help="of detection; the default one otherwise")
    parser.add_argument("--scale", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 60, 120])
    parser.add_argument("--image", type=Path, nargs="+", help="by default the samples bus.jpg and page.png")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        addresses, image, in_flight, seconds = json.loads(arguments.client)
        print(json.dumps(asyncio.run(keep_in_flight(addresses, Path(image).read_bytes(), in_flight, seconds))))
        return 0
    config = f'[detection]\ndevice = "{arguments.device}"\n'
    if arguments.model:
        config += f'model = "{arguments.model}"\n'
    rows = []
    with cluster(config, arguments.scale) as (addresses, processes):
        for image in arguments.image or [Path("out/samples/bus.jpg"), Path("out/samples/page.png")]:
            for in_flight in arguments.in_flight:
                row = measure(addresses, image, in_flight, arguments.seconds, processes)
                rows.append(row)
                print(
                    f"{row['image']}: {row['in_flight']} in flight through {row['orchestrators']}: "
                    f"{row['images_per_s']:.1f} images/s, p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms"
                )
                share = "" if row["gpu_share"] is None else f"GPU {row['gpu_share']:.0%}, "
                print(f"    {share}{row['busy_percent']}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
