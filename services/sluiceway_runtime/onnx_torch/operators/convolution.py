"""Convolutions, and the padding rules that pooling shares with them."""

from __future__ import annotations

import operator as python
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator

__all__ = ["Window", "crop"]


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves over the spatial axes; one number for each of them.

    Attributes:
        kernel: its size.
        strides: steps.
        dilations: distances between its taps.
        before: padding at the start.
        after: padding at the end.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, operation: Operation, x: Value, kernel: Sequence[int]) -> Window:
        """Read the attributes that all window operators have."""
        axes = len(kernel)
        strides = operation.integers("strides") or (1,) * axes
        dilations = operation.integers("dilations") or (1,) * axes
        pads = operation.integers("pads") or (0,) * (2 * axes)
        before, after = pads[:axes], pads[axes:]
        rule = operation.text("auto_pad", "NOTSET")
        if rule in ("SAME_UPPER", "SAME_LOWER"):
            totals = [
                max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
                for size, taps, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
            ]
            small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
            before, after = (small, large) if rule == "SAME_UPPER" else (large, small)
        elif rule == "VALID":
            before = after = (0,) * axes
        elif rule != "NOTSET":
            raise operation.fault(f"auto_pad {rule} is not known")
        return cls(tuple(kernel), strides, dilations, tuple(before), tuple(after))

    @property
    def even(self) -> bool:
        """Whether both ends are padded alike, which torch does by itself."""
        return self.before == self.after

    def pad(self, builder: Builder, x: Value, fill: float) -> Value:
        """Pad beforehand."""
        amounts = [amount for pair in reversed(list(zip(self.before, self.after, strict=True))) for amount in pair]
        return builder.call(functional.pad, x, amounts, "constant", fill) if any(amounts) else x


def crop(x: torch.Tensor, before: tuple[int, ...], sizes: tuple[int, ...]) -> torch.Tensor:
    """A window of the spatial axes."""
    for axis, (start, size) in enumerate(zip(before, sizes, strict=True), start=2):
        x = x.narrow(axis, start, size)
    return x


def _kernel(operation: Operation, weight: Value) -> tuple[int, ...]:
    """Size of the kernel, which some files say twice."""
    kernel = weight.shape[2:]
    if operation.integers("kernel_shape") not in (None, kernel):
        raise operation.fault(f"kernel_shape is not that of the weights, {list(kernel)}")
    return kernel


@operator("Conv")
def _convolution(builder: Builder, operation: Operation, x: Value, weight: Value, bias: Value | None = None) -> Value:
    window = Window.of(operation, x, _kernel(operation, weight))
    function = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[x.rank]
    padding: tuple[int, ...] = window.before
    if not window.even:
        x, padding = window.pad(builder, x, 0.0), (0,) * len(padding)
    group = operation.integer("group", 1)
    return builder.call(function, x, weight, bias, window.strides, padding, window.dilations, group)


@operator("ConvTranspose")
def _transposed(builder: Builder, operation: Operation, x: Value, weight: Value, bias: Value | None = None) -> Value:
    axes = x.rank - 2
    function = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d, 5: functional.conv_transpose3d}[x.rank]
    strides = operation.integers("strides") or (1,) * axes
    dilations = operation.integers("dilations") or (1,) * axes
    extra = operation.integers("output_padding") or (0,) * axes
    kernel = _kernel(operation, weight)
    full = [
        (size - 1) * stride + (taps - 1) * dilation + 1 + more
        for size, stride, taps, dilation, more in zip(x.shape[2:], strides, kernel, dilations, extra, strict=True)
    ]
    before, sizes = _cut(operation, x, full, strides)
    # A given size may be more than all there is.
    extra = tuple(more + max(size - whole, 0) for more, size, whole in zip(extra, sizes, full, strict=True))
    # In full first, then cut: as output_padding torch takes only less than a stride.
    group, grown = operation.integer("group", 1), any(extra)
    result = builder.call(function, x, weight, None if grown else bias, strides, 0, 0, group, dilations)
    if grown:
        result = builder.call(functional.pad, result, [amount for more in reversed(extra) for amount in (0, more)])
    if result.shape[2:] != sizes:
        result = builder.call(crop, result, before, sizes)
    if grown and bias is not None:
        result = builder.call(python.add, result, builder.call(torch.reshape, bias, (1, -1, *(1,) * axes)))
    return result


def _cut(
    operation: Operation, x: Value, full: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is kept of the full result: where it starts and how large it is."""
    axes = len(full)
    pads = operation.integers("pads") or (0,) * (2 * axes)
    rule, sizes = operation.text("auto_pad", "NOTSET"), operation.integers("output_shape")
    if sizes is None and rule.startswith("SAME"):
        sizes = tuple(size * stride for size, stride in zip(x.shape[2:], strides, strict=True))
    if sizes is None:
        kept = (size - low - high for size, low, high in zip(full, pads[:axes], pads[axes:], strict=True))
        return pads[:axes], tuple(kept)
    totals = [max(whole - size, 0) for whole, size in zip(full, sizes[-axes:], strict=True)]
    upper = rule == "SAME_UPPER"
    return tuple(total // 2 if upper else total - total // 2 for total in totals), sizes[-axes:]
