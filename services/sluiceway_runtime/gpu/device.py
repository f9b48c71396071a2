"""A device as `CompiledModule` uses it: buffers, the way there and back, and a step that repeats itself.

On CUDA each batch passes three streams: copy in, compute, copy out. So the copies of one batch run beside the
computation of another. On the CPU the same calls do the same one after the other.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from sluiceway_runtime.gpu.memory import budget_bytes

__all__ = ["CpuDevice", "CudaDevice", "Device", "open_device"]

log = logging.getLogger(__name__)

Step = Callable[[], None]
# Before a capture, so that libraries have chosen their kernels and taken their workspaces.
WARM_UP_RUNS = 3
TIMED_RUNS = 5


class Device(Protocol):
    """What computes.

    Attributes:
        torch: the device as torch names it.
        kind: what compiled code depends on.
    """

    torch: torch.device
    kind: str

    def host_buffer(self, size: int) -> Any:
        """Bytes of host memory that copies can be made from and to."""

    def buffer(self, size: int) -> Any:
        """Bytes of device memory."""

    def record(self, step: Step) -> Step:
        """Run a step until it is warm, and return what repeats it with the least effort."""

    def transfer(self, copy_in: Step, compute: Step, copy_out: Step) -> Callable[[], None]:
        """Start the three, one after the other, and return what waits for the last."""

    def time_ms(self, step: Step) -> float:
        """Time of a recorded step by itself."""

    def peak_bytes(self, step: Step) -> int:
        """Most device memory that a step takes."""

    def available_bytes(self) -> int:
        """What is left of this worker's share of the device."""

    def release(self) -> None:
        """Give back what is not in use, after running out of memory."""

    def is_lost(self) -> bool:
        """Whether it answers nothing but errors to this process, asked after a fault."""


class CpuDevice:
    """The CPU; see `Device`."""

    def __init__(self) -> None:
        self.torch = torch.device("cpu")
        self.kind = f"cpu {torch.backends.cpu.get_cpu_capability()}"

    def host_buffer(self, size: int) -> torch.Tensor:
        """Plain memory."""
        return torch.zeros(size, dtype=torch.uint8)

    buffer = host_buffer

    def record(self, step: Step) -> Step:
        """Run it once."""
        step()
        return step

    def transfer(self, copy_in: Step, compute: Step, copy_out: Step) -> Callable[[], None]:
        """Do all of it now."""
        copy_in()
        compute()
        copy_out()
        return _nothing

    def time_ms(self, step: Step) -> float:
        """One run."""
        begun_s = time.perf_counter()
        step()
        return (time.perf_counter() - begun_s) * 1000

    def peak_bytes(self, step: Step) -> int:
        """Not measured: the system has its own ways with memory."""
        step()
        return 0

    def available_bytes(self) -> int:
        """Not bounded."""
        return 2**62

    def release(self) -> None:
        """Nothing is held."""

    def is_lost(self) -> bool:
        """Never."""
        return False


class CudaDevice:
    """A CUDA device; see `Device`.

    Args:
        name: `cuda:0` and so on.
        workers: that share it. Each may take its part of the memory and no more, so that none starves another.
    """

    def __init__(self, name: str, workers: int) -> None:
        self.torch = torch.device(name)
        torch.cuda.set_device(self.torch)
        properties = torch.cuda.get_device_properties(self.torch)
        self.kind = f"{properties.name} sm_{properties.major}{properties.minor} cuda {torch.version.cuda}"
        free, total = torch.cuda.mem_get_info(self.torch)
        # The budget is of the process, which may have loaded another model before: what that holds is not lost to it.
        self._budget = budget_bytes(free + torch.cuda.memory_reserved(self.torch), total, workers)
        torch.cuda.set_per_process_memory_fraction(min(1.0, self._budget / total), self.torch)
        self._copy_in = torch.cuda.Stream(self.torch)
        self._compute = torch.cuda.Stream(self.torch)
        self._copy_out = torch.cuda.Stream(self.torch)
        # Graphs are replayed one after the other on one stream, so all may use the same memory for what they compute.
        self._graph_memory = torch.cuda.graph_pool_handle()
        torch.backends.cudnn.benchmark = False

    def host_buffer(self, size: int) -> torch.Tensor:
        """Pinned: the copy engine reads it while Python goes on."""
        return torch.zeros(size, dtype=torch.uint8, pin_memory=True)

    def buffer(self, size: int) -> torch.Tensor:
        """Device memory."""
        return torch.zeros(size, dtype=torch.uint8, device=self.torch)

    def record(self, step: Step) -> Step:
        """Capture it in a CUDA graph; one that cannot be captured (it synchronises, say) is repeated as it is."""
        torch.cuda.synchronize(self.torch)
        with torch.cuda.stream(self._compute):
            for _ in range(WARM_UP_RUNS):
                step()
        torch.cuda.synchronize(self.torch)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._graph_memory, stream=self._compute):
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize(self.torch)
            log.warning("a graph cannot be captured (%s): it runs step by step", str(error).splitlines()[0])
            return step
        replay: Step = graph.replay
        return replay

    def transfer(self, copy_in: Step, compute: Step, copy_out: Step) -> Callable[[], None]:
        """Enqueue all of it; returns at once."""
        with torch.cuda.stream(self._copy_in):
            copy_in()
            arrived = self._copy_in.record_event()
        with torch.cuda.stream(self._compute):
            self._compute.wait_event(arrived)
            compute()
            computed = self._compute.record_event()
        # Blocking: a waiting worker sleeps instead of keeping a core busy.
        done = torch.cuda.Event(blocking=True)
        with torch.cuda.stream(self._copy_out):
            self._copy_out.wait_event(computed)
            copy_out()
            done.record(self._copy_out)
        wait: Callable[[], None] = done.synchronize
        return wait

    def time_ms(self, step: Step) -> float:
        """Mean of a few runs by the device's own clock."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(self._compute):
            step()
            begin.record(self._compute)
            for _ in range(TIMED_RUNS):
                step()
            end.record(self._compute)
        end.synchronize()
        return float(begin.elapsed_time(end)) / TIMED_RUNS

    def peak_bytes(self, step: Step) -> int:
        """Of the second run; the first may load libraries."""
        with torch.cuda.stream(self._compute):
            step()
            torch.cuda.synchronize(self.torch)
            torch.cuda.reset_peak_memory_stats(self.torch)
            before = torch.cuda.memory_allocated(self.torch)
            step()
            torch.cuda.synchronize(self.torch)
        return int(torch.cuda.max_memory_allocated(self.torch) - before)

    def available_bytes(self) -> int:
        """What torch has not taken yet of the share of this worker."""
        return self._budget - int(torch.cuda.memory_allocated(self.torch))

    def release(self) -> None:
        """Free what no tensor holds."""
        gc.collect()
        torch.cuda.empty_cache()

    def is_lost(self) -> bool:
        """After a fault of its own a context repeats it at every call."""
        try:
            torch.cuda.synchronize(self.torch)
        except RuntimeError:
            return True
        return False


def open_device(name: str, workers: int = 1) -> Device:
    """The device of a name.

    Args:
        name: `cpu`, or `cuda:0` and so on.
        workers: that share it.

    Raises:
        RuntimeError: torch cannot use it.
    """
    return CpuDevice() if name == "cpu" else CudaDevice(name, workers)


def _nothing() -> None:
    """Everything is done already."""
