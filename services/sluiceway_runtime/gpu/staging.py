"""Batches on their way to a device and back, each in buffers of its own, of which there is a ring."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sluiceway_runtime.gpu.device import Device, Step
from sluiceway_runtime.gpu.shapes import Layout

__all__ = ["Arrays", "Graph", "Run", "Staging", "StagingRing"]

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A shape that is ready: what repeats it, and where its results come to lie on the device.

    It holds what was recorded, too: a CUDA graph reads weights and constants where they lay then, and keeps none.
    """

    step: Step
    recorded: Callable[..., Any]
    inputs: Layout
    outputs: Layout
    results: Any
    cost_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Staging:
    """Buffers of one batch on its way, on both sides, large enough for every shape."""

    host_in: Any
    device_in: Any
    device_out: Any
    host_out: Any


# Starts a batch that lies in its buffers, and returns what waits for its end. Both may raise.
Transfer = Callable[[Graph, Staging], Callable[[], None]]


class Run:
    """One batch on its way: fill `inputs`, `launch`, then `result`.

    A fault after which the device answers nothing but errors to this process is raised as `WorkerBroken`.

    Attributes:
        inputs: views of pinned memory to be filled, as the shape says. They hold what an earlier batch left there.
    """

    def __init__(self, ring: StagingRing, graph: Graph, staging: Staging) -> None:
        self._ring = ring
        self._graph = graph
        self._staging: Staging | None = staging
        self._wait: Callable[[], None] | None = None
        self._result: Arrays | None = None
        self._fault: Exception | None = None
        self.inputs: Arrays = graph.inputs.arrays(staging.host_in.numpy())

    def launch(self) -> None:
        """Start it; returns without waiting for the device.

        Raises:
            torch.OutOfMemoryError: only of a shape that could not be captured.
        """
        assert self._staging is not None, "a run is launched once"
        self._wait = self._ring.launch(self, self._graph, self._staging)

    def result(self) -> Arrays:
        """Wait for the end, and return the outputs, as arrays of their own.

        Raises:
            RuntimeError: the device failed on this batch.
        """
        self.finish()
        if self._fault is not None:
            raise self._fault
        assert self._result is not None
        return self._result

    def finish(self) -> None:
        """Wait for the end, keep what came of it, and give the buffers back: also those of a batch that failed."""
        if self._staging is None:
            return
        assert self._wait is not None, "a run is launched first"
        try:
            self._wait()
            outputs = self._graph.outputs.arrays(self._staging.host_out.numpy())
            self._result = tuple(output.copy() for output in outputs)
        except Exception as error:  # whoever asks for the result is told, and nobody else
            self._fault = error
        self.forget()

    def forget(self) -> None:
        """Give the buffers back; no more can be done with it."""
        if self._staging is not None:
            staging, self._staging, self.inputs = self._staging, None, ()
            self._ring.give_back(self, staging)


class StagingRing:
    """The buffers of the batches that may be on their way at once.

    Args:
        device: holds them, and the host's side of them.
        graphs: that they have to be large enough for.
        depth: how many batches.
        transfer: starts one.
    """

    def __init__(self, device: Device, graphs: Collection[Graph], depth: int, transfer: Transfer) -> None:
        size_in = max(graph.inputs.size_bytes for graph in graphs)
        size_out = max(graph.outputs.size_bytes for graph in graphs)
        self._free = [
            Staging(
                device.host_buffer(size_in),
                device.buffer(size_in),
                device.buffer(size_out),
                device.host_buffer(size_out),
            )
            for _ in range(depth)
        ]
        self._transfer = transfer
        self._on_their_way: deque[Run] = deque()
        self._begun: Run | None = None

    def begin(self, graph: Graph) -> Run:
        """Give buffers out; see `CompiledModule.begin`."""
        if self._begun is not None:
            self._begun.forget()
        if not self._free:
            self._on_their_way[0].finish()
        self._begun = Run(self, graph, self._free.pop())
        return self._begun

    # The following are for runs alone.

    def launch(self, run: Run, graph: Graph, staging: Staging) -> Callable[[], None]:
        """Start a batch, and return what waits for it."""
        assert run is self._begun, "the one that was begun last"
        wait = self._transfer(graph, staging)
        self._on_their_way.append(run)
        self._begun = None
        return wait

    def give_back(self, run: Run, staging: Staging) -> None:
        """These buffers are free."""
        if run is self._begun:
            self._begun = None
        else:
            self._on_their_way.remove(run)
        self._free.append(staging)
