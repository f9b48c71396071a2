"""How fast is recognition, and what does the server around the model cost? All figures of one run, held against bars.

    make bench-recognition
    python benchmarks/recognition.py --parts bare,served,wire --models ppocrv6-tiny --seconds 3
    python benchmarks/recognition.py --soak 300

Parts, in the order in which they run:

    bare      the model in a loop, through the backend that the server uses, by batch and width; on a GPU inputs are
              resident and rotated, and the time is the device's
    baseline  the converted ONNX graph (GPU): eager, as it is served by others, and with its shapes folded
    served    over gRPC: client processes, requests of 64 raw crops, all of one width, for each number of fronts
    wire      the same fronts, clients and messages, and a recogniser that costs nothing
    latency   one crop alone, over loopback
    mixed     crops of three pages as they are, and as many crops that all have their mean width, in turns
    busy      the share of the time in which the device computes behind one front, and where the rest goes (GPU)
    soak      saturation for `--soak` seconds: memory of the device and of the processes after the first fifth

Run it on a quiet machine. It works from a checkout, installed or not, and wants grpcio, protobuf, pydantic, aiohttp,
prometheus-client and what the backend needs. Weights come out of the cache (`sluiceway models pull`), pages out of
out/page-crops.npz (benchmarks/support/page_crops.py makes it).

Exits 1 if a figure misses its bar or was asked for and not measured, if a part failed, or if time ran out before it was
done.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestrator"))
sys.path.insert(0, str(Path(__file__).parents[1] / "services"))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent / "support"))

import page_crops
import recognition_parts as parts
import recognition_saturated as saturated
from gpu_meter import gpu_name
from recognition_bars import Asked, Verdict, bars, judge, table

PARTS = ("bare", "baseline", "served", "wire", "latency", "mixed", "busy", "soak")
GPU_MODELS = ("ppocrv5-mobile", "ppocrv6-tiny")
CPU_MODELS = ("ppocrv6-tiny",)
# After `--minutes`, for servers to stop; then whatever still runs is broken off.
GRACE_S = 60


def words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words(text))


def parse(gpu: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=words, default=PARTS)
    parser.add_argument("--models", type=words, default=GPU_MODELS if gpu else CPU_MODELS)
    parser.add_argument("--device", default="cuda:0" if gpu else "cpu")
    parser.add_argument("--widths", type=numbers, default=(160, 320))
    parser.add_argument("--batches", type=numbers, default=(1, 8, 32, 128) if gpu else (1, 8))
    parser.add_argument("--compiled", type=int, default=3, help="graphs that the bare loop compiles on a GPU")
    parser.add_argument("--served-compiled", type=int, help="graphs that the servers compile; by default theirs")
    parser.add_argument("--buckets", type=numbers, default=(), help="widths of the servers; by default theirs")
    parser.add_argument("--fronts", type=numbers, default=(1, 2) if gpu else (1,))
    parser.add_argument("--clients", type=int, default=4 if gpu else 1, help="processes for each front")
    # On a GPU as many as keep the queue full while others are on their way: what is measured is a full server.
    parser.add_argument("--in-flight", type=int, default=12 if gpu else 3, help="requests of each client")
    parser.add_argument("--crops", type=int, default=64, help="in a request")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of mixed and uniform; on a CPU of server and loop")
    parser.add_argument("--minutes", type=float, default=8, help="for everything but the soak; then it ends unfinished")
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--pages", type=Path, default=page_crops.DEFAULT_FILE)
    parser.add_argument("--json", type=Path, default=Path("out/bench-recognition.json"))
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no parts named {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def stop(_signal: int, _frame: object) -> None:
    raise TimeoutError("the time of the whole run is over")


def run(bench: parts.Bench, arguments: argparse.Namespace) -> None:
    """Measure. A part that fails is told, and the next one runs; what was measured stays."""
    wanted = [part for part in PARTS if part in arguments.parts and (part != "soak" or arguments.soak)]
    over_grpc = tuple(part for part in wanted if part in ("served", "wire", "latency", "mixed"))
    steps: dict[str, Callable[[], None]] = {
        "bare": lambda: parts.bare(bench),
        "baseline": lambda: parts.baseline(bench),
        ", ".join(over_grpc): lambda: parts.over_grpc(bench, over_grpc),
        "busy": lambda: saturated.busy(bench),
        "soak": lambda: saturated.soak(bench, arguments.soak),
    }
    signal.signal(signal.SIGALRM, stop)
    for name, step in steps.items():
        if not set(name.split(", ")) <= set(wanted):
            continue
        if name == "soak":
            bench.end_s = time.monotonic() + arguments.soak + parts.START_TIMEOUT_S
        signal.alarm(max(1, round(bench.end_s - time.monotonic() + GRACE_S)))
        try:
            step()
        except (Exception, SystemExit) as error:
            signal.alarm(0)
            bench.unfinished.append(f"{name}: {error or type(error).__name__}")
            bench.say(f"UNFINISHED {bench.unfinished[-1]}")
            if not isinstance(error, parts.OutOfTime | SystemExit):
                traceback.print_exc()
    signal.alarm(0)


def main() -> int:
    gpu = gpu_name()
    arguments = parse(gpu)
    if arguments.device == "cpu":
        gpu = ""
    if "mixed" in arguments.parts and not arguments.pages.is_file():
        parts.say(f"making {arguments.pages}")
        page_crops.make((), arguments.pages)
    bench = parts.Bench(arguments, end_s=time.monotonic() + arguments.minutes * 60, on_gpu=bool(gpu))
    run(bench, arguments)
    measured = [part for part in arguments.parts if part != "soak" or arguments.soak]
    asked = Asked(measured, arguments.models, arguments.widths, arguments.batches, arguments.fronts)
    found = [
        judge(bar, bench.figures, device=gpu, asked=asked)
        for bar in bars(arguments.widths, arguments.fronts, arguments.models)
    ]
    print("\n" + "\n".join(table(bench.figures, found)))
    passed = not bench.unfinished and all(verdict.passed is not False for verdict in found)
    write(arguments, bench, found, gpu, passed=passed)
    for text in bench.unfinished:
        print(f"unfinished: {text.splitlines()[0]}")
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


def write(
    arguments: argparse.Namespace, bench: parts.Bench, verdicts: list[Verdict], gpu: str, *, passed: bool
) -> None:
    report = {
        "machine": {"gpu": gpu, "cores": len(os.sched_getaffinity(0)), "processor": processor()},
        "options": {key: str(value) for key, value in vars(arguments).items()},
        "figures": bench.figures,
        "bars": [
            {
                "name": item.bar.name, "value": item.value, "must_be": f"{item.bar.compare} {item.bar.limit:g}",
                "passed": item.passed, "note": item.note,
            }
            for item in verdicts
        ],
        "unfinished": bench.unfinished,
        "passed": passed,
    }  # fmt: skip
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """The CPU by name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
