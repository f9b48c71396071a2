"""Values that come from nowhere, or from a shape alone: constants, shapes, ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import numpy_helper

from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator
from sluiceway_runtime.onnx_torch.operators.elementwise import element_type

__all__ = ["tensor_of"]


def tensor_of(proto: Any, fault: Callable[[str], StartupError]) -> torch.Tensor:
    """A tensor of the file.

    Raises:
        StartupError: made by `fault`; it is of a type that is not known here.
    """
    dtype = element_type(proto.data_type, fault)
    array = numpy_helper.to_array(proto)
    if dtype == torch.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    # A copy in the machine's byte order, which may be written to, as torch wants it.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


@operator("Constant")
def _constant(_builder: Builder, operation: Operation) -> Value:
    if operation.has("value"):
        return Value(tensor_of(operation.get("value"), operation.fault))
    for name, dtype in (
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        if operation.has(name):
            return Value(torch.tensor(operation.get(name), dtype=dtype))
    raise operation.fault("constants of this kind are not supported")


@operator("ConstantOfShape")
def _constant_of_shape(builder: Builder, operation: Operation, shape: Value) -> Value:
    value = tensor_of(operation.get("value"), operation.fault) if operation.has("value") else torch.zeros(1)
    return Value(torch.full(builder.integers(shape) or (), value.item(), dtype=value.dtype))


@operator("Shape")
def _shape(_builder: Builder, operation: Operation, x: Value) -> Value:
    end = operation.get("end")
    return Value(torch.tensor(x.shape[operation.integer("start", 0) : end], dtype=torch.int64))


@operator("Size")
def _size(_builder: Builder, _operation: Operation, x: Value) -> Value:
    return Value(torch.tensor(x.tensor.numel(), dtype=torch.int64))


@operator("Range")
def _range(_builder: Builder, operation: Operation, start: Value, limit: Value, step: Value) -> Value:
    if not (start.known and limit.known and step.known):
        raise operation.fault("its length depends on the content of the input")
    return Value(torch.arange(start.tensor.item(), limit.tensor.item(), step.tensor.item(), dtype=start.tensor.dtype))


@operator("EyeLike")
def _eye_like(_builder: Builder, operation: Operation, x: Value) -> Value:
    dtype = element_type(operation.integer("dtype", 0), operation.fault) if operation.has("dtype") else x.tensor.dtype
    rows, columns = x.shape
    return Value(torch.from_numpy(np.eye(rows, columns, operation.integer("k", 0))).to(dtype))
