"""OpenVINO on the CPU: the default. Each input shape is compiled on its own: that is faster than one for all."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.preprocess import ColorFormat, PrePostProcessor
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.signal_stack import keep_signal_stack

from sluiceway_detection.backends.base import BackendName, BackendSpec, Precision, inputs_of
from sluiceway_detection.backends.own_shapes import OwnShapes
from sluiceway_detection.inputs.shapes import InputShape
from sluiceway_detection.models.card import ModelCard, read_card
from sluiceway_detection.selection import Output
from sluiceway_detection.types import ImageBgr

__all__ = ["OpenVinoBackend"]

_HINTS: dict[Precision, Any] = {"f32": ov.Type.f32, "bf16": ov.Type.bf16, "f16": ov.Type.f16, "int8": ov.Type.f32}


class OpenVinoBackend:
    """One compiled model for each shape, or one for all and others for those that come often."""

    name: BackendName = "openvino"

    @keep_signal_stack()
    def __init__(self, spec: BackendSpec) -> None:
        core = ov.Core()
        model = _read(core, spec)
        self.card = _card(model, spec)
        self._outputs = len(model.outputs)
        self.inputs = inputs_of(self.card, spec, any_shape=True)
        self.precision: Precision = spec.precision or "f32"
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self.precision == "bf16" and "BF16" not in capabilities:
            raise StartupError("detection.precision: this CPU has no bf16 arithmetic; use auto or f32")
        if self.precision == "f16" and "FP16" not in capabilities:
            raise StartupError("detection.precision: this CPU has no f16 arithmetic; use auto or f32")
        if self.precision == "int8" and not any(op.get_type_name() == "FakeQuantize" for op in model.get_ops()):
            raise StartupError(
                f"detection.precision: int8 needs quantised weights, and those of {spec.weights.name} are not: make "
                "some with `sluiceway models calibrate`, or use auto, f32 or bf16"
            )
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": spec.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Cores have one owner, and that is whoever placed this process.
            "ENABLE_CPU_PINNING": False,
        }
        model = _with_pixels_in(model, self.card)

        def request_of(fitted: ov.Model) -> Any:
            return core.compile_model(fitted, "CPU", options).create_infer_request()

        @keep_signal_stack()
        def made(shape: InputShape) -> Any:
            return request_of(_of_shape(model, shape))

        self._requests: dict[InputShape, Any] = {}
        self._own_shapes: OwnShapes | None = None
        if self.inputs.any_shape:
            begun_s = time.perf_counter()
            general = request_of(model)
            self._own_shapes = OwnShapes(
                general, made, make_s=time.perf_counter() - begun_s, most_px=2 * self.inputs.sizes[0] ** 2
            )
        else:
            self._requests = {shape: made(shape) for shape in self.inputs.shapes}
        for shape in self.inputs.shapes:
            self.infer([np.zeros((*shape, 3), np.uint8)])

    def infer(self, images_bgr: list[ImageBgr]) -> list[Output]:
        """One image after the other: on a CPU a batch gains nothing and holds back its first image."""
        outputs: list[Output] = []
        alone = len(images_bgr) == 1
        for image in images_bgr:
            shape = (image.shape[0], image.shape[1])
            # The tensor looks into the array: no copy. It lives as long as this synchronous call.
            pixels = {0: ov.Tensor(image[None], shared_memory=True)}
            if self._own_shapes is not None:
                request = self._own_shapes.infer(shape, partial(_compute, pixels))
            else:
                request = self._requests[shape]
                request.infer(pixels)
            arrays = [request.get_output_tensor(at).data[0] for at in range(self._outputs)]
            arrays = arrays if alone else [array.copy() for array in arrays]
            outputs.append(arrays[0] if len(arrays) == 1 else tuple(arrays))
        return outputs


def _compute(pixels: dict[int, ov.Tensor], request: Any) -> None:
    request.infer(pixels)


def _read(core: ov.Core, spec: BackendSpec) -> ov.Model:
    try:
        model = core.read_model(spec.weights)
    except RuntimeError as error:
        raise StartupError(f"{spec.weights.name} cannot be read as ONNX: {str(error).splitlines()[0]}") from error
    _keep_slices(model)
    return model


def _keep_slices(model: ov.Model) -> None:
    """Replace slices whose elements are gathered by equal operators.

    OpenVINO 2026.4 leaves such a slice out and then finds that shapes do not fit; NMS-free YOLO models of other tasks
    than detection have them.
    """
    for node in model.get_ops():
        gathered = [
            target
            for target in node.output(0).get_target_inputs()
            if node.get_type_name() == "Slice" and target.get_node().get_type_name() == "GatherElements"
        ]
        # Start, stop, step, axes. A step that is no constant is a 1 that was blown up.
        bounds = [source.get_node() for source in node.input_values()[1:]] if gathered else []
        known = [bounds[at] for at in (0, 1, 3)] if len(bounds) == 4 else []
        if not known or any(bound.get_type_name() != "Constant" or bound.data.size != 1 for bound in known):
            continue
        start, stop, axis = (int(bound.data.item()) for bound in known)
        whole, part = node.input_value(0).get_partial_shape()[axis], node.output(0).get_partial_shape()[axis]
        if whole.is_dynamic or part.is_dynamic:
            continue
        rows = np.arange(whole.get_length(), dtype=np.int64)[start:stop]
        if len(rows) != part.get_length():
            continue
        kept = ops.gather(node.input_value(0), ops.constant(rows), ops.constant(np.int64(axis)))
        for target in gathered:
            target.replace_source_output(kept.output(0))


def _card(model: ov.Model, spec: BackendSpec) -> ModelCard:
    name = spec.weights.name
    metadata: dict[str, str] = {}
    if model.has_rt_info(["framework"]):
        metadata = {
            key: str(getattr(value, "value", value)) for key, value in model.get_rt_info(["framework"]).value.items()
        }
    if len(model.inputs) != 1:
        raise StartupError(f"{name}: has {len(model.inputs)} inputs; a detection model has one")
    outputs = [_dims(output) for output in model.outputs]
    names = [min(output.names, default="") for output in model.outputs]
    return read_card(metadata, _dims(model.inputs[0]), outputs, name=name, known=spec.known, output_names=names)


def _dims(port: Any) -> list[int | None]:
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return []
    return [None if dim.is_dynamic else dim.get_length() for dim in shape]


def _with_pixels_in(model: ov.Model, card: ModelCard) -> ov.Model:
    """Let a model take uint8 [1, H, W, 3] BGR; scaling and reordering are fused into its first layer.

    Done once for all shapes, while height and width are still open where the model leaves them so.
    """
    model.reshape(ov.PartialShape([1, 3, *(card.native_shape if card.fixed_shape else (-1, -1))]))
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    pixels = steps.input().preprocess().convert_element_type(ov.Type.f32)
    if card.pixels.rgb:
        pixels.convert_color(ColorFormat.RGB)
    if any(card.pixels.mean):
        pixels.mean(list(card.pixels.mean))
    if len(set(card.pixels.std)) == 1:
        pixels.scale(card.pixels.std[0])
    else:
        pixels.scale(list(card.pixels.std))
    for at in range(len(model.outputs)):
        steps.output(at).tensor().set_element_type(ov.Type.f32)
    return steps.build()


def _of_shape(model: ov.Model, shape: InputShape) -> ov.Model:
    fixed = model.clone()
    try:
        fixed.reshape([1, *shape, 3])
    except RuntimeError as error:
        raise StartupError(f"detection.shapes: the model does not take {shape[0]}x{shape[1]}") from error
    return fixed
