"""OpenVINO on the CPU.

Each crop is computed by itself, in a graph of batch 1: on a CPU a batch gains nothing (measured: 3.1 ms alone, 3.3 ms
a crop in a batch of 8), and so no rounding of a kernel can depend on what else is in the batch. With several threads,
several crops are computed side by side, one thread each.

Normalising and reducing are part of the graph: uint8 pixels go in, and of a text model only the best class of each
step and its probability come out, not the 18,385 probabilities of each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from sluiceway_runtime.cores import isa
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.signal_stack import keep_signal_stack

from sluiceway_recognition.plan import Normalisation, Precision
from sluiceway_recognition.types import Head

__all__ = ["OpenVinoBackend"]

# What may stand between the last activation and the output without changing values.
_SHAPE_ONLY = ("Reshape", "Squeeze", "Unsqueeze", "Transpose", "Convert")


class _Slot:
    """One infer request with the memory that it reads; used by one crop at a time."""

    def __init__(self, compiled: ov.CompiledModel, height: int, width: int) -> None:
        self.request = compiled.create_infer_request()
        self._pixels = np.zeros((1, height, width, 3), dtype=np.uint8)
        self._inside = np.zeros((1, 1, 1, width), dtype=np.float32)
        self._filled = 0
        self.request.set_input_tensor(0, ov.Tensor(self._pixels, shared_memory=True))
        self.request.set_input_tensor(1, ov.Tensor(self._inside, shared_memory=True))

    def fill(self, crop: NDArray[np.uint8]) -> None:
        width = crop.shape[1]
        self._pixels[0, :, :width] = crop
        if width < self._filled:
            # Whatever the crop before left there would be read as part of this one.
            self._pixels[0, :, width : self._filled] = 0
        self._inside[..., :width] = 1
        self._inside[..., width:] = 0
        self._filled = width

    def wait(self) -> RuntimeError | None:
        """Wait for the end of what was started; returns what went wrong."""
        try:
            self.request.wait()
        except RuntimeError as error:
            return error
        return None

    def outputs(self) -> tuple[NDArray[Any], ...]:
        return tuple(tensor.data.reshape(tensor.shape[1:]).copy() for tensor in self.request.output_tensors)


class OpenVinoBackend:
    """A network in OpenVINO; see `Backend`. Not safe for several threads at once.

    Args:
        path: ONNX file or OpenVINO IR, one image input [N, 3, H, W].
        head: decides the reduction.
        height: of every crop.
        normalisation: before the network.
        precision: None takes bf16 where the CPU multiplies matrices in it (AMX), else f32. bf16 without AMX is possible
            and slower than f32.
        threads: crops computed side by side.
        output: name of the output to read; None where there is only one.
        dynamic: one graph for all widths instead of one each: a third to a half of the memory, 6 to 15% slower.

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
        self.metadata: Mapping[str, str] = _metadata(network)
        self._model = _wrap(
            network, head=head, height=height, normalisation=normalisation, output=output, source=str(path)
        )
        self.output_size = _static(self._model.outputs[-1], path) if head is not Head.TEXT else _classes_of(self._model)
        self._compiled: ov.CompiledModel | None = None
        self._slots: dict[int, list[_Slot]] = {}

    def warm(self, widths: Sequence[int]) -> None:
        """Compile for these widths and compute each once."""
        for width in widths:
            blank = np.zeros((self._height, width, 3), dtype=np.uint8)
            self.launch([blank] * self._threads, width)

    def launch(self, crops: Sequence[NDArray[np.uint8]], width: int) -> Callable[[], tuple[NDArray[Any], ...]]:
        """Compute crops that share a bucket; see `Backend.launch`. All of it is done when this returns."""
        slots = self._slots.get(width) or self._compile(width)
        if len(slots) == 1:
            rows = [self._infer_one(slots[0], crop) for crop in crops]
        else:
            rows = self._infer_side_by_side(slots, crops)
        outputs = tuple(np.stack(parts) for parts in zip(*rows, strict=True))
        return lambda: outputs

    @staticmethod
    def _infer_side_by_side(
        slots: Sequence[_Slot], crops: Sequence[NDArray[np.uint8]]
    ) -> list[tuple[NDArray[Any], ...]]:
        results = []
        for first in range(0, len(crops), len(slots)):
            pairs = list(zip(slots, crops[first : first + len(slots)], strict=False))
            started = []
            try:
                for slot, crop in pairs:
                    slot.fill(crop)
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
    def _infer_one(slot: _Slot, crop: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
        slot.fill(crop)
        slot.request.infer()
        return slot.outputs()

    @keep_signal_stack()
    def _compile(self, width: int) -> list[_Slot]:
        compiled = self._compiled
        if compiled is None:
            model = self._model.clone()
            size = -1 if self._dynamic else width
            try:
                model.reshape({0: [1, self._height, size, 3], 1: [1, 1, 1, size]})
            except RuntimeError as error:
                fixed = self._model.inputs[0].partial_shape[2]
                hint = f"; it wants the width {fixed}: set `max_width` and `buckets` to that" if fixed.is_static else ""
                raise StartupError(f"the model does not take crops of {self._height} x {width} pixels{hint}") from error
            compiled = self._core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": self.precision,
                    "INFERENCE_NUM_THREADS": self._threads,
                    "NUM_STREAMS": self._threads,
                    # The worker process is pinned, where pinning is right; OpenVINO would choose cores by itself.
                    "ENABLE_CPU_PINNING": False,
                    # The fused attention kernel of OpenVINO 2026.4 computes wrong values where the steps are as many as
                    # the heads: PP-OCRv5 and v6 small at width 64, probabilities off by 0.3. Without it: as fast.
                    "SNIPPETS_MODE": "DISABLE",
                },
            )
            if self._dynamic:
                self._compiled = compiled
        slots = [_Slot(compiled, self._height, width) for _ in range(self._threads)]
        self._slots[width] = slots
        return slots


def _metadata(network: ov.Model) -> dict[str, str]:
    if not network.has_rt_info(["framework"]):
        return {}
    return {key: value.astype(str) for key, value in network.get_rt_info(["framework"]).astype(dict).items()}


def _wrap(
    network: ov.Model, *, head: Head, height: int, normalisation: Normalisation, output: str | None, source: str
) -> ov.Model:
    """Put normalising and padding before the network, and the reduction behind it."""
    inputs = network.get_parameters()
    shape = network.inputs[0].partial_shape
    if len(inputs) != 1 or shape.rank.is_dynamic or len(shape) != 4 or not shape[1].compatible(ov.Dimension(3)):
        raise StartupError(f"{source}: the model must have one input of [N, 3, H, W], not {shape}")
    if shape[2].is_static and shape[2].get_length() != height:
        raise StartupError(f"{source}: the model wants crops of height {shape[2]}, not {height}; set `height`")
    network.reshape([1, 3, height, -1 if shape[3].is_dynamic else shape[3].get_length()])
    width = network.inputs[0].partial_shape[3]
    pixels = ops.parameter(ov.PartialShape([1, height, width, 3]), np.uint8, name="pixels")
    inside = ops.parameter(ov.PartialShape([1, 1, 1, width]), np.float32, name="inside")
    channels_first = ops.transpose(ops.convert(pixels, "f32"), ops.constant(np.array([0, 3, 1, 2], dtype=np.int64)))
    mean = np.array(normalisation.mean, dtype=np.float32).reshape(1, 3, 1, 1)
    scale = (1 / np.array(normalisation.std, dtype=np.float64)).astype(np.float32).reshape(1, 3, 1, 1)
    # Outside the crop: 0 - 0 x mean. Subtracting first keeps every value exact where bf16 computes it.
    centred = ops.subtract(channels_first, ops.multiply(inside, ops.constant(mean)))
    normalised = ops.multiply(centred, ops.constant(scale))
    for target in inputs[0].output(0).get_target_inputs():
        target.replace_source_output(normalised.output(0))
    results = _reduce(_output_of(network, output, source), head, source)
    return ov.Model(results, [pixels, inside], "recogniser")


def _output_of(network: ov.Model, name: str | None, source: str) -> ov.Output:
    if name is None:
        if len(network.outputs) != 1:
            names = ", ".join(sorted(name for output in network.outputs for name in output.names))
            raise StartupError(f"{source}: the model has several outputs ({names}); name one with `output`")
        return network.outputs[0].get_node().input_value(0)
    try:
        return network.output(name).get_node().input_value(0)
    except RuntimeError as error:
        raise StartupError(f"{source}: the model has no output {name}") from error


def _reduce(value: ov.Output, head: Head, source: str) -> list[ov.Output]:
    rank = value.get_partial_shape().rank
    wanted = 3 if head is Head.TEXT else 2
    if rank.is_dynamic or rank.get_length() < 2 or (head is Head.TEXT and rank.get_length() != wanted):
        raise StartupError(f"{source}: a model of kind {head} must have an output of rank {wanted}, not {rank}")
    if head is Head.EMBED:
        return [_flat(value)]
    if head is Head.CLASSIFY:
        return [_probabilities(_flat(value), activation=_activation(value))]
    probabilities = _probabilities(value, activation=_activation(value))
    best = ops.topk(probabilities, ops.constant(1, dtype=np.int32), 2, "max", "none", index_element_type="i32")
    axis = ops.constant(np.array([2], dtype=np.int64))
    return [ops.squeeze(best.output(1), axis).output(0), ops.squeeze(best.output(0), axis).output(0)]


def _flat(value: ov.Output) -> ov.Output:
    return ops.reshape(value, ops.constant(np.array([1, -1], dtype=np.int64)), special_zero=False).output(0)


def _activation(value: ov.Output) -> str:
    node = value.get_node()
    while node.get_type_name() in _SHAPE_ONLY:
        node = node.input_value(0).get_node()
    return str(node.get_type_name())


def _probabilities(value: ov.Output, *, activation: str) -> ov.Output:
    """Apply what the exporter left out: many classifiers and some readers end in logits."""
    if activation in ("Softmax", "Sigmoid"):
        return value
    if activation == "LogSoftmax":
        return ops.exp(value).output(0)
    return ops.softmax(value, axis=-1).output(0)


def _classes_of(model: ov.Model) -> int:
    best = model.outputs[1].get_node().input_value(0).get_node().input_value(0).get_node()
    size = best.input_value(0).get_partial_shape()[2]
    return int(size.get_length())


def _static(output: ov.Output, path: Path) -> int:
    size = output.get_partial_shape()[1]
    if size.is_dynamic:
        raise StartupError(f"{path}: the length of the model's output depends on the width of the crop")
    return int(size.get_length())
