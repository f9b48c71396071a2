"""A recognition server while it is saturated: where the time of a batch goes, and whether memory stays flat."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from gpu_meter import GpuMeter
from recognition_bars import drift
from recognition_load import Clients
from recognition_parts import HEIGHT, SETTLE_S, Bench, load_of, note, server
from stage_clock import FOLDER_VARIABLE, read_clocks
from stage_process import pss_bytes

__all__ = ["busy", "soak"]

SOAK_SAMPLES = 60
# Until then memory may still grow: buffers find their size.
WARM_SHARE = 0.2
# The model that keeps a GPU busiest.
MODEL = "ppocrv5-mobile"
MODEL_WIDTH = 320


def busy(bench: Bench) -> None:
    """Saturate a server whose worker keeps time by CUDA events; on a GPU alone."""
    if not bench.on_gpu or MODEL not in bench.arguments.models:
        bench.say(f"busy: needs a GPU and {MODEL}")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        variables = {FOLDER_VARIABLE: str(folder)}
        front = stack.enter_context(server(bench, [MODEL], program="timed_server.py", variables=variables))
        meter = stack.enter_context(GpuMeter())
        load = load_of(bench, [front], MODEL, ((HEIGHT, MODEL_WIDTH),))
        clients = stack.enter_context(Clients(load))
        clients.measure(SETTLE_S)
        meter.take()
        sample = clients.measure(bench.arguments.seconds, lambda: read_clocks(folder))
        _, driver_share = meter.take()
    note(bench, "busy", sample)
    share = {name: spent_s / sample.seconds for name, spent_s in sample.spent_s.items()}
    bench.add("busy.share", share.pop("compute"))
    for name, value in share.items():
        bench.add(f"busy.{name}_share", value)
    if driver_share is not None:
        bench.add("busy.driver_share", driver_share)


def soak(bench: Bench, seconds: float) -> None:
    """Saturate one front for a while and watch memory."""
    model = MODEL if MODEL in bench.arguments.models else bench.arguments.models[0]
    host: list[float] = []
    device: list[float] = []
    with ExitStack() as stack:
        front = stack.enter_context(server(bench, [model]))
        clients = stack.enter_context(Clients(load_of(bench, [front], model, ())))
        meter = stack.enter_context(GpuMeter()) if bench.on_gpu else None
        pids = [front.pid, *front.workers]
        clients.measure(max(SETTLE_S, WARM_SHARE * seconds))
        crops, begun_s = 0, time.monotonic()
        for number in range(SOAK_SAMPLES):
            if meter is not None:
                meter.take()
            crops += clients.measure((1 - WARM_SHARE) * seconds / SOAK_SAMPLES).crops
            host.append(pss_bytes(pids) / 2**20)
            used_mib = meter.take()[0] if meter is not None else None
            if used_mib is not None:
                device.append(used_mib)
            if number % 10 == 9:
                bench.say(f"soak: {crops:,} crops, host {host[-1]:,.0f} MiB, device {(device or [0])[-1]:,.0f} MiB")
        bench.add("soak.per_s", crops / (time.monotonic() - begun_s))
        if [front.pid, *front.workers] != pids:
            raise SystemExit("soak: a worker was replaced")
    for name, samples in (("host", host), ("device", device)):
        if samples:
            bench.add(f"soak.{name}_mib", samples[-1])
            bench.add(f"soak.{name}_drift", drift(samples))
