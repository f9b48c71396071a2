"""A recogniser in a loop, without any server: prints figures by name, a JSON object a line.

    python benchmarks/support/recognition_bare.py --model ppocrv6-tiny --device cpu --widths 160,320 --batches 1,8

On a CPU: `WIDTH.BATCH.per_s` and `WIDTH.1.ms` of one thread. With `--cores`, instead, `WIDTH.cores.per_s` of a process
on each core, all at once, and `WIDTH.cores.cpu_us`, the CPU time of a crop. On a GPU: see recognition_bare_gpu.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import statistics
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import page_crops
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sluiceway_recognition.plan import ModelPlan

__all__ = ["HEIGHT", "crops_of", "plan_of", "print_figures"]

HEIGHT = 48
CROPS = 256
START_TIMEOUT_S = 120.0


def plan_of(model: str, widths: Sequence[int]) -> ModelPlan:
    """What a server would tell its workers of a model of the registry."""
    from sluiceway_recognition.config import RecognitionConfig
    from sluiceway_recognition.front.resolve import plan_models
    from sluiceway_runtime import weights

    config = RecognitionConfig.model_validate({"models": [{"name": model, "buckets": widths, "max_width": widths[-1]}]})
    (plan,) = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    return plan


def backend_of(options: argparse.Namespace) -> Any:
    """The backend of a worker with one thread, compiled."""
    from sluiceway_recognition.worker.recognizer import load_model

    backend = load_model(plan_of(options.model, options.widths), "cpu", 1).backend
    backend.warm(options.widths)
    return backend


def crops_of(pages: Path, width: int) -> list[NDArray[np.uint8]]:
    """Words of a width; noise where there are no pages."""
    if pages.is_file():
        return page_crops.fitted(page_crops.load(pages)[:CROPS], width)
    chance = np.random.default_rng(1)
    return list(chance.integers(0, 256, (CROPS, HEIGHT, width, 3), dtype=np.uint8))


def print_figures(**figures: float) -> None:
    """Hand figures to who started this process."""
    print(json.dumps(figures), flush=True)


def rate(backend: Any, crops: Sequence[NDArray[np.uint8]], width: int, batch: int, seconds: float) -> float:
    """Crops a second."""
    done, start, begun_s = 0, 0, time.perf_counter()
    while time.perf_counter() - begun_s < seconds:
        backend.launch(crops[start : start + batch], width)()
        done += len(crops[start : start + batch])
        start = (start + batch) % len(crops)
    return done / (time.perf_counter() - begun_s)


def one_alone_ms(backend: Any, crops: Sequence[NDArray[np.uint8]], width: int, seconds: float) -> float:
    """Median time of a crop by itself, from pixels to results in the host's memory."""
    took: list[float] = []
    begun_s = time.perf_counter()
    while time.perf_counter() - begun_s < seconds or len(took) < 20:
        start_s = time.perf_counter()
        backend.launch([crops[len(took) % len(crops)]], width)()
        took.append((time.perf_counter() - start_s) * 1000)
    return statistics.median(took)


# Crops and seconds of CPU time for each width, in one stretch.
Found = dict[int, tuple[float, float]]


def on_a_core(options: argparse.Namespace, core: int, barrier: Barrier, results: Queue[Found]) -> None:
    """One of the processes that share the machine: pinned, each computing as fast as it can."""
    os.sched_setaffinity(0, {core})
    backend = backend_of(options)
    found = {}
    for width in options.widths:
        crops = crops_of(options.pages, width)
        barrier.wait(START_TIMEOUT_S)
        begun_s = time.process_time()
        per_s = rate(backend, crops, width, max(options.batches), options.seconds)
        found[width] = per_s, (time.process_time() - begun_s) / options.seconds
    results.put(found)


def on_all_cores(options: argparse.Namespace) -> None:
    """A process a core, all at once."""
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(cores)), context.Queue()
    processes = [
        context.Process(target=on_a_core, args=(options, core, barrier, results), daemon=True) for core in cores
    ]
    for process in processes:
        process.start()
    try:
        found = [collect(results, processes) for _ in cores]
    finally:
        for process in processes:
            process.kill()
            process.join()
    for width in options.widths:
        per_s, busy = (sum(each[width][part] for each in found) for part in (0, 1))
        print_figures(**{f"{width}.cores.per_s": per_s, f"{width}.cores.cpu_us": busy / per_s * 1e6})


def collect(results: Queue[Found], processes: Sequence[BaseProcess]) -> Found:
    """What one of the processes found."""
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise SystemExit("a process of the loop failed") from None


def on_cpu(options: argparse.Namespace) -> None:
    """Figures of one thread."""
    backend = backend_of(options)
    for width in options.widths:
        crops = crops_of(options.pages, width)
        for batch in options.batches:
            print_figures(**{f"{width}.{batch}.per_s": rate(backend, crops, width, batch, options.seconds)})
        print_figures(**{f"{width}.1.ms": one_alone_ms(backend, crops, width, options.seconds)})


def main() -> None:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split(",")))

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--widths", type=numbers, default=(160, 320))
    parser.add_argument("--batches", type=numbers, default=(1, 8))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--pages", type=Path, default=page_crops.DEFAULT_FILE)
    parser.add_argument("--compiled", type=int, default=3, help="graphs, on a GPU: the first that a server compiles")
    parser.add_argument("--cores", action="store_true", help="a process on each core")
    parser.add_argument("--converted", action="store_true", help="the ONNX graph as torch runs it, on a GPU")
    options = parser.parse_args()
    if options.cores:
        on_all_cores(options)
    elif options.device == "cpu":
        on_cpu(options)
    else:
        import recognition_bare_gpu

        recognition_bare_gpu.measure(options)


if __name__ == "__main__":
    main()
