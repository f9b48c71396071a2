"""Arithmetic, comparisons and activations: one result for each element."""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from functools import reduce
from typing import Any

import onnx
import torch
from torch.nn import functional

from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator

__all__ = ["cast", "divide_integers", "element_type", "mish"]


def element_type(code: int, fault: Callable[[str], StartupError]) -> torch.dtype:
    """ONNX's number of a type as torch's type.

    Raises:
        StartupError: made by `fault`; there is no such type, or torch computes little with it.
    """
    # onnx.TensorProto.DataType; the numbers are part of the format.
    types = {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        5: torch.int16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
        16: torch.bfloat16,
    }
    if code not in types:
        known = onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(code) if code in known else code
        raise fault(f"element type {name} is not supported")
    return types[code]


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Convert. A function of ours, so that `in_precision` finds it."""
    return x.to(dtype)


def divide_integers(x: Any, y: Any) -> torch.Tensor:
    """Towards zero, as ONNX (and C) divide."""
    return torch.div(x, y, rounding_mode="trunc")


def mish(x: torch.Tensor) -> torch.Tensor:
    """x * tanh(softplus(x))."""
    return functional.mish(x)


def _unary(*names: str, function: Callable[..., Any]) -> None:
    def handler(builder: Builder, _operation: Operation, x: Value) -> Value:
        return builder.call(function, x)

    operator(*names)(handler)


def _binary(*names: str, function: Callable[..., Any]) -> None:
    def handler(builder: Builder, operation: Operation, x: Value, y: Value) -> Value:
        # Until opset 6 it had to be asked for. With an `axis` it meant something else, which is refused.
        operation.ignore("broadcast")
        return builder.call(function, *builder.operands(x, y))

    operator(*names)(handler)


for _name, _function in {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,  # both round halves to even
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}.items():
    _unary(_name, function=_function)

for _name, _function in {
    "Add": python.add,
    "Sub": python.sub,
    "Mul": python.mul,
    "Equal": python.eq,
    "Greater": python.gt,
    "GreaterOrEqual": python.ge,
    "Less": python.lt,
    "LessOrEqual": python.le,
}.items():
    _binary(_name, function=_function)


@operator("And", "Or", "Xor")
def _logical(builder: Builder, operation: Operation, x: Value, y: Value) -> Value:
    functions = {"And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor}
    return builder.call(functions[operation.kind], x, y)


@operator("Div")
def _divide(builder: Builder, _operation: Operation, x: Value, y: Value) -> Value:
    whole = not x.tensor.is_floating_point()
    return builder.call(divide_integers if whole else python.truediv, *builder.operands(x, y))


@operator("Mod")
def _modulo(builder: Builder, operation: Operation, x: Value, y: Value) -> Value:
    # fmod takes the sign of the dividend, the other that of the divisor.
    return builder.call(torch.fmod if operation.flag("fmod") else torch.remainder, *builder.operands(x, y))


@operator("Pow")
def _power(builder: Builder, _operation: Operation, x: Value, y: Value) -> Value:
    result = builder.call(python.pow, *builder.operands(x, y))
    # The result is of the base's type, whatever the exponent's.
    return result if result.tensor.dtype == x.tensor.dtype else builder.call(cast, result, x.tensor.dtype)


@operator("Max", "Min")
def _extreme(builder: Builder, operation: Operation, *inputs: Value) -> Value:
    function = torch.maximum if operation.kind == "Max" else torch.minimum
    return reduce(lambda x, y: builder.call(function, x, y), inputs)


@operator("Sum")
def _sum(builder: Builder, _operation: Operation, *inputs: Value) -> Value:
    return reduce(lambda x, y: builder.call(python.add, *builder.operands(x, y)), inputs)


@operator("Mean")
def _mean(builder: Builder, operation: Operation, *inputs: Value) -> Value:
    return builder.call(python.truediv, _sum(builder, operation, *inputs), len(inputs))


@operator("Where")
def _where(builder: Builder, _operation: Operation, condition: Value, x: Value, y: Value) -> Value:
    return builder.call(torch.where, condition, x, y)


@operator("Clip")
def _clip(
    builder: Builder, operation: Operation, x: Value, least: Value | None = None, most: Value | None = None
) -> Value:
    """Bounds were attributes before opset 11, inputs since."""
    bounds: list[Any] = []
    for name, value in (("min", least), ("max", most)):
        if value is not None and not value.known:
            raise operation.fault(f"its {name} depends on the input")
        bounds.append(value.tensor.item() if value is not None else operation.get(name))
    return x if bounds == [None, None] else builder.call(torch.clamp, x, bounds[0], bounds[1])


@operator("LeakyRelu")
def _leaky_relu(builder: Builder, operation: Operation, x: Value) -> Value:
    return builder.call(functional.leaky_relu, x, operation.number("alpha", 0.01))


@operator("Elu", "Celu", "ThresholdedRelu")
def _with_alpha(builder: Builder, operation: Operation, x: Value) -> Value:
    alpha = operation.number("alpha", 1.0)
    if operation.kind == "ThresholdedRelu":
        return builder.call(functional.threshold, x, alpha, 0.0)
    return builder.call(functional.elu if operation.kind == "Elu" else functional.celu, x, alpha)


@operator("Selu")
def _selu(builder: Builder, operation: Operation, x: Value) -> Value:
    alpha, gamma = operation.number("alpha", 1.67326319217681885), operation.number("gamma", 1.05070102214813232)
    return builder.call(python.mul, builder.call(_elu_of_any_slope, x, alpha), gamma)


def _elu_of_any_slope(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


@operator("PRelu")
def _prelu(builder: Builder, operation: Operation, x: Value, slope: Value) -> Value:
    if operation.opset < 7 and slope.rank == 1 and slope.shape != (1,):
        # One for each channel. Since then it is broadcast from the last axis on.
        slope = builder.call(torch.reshape, slope, (-1, *(1,) * (x.rank - 2)))
    return builder.call(_prelu_of, x, slope)


def _prelu_of(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("HardSigmoid")
def _hard_sigmoid(builder: Builder, operation: Operation, x: Value) -> Value:
    alpha, beta = operation.number("alpha", 0.2), operation.number("beta", 0.5)
    return builder.call(_clamped_line, x, alpha, beta)


def _clamped_line(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


@operator("Gelu")
def _gelu(builder: Builder, operation: Operation, x: Value) -> Value:
    return builder.call(functional.gelu, x, approximate=operation.text("approximate", "none"))


@operator("Softmax", "LogSoftmax")
def _softmax(builder: Builder, operation: Operation, x: Value) -> Value:
    function = torch.softmax if operation.kind == "Softmax" else torch.log_softmax
    if operation.opset >= 13:
        return builder.call(function, x, operation.integer("axis", -1))
    # Until then it was over everything from the axis on, taken together.
    axis = x.axis(operation.integer("axis", 1))
    if axis == x.rank - 1:
        return builder.call(function, x, axis)
    flat = builder.call(torch.flatten, x, axis)
    return builder.call(torch.reshape, builder.call(function, flat, axis), x.shape)


@operator("Cast", "CastLike")
def _cast(builder: Builder, operation: Operation, x: Value, like: Value | None = None) -> Value:
    dtype = like.tensor.dtype if like is not None else element_type(operation.integer("to", 0), operation.fault)
    return x if x.tensor.dtype == dtype else builder.call(cast, x, dtype)


@operator("Identity")
def _identity(_builder: Builder, _operation: Operation, x: Value) -> Value:
    return x


@operator("Dropout")
def _dropout(
    _builder: Builder, operation: Operation, x: Value, _ratio: Value | None = None, training: Value | None = None
) -> Value:
    """In training if an input says so, or before opset 7 if no attribute says that it is not."""
    if operation.opset < 7 and not operation.flag("is_test"):
        raise operation.fault("it is exported for training")
    if training is not None and not (training.known and not training.tensor.any()):
        raise operation.fault("it may be training")
    operation.ignore("ratio", "seed")
    return x
