"""A recogniser in a loop on a GPU: through the backend that the server uses, or as the converted graph.

Through the backend, `--compiled` of whose graphs are compiled, the rest as torch computes them, as in a server:
`WIDTH.BATCH.per_s` and `.ms` by the device's clock, inputs resident and rotated; `WIDTH.BATCH.fed_per_s` with
pixels copied in and results copied out, all overlapping; and `WIDTH.1.call_ms`, the median from pixels in the host's
memory to results there, one crop at a time.

The converted graph: `WIDTH.BATCH.KIND_per_s` and `_ms`, KIND being `eager` or `graph` (captured), the shapes folded.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from recognition_bare import HEIGHT, crops_of, plan_of, print_figures
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.backends.torch import TorchBackend
from sluiceway_recognition.nets.own_networks import OnnxNet

__all__ = ["measure"]

WARM_UP = 10
# Different inputs in turn; also batches on their way at once.
SETS = 3
# Steps enqueued before the host waits: it is never far ahead of the device, and the device never waits for it.
STEPS = 50


def measure(options: argparse.Namespace) -> None:
    """Print the figures."""
    if options.converted:
        _converted(options)
    else:
        _through_the_backend(options)


def _through_the_backend(options: argparse.Namespace) -> None:
    settings = GraphSettings(batches=options.batches, compiled=options.compiled, depth=SETS)
    backend = TorchBackend(plan_of(options.model, options.widths), options.device, 4, settings)
    begun_s = time.perf_counter()
    backend.warm(options.widths)
    print_figures(ready_s=time.perf_counter() - begun_s)
    for width in options.widths:
        crops = crops_of(options.pages, width)
        for batch in options.batches:
            ms = _device_ms(backend, crops, batch, width, options.seconds)
            print_figures(**{f"{width}.{batch}.per_s": batch * 1000 / ms, f"{width}.{batch}.ms": ms})
            print_figures(**{f"{width}.{batch}.fed_per_s": _fed(backend, crops, batch, width, options.seconds / 2)})
        if 1 in options.batches:
            print_figures(**{f"{width}.1.call_ms": _alone_ms(backend, crops, width, options.seconds)})


def _device_ms(backend: TorchBackend, crops: Any, batch: int, width: int, seconds: float) -> float:
    """Time of a batch. The backend's own graph and input, which nothing else of it lets one repeat by itself."""
    module, shape = backend._module, backend._shapes[batch, width]  # noqa: SLF001
    graph, static = module._graphs[shape], module._static_in  # noqa: SLF001
    sets = []
    for number in range(SETS):
        run = module.begin(shape)
        _fill(run, crops, batch, width, number)
        run.launch()
        run.result()
        sets.append(static.clone())
    return _time_ms(graph.step, static, sets, seconds)


def _fed(backend: TorchBackend, crops: Any, batch: int, width: int, seconds: float) -> float:
    """Crops a second by the wall clock, as many batches on their way as the engine takes."""
    module, shape = backend._module, backend._shapes[batch, width]  # noqa: SLF001
    flying: list[Any] = []
    filled, done, begun_s = 0, 0, time.perf_counter()
    while time.perf_counter() - begun_s < seconds:
        if len(flying) == SETS:
            flying.pop(0).result()
            done += batch
        run = module.begin(shape)
        if filled < SETS:  # later on, each staging buffer holds words already
            _fill(run, crops, batch, width, filled)
            filled += 1
        run.launch()
        flying.append(run)
    took_s = time.perf_counter() - begun_s
    for run in flying:
        run.result()
    return done / took_s


def _fill(run: Any, crops: Any, batch: int, width: int, number: int) -> None:
    pixels, widths = run.inputs
    for row in range(batch):
        pixels[row] = crops[(number * batch + row) % len(crops)]
    widths[:] = width


def _alone_ms(backend: TorchBackend, crops: Any, width: int, seconds: float) -> float:
    took: list[float] = []
    begun_s = time.perf_counter()
    while time.perf_counter() - begun_s < seconds or len(took) < 100:
        start_s = time.perf_counter()
        backend.launch([crops[len(took) % len(crops)]], width)()
        took.append((time.perf_counter() - start_s) * 1000)
    return statistics.median(took[WARM_UP:])


def _converted(options: argparse.Namespace) -> None:
    path = plan_of(options.model, options.widths).weights
    assert path is not None
    device, width = torch.device(options.device), options.widths[-1]
    torch.cuda.set_device(device)
    for batch in sorted({options.batches[0], options.batches[-1]}):
        sizes = (batch, 3, HEIGHT, width)
        module = OnnxNet(path, None).module(sizes, device, torch.float16)
        sets = [torch.rand(sizes, device=device, dtype=torch.float16) * 2 - 1 for _ in range(SETS)]
        static = sets[0].clone()

        def step(module: Any = module, static: Any = static) -> None:
            # As the server reads it: the best class of each step, and its probability.
            module(static).float().max(dim=-1)

        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            kinds: dict[str, Callable[[], None]] = {"eager": step}
            step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                step()
            kinds["graph"] = graph.replay
            for kind, action in kinds.items():
                ms = _time_ms(action, static, sets, options.seconds)
                name = f"{width}.{batch}.{kind}"
                print_figures(**{f"{name}_per_s": batch * 1000 / ms, f"{name}_ms": ms})


def _time_ms(step: Callable[[], Any], static: Any, sets: list[Any], seconds: float) -> float:
    """Mean time of a step by the device's clock, each on another input."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    spent_ms, done, begun_s = 0.0, 0, time.perf_counter()
    with torch.inference_mode():
        for _ in range(WARM_UP):
            step()
        while time.perf_counter() - begun_s < seconds:
            begin.record()
            for number in range(STEPS):
                static.copy_(sets[number % len(sets)])
                step()
            end.record()
            end.synchronize()
            spent_ms += begin.elapsed_time(end)
            done += STEPS
    return spent_ms / done
