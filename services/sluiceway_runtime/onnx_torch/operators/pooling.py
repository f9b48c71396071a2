"""Pooling."""

from __future__ import annotations

import operator as python
from collections.abc import Sequence

import torch
from torch.nn import functional

from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator
from sluiceway_runtime.onnx_torch.operators.convolution import Window

__all__: list[str] = []  # everything here is found by its ONNX name


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global(builder: Builder, operation: Operation, x: Value) -> Value:
    function = torch.mean if operation.kind == "GlobalAveragePool" else torch.amax
    return builder.call(function, x, tuple(range(2, x.rank)), True)


@operator("MaxPool")
def _max(builder: Builder, operation: Operation, x: Value) -> Value:
    operation.ignore("storage_order")  # of positions, which are the second output
    window = _window(operation, x)
    function = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}[x.rank]
    padding: Sequence[int] = window.before
    # torch pads at most half a kernel, and both ends alike.
    if not window.even or any(2 * pad > taps for pad, taps in zip(padding, window.kernel, strict=True)):
        x, padding = window.pad(builder, x, float("-inf")), (0,) * len(padding)
    ceil = operation.flag("ceil_mode")
    return builder.call(function, x, window.kernel, window.strides, tuple(padding), window.dilations, ceil)


@operator("AveragePool")
def _average(builder: Builder, operation: Operation, x: Value) -> Value:
    window = _window(operation, x)
    if any(step != 1 for step in window.dilations):
        raise operation.fault("dilations are not supported")
    function = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}[x.rank]
    ceil, all_count = operation.flag("ceil_mode"), operation.flag("count_include_pad")
    fits = all(2 * pad <= taps for pad, taps in zip(window.before, window.kernel, strict=True))
    if window.even and fits and not ceil:
        return builder.call(function, x, window.kernel, window.strides, window.before, ceil, all_count)
    # Sums over padded windows, divided by the elements that count in each: constants, as shapes are.
    counted = torch.ones(1, 1, *x.shape[2:])
    pads = [amount for pair in reversed(list(zip(window.before, window.after, strict=True))) for amount in pair]
    counted = functional.pad(counted, pads, value=1.0 if all_count else 0.0)
    x = window.pad(builder, x, 0.0)
    overhang = _overhang(window, x.shape[2:]) if ceil else [0] * len(window.kernel)
    if any(overhang):
        # Beyond the padding nothing counts: the last window is then smaller.
        more = [amount for size in reversed(overhang) for amount in (0, size)]
        x, counted = builder.call(functional.pad, x, more), functional.pad(counted, more)
    sums = builder.call(function, x, window.kernel, window.strides, 0, False, True)
    share = function(counted, window.kernel, window.strides)
    return builder.call(python.mul, sums, Value((1 / share).to(x.tensor.dtype)))


def _overhang(window: Window, sizes: Sequence[int]) -> list[int]:
    """How far the last window reaches beyond the padded input if a part of a step makes another one.

    A window that would start in the padding at the end is left out, as torch and ONNX Runtime do.
    """
    result = []
    for size, taps, stride, after in zip(sizes, window.kernel, window.strides, window.after, strict=True):
        count = -(-(size - taps) // stride) + 1
        if (count - 1) * stride >= size - after:
            count -= 1
        result.append(max((count - 1) * stride + taps - size, 0))
    return result


def _window(operation: Operation, x: Value) -> Window:
    kernel = operation.integers("kernel_shape")
    if kernel is None:
        raise operation.fault("has no kernel_shape")
    return Window.of(operation, x, kernel)
