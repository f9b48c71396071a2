"""Resize and Upsample: where each place of the result lies in the input is worked out while the module is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator
from sluiceway_runtime.onnx_torch.operators.layout import take

__all__ = ["along_axis", "nearest_positions", "source_positions"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis that changes: its length before and after, and the factor as the file says it."""

    axis: int
    size: int
    wanted: int
    scale: float


@operator("Upsample")
def _upsample(builder: Builder, operation: Operation, x: Value, scales: Value | None = None) -> Value:
    """The predecessor of Resize, until opset 9."""
    factors = scales.tensor.tolist() if scales is not None and scales.known else operation.get("scales")
    if factors is None:
        raise operation.fault("its factors depend on the input")
    axes = _axes_by_scale(x, range(x.rank), factors)
    return _resize_by(builder, operation, x, axes, transformation="asymmetric", rounding="floor")


@operator("Resize")
def _resize(  # noqa: PLR0917 - ONNX's inputs, by position
    builder: Builder,
    operation: Operation,
    x: Value,
    second: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
) -> Value:
    """Inputs since opset 11: x, roi, scales, sizes; in opset 10: x, scales."""
    if operation.opset < 11:
        scales, second = second, None
    if (scales is not None and not scales.known) or (sizes is not None and not sizes.known):
        raise operation.fault("its size depends on the content of the input")
    along = [x.axis(axis) for axis in operation.integers("axes") or range(x.rank)]
    if sizes is not None and sizes.tensor.numel():
        axes = _axes_by_size(operation, x, along, sizes.integers())
    elif scales is not None and scales.tensor.numel():
        axes = _axes_by_scale(x, along, scales.tensor.tolist())
    else:
        raise operation.fault("has neither scales nor sizes")
    if operation.opset < 11:
        return _resize_by(builder, operation, x, axes, transformation="asymmetric", rounding="floor")
    transformation = operation.text("coordinate_transformation_mode", "half_pixel")
    rounding = operation.text("nearest_mode", "round_prefer_floor")
    return _resize_by(builder, operation, x, axes, transformation=transformation, rounding=rounding)


def _axes_by_scale(x: Value, along: Sequence[int], scales: Sequence[float]) -> list[_Axis]:
    return [
        _Axis(axis, x.shape[axis], math.floor(x.shape[axis] * scale), scale)
        for axis, scale in zip(along, scales, strict=True)
    ]


def _axes_by_size(operation: Operation, x: Value, along: Sequence[int], sizes: Sequence[int]) -> list[_Axis]:
    policy = operation.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        pairs = zip(along, sizes, strict=True)
        return [_Axis(axis, x.shape[axis], size, size / x.shape[axis]) for axis, size in pairs]
    factors = [size / x.shape[axis] for axis, size in zip(along, sizes, strict=True)]
    scale = min(factors) if policy == "not_larger" else max(factors)
    return [_Axis(axis, x.shape[axis], math.floor(x.shape[axis] * scale + 0.5), scale) for axis in along]


def _resize_by(
    builder: Builder, operation: Operation, x: Value, axes: Sequence[_Axis], *, transformation: str, rounding: str
) -> Value:
    changed = [axis for axis in axes if axis.size != axis.wanted or axis.scale != 1]
    mode = operation.text("mode", "nearest")
    # Each of these means something to one mode alone, and files give them with every mode.
    operation.ignore("antialias", "cubic_coeff_a", "exclude_outside", "extrapolation_value", "nearest_mode")
    operation.ignore("keep_aspect_ratio_policy")  # to sizes
    if transformation == "tf_crop_and_resize":
        raise operation.fault("tf_crop_and_resize is not supported")
    if transformation == "align_corners" and not all(map(_is_whole, changed)):
        # By the standard's text it is the size before it is rounded that counts, by torch and ONNX Runtime the other.
        raise operation.fault("align_corners with scales that make no whole size is not supported")
    if mode == "nearest":
        return _nearest(builder, x, changed, transformation, rounding)
    if mode not in ("linear", "cubic"):
        raise operation.fault(f"mode {mode} is not supported")
    if operation.flag("antialias"):
        raise operation.fault("antialias is not supported")
    if mode == "linear" and (found := _bilinear(builder, x, changed, transformation)) is not None:
        return found
    taps = _linear_taps if mode == "linear" else _cubic_taps(operation)
    for axis in changed:
        weights = _matrix(axis, transformation, taps, strict=operation.flag("exclude_outside"))
        x = builder.call(along_axis, x, Value(torch.from_numpy(weights).to(x.tensor.dtype)), axis.axis)
    return x


def _nearest(builder: Builder, x: Value, axes: Sequence[_Axis], transformation: str, rounding: str) -> Value:
    whole = all(axis.wanted % axis.size == 0 and axis.wanted == axis.size * axis.scale for axis in axes)
    if x.rank == 4 and whole and transformation == "asymmetric" and rounding == "floor":
        sizes = {axis.axis: axis.wanted for axis in axes}
        if not sizes:
            return x
        if min(sizes) >= 2:
            return builder.call(functional.interpolate, x, [sizes.get(axis, x.shape[axis]) for axis in (2, 3)])
    for axis in axes:
        places = source_positions(axis.size, axis.wanted, axis.scale, transformation)
        x = take(builder, x, axis.axis, nearest_positions(places, axis.size, rounding))
    return x


def _bilinear(builder: Builder, x: Value, axes: Sequence[_Axis], transformation: str) -> Value | None:
    """Torch's own, where it means the same."""
    sizes = {axis.axis: axis.wanted for axis in axes}
    exact = all(map(_is_whole, axes))
    if x.rank != 4 or not sizes or min(sizes) < 2 or not exact or transformation not in ("half_pixel", "align_corners"):
        return None
    size = [sizes.get(axis, x.shape[axis]) for axis in (2, 3)]
    return builder.call(
        functional.interpolate, x, size, mode="bilinear", align_corners=transformation == "align_corners"
    )


def _is_whole(axis: _Axis) -> bool:
    return math.isclose(axis.wanted, axis.size * axis.scale, rel_tol=1e-6)


def source_positions(size: int, wanted: int, scale: float, transformation: str) -> FloatArray:
    """Where each place of the result lies in the input, by the standard's formulas.

    Raises:
        ValueError: the transformation is not known.
    """
    # In 32 bits, as others compute it: on a tie between two elements the last digit decides.
    places = np.arange(wanted, dtype=np.float32)
    factor, half = np.float32(scale), np.float32(0.5)
    if transformation == "half_pixel" or (transformation == "pytorch_half_pixel" and wanted > 1):
        found = (places + half) / factor - half
    elif transformation == "pytorch_half_pixel":
        found = places * 0
    elif transformation == "half_pixel_symmetric":
        offset = np.float32(size / 2 * (1 - wanted / (scale * size)))
        found = offset + (places + half) / factor - half
    elif transformation == "align_corners":
        found = places * np.float32(size - 1) / np.float32(max(wanted - 1, 1))
    elif transformation == "asymmetric":
        found = places / factor
    else:
        raise ValueError(f"coordinate transformation {transformation} is not known")
    return np.asarray(found, np.float64)


def nearest_positions(places: FloatArray, size: int, rounding: str) -> list[int]:
    """Whole positions.

    Raises:
        ValueError: the rounding is not known.
    """
    rounded = {
        "round_prefer_floor": np.ceil(places - 0.5),
        "round_prefer_ceil": np.floor(places + 0.5),
        "floor": np.floor(places),
        "ceil": np.ceil(places),
    }.get(rounding)
    if rounded is None:
        raise ValueError(f"nearest mode {rounding} is not known")
    return [int(place) for place in np.clip(rounded, 0, size - 1)]


def along_axis(x: torch.Tensor, weights: torch.Tensor, axis: int) -> torch.Tensor:
    """Replace an axis by weighted sums along it; weights are [new, old]."""
    return torch.movedim(torch.matmul(torch.movedim(x, axis, -1), weights.t()), -1, axis)


Taps = Callable[[FloatArray], list[tuple[int, FloatArray]]]
"""From the fraction of each position to the weights of its neighbours, by their distance from the one below it."""


def _linear_taps(fraction: FloatArray) -> list[tuple[int, FloatArray]]:
    return [(0, 1 - fraction), (1, fraction)]


def _cubic_taps(operation: Operation) -> Taps:
    """Keys' kernel; its parameter is -0.75 by default."""
    a = operation.number("cubic_coeff_a", -0.75)

    def taps(fraction: FloatArray) -> list[tuple[int, FloatArray]]:
        def near(t: FloatArray) -> FloatArray:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1

        def far(t: FloatArray) -> FloatArray:
            return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a

        return [(-1, far(fraction + 1)), (0, near(fraction)), (1, near(1 - fraction)), (2, far(2 - fraction))]

    return taps


def _matrix(axis: _Axis, transformation: str, taps: Taps, *, strict: bool) -> FloatArray:
    """[wanted, size]: how much of each element of the input is in each of the result.

    `strict` leaves neighbours outside of the input out; else the element at the edge stands in for them.
    """
    places = source_positions(axis.size, axis.wanted, axis.scale, transformation)
    below = np.floor(places)
    matrix = np.zeros((axis.wanted, axis.size))
    for distance, weight in taps(places - below):
        at = (below + distance).astype(np.int64)
        inside = (at >= 0) & (at < axis.size) if strict else np.ones(len(at), np.bool_)
        np.add.at(matrix, (np.arange(axis.wanted), at.clip(0, axis.size - 1)), weight * inside)
    return matrix / matrix.sum(axis=1, keepdims=True) if strict else matrix
