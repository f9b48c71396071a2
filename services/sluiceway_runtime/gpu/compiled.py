"""A module with a graph for each shape, fed through a ring of staging buffers: what GPU backends are made of."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from sluiceway_runtime.gpu import builder, compiler, memory
from sluiceway_runtime.gpu.artefacts import Artefacts
from sluiceway_runtime.gpu.device import Device, open_device
from sluiceway_runtime.gpu.recipe import Maker, Recipe
from sluiceway_runtime.gpu.shapes import ArraySpec, Layout, Shape
from sluiceway_runtime.gpu.staging import Arrays, Graph, Run, Staging, StagingRing
from sluiceway_runtime.pool.handler import WorkerBroken
from sluiceway_runtime.ready_graphs import count_graph

__all__ = ["CompiledModule"]

log = logging.getLogger(__name__)


class CompiledModule:
    """A torch module with static shapes: compiled, captured, and fed so that copies overlap the computation.

    Not safe for several threads at once.

    Args:
        recipe: makes the module.
        name: for logs and the names of artefacts.
        device: `cpu`, `cuda:0` and so on. On the CPU nothing is captured or pinned; the rest is the same.
        cache: folder of artefacts, such as `weights.cache_folder() / "gpu"`.
        depth: batches that may be on their way at once, each with its staging buffers.
        workers_on_device: that share the memory of the device.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        name: str,
        device: str,
        cache: Path,
        depth: int = 3,
        workers_on_device: int = 1,
    ) -> None:
        self.name = name
        self._recipe = recipe
        self._device: Device = open_device(device, workers_on_device)
        self._artefacts = Artefacts(
            cache, name, {**recipe.facts(), "torch": torch.__version__, "device": self._device.kind}
        )
        self._depth = depth
        self._make: Maker | None = None
        self._graphs: dict[Shape, Graph] = {}
        self._ring: StagingRing | None = None

    # Getting ready

    def prepare(self, shapes: Sequence[Shape], compiled: Iterable[Shape] | None = None) -> tuple[Shape, ...]:
        """Make every shape ready: compile what is not in the cache, capture, and run each.

        Args:
            shapes: wanted, one or more.
            compiled: which of them are compiled; the rest run as torch computes them. None compiles all on CUDA and
                none on the CPU.

        Returns:
            Those that are ready, in the order given. Shapes that do not fit into the memory are left out, with a
            warning; the smallest is always among them.

        Raises:
            torch.OutOfMemoryError: not even the smallest fits.
            Exception: whatever the recipe raises.
        """
        assert not self._graphs, "a module is prepared once"
        begun_s = time.perf_counter()
        with torch.inference_mode():
            self._make = self._recipe.make(self._device.torch)
            kept = self._fitting(shapes)
            wanted = set(kept if self._device.torch.type == "cuda" else ()) if compiled is None else set(compiled)
            packages = self._packages([shape for shape in kept if shape in wanted])
            # Results of one shape are read before the next one runs, so all read their inputs from one place.
            static_in = self._device.buffer(max(Layout(shape.inputs).size_bytes for shape in kept))
            smallest = min(kept, key=lambda shape: shape.size_bytes)
            for shape in sorted(kept, key=lambda shape: -shape.size_bytes):  # the largest takes the memory for all
                try:
                    self._graphs[shape] = self._ready(shape, static_in, packages.get(shape))
                except torch.OutOfMemoryError:
                    if shape == smallest:
                        raise
                    log.warning("%s: %s does not fit into the memory of the device", self.name, shape.name)
                    self._device.release()
            self._static_in = static_in
            self._ring = StagingRing(self._device, self._graphs.values(), self._depth, self._transfer)
        self._artefacts.close()
        ready = tuple(shape for shape in shapes if shape in self._graphs)
        log.info("%s: %d graphs are ready after %.1f s", self.name, len(ready), time.perf_counter() - begun_s)
        return ready

    def cost_ms(self, shape: Shape) -> float:
        """Time that the device computes a shape, measured when it was made ready."""
        return self._graphs[shape].cost_ms

    def _fitting(self, shapes: Sequence[Shape]) -> Sequence[Shape]:
        """What fits, reckoned from two small shapes, before anything is compiled."""
        measured = []
        for shape in memory.probes(shapes) if self._device.torch.type == "cuda" else ():
            module, inputs = self._module(shape), compiler.blank_inputs(shape, self._device.torch)
            measured.append((shape, self._device.peak_bytes(lambda m=module, i=inputs: m(*i))))  # type: ignore[misc]
        self._device.release()
        kept = memory.fitting(shapes, measured, self._device.available_bytes())
        if left_out := [shape.name for shape in shapes if shape not in kept]:
            log.warning("%s: left out, as the device's memory is too small: %s", self.name, ", ".join(left_out))
        return kept

    def _packages(self, shapes: Sequence[Shape]) -> dict[Shape, Path]:
        """The compiled file of each shape; those that are missing or damaged are made first."""
        found = {shape: path for shape in shapes if (path := self._artefacts.find(shape)) is not None}
        if len(found) == len(shapes):
            return found
        if missing_tool := compiler.missing_tool():
            log.warning("%s: nothing is compiled, as %s; it computes at about half the speed", self.name, missing_tool)
            return found
        try:
            with self._artefacts.building():
                # Another worker may have built them while this one waited for its turn.
                found = {shape: path for shape in shapes if (path := self._artefacts.find(shape)) is not None}
                faults = self._build([shape for shape in shapes if shape not in found], len(shapes), len(found))
        except OSError as error:  # not even a temporary file can be made
            log.warning("%s: nothing is compiled (%s); it computes at about half the speed", self.name, error)
            return found
        if faults:
            log.warning(
                "%s: %d of %d graphs could not be compiled and compute at about half the speed; the first: %s",
                self.name,
                len(faults),
                len(shapes),
                next(iter(faults.values())),
            )
        return {shape: path for shape in shapes if (path := self._artefacts.find(shape)) is not None}

    def _build(self, missing: Sequence[Shape], total: int, done: int) -> dict[Shape, str]:
        if not missing:
            return {}
        log.info("%s: compiling %d graphs, once; later starts find them in the cache", self.name, len(missing))
        # The longest first, so that none is left over at the end.
        order = sorted(missing, key=lambda shape: -shape.size_bytes)
        drafts = {shape: self._artefacts.draft(shape) for shape in order}
        faults: dict[Shape, str] = {}
        lock, counted = threading.Lock(), done

        def built(shape: Shape, fault: str) -> None:
            nonlocal counted
            with lock:
                if not fault:
                    try:
                        self._artefacts.keep(shape, drafts[shape])
                    except OSError as error:  # a full disk, say; the builder goes on with the other graphs
                        fault = f"it cannot be kept: {error}"
                if fault:
                    faults[shape] = f"{shape.name}: {fault}"
                    return
                counted += 1
                log.info("%s: compiled %d of %d graphs (%s)", self.name, counted, total, shape.name)

        builder.build(self._recipe, str(self._device.torch), list(drafts.items()), built)
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
        return faults

    def _ready(self, shape: Shape, static_in: Any, package: Path | None) -> Graph:
        """Compile and capture; a package that is of no use is made again, once."""
        for may_build in (True, False):
            if package is None:
                break
            try:
                module, device = self._module(shape), self._device.torch
                graph = self._record(shape, static_in, compiler.load(package, module, shape, device))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a compiler may run into
                what_next = "is made again" if may_build else "is done without"
                log.warning("%s: %s cannot be used and %s: %s", self.name, package.name, what_next, _said(error))
                self._artefacts.discard(shape)
                package = self._packages([shape]).get(shape) if may_build else None
            else:
                count_graph("compiled")
                return graph
        count_graph("plain")
        return self._record(shape, static_in, self._module(shape))

    def _record(self, shape: Shape, static_in: Any, call: Callable[..., Any]) -> Graph:
        inputs = Layout(shape.inputs)
        views = _tensors(inputs, static_in)
        first = _flat(call(*views))
        outputs = Layout([ArraySpec(str(value.dtype).removeprefix("torch."), tuple(value.shape)) for value in first])
        del first
        results = self._device.buffer(outputs.size_bytes)
        targets = _tensors(outputs, results)

        def step() -> None:
            for target, value in zip(targets, _flat(call(*views)), strict=True):
                target.copy_(value)

        replay = self._device.record(step)
        return Graph(replay, call, inputs, outputs, results, self._device.time_ms(replay))

    def _module(self, shape: Shape) -> Callable[..., Any]:
        assert self._make is not None
        module: Callable[..., Any] = self._make(shape)
        return module

    # Computing

    def begin(self, shape: Shape) -> Run:
        """Get the staging buffers of a shape that is ready.

        If all are in use, the oldest batch is waited for; its result or fault is kept for whoever asks for it. A run
        that was begun and not launched is forgotten when the next one begins.
        """
        assert self._ring is not None, "it is prepared first"
        return self._ring.begin(self._graphs[shape])

    def __call__(self, shape: Shape, *arrays: NDArray[Any]) -> Arrays:
        """Compute one batch and wait for it."""
        run = self.begin(shape)
        for target, array in zip(run.inputs, arrays, strict=True):
            target[...] = array
        run.launch()
        return run.result()

    def _transfer(self, graph: Graph, staging: Staging) -> Callable[[], None]:
        size_in, size_out = graph.inputs.size_bytes, graph.outputs.size_bytes

        def copy_in() -> None:
            staging.device_in[:size_in].copy_(staging.host_in[:size_in], non_blocking=True)

        def compute() -> None:
            self._static_in[:size_in].copy_(staging.device_in[:size_in])
            graph.step()
            staging.device_out[:size_out].copy_(graph.results)

        def copy_out() -> None:
            staging.host_out[:size_out].copy_(staging.device_out[:size_out], non_blocking=True)

        with self._guarded(), torch.inference_mode():
            wait = self._device.transfer(copy_in, compute, copy_out)

        def guarded_wait() -> None:
            with self._guarded():
                wait()

        return guarded_wait

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """End the worker, instead of failing every batch from here on, at a fault that the device does not survive."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self._device.is_lost():
                raise WorkerBroken(f"{self.name}: {self._device.torch} fails: {error}") from error
            raise


def _flat(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def _tensors(layout: Layout, buffer: Any) -> tuple[Any, ...]:
    return tuple(
        buffer[offset : offset + spec.size_bytes].view(getattr(torch, spec.dtype)).view(spec.shape)
        for spec, offset in zip(layout.specs, layout.offsets, strict=True)
    )


def _said(error: Exception) -> str:
    """What an error says in a line: its first one, and where that ends in a colon what follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
