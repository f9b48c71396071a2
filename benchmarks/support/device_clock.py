"""Times what a process sends to its CUDA device: each copy and each computation, by the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["DeviceClock"]

Step = Callable[[], None]


class DeviceClock:
    """Adds up what batches took since `take` was last called, in milliseconds."""

    def __init__(self) -> None:
        self._spent_ms = {"copy_in": 0.0, "compute": 0.0, "copy_out": 0.0, "wait": 0.0}

    def install(self) -> None:
        """Put the clock between the engine and its device; for the rest of this process."""
        from sluiceway_runtime.gpu.device import CudaDevice

        transfer = CudaDevice.transfer

        def timed(device: CudaDevice, copy_in: Step, compute: Step, copy_out: Step) -> Step:
            steps = {"copy_in": copy_in, "compute": compute, "copy_out": copy_out}
            marks: dict[str, tuple[Any, Any]] = {}
            wait = transfer(device, *(_marked(name, step, marks) for name, step in steps.items()))
            return lambda: self._wait(wait, marks)

        CudaDevice.transfer = timed  # type: ignore[assignment,method-assign]

    def take(self) -> dict[str, float]:
        """What came together since the last call."""
        spent_ms = self._spent_ms
        self._spent_ms = dict.fromkeys(spent_ms, 0.0)
        return spent_ms

    def _wait(self, wait: Step, marks: dict[str, tuple[Any, Any]]) -> None:
        begun_s = time.perf_counter()
        wait()
        self._spent_ms["wait"] += (time.perf_counter() - begun_s) * 1000
        for name, (begin, end) in marks.items():
            self._spent_ms[name] += begin.elapsed_time(end)


def _marked(name: str, step: Step, marks: dict[str, tuple[Any, Any]]) -> Step:
    def marked() -> None:
        import torch

        marks[name] = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        # On the stream that the engine has made the current one.
        marks[name][0].record()
        step()
        marks[name][1].record()

    return marked
