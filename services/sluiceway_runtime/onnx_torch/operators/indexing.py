"""Elements by position: gather, scatter, the largest ones."""

from __future__ import annotations

import operator as python
from collections.abc import Sequence

import torch

from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator
from sluiceway_runtime.onnx_torch.operators.layout import take

__all__ = ["after_a_zero", "first_in_order", "from_the_start"]


def from_the_start(indices: torch.Tensor, length: int) -> torch.Tensor:
    """Negative positions count from the end; torch's functions know only those from the start."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + length, indices)


def after_a_zero(x: torch.Tensor, axis: int) -> torch.Tensor:
    """One place further along an axis, with zeros in the first place and without what was in the last."""
    if x.shape[axis] == 0:
        return x
    first = torch.zeros_like(x.narrow(axis, 0, 1))
    return torch.cat((first, x.narrow(axis, 0, x.shape[axis] - 1)), axis)


def first_in_order(x: torch.Tensor, count: int, axis: int, largest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest or smallest elements and where they are, of equal ones those that come first.

    Which of these `torch.topk` gives is left open.
    """
    found, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return found.narrow(axis, 0, count), places.narrow(axis, 0, count)


def _positions(builder: Builder, indices: Value, length: int) -> Value:
    return builder.call(from_the_start, indices, length)


@operator("Gather")
def _gather(builder: Builder, operation: Operation, x: Value, indices: Value) -> Value:
    axis = x.axis(operation.integer("axis", 0))
    length = x.shape[axis]
    if indices.known:
        known = [position % length for position in indices.integers() if -length <= position < length]
        if len(known) != indices.tensor.numel():
            raise operation.fault(f"a position lies outside of {length}")
        if indices.rank == 0:
            return builder.call(torch.select, x, axis, known[0])
        found = take(builder, x, axis, known)
    else:
        flat = builder.call(torch.reshape, _positions(builder, indices, length), (-1,))
        found = builder.call(torch.index_select, x, axis, flat)
    if indices.rank == 1:
        return found
    return builder.call(torch.reshape, found, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(builder: Builder, operation: Operation, x: Value, indices: Value) -> Value:
    axis = x.axis(operation.integer("axis", 0))
    return builder.call(torch.gather, x, axis, _positions(builder, indices, x.shape[axis]))


@operator("GatherND")
def _gather_nd(builder: Builder, operation: Operation, x: Value, indices: Value) -> Value:
    """Positions over several axes become positions over one, which is all of them laid out in a row."""
    shared, depth = operation.integer("batch_dims", 0), indices.shape[-1]
    batch, inner, rest = x.shape[:shared], x.shape[shared : shared + depth], x.shape[shared + depth :]
    groups, places, width = _product(batch), _product(inner), _product(rest)
    count = _product(indices.shape[shared:-1])
    flat = builder.call(torch.reshape, indices, (groups, count, depth))
    place: Value | None = None
    for axis, length in enumerate(inner):
        part = _positions(builder, builder.call(torch.select, flat, 2, axis), length)
        part = builder.call(python.mul, part, _product(inner[axis + 1 :]))
        place = part if place is None else builder.call(python.add, place, part)
    assert place is not None, "a position has at least one coordinate"
    wide = builder.call(torch.Tensor.expand, builder.call(torch.unsqueeze, place, 2), (groups, count, width))
    found = builder.call(torch.gather, builder.call(torch.reshape, x, (groups, places, width)), 1, wide)
    return builder.call(torch.reshape, found, (*indices.shape[:-1], *rest))


@operator("ScatterElements", "Scatter")
def _scatter_elements(builder: Builder, operation: Operation, x: Value, indices: Value, updates: Value) -> Value:
    axis = x.axis(operation.integer("axis", 0))
    where = _positions(builder, indices, x.shape[axis])
    how = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}.get(operation.text("reduction", "none"))
    if how is None:
        return builder.call(torch.scatter, x, axis, where, updates)
    return builder.call(torch.scatter_reduce, x, axis, where, updates, how)


@operator("ArgMax", "ArgMin")
def _arg_extreme(builder: Builder, operation: Operation, x: Value) -> Value:
    axis, kept = x.axis(operation.integer("axis", 0)), operation.flag("keepdims", default=True)
    function = torch.argmax if operation.kind == "ArgMax" else torch.argmin
    if not operation.flag("select_last_index"):
        return builder.call(function, x, axis, kept)
    turned = builder.call(function, builder.call(torch.flip, x, (axis,)), axis, kept)
    return builder.call(python.sub, x.shape[axis] - 1, turned)


@operator("TopK")
def _top_k(builder: Builder, operation: Operation, x: Value, count: Value | None = None) -> Sequence[Value]:
    k = builder.integers(count) if count is not None else (operation.integer("k", 1),)
    assert k is not None, "it is given above"
    axis = x.axis(operation.integer("axis", -1))
    operation.ignore("sorted")  # sorted is one of the orders that it may have otherwise
    largest = operation.flag("largest", default=True)
    return builder.call_many(first_in_order, x, k[0], axis, largest)


@operator("CumSum")
def _cumulative(builder: Builder, operation: Operation, x: Value, axis: Value) -> Value:
    along = x.axis((builder.integers(axis) or (0,))[0])
    backwards, exclusive = operation.flag("reverse"), operation.flag("exclusive")
    if backwards:
        x = builder.call(torch.flip, x, (along,))
    sums = builder.call(torch.cumsum, x, along, dtype=x.tensor.dtype)
    if exclusive:
        sums = builder.call(after_a_zero, sums, along)
    return builder.call(torch.flip, sums, (along,)) if backwards else sums


@operator("Trilu")
def _triangle(builder: Builder, operation: Operation, x: Value, diagonal: Value | None = None) -> Value:
    function = torch.triu if operation.flag("upper", default=True) else torch.tril
    return builder.call(function, x, (builder.integers(diagonal) or (0,))[0])


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
