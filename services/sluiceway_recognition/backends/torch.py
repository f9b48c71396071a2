"""torch, on a GPU or on the CPU: the built-in text recognisers, and networks of users (`nets.sources`).

On a GPU each (batch, width) has a graph of its own (`sluiceway_runtime.gpu`). A batch smaller than its graph is padded
with rows of width 0, whose results are dropped. What is computed for a crop depends on no other crop of its batch; but
graphs of different batch sizes may round differently in the last place of 16 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.gpu import ArraySpec, CompiledModule, Run, Shape

from sluiceway_recognition.backends.batches import BatchSizes, GraphSettings, compile_order, graph_sizes
from sluiceway_recognition.nets.sources import open_source
from sluiceway_recognition.plan import ModelPlan

__all__ = ["TorchBackend"]

log = logging.getLogger(__name__)

# On a CPU a batch gains nothing (see `backends.openvino`), and one graph for each width is enough.
CPU_BATCHES = (1,)
# Of the largest value: in f32 a sum over another number of rows may round differently, by far less.
_ROUNDING = 1e-3


class TorchBackend:
    """A recogniser in torch; see `Backend`.

    Args:
        plan: its weights are ONNX, `.pt2` (torch.export) or safetensors made by `nets.store`.
        device: `cpu`, `cuda:0` and so on.
        threads: on a CPU.
        settings: of the graphs; the batches only count on a GPU, unless they are given (tests).

    Raises:
        StartupError: weights that cannot be computed here, or a device that is not there.
    """

    name: Literal["openvino", "torch"] = "torch"

    def __init__(self, plan: ModelPlan, device: str, threads: int, settings: GraphSettings | None = None) -> None:
        self._on_gpu = device != "cpu"
        if self._on_gpu and not torch.cuda.is_available():
            raise StartupError(f"device {device}: torch finds no CUDA device it can use")
        if not self._on_gpu:
            torch.set_num_threads(threads)
        self.device = device
        self.precision: str = plan.precision or ("f16" if self._on_gpu else "f32")
        self._settings = settings or GraphSettings(batches=GraphSettings().batches if self._on_gpu else CPU_BATCHES)
        assert plan.weights is not None
        self._weights = plan.weights
        self._height = plan.crop_spec.height
        self._where = f"recognition.models.{plan.name}"
        source = open_source(plan, plan.precision or ("f16" if self._on_gpu else "f32"))
        self.metadata: Mapping[str, str] = source.metadata
        self.output_size = source.output_size
        if source.batch is not None:
            self._settings = replace(self._settings, batches=(source.batch,), max_px=2**62)
        self._module = CompiledModule(
            source.recipe,
            name=plan.name,
            device=device,
            cache=weights.cache_folder() / "gpu",
            depth=self._settings.depth,
            workers_on_device=self._settings.workers_on_device,
        )
        self._shapes: dict[tuple[int, int], Shape] = {}
        self._batches: BatchSizes | None = None
        self._source = source

    def warm(self, widths: Sequence[int]) -> None:
        """Compile what is not in the cache, capture, and compute each graph once.

        Raises:
            StartupError: the model does not take crops of such a width, or not even one fits into the memory.
        """
        if self._settings.batches != (1,) and self._rows_mix(widths[0]):
            self._settings = replace(self._settings, batches=(1,))
        sizes = graph_sizes(self._settings, widths, self._height)
        shapes = {size: self._shape(*size) for size in sizes}
        compiled = [shapes[size] for size in compile_order(sizes)[: self._settings.compiled if self._on_gpu else 0]]
        try:
            ready = self._module.prepare(list(shapes.values()), compiled)
        except torch.OutOfMemoryError as error:
            raise StartupError(f"{self._where}: the memory of {self.device} is too small for a single crop") from error
        except StartupError:
            raise
        except Exception as error:  # whatever a user's network runs into
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StartupError(f"{self._where}: the model cannot be computed on {self.device}: {first}") from error
        self._shapes = {size: shape for size, shape in shapes.items() if shape in ready}
        costs: dict[int, dict[int, float]] = {}
        for (batch, width), shape in self._shapes.items():
            costs.setdefault(width, {})[batch] = self._module.cost_ms(shape)
        if missing := [str(width) for width in widths if width not in costs]:
            raise StartupError(f"{self._where}: not even one crop of width {', '.join(missing)} fits into the memory")
        self._batches = BatchSizes(costs)

    def alone(self, precision: str, crops: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[Any], ...]:
        """What crops of one width give in a precision, as torch computes them uncompiled; see `Backend.alone`."""
        recipe, device = self._source.recipe, torch.device(self.device)
        batch = self._source.batch or 1
        module = replace(recipe, arguments={**recipe.arguments, "precision": precision}).make(device)(
            self._shape(batch, crops[0].shape[1])
        )
        results = []
        with torch.inference_mode():
            for crop in crops:
                pixels = torch.from_numpy(np.repeat(crop[None], batch, axis=0)).to(device)
                widths = torch.full((batch,), crop.shape[1], dtype=torch.int32, device=device)
                results.append([output[:1].cpu().numpy() for output in module(pixels, widths)])
        return tuple(map(np.concatenate, zip(*results, strict=True)))

    def launch(self, crops: Sequence[NDArray[np.uint8]], width: int) -> Callable[[], tuple[NDArray[Any], ...]]:
        """Start crops that share a bucket; see `Backend.launch`. What is too large for the memory is halved."""
        assert self._batches is not None, "a backend is warmed first"
        begun: list[tuple[Run, int]] = []
        at = 0
        while at < len(crops):
            batch = self._batches.first(width, len(crops) - at)
            part = crops[at : at + batch]
            try:
                begun.append((self._start(part, batch, width), len(part)))
            except torch.OutOfMemoryError:
                if not self._batches.drop(width, batch):
                    raise
                log.warning("%s: no memory for batches of %d x %d: smaller ones from here", self._where, batch, width)
            else:
                at += len(part)
        return lambda: self._collect(begun)

    def _start(self, crops: Sequence[NDArray[np.uint8]], batch: int, width: int) -> Run:
        run = self._module.begin(self._shapes[batch, width])
        pixels, widths = run.inputs
        for row, crop in enumerate(crops):
            crop_width = crop.shape[1]
            pixels[row, :, :crop_width] = crop
            widths[row] = crop_width
        widths[len(crops) :] = 0
        run.launch()
        return run

    @staticmethod
    def _collect(begun: Sequence[tuple[Run, int]]) -> tuple[NDArray[Any], ...]:
        parts = [[output[:count] for output in run.result()] for run, count in begun]
        return tuple(parts[0]) if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))

    def _rows_mix(self, width: int) -> bool:
        """Whether a file of one fixed batch computes something else for a crop that is not alone in a batch.

        Nothing in such a file says which of its numbers are a batch, so what the loader makes of it for another is
        tried: two crops of noise together, and each alone, up to the last layer, in f32 on the CPU.
        """
        recipe = self._source.recipe
        fixed = _fixed_batch(self._weights) if recipe.arguments["kind"] == "onnx" else None
        if fixed is None:
            return False
        crops = torch.randn((2, self._source.channels, self._height, width), generator=torch.Generator().manual_seed(0))
        try:
            make = replace(recipe, arguments={**recipe.arguments, "precision": "f32"}).make(torch.device("cpu"))
            with torch.inference_mode():
                together = make(self._shape(2, width)).net(crops)
                alone = torch.cat(
                    [make(self._shape(1, width)).net(crop[None]) for crop in crops],
                    dim=1 if recipe.arguments["steps_first"] else 0,
                )
            if torch.allclose(together, alone, rtol=0, atol=_ROUNDING * float(alone.abs().max())):
                return False
            fault = "its crops would mix"
        except Exception as error:  # whatever a user's graph runs into; alone it may do all the same
            fault = f"it fails ({(str(error).strip().splitlines() or [type(error).__name__])[0]})"
        log.warning(
            "%s: a batch of %d is fixed in %s, and in larger ones %s: it is computed crop by crop. Export it with a "
            "batch of any size",
            self._where,
            fixed,
            self._weights.name,
            fault,
        )
        return True

    def _shape(self, batch: int, width: int) -> Shape:
        pixels = ArraySpec("uint8", (batch, self._height, width, 3))
        return Shape(f"{batch}x{width}", (pixels, ArraySpec("int32", (batch,))))


def _fixed_batch(path: Path) -> int | None:
    """The batch that an ONNX file was written for; None for any."""
    import onnx  # noqa: PLC0415 - models of other kinds need none

    graph = onnx.load(path, load_external_data=False).graph
    constants = {item.name for item in graph.initializer}
    images = next(item for item in graph.input if item.name not in constants)
    return images.type.tensor_type.shape.dim[0].dim_value or None
