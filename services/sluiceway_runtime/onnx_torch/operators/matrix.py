"""Products of matrices, and normalisations."""

from __future__ import annotations

import operator as python

import torch
from torch.nn import functional

from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator

__all__: list[str] = []  # everything here is found by its ONNX name


@operator("MatMul")
def _matmul(builder: Builder, _operation: Operation, x: Value, y: Value) -> Value:
    return builder.call(torch.matmul, x, y)


@operator("Gemm")
def _gemm(builder: Builder, operation: Operation, x: Value, y: Value, bias: Value | None = None) -> Value:
    if operation.flag("transA"):
        x = builder.call(torch.t, x)
    if not operation.flag("transB"):
        y = builder.call(torch.t, y)
    alpha, beta = operation.number("alpha", 1.0), operation.number("beta", 1.0)
    operation.ignore("broadcast")  # of the bias, which had to be asked for until opset 6
    if bias is not None and beta != 1:
        bias = builder.call(python.mul, bias, beta)
    if alpha != 1:
        y = builder.call(python.mul, y, alpha)
    if bias is None or (bias.rank == 1 and bias.shape[0] == y.shape[0]):
        return builder.call(functional.linear, x, y, bias)
    return builder.call(python.add, builder.call(functional.linear, x, y), bias)


@operator("Einsum")
def _einsum(builder: Builder, operation: Operation, *inputs: Value) -> Value:
    return builder.call(torch.einsum, operation.text("equation", ""), *inputs)


@operator("BatchNormalization")
def _batch_norm(  # noqa: PLR0917 - ONNX's inputs, by position
    builder: Builder, operation: Operation, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> Value:
    if operation.flag("training_mode") or (operation.opset < 7 and not operation.flag("is_test")):
        raise operation.fault("it is exported for training")
    operation.ignore("momentum")
    epsilon = operation.number("epsilon", 1e-5)
    return builder.call(functional.batch_norm, x, mean, variance, scale, bias, False, 0.0, epsilon)


@operator("LayerNormalization")
def _layer_norm(builder: Builder, operation: Operation, x: Value, scale: Value, bias: Value | None = None) -> Value:
    shape = x.shape[x.axis(operation.integer("axis", -1)) :]
    scale = builder.call(torch.broadcast_to, scale, shape)
    if bias is not None:
        bias = builder.call(torch.broadcast_to, bias, shape)
    return builder.call(functional.layer_norm, x, shape, scale, bias, operation.number("epsilon", 1e-5))


@operator("RMSNormalization")
def _rms_norm(builder: Builder, operation: Operation, x: Value, scale: Value) -> Value:
    shape = x.shape[x.axis(operation.integer("axis", -1)) :]
    scale = builder.call(torch.broadcast_to, scale, shape)
    return builder.call(functional.rms_norm, x, shape, scale, operation.number("epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_norm(builder: Builder, operation: Operation, x: Value, scale: Value, bias: Value) -> Value:
    epsilon = operation.number("epsilon", 1e-5)
    return builder.call(functional.instance_norm, x, None, None, scale, bias, True, 0.0, epsilon)


@operator("GroupNormalization")
def _group_norm(builder: Builder, operation: Operation, x: Value, scale: Value, bias: Value) -> Value:
    """Scale and bias were one for each group in opset 18, one for each channel since 21."""
    groups = operation.integer("num_groups", 1)
    if operation.opset < 21:
        repeat = x.shape[1] // groups
        scale = builder.call(torch.repeat_interleave, scale, repeat)
        bias = builder.call(torch.repeat_interleave, bias, repeat)
    return builder.call(functional.group_norm, x, groups, scale, bias, operation.number("epsilon", 1e-5))


@operator("LpNormalization")
def _lp_norm(builder: Builder, operation: Operation, x: Value) -> Value:
    p, axis = operation.integer("p", 2), x.axis(operation.integer("axis", -1))
    return builder.call(functional.normalize, x, float(p), axis, 1e-12)


@operator("LRN")
def _local_response(builder: Builder, operation: Operation, x: Value) -> Value:
    size = operation.integer("size", 1)
    if size % 2 == 0:
        raise operation.fault("an even size is not supported")
    alpha, beta, bias = operation.number("alpha", 1e-4), operation.number("beta", 0.75), operation.number("bias", 1.0)
    return builder.call(functional.local_response_norm, x, size, alpha, beta, bias)
