"""OpenVINO on the CPU.

Crops are computed one by one, in a graph of batch 1, and narrow ones eight at a time where that is faster here: with
AMX a word of 64 columns takes less than half of the time in a batch, a line of 500 the same. A batch is used only if
it gives to the last bit what its crops give alone, which is tried at the start. So no result depends on what else is in
a batch, nor on how many came together. With several threads, several graphs are computed side by side, one thread each.

Normalising and reducing are part of the graph: uint8 pixels go in, and of a text model only the best class of each
step and its probability come out, not the 18,385 probabilities of each step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any, Literal, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from sluiceway_runtime.cores import isa
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.signal_stack import keep_signal_stack

from sluiceway_recognition.backends.batches import BatchSizes
from sluiceway_recognition.backends.openvino_graph import classes_of, metadata_of, static_size, wrap
from sluiceway_recognition.plan import Normalisation, Precision
from sluiceway_recognition.types import Head, PixelFormat

__all__ = ["OpenVinoBackend"]

log = logging.getLogger(__name__)

# Crops of a batch. Each size is a compiled graph for each width: one beside the single crop is enough.
BATCH = 8
# Wider crops gain little, with AMX a tenth at 320 columns, and a graph takes some 16 MB in every worker.
BATCHED_WIDTH = 192
# Of the time of single crops: a batch that saves less is not worth its memory.
_WORTH = 0.9
# Times that something is computed to see how long it takes; the least counts. In CPU time: while workers start, all of
# them and other stages compute, and whoever waits for a core would be taken for slow.
_TRIALS = 5

Outputs = tuple[NDArray[Any], ...]


class _Slot:
    """One infer request with the memory that it reads; used by one batch at a time."""

    def __init__(self, compiled: ov.CompiledModel, batch: int, height: int, width: int) -> None:
        self.request = compiled.create_infer_request()
        self._pixels = np.zeros((batch, height, width, 3), dtype=np.uint8)
        self._inside = np.zeros((batch, 1, 1, width), dtype=np.float32)
        self._filled = [0] * batch
        self._count = 0
        self.request.set_input_tensor(0, ov.Tensor(self._pixels, shared_memory=True))
        self.request.set_input_tensor(1, ov.Tensor(self._inside, shared_memory=True))

    def fill(self, crops: Sequence[NDArray[np.uint8]]) -> None:
        """Take the next crops, as many as the batch or fewer; rows that are left over are computed and dropped."""
        self._count = len(crops)
        for row, crop in enumerate(crops):
            width, filled = crop.shape[1], self._filled[row]
            self._pixels[row, :, :width] = crop
            if width < filled:
                # Whatever the crop before left there would be read as part of this one.
                self._pixels[row, :, width:filled] = 0
            self._inside[row, ..., :width] = 1
            self._inside[row, ..., width:] = 0
            self._filled[row] = width

    def wait(self) -> RuntimeError | None:
        """Wait for the end of what was started; returns what went wrong."""
        try:
            self.request.wait()
        except RuntimeError as error:
            return error
        return None

    def outputs(self) -> Outputs:
        return tuple(tensor.data[: self._count].copy() for tensor in self.request.output_tensors)


class _Unit(NamedTuple):
    """What one slot computes at once."""

    batch: int
    crops: Sequence[NDArray[np.uint8]]


class OpenVinoBackend:
    """A network in OpenVINO; see `Backend`. Not safe for several threads at once.

    Args:
        path: ONNX file or OpenVINO IR, one image input [N, 3, H, W] or [N, 1, H, W].
        head: decides the reduction.
        height: of every crop.
        normalisation: before the network.
        pixel_format: of the crops.
        precision: None takes bf16 where the CPU multiplies matrices in it (AMX), else f32. bf16 without AMX is possible
            and slower than f32.
        threads: graphs computed side by side.
        output: name of the output to read; None where there is only one.
        dynamic: one graph for all widths instead of one each: a third to a half of the memory, 6 to 15% slower. It
            computes single crops.

    Raises:
        StartupError: unreadable, or not a network of this kind.
    """

    name: Literal["openvino", "torch"] = "openvino"
    device = "cpu"

    def __init__(
        self,
        path: Path,
        *,
        head: Head,
        height: int,
        normalisation: Normalisation,
        pixel_format: PixelFormat = PixelFormat.BGR,
        precision: Precision | None = None,
        threads: int = 1,
        output: str | None = None,
        dynamic: bool = False,
    ) -> None:
        self.precision: str = precision or ("bf16" if "amx_bf16" in isa() else "f32")
        self._height = height
        self._threads = threads
        self._dynamic = dynamic
        self._core = ov.Core()
        try:
            network = self._core.read_model(path)
        except RuntimeError as error:
            raise StartupError(f"{path} cannot be read as a model: {str(error).splitlines()[-1]}") from error
        self.metadata: Mapping[str, str] = metadata_of(network)
        copy = network.clone()

        def wrapped(network: ov.Model, batch: int) -> ov.Model:
            return wrap(
                network,
                head=head,
                height=height,
                normalisation=normalisation,
                pixel_format=pixel_format,
                output=output,
                source=str(path),
                batch=batch,
            )

        self._model = wrapped(network, 1)
        self._in_batches: Callable[[], ov.Model] = lambda: wrapped(copy.clone(), BATCH)
        self.output_size = classes_of(self._model) if head is Head.TEXT else static_size(self._model.outputs[-1], path)
        self._compiled: ov.CompiledModel | None = None
        # By batch and width.
        self._slots: dict[tuple[int, int], list[_Slot]] = {}
        # Of the widths that have a graph for batches.
        self._costs_ms: dict[int, dict[int, float]] = {}
        self._sizes = BatchSizes({})

    @property
    def batched_widths(self) -> tuple[int, ...]:
        """Widths whose crops are computed in batches, ascending; known once the backend is warm."""
        return tuple(sorted(self._costs_ms))

    @property
    def graphs(self) -> tuple[tuple[int, int], ...]:
        """What is compiled, as (batch, width)."""
        return tuple(sorted(self._slots))

    def warm(self, widths: Sequence[int]) -> None:
        """Compile for these widths, compute each once, and see which are faster in batches."""
        for width in widths:
            blank = np.zeros((self._height, width, 3), dtype=np.uint8)
            self.launch([blank] * self._threads, width)
        narrow = [] if self._dynamic else [width for width in sorted(widths) if width <= BATCHED_WIDTH]
        try:
            model = self._in_batches() if narrow else None
            for width in narrow:
                # The wider, the less a batch gains: none beyond the first that is not worth it.
                if not self._try_batches(model, width):
                    break
        except (RuntimeError, StartupError) as error:
            # The file is for single crops.
            log.debug("no batches: %s", error)
        self._sizes = BatchSizes(self._costs_ms)

    @keep_signal_stack()
    def alone(self, precision: str, crops: Sequence[NDArray[np.uint8]]) -> Outputs:
        """What crops of one width give in a precision; see `Backend.alone`."""
        width = crops[0].shape[1]
        slot = _Slot(self._compiled_for(self._model, 1, width, precision), 1, self._height, width)
        results = [self._infer_one(slot, _Unit(1, [crop])) for crop in crops]
        return tuple(map(np.concatenate, zip(*results, strict=True)))

    def launch(self, crops: Sequence[NDArray[np.uint8]], width: int) -> Callable[[], Outputs]:
        """Compute crops that share a bucket; see `Backend.launch`. All of it is done when this returns."""
        if (1, width) not in self._slots:
            self._slots[1, width] = self._compile(self._model, 1, width)
        outputs = self._compute(self._units(crops, width), width)
        return lambda: outputs

    def _units(self, crops: Sequence[NDArray[np.uint8]], width: int) -> list[_Unit]:
        if width not in self._costs_ms:
            return [_Unit(1, [crop]) for crop in crops]
        units, at = [], 0
        while at < len(crops):
            # No thread takes what others wait for.
            batch = self._sizes.first(width, -(-(len(crops) - at) // self._threads))
            units.append(_Unit(batch, crops[at : at + batch]))
            at += batch
        return units

    def _compute(self, units: Sequence[_Unit], width: int) -> Outputs:
        if self._threads == 1:
            results = [self._infer_one(self._slots[unit.batch, width][0], unit) for unit in units]
        else:
            results = self._infer_side_by_side(units, width)
        return results[0] if len(results) == 1 else tuple(map(np.concatenate, zip(*results, strict=True)))

    def _infer_side_by_side(self, units: Sequence[_Unit], width: int) -> list[Outputs]:
        results = []
        for first in range(0, len(units), self._threads):
            together = units[first : first + self._threads]
            started: list[_Slot] = []
            try:
                for position, unit in enumerate(together):
                    slot = self._slots[unit.batch, width][position]
                    slot.fill(unit.crops)
                    slot.request.start_async()
                    started.append(slot)
            finally:
                # Also when one failed: a slot that still computes must not be filled again.
                faults = [fault for slot in started if (fault := slot.wait()) is not None]
            if faults:
                raise faults[0]
            results += [slot.outputs() for slot in started]
        return results

    @staticmethod
    def _infer_one(slot: _Slot, unit: _Unit) -> Outputs:
        slot.fill(unit.crops)
        slot.request.infer()
        return slot.outputs()

    def _try_batches(self, model: ov.Model, width: int) -> bool:
        """Compile a graph for batches of this width, and keep it if it gives the same in clearly less time."""
        self._slots[BATCH, width] = self._compile(model, BATCH, width)
        noise = np.random.default_rng(width)
        widths = [max(1, width - 3 * row) for row in range(BATCH)]
        crops = [noise.integers(0, 256, (self._height, each, 3), dtype=np.uint8) for each in widths]
        (alone_ms, one_by_one), (together_ms, at_once) = self._timed(
            ([_Unit(1, [crop]) for crop in crops], [_Unit(BATCH, crops)]), width
        )
        same = all(np.array_equal(*pair, equal_nan=True) for pair in zip(one_by_one, at_once, strict=True))
        if not same or together_ms > _WORTH * alone_ms:
            del self._slots[BATCH, width]
            return False
        self._costs_ms[width] = {1: alone_ms / BATCH, BATCH: together_ms}
        return True

    def _timed(self, ways: Sequence[Sequence[_Unit]], width: int) -> list[tuple[float, Outputs]]:
        """Of each way to compute the same the least CPU time of some trials on one thread, and what came out."""
        least_s: list[float] = [float("inf")] * len(ways)
        found: list[Outputs] = [()] * len(ways)
        # In turns: what comes and goes on this machine meets all of them.
        for way, units in [*enumerate(ways)] * _TRIALS:
            begun_s = process_time()
            results = [self._infer_one(self._slots[unit.batch, width][0], unit) for unit in units]
            least_s[way] = min(least_s[way], process_time() - begun_s)
            found[way] = tuple(map(np.concatenate, zip(*results, strict=True)))
        return [(seconds * 1000, outputs) for seconds, outputs in zip(least_s, found, strict=True)]

    @keep_signal_stack()
    def _compile(self, model: ov.Model, batch: int, width: int) -> list[_Slot]:
        compiled = self._compiled
        if compiled is None:
            compiled = self._compiled_for(model, batch, -1 if self._dynamic else width, self.precision)
            if self._dynamic:
                self._compiled = compiled
        return [_Slot(compiled, batch, self._height, width) for _ in range(self._threads)]

    def _compiled_for(self, model: ov.Model, batch: int, width: int, precision: str) -> ov.CompiledModel:
        """A graph for crops of a width, -1 for any."""
        shaped = model.clone()
        try:
            shaped.reshape({0: [batch, self._height, width, 3], 1: [batch, 1, 1, width]})
        except RuntimeError as error:
            fixed = model.inputs[0].partial_shape[2]
            hint = f"; it wants the width {fixed}: set `max_width` and `buckets` to that" if fixed.is_static else ""
            raise StartupError(f"the model does not take crops of {self._height} x {width} pixels{hint}") from error
        return self._core.compile_model(
            shaped,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": self._threads,
                "NUM_STREAMS": self._threads,
                # The worker process is pinned, where pinning is right; OpenVINO would choose cores by itself.
                "ENABLE_CPU_PINNING": False,
                # The fused attention kernel of OpenVINO 2026.4 computes wrong values where the steps are as many as
                # the heads: PP-OCRv5 and v6 small at width 64, probabilities off by 0.3. Without it: as fast.
                "SNIPPETS_MODE": "DISABLE",
            },
        )
