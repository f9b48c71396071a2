"""PyTorch on a GPU: batches of a few fixed sizes, each compiled and captured, so that copies run beside the computing.

The same code runs on a CPU, for tests: then nothing is captured.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.gpu import CompiledModule, Run, Shape

from sluiceway_detection.backends.agreement import answers_differ, trial_images
from sluiceway_detection.backends.base import (
    BackendName,
    BackendSpec,
    Precision,
    export_command,
    inputs_of,
    require_fine_boxes,
)
from sluiceway_detection.backends.places import DTYPES, input_of, make, read_model_card, recipe_of
from sluiceway_detection.inputs.shapes import Inputs, InputShape
from sluiceway_detection.selection import Output
from sluiceway_detection.types import ImageBgr

__all__ = ["CudaBackend", "batch_sizes"]

log = logging.getLogger(__name__)

Places = Output


def batch_sizes(most: int) -> tuple[int, ...]:
    """The sizes that graphs are made for: 1, 4, 16 and so on, and the largest itself. Each costs a start some time."""
    sizes = []
    size = 1
    while size < most:
        sizes.append(size)
        size *= 4
    return (*sizes, most)


class CudaBackend:
    """A model on a device. Used by one thread; several batches may be on their way.

    Args:
        spec: `device` is `cuda:N`, or `cpu` in tests. `precision` None takes f16 where it agrees with f32, and f32 for
            a checkpoint.
        max_batch: most images in a graph.
        depth: batches that may be on their way at once.
        workers_on_device: that share its memory.

    Attributes:
        precision_reason: why this arithmetic.

    Raises:
        StartupError: unreadable weights, a precision that the device has not or the model does not bear, or a graph
            that does not give the model's answers.
    """

    name: BackendName = "torch"

    def __init__(self, spec: BackendSpec, *, max_batch: int, depth: int, workers_on_device: int = 1) -> None:
        if spec.device != "cpu" and not torch.cuda.is_available():
            raise StartupError(f"detection.device: torch finds no CUDA device for {spec.device}")
        if spec.precision not in (None, *DTYPES) or (spec.precision == "f16" and spec.device == "cpu"):
            raise StartupError(f"detection.precision: backend torch has no {spec.precision} on {spec.device}")
        require_fine_boxes(spec.weights, spec.precision)
        torch.set_num_threads(spec.threads)
        self._device = torch.device(spec.device)
        self.card = read_model_card(spec.weights, allow_checkpoint=spec.allow_checkpoint, known=spec.known)
        self._spec = replace(spec, shapes=inputs_of(self.card, spec).shapes)
        images = {shape: trial_images(shape) for shape in self._spec.shapes}
        expected = {shape: self._alone("f32", images[shape]) for shape in self._spec.shapes}
        self.precision: Precision
        self.precision, self.precision_reason = self._choose(images, expected)
        self._depth, self._workers_on_device = depth, workers_on_device
        self._graphs: dict[InputShape, list[Shape]] = {}
        self._module = self._prepare(max_batch)
        self._verify(images, expected)

    @property
    def costs_ms(self) -> dict[str, float]:
        """Time that the device computes each graph, measured when it was made."""
        return {graph.name: self._module.cost_ms(graph) for graphs in self._graphs.values() for graph in graphs}

    def start(self, images_bgr: Sequence[ImageBgr]) -> Callable[[], list[Places]]:
        """Begin letterboxed images, uint8 [H, W, 3], all of one of the shapes of `inputs`.

        A batch that does not fit into the memory that is left is halved.

        Returns:
            What waits for the places of each image, see `PlacesNet`; to be called once.

        Raises:
            torch.OutOfMemoryError: not even one image fits.
        """
        shape = (images_bgr[0].shape[0], images_bgr[0].shape[1])
        largest = self._graphs[shape][-1].batch
        runs = [
            run
            for start in range(0, len(images_bgr), largest)
            for run in self._launch(shape, images_bgr[start : start + largest], largest)
        ]

        def finish() -> list[Places]:
            return [place for run, count in runs for place in _by_image(run.result(), count)]

        return finish

    def _launch(self, shape: InputShape, images_bgr: Sequence[ImageBgr], most: int) -> list[tuple[Run, int]]:
        graph = self._graph_for(shape, len(images_bgr), most)
        try:
            run = self._module.begin(graph)
            for place, image in zip(run.inputs[0], images_bgr, strict=False):  # further rows keep what they held
                place[...] = image
            run.launch()
        except torch.OutOfMemoryError:
            if graph == self._graphs[shape][0]:
                raise
        else:
            return [(run, len(images_bgr))]
        # Outside the handler above: while an exception lives, it holds on to the tensors of its frames.
        self._release()
        smaller = max(other.batch for other in self._graphs[shape] if other.batch < graph.batch)
        return [
            run
            for start in range(0, len(images_bgr), smaller)
            for run in self._launch(shape, images_bgr[start : start + smaller], smaller)
        ]

    def _graph_for(self, shape: InputShape, count: int, most: int) -> Shape:
        """The cheapest that has room: a larger one that is compiled may cost less than a smaller one that is not."""
        roomy = [graph for graph in self._graphs[shape] if count <= graph.batch <= most]
        return min(roomy, key=lambda graph: (self._module.cost_ms(graph), graph.batch))

    def _choose(
        self, images: dict[InputShape, tuple[ImageBgr, ...]], expected: dict[InputShape, list[Places]]
    ) -> tuple[Precision, str]:
        """Try the precision that is wanted, or else f16, on the default shape before anything is compiled for it."""
        wanted = self._spec.precision
        if wanted == "f32":
            return "f32", "configured"
        if wanted is None and self._device.type == "cpu":
            return "f32", "torch computes in f32 on a CPU"
        if self._spec.weights.suffix == ".pt":
            command = export_command(self._spec.weights)
            reason = f"a checkpoint would round its boxes to whole pixels in 16 bits; convert it with {command}"
            log.warning("%s computes in f32: %s", self._spec.weights.name, reason)
            return "f32", reason
        precision: Precision = wanted or "f16"
        shape = self._spec.shapes[0]
        fault = self._fault(expected[shape], self._alone(precision, images[shape]))
        if fault is None:
            return precision, f"{'configured' if wanted else 'by default on a GPU'}, checked against f32"
        if wanted is not None:
            raise StartupError(f"detection.precision: {wanted} does not give this model's answers: {fault}; use f32")
        log.warning("%s: %s does not give this model's answers: %s", self._spec.weights.name, precision, fault)
        return "f32", f"{precision} does not give this model's answers: {fault}"

    def _alone(self, precision: Precision, images_bgr: Sequence[ImageBgr]) -> list[Places]:
        """Each image by itself, as torch computes it without a compiler."""
        height, width, _ = images_bgr[0].shape
        with torch.inference_mode():
            spec = self._spec
            maker = make(
                self._device,
                weights=str(spec.weights),
                precision=precision,
                allow_checkpoint=spec.allow_checkpoint,
                pixels=spec.known.pixels,
                classes=spec.known.classes,
            )
            module = maker(input_of(1, (height, width)))
            places = []
            for image in images_bgr:
                outputs = [output.cpu().numpy() for output in module(torch.from_numpy(image)[None].to(self._device))]
                places += _by_image(outputs, 1)
        del maker, module, outputs
        self._release()
        return places

    def _prepare(self, max_batch: int) -> CompiledModule:
        """Have the graphs made, with smaller batches where the memory is too small for them and their buffers."""
        while True:
            try:
                return self._try_to_prepare(max_batch)
            except torch.OutOfMemoryError as error:
                if max_batch == 1:
                    raise StartupError(f"detection.device: {self._spec.device} has too little free memory") from error
            max_batch //= 2
            self._release()
            log.warning("%s: too little memory; batches have %d images", self._spec.device, max_batch)

    def _try_to_prepare(self, max_batch: int) -> CompiledModule:
        module = CompiledModule(
            recipe_of(self._spec, self.precision),
            name=f"detection-{self._spec.weights.stem}",
            device=self._spec.device,
            cache=weights.cache_folder() / "gpu",
            depth=self._depth,
            workers_on_device=self._workers_on_device,
        )
        sizes = batch_sizes(max_batch)
        wanted = [input_of(size, shape) for shape in self._spec.shapes for size in sizes]
        # A graph takes the compiler most of a minute, so only the sizes of one image alone and of a full batch are
        # compiled; those between are captured as torch computes them, for where they are cheaper than a full batch.
        compiled = None if self._device.type == "cpu" else [graph for graph in wanted if graph.batch in (1, max_batch)]
        self._graphs = {}
        for graph in module.prepare(wanted, compiled):
            _, height, width, _ = graph.inputs[0].shape
            self._graphs.setdefault((height, width), []).append(graph)
        # Where memory is short, an image is shown in a shape that fits.
        self.inputs = Inputs(
            tuple(shape for shape in self._spec.shapes if shape in self._graphs),
            self.card.map_reading is None,
            stretches=self.card.stretches,
        )
        return module

    def _verify(self, images: dict[InputShape, tuple[ImageBgr, ...]], expected: dict[InputShape, list[Places]]) -> None:
        """Hold every graph, as it will be used, against each image alone in f32."""
        for shape, graphs in self._graphs.items():
            for graph in graphs:
                count = len(expected[shape])
                rows = [images[shape][row % count] for row in range(graph.batch)]
                found = _by_image(self._module(graph, np.stack(rows)), graph.batch)
                due = [expected[shape][row % count] for row in range(graph.batch)]
                if fault := self._fault(due, found):
                    raise StartupError(f"{self._spec.weights.name}: {graph.name} in {self.precision}: {fault}")

    def _fault(self, expected: Sequence[Places], found: Sequence[Places]) -> str | None:
        pairs = zip(expected, found, strict=True)
        faults = (answers_differ(a, b, self.card) for a, b in pairs)
        return next((fault for fault in faults if fault), None)

    def _release(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _by_image(outputs: Sequence[Any], count: int) -> list[Places]:
    """The first images of a batch: one array for each, or several if the model has several outputs."""
    if len(outputs) == 1:
        return list(outputs[0][:count])
    return [tuple(output[row] for output in outputs) for row in range(count)]
