"""One number from many along axes."""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from typing import Any

import torch

from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator
from sluiceway_runtime.onnx_torch.operators.layout import axes_of

__all__ = ["product", "sum_of_magnitudes"]


def product(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    """Over several axes, which torch.prod does not know."""
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


def sum_of_magnitudes(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    """The L1 norm."""
    return torch.sum(torch.abs(x), axes, keepdim=keep)


def _sum_of_squares(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return torch.sum(x * x, axes, keepdim=keep)


def _length(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return torch.linalg.vector_norm(x, 2, axes, keepdim=keep)


def _log_of_sum(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return torch.log(torch.sum(x, axes, keepdim=keep))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": sum_of_magnitudes,
    "ReduceL2": _length,
    "ReduceLogSum": _log_of_sum,
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceProd": product,
    "ReduceSum": torch.sum,
    "ReduceSumSquare": _sum_of_squares,
}


@operator(*_FUNCTIONS)
def _reduce(builder: Builder, operation: Operation, x: Value, axes: Value | None = None) -> Value:
    """Axes were attributes before opset 18 (of ReduceSum before 13), inputs since; none at all means every axis."""
    given = axes_of(builder, operation, axes) or ()
    unchanged = operation.flag("noop_with_empty_axes")
    if not given and unchanged:
        return builder.call(python.mul, x, x) if operation.kind == "ReduceSumSquare" else x
    along = tuple(x.axis(axis) for axis in given) or tuple(range(x.rank))
    return builder.call(_FUNCTIONS[operation.kind], x, along, operation.flag("keepdims", default=True))
