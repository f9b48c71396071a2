"""A network as OpenVINO computes it here: normalising and padding before it, the reduction behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from sluiceway_runtime.errors import StartupError

from sluiceway_recognition.plan import BRIGHTNESS, Normalisation
from sluiceway_recognition.types import Head, PixelFormat

__all__ = ["classes_of", "metadata_of", "static_size", "wrap"]

# What may stand between the last activation and the output without changing values.
_SHAPE_ONLY = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Convert")


def metadata_of(network: ov.Model) -> dict[str, str]:
    """What the file says of itself."""
    if not network.has_rt_info(["framework"]):
        return {}
    return {key: value.astype(str) for key, value in network.get_rt_info(["framework"]).astype(dict).items()}


def wrap(
    network: ov.Model,
    *,
    head: Head,
    height: int,
    normalisation: Normalisation,
    pixel_format: PixelFormat = PixelFormat.BGR,
    output: str | None,
    source: str,
    batch: int = 1,
) -> ov.Model:
    """Put normalising and padding before the network, and the reduction behind it.

    Args:
        network: as it was read; it becomes part of the result.
        head: decides the reduction.
        height: of every crop.
        normalisation: before the network.
        pixel_format: of the crops; a network of one channel gets their brightness.
        output: name of the output to read; None where there is only one.
        source: names the file in errors.
        batch: crops that are computed together.

    Returns:
        Takes `pixels`, uint8 [batch, height, W, 3], and `inside`, float32 [batch, 1, 1, W]: 1 in the columns of a crop,
        0 in its padding.

    Raises:
        StartupError: not a network of this kind.
    """
    inputs = network.get_parameters()
    shape = network.inputs[0].partial_shape
    images = len(inputs) == 1 and not shape.rank.is_dynamic and len(shape) == 4
    channels = next((count for count in (3, 1) if images and shape[1].compatible(ov.Dimension(count))), None)
    if channels is None:
        raise StartupError(f"{source}: the model must have one input of [N, 3, H, W] or [N, 1, H, W], not {shape}")
    if shape[2].is_static and shape[2].get_length() != height:
        raise StartupError(f"{source}: the model wants crops of height {shape[2]}, not {height}; set `height`")
    network.reshape([batch, channels, height, -1 if shape[3].is_dynamic else shape[3].get_length()])
    width = network.inputs[0].partial_shape[3]
    pixels = ops.parameter(ov.PartialShape([batch, height, width, 3]), np.uint8, name="pixels")
    inside = ops.parameter(ov.PartialShape([batch, 1, 1, width]), np.float32, name="inside")
    channels_first = ops.transpose(ops.convert(pixels, "f32"), ops.constant(np.array([0, 3, 1, 2], dtype=np.int64)))
    if channels == 1:
        shares = np.array(BRIGHTNESS[pixel_format], dtype=np.float32).reshape(1, 3, 1, 1)
        axis = ops.constant(np.array([1], dtype=np.int64))
        channels_first = ops.reduce_sum(ops.multiply(channels_first, ops.constant(shares)), axis, keep_dims=True)
    mean = ops.constant(np.array(normalisation.mean[:channels], dtype=np.float32).reshape(1, channels, 1, 1))
    deviation = np.array(normalisation.std[:channels], dtype=np.float64).reshape(1, channels, 1, 1)
    scale = (1 / deviation).astype(np.float32)
    # Outside the crop: 0 - 0 x mean. Subtracting first keeps every value exact where bf16 computes it.
    centred = ops.subtract(channels_first, mean if normalisation.black else ops.multiply(inside, mean))
    normalised = ops.multiply(centred, ops.constant(scale))
    for target in inputs[0].output(0).get_target_inputs():
        target.replace_source_output(normalised.output(0))
    value = _output_of(network, output, source)
    results = _reduce(_batch_first(value, batch) if head is Head.TEXT else value, head, source)
    # One that pads with black has no use for it, and every graph has the same inputs.
    return ov.Model(results, [pixels, inside], "recogniser")


def _batch_first(value: ov.Output, batch: int) -> ov.Output:
    """Of a recurrent reader the steps may come first, [T, N, C]."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 3 or shape[0] == ov.Dimension(batch) or shape[1] != ov.Dimension(batch):
        return value
    return ops.transpose(value, ops.constant(np.array([1, 0, 2], dtype=np.int64))).output(0)


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
    return ops.reshape(value, ops.constant(np.array([0, -1], dtype=np.int64)), special_zero=True).output(0)


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


def classes_of(model: ov.Model) -> int:
    """How many classes a wrapped text model tells apart."""
    best = model.outputs[1].get_node().input_value(0).get_node().input_value(0).get_node()
    size = best.input_value(0).get_partial_shape()[2]
    return int(size.get_length())


def static_size(output: ov.Output, path: Path) -> int:
    """How many numbers a classifier or an embedding gives for each crop.

    Raises:
        StartupError: it depends on the width of the crop.
    """
    size = output.get_partial_shape()[1]
    if size.is_dynamic:
        raise StartupError(f"{path}: the length of the model's output depends on the width of the crop")
    return int(size.get_length())
