"""The parts of the recognition benchmark that time something: each adds figures by name."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import page_crops
from gpu_meter import GpuMeter
from recognition_load import Clients, Load, Sample, cpu_s, main_thread_s
from recognition_servers import INSTANT, Server
from stage_process import environment

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb
from sluiceway.recognition.v1 import recognition_pb2_grpc

__all__ = ["START_TIMEOUT_S", "Bench", "OutOfTime", "bare", "baseline", "load_of", "note", "over_grpc", "say", "server"]

# With empty caches everything is compiled first.
START_TIMEOUT_S = 420.0
HEIGHT = 48
# The loops repeat themselves exactly; they need less time than a server does.
LOOP_S = 1.5
LATENCY_CALLS, LATENCY_WARM_UP = 300, 30
# What a first measurement finds cold, such as the clients' connections.
SETTLE_S = 1.0


class OutOfTime(Exception):
    """What comes next would outlast `--minutes`."""


@dataclass
class Bench:
    """Options, and the figures found so far.

    Attributes:
        end_s: by the monotonic clock.
        unfinished: parts that failed or for which time ran out, and why.
        meter: of the GPU, while servers are measured.
    """

    arguments: argparse.Namespace
    end_s: float
    on_gpu: bool
    figures: dict[str, float] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    begun_s: float = field(default_factory=time.monotonic)
    meter: GpuMeter | None = None

    def say(self, text: str) -> None:
        """Report progress at once."""
        say(f"{time.monotonic() - self.begun_s:6.1f} s  {text}")

    def add(self, name: str, value: float) -> None:
        """Note a figure and show it."""
        self.figures[name] = value
        self.say(f"{name} = {value:,.3f}")

    def left_s(self, what: str) -> float:
        """Seconds until `end_s`.

        Raises:
            OutOfTime: too few to measure anything.
        """
        left = self.end_s - time.monotonic()
        if left < self.arguments.seconds + SETTLE_S:
            raise OutOfTime(what)
        return left


def say(text: str) -> None:
    """Report progress at once, beside the results."""
    print(text, file=sys.stderr, flush=True)


# The model alone.


def bare(bench: Bench) -> None:
    """Time the model without a server, in a process of its own for each model."""
    for model in bench.arguments.models:
        for name, value in _loop(bench, "--model", model):
            bench.add(f"bare.{model}.{name}", value)


def baseline(bench: Bench) -> None:
    """Time the converted graph, on a GPU."""
    for model in bench.arguments.models if bench.on_gpu else ():
        for name, value in _loop(bench, "--model", model, "--converted"):
            bench.add(f"baseline.{model}.{name}", value)


def _loop(bench: Bench, *options: str) -> Iterator[tuple[str, float]]:
    """Run the loop, and give its figures as it finds them."""
    arguments = bench.arguments
    command = [
        sys.executable, str(Path(__file__).parent / "recognition_bare.py"), *options, "--device", arguments.device,
        "--widths", ",".join(map(str, arguments.widths)), "--batches", ",".join(map(str, arguments.batches)),
        "--seconds", str(min(arguments.seconds, LOOP_S)), "--pages", str(arguments.pages.absolute()),
        "--compiled", str(arguments.compiled),
    ]  # fmt: skip
    left_s = bench.left_s(" ".join(options))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(Path("build")))
    assert process.stdout is not None
    killer = threading.Timer(left_s, process.kill)
    killer.start()
    try:
        for line in process.stdout:
            yield from json.loads(line).items()
        if process.wait() != 0:
            if time.monotonic() > bench.end_s - 1:
                raise OutOfTime(" ".join(options))
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


# Over gRPC.


def server(
    bench: Bench, models: Sequence[str], *, program: str = "", variables: dict[str, str] | None = None
) -> Server:
    """A front, not started yet, with the instant recogniser beside the models."""
    # Room for what the clients keep in flight: what is measured is a full server, not one that refuses.
    load = bench.arguments.clients * bench.arguments.in_flight * bench.arguments.crops
    settings = {"queue_items": str(max(256, 2 * load)), "queue_bytes": str(2**30)}
    if bench.arguments.served_compiled is not None:
        settings["compiled_graphs"] = str(bench.arguments.served_compiled)
    what = f"a server of {', '.join(models)}"
    bench.say(f"starting {what}")
    buckets = bench.arguments.buckets
    given = {"buckets": list(buckets), "max_width": buckets[-1]} if buckets else {}
    return Server(
        [*({"name": model, **given} for model in models), INSTANT],
        device=bench.arguments.device,
        start_timeout_s=min(START_TIMEOUT_S, bench.left_s(f"starting {what}")),
        settings=settings,
        program=program,
        variables=variables,
        progress=bench.say,
    )


def over_grpc(bench: Bench, wanted: Sequence[str]) -> None:
    """Measure what is served, with more and more fronts on one device."""
    arguments = bench.arguments
    with ExitStack() as stack:
        if bench.on_gpu:
            bench.meter = stack.enter_context(GpuMeter())
        fronts: list[Server] = []
        for count in arguments.fronts:
            while len(fronts) < count:
                fronts.append(stack.enter_context(server(bench, arguments.models)))
                bench.add(f"start.{len(fronts)}.s", fronts[-1].start_s)
                if len(fronts) == 1:
                    _with_the_first(bench, wanted, fronts)
            for width in arguments.widths:
                size = ((HEIGHT, width),)
                if "wire" in wanted:
                    note(bench, f"wire.{width}.{count}", _rate(bench, fronts, "instant", size))
                for model in arguments.models if "served" in wanted else ():
                    note(bench, f"served.{model}.{width}.{count}", _rate(bench, fronts, model, size))


def _with_the_first(bench: Bench, wanted: Sequence[str], fronts: Sequence[Server]) -> None:
    """What does not depend on the number of fronts."""
    arguments = bench.arguments
    if "bare" in arguments.parts and "served" in wanted and not bench.on_gpu:
        _beside_the_loop(bench, fronts)
    for model in (*arguments.models, "instant") if "latency" in wanted else ():
        _latency(bench, fronts[0], model)
    if "mixed" in wanted:
        mean = round(statistics.mean(crop.shape[1] for crop in page_crops.load(arguments.pages)))
        bench.add("mixed.mean_width_px", mean)
        for model in arguments.models:
            _mixed(bench, fronts, model, mean)


def _mixed(bench: Bench, fronts: Sequence[Server], model: str, mean_width_px: int) -> None:
    """Crops as they are and crops of their mean width, in turns: a front is not equally fast from moment to moment."""
    turns = [
        (_rate(bench, fronts, model, ()), _rate(bench, fronts, model, ((HEIGHT, mean_width_px),)))
        for _ in range(bench.arguments.rounds)
    ]
    ratios = [mixed.crops_per_s / uniform.crops_per_s for mixed, uniform in turns]
    bench.say(f"mixed over uniform, turn by turn: {' '.join(f'{ratio:.3f}' for ratio in ratios)}")
    # The turn in the middle, as it was, so that the figures told are those of the ratio.
    mixed, uniform = turns[ratios.index(statistics.median_low(ratios))]
    note(bench, f"mixed.{model}", mixed)
    bench.add(f"mixed.{model}.uniform_per_s", uniform.crops_per_s)


def _beside_the_loop(bench: Bench, fronts: Sequence[Server]) -> None:
    """On a CPU: the loop on all cores and the server in turns, so that a slow moment of the machine meets both."""
    for model in bench.arguments.models:
        found: dict[str, list[float]] = {}
        for _ in range(bench.arguments.rounds):
            loop = dict(_loop(bench, "--model", model, "--cores"))
            for width in bench.arguments.widths:
                sample = _rate(bench, fronts, model, ((HEIGHT, width),))
                alone = loop[f"{width}.cores.per_s"]
                spent_s = sample.spent_s["front"] + sample.spent_s["worker"]
                figures = {
                    f"bare.{model}.{width}.cores.per_s": alone,
                    f"bare.{model}.{width}.cores.cpu_us": loop[f"{width}.cores.cpu_us"],
                    f"served.{model}.{width}.1.per_s": sample.crops_per_s,
                    f"served.{model}.{width}.1.cpu_us": spent_s * 1e6 / max(sample.crops, 1),
                    f"served_to_bare.{model}.{width}": sample.crops_per_s / alone,
                }
                for name, value in figures.items():
                    found.setdefault(name, []).append(value)
        for name, values in found.items():
            bench.add(name, statistics.median(values))


def load_of(bench: Bench, fronts: Sequence[Server], model: str, sizes: tuple[tuple[int, int], ...]) -> Load:
    """Crops of real words; `sizes` empty sends them as they are."""
    arguments = bench.arguments
    return Load(
        targets=tuple(front.address for front in fronts),
        sizes=sizes,
        crops=arguments.crops,
        in_flight=arguments.in_flight,
        clients=arguments.clients * len(fronts),
        model=model,
        pages=arguments.pages.absolute() if arguments.pages.is_file() else None,
    )


def _rate(bench: Bench, fronts: Sequence[Server], model: str, sizes: tuple[tuple[int, int], ...]) -> Sample:
    """With the share of the time that the GPU was busy, as its driver says."""
    bench.left_s(model)
    with Clients(load_of(bench, fronts, model, sizes)) as clients:
        clients.measure(SETTLE_S)
        if bench.meter is not None:
            bench.meter.take()
        sample = clients.measure(bench.arguments.seconds, _cpu_meter(fronts))
        return sample if bench.meter is None else replace(sample, gpu_share=bench.meter.take()[1])


def _cpu_meter(fronts: Sequence[Server]) -> Callable[[], Mapping[str, float]]:
    workers = [pid for front in fronts for pid in front.workers]

    def meter() -> Mapping[str, float]:
        return {
            "front": sum(cpu_s(front.pid) for front in fronts),
            "front_loop": sum(main_thread_s(front.pid) for front in fronts),
            "worker": sum(map(cpu_s, workers)),
        }

    return meter


def note(bench: Bench, name: str, sample: Sample) -> None:
    """Add the rate of a sample, and the CPU time of a crop by side."""
    bench.add(f"{name}.per_s", sample.crops_per_s)
    for side, spent_s in sample.spent_s.items():
        bench.figures[f"{name}.{side}_us"] = spent_s * 1e6 / max(sample.crops, 1)
    if sample.gpu_share is not None:
        bench.add(f"{name}.gpu_share", sample.gpu_share)
    if sample.refused:
        bench.figures[f"{name}.refused"] = sample.refused


def _latency(bench: Bench, front: Server, model: str) -> None:
    """The median of one crop at a time, from a client that does nothing else."""
    pixels = bytes(HEIGHT * 320 * 3)
    crop = crop_pb2.Crop(id=0, raw=crop_pb2.RawImage(height=HEIGHT, width=320, data=pixels))
    if bench.arguments.pages.is_file():
        word = page_crops.fitted(page_crops.load(bench.arguments.pages)[:1], 320)[0]
        crop.raw.data = word.tobytes()
    request = pb.RecognizeRequest(options=pb.RecognizeOptions(model=model), crops=[crop])
    took = []
    with grpc.insecure_channel(front.address) as channel:
        ask = recognition_pb2_grpc.RecognitionServiceStub(channel).Recognize
        for _ in range(LATENCY_WARM_UP + LATENCY_CALLS):
            begun_s = time.perf_counter()
            answers = list(ask(request, timeout=30))
            took.append((time.perf_counter() - begun_s) * 1000)
            if sum(len(answer.recognitions) for answer in answers) != 1:
                raise SystemExit(f"one crop got {answers}")
    took = sorted(took[LATENCY_WARM_UP:])
    bench.add(f"latency.server.{model}.ms", statistics.median(took))
    bench.figures[f"latency.server.{model}.p99_ms"] = took[round(0.99 * len(took)) - 1]
