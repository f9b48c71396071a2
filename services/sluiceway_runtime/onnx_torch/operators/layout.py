"""The same elements in another shape or order, or some of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from sluiceway_runtime.onnx_torch.builder import Builder, Value
from sluiceway_runtime.onnx_torch.operation import Operation, operator

__all__ = ["axes_of", "every_nth", "take"]


def axes_of(builder: Builder, operation: Operation, axes: Value | None) -> tuple[int, ...] | None:
    """Axes, which became an input with a later opset, where they were an attribute before; None if not given."""
    return builder.integers(axes) if axes is not None else operation.integers("axes")


def take(builder: Builder, x: Value, axis: int, positions: Sequence[int]) -> Value:
    """Elements by fixed positions along an axis: a view where they follow each other."""
    first = positions[0] if len(positions) else 0
    if tuple(positions) == tuple(range(first, first + len(positions))):
        if len(positions) == x.shape[axis]:
            return x
        return builder.call(torch.narrow, x, axis, first, len(positions))
    return builder.call(torch.index_select, x, axis, Value(torch.tensor(tuple(positions), dtype=torch.int64)))


def every_nth(x: torch.Tensor, axis: int, start: int, stop: int, step: int) -> torch.Tensor:
    """A slice with a positive step along one axis."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


@operator("Reshape")
def _reshape(builder: Builder, operation: Operation, x: Value, shape: Value | None = None) -> Value:
    wanted = list((builder.integers(shape) if shape is not None else operation.integers("shape")) or ())
    if not operation.flag("allowzero"):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if builder.batch is not None and wanted and not x.known:
        # A file for a fixed batch has it written into its shapes.
        written, instead = builder.batch
        if wanted[0] == written and x.shape[:1] == (instead,):
            wanted[0] = instead
    return builder.call(torch.reshape, x, tuple(wanted))


@operator("Flatten")
def _flatten(builder: Builder, operation: Operation, x: Value) -> Value:
    axis = operation.integer("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return builder.call(torch.reshape, x, (rows, x.tensor.numel() // rows if rows else 0))


@operator("Transpose")
def _transpose(builder: Builder, operation: Operation, x: Value) -> Value:
    order = operation.integers("perm")
    return builder.call(torch.permute, x, tuple(reversed(range(x.rank))) if order is None else order)


@operator("Squeeze")
def _squeeze(builder: Builder, operation: Operation, x: Value, axes: Value | None = None) -> Value:
    given = axes_of(builder, operation, axes)
    if given is None:
        gone = {axis for axis, size in enumerate(x.shape) if size == 1}
    else:
        gone = {x.axis(axis) for axis in given}
        if any(x.shape[axis] != 1 for axis in gone):
            raise operation.fault(f"axes {sorted(gone)} of {list(x.shape)} are not all 1 long")
    return builder.call(torch.reshape, x, tuple(size for axis, size in enumerate(x.shape) if axis not in gone))


@operator("Unsqueeze")
def _unsqueeze(builder: Builder, operation: Operation, x: Value, axes: Value | None = None) -> Value:
    given = axes_of(builder, operation, axes) or ()
    rank = x.rank + len(given)
    new = {axis % rank for axis in given}
    sizes = iter(x.shape)
    return builder.call(torch.reshape, x, tuple(1 if axis in new else next(sizes) for axis in range(rank)))


@operator("Concat")
def _concat(builder: Builder, operation: Operation, *inputs: Value) -> Value:
    axis = operation.integer("axis", 1) % inputs[0].rank
    parts = list(inputs)
    if builder.batch is not None and axis != 0 and not all(part.known for part in parts):
        # What is the same for every item (a class token, say) was written down for the fixed batch.
        written, instead = builder.batch
        for position, part in enumerate(parts):
            if part.known and written == 1 and part.shape[0] == 1:
                parts[position] = builder.call(torch.Tensor.expand, part, (instead, *part.shape[1:]))
    return builder.call(torch.cat, [part for part in parts if part.tensor.numel()] or parts[:1], axis)


@operator("Split")
def _split(builder: Builder, operation: Operation, x: Value, sizes: Value | None = None) -> Sequence[Value]:
    axis = x.axis(operation.integer("axis", 0))
    parts = builder.integers(sizes) if sizes is not None else operation.integers("split")
    if parts is None:
        count = operation.integer("num_outputs", len(operation.outputs))
        each = -(-x.shape[axis] // count)
        # The last part may be smaller.
        parts = tuple(max(0, min(each, x.shape[axis] - each * index)) for index in range(count))
    if sum(parts) != x.shape[axis]:
        raise operation.fault(f"parts of {list(parts)} do not make {x.shape[axis]}")
    return builder.call_many(torch.split, x, list(parts), axis)


@operator("Slice")
def _slice(  # noqa: PLR0917 - ONNX's inputs, by position
    builder: Builder,
    operation: Operation,
    x: Value,
    starts: Value | None = None,
    ends: Value | None = None,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Value:
    """Attributes before opset 10, inputs since. ONNX clamps positions exactly as Python does."""
    first = (builder.integers(starts) if starts is not None else operation.integers("starts")) or ()
    last = (builder.integers(ends) if ends is not None else operation.integers("ends")) or ()
    along = axes_of(builder, operation, axes) or tuple(range(len(first)))
    step = builder.integers(steps) or (1,) * len(first)
    for axis, start, end, stride in zip(along, first, last, step, strict=True):
        place = x.axis(axis)
        x = _slice_axis(builder, x, place, range(*slice(start, end, stride).indices(x.shape[place])))
    return x


def _slice_axis(builder: Builder, x: Value, axis: int, positions: range) -> Value:
    if positions.step == 1 or len(positions) <= 1:
        return take(builder, x, axis, positions)
    low, high = min(positions), max(positions)
    if positions.step < 0:
        # torch has no negative steps: turn the part around, and step forwards through it.
        x = builder.call(torch.flip, builder.call(torch.narrow, x, axis, low, high - low + 1), (axis,))
        low, high = 0, high - low
    step = abs(positions.step)
    return x if step == 1 else builder.call(every_nth, x, axis, low, high + 1, step)


@operator("Expand")
def _expand(builder: Builder, _operation: Operation, x: Value, shape: Value) -> Value:
    wanted = torch.broadcast_shapes(x.shape, builder.integers(shape) or ())
    return x if wanted == x.shape else builder.call(torch.broadcast_to, x, tuple(wanted))


@operator("Tile")
def _tile(builder: Builder, _operation: Operation, x: Value, repeats: Value) -> Value:
    return builder.call(torch.tile, x, builder.integers(repeats) or ())


@operator("Pad")
def _pad(  # noqa: PLR0917 - ONNX's inputs, by position
    builder: Builder,
    operation: Operation,
    x: Value,
    pads: Value | None = None,
    value: Value | None = None,
    axes: Value | None = None,
) -> Value:
    """Attributes before opset 11, inputs since. Negative amounts cut off."""
    amounts = (
        builder.integers(pads) if pads is not None else operation.integers("pads") or operation.integers("paddings")
    )
    along = [x.axis(axis) for axis in builder.integers(axes) or range(x.rank)]
    if amounts is None or len(amounts) != 2 * len(along):
        raise operation.fault("pads do not fit the input")
    before, after = dict(zip(along, amounts, strict=False)), dict(zip(along, amounts[len(along) :], strict=True))
    mode = operation.text("mode", "constant")
    operation.ignore("value")  # of the mode "constant" alone
    if mode == "constant":
        fill = value.tensor.item() if value is not None and value.known else operation.number("value", 0.0)
        if value is not None and not value.known:
            raise operation.fault("its fill value depends on the input")
        order = [amount for axis in reversed(range(x.rank)) for amount in (before.get(axis, 0), after.get(axis, 0))]
        return builder.call(functional.pad, x, order, "constant", fill)
    for axis in along:
        positions = _padded_positions(mode, x.shape[axis], before[axis], after[axis])
        if positions is None:
            raise operation.fault(f"mode {mode} is not supported")
        x = take(builder, x, axis, positions)
    return x


def _padded_positions(mode: str, length: int, before: int, after: int) -> list[int] | None:
    """Which element each place of a padded axis shows."""
    places = range(-before, length + after)
    if mode == "edge":
        return [min(max(place, 0), length - 1) for place in places]
    if mode == "wrap":
        return [place % length for place in places]
    if mode == "reflect":
        period = max(2 * (length - 1), 1)
        return [length - 1 - abs(place % period - (length - 1)) for place in places]
    return None


@operator("DepthToSpace")
def _depth_to_space(builder: Builder, operation: Operation, x: Value) -> Value:
    block = operation.integer("blocksize", 1)
    batch, channels, height, width = x.shape
    deep = channels // block**2
    if operation.text("mode", "DCR") == "DCR":
        split, order = (batch, block, block, deep, height, width), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (batch, deep, block, block, height, width), (0, 1, 4, 2, 5, 3)
    moved = builder.call(torch.permute, builder.call(torch.reshape, x, split), order)
    return builder.call(torch.reshape, moved, (batch, deep, height * block, width * block))


@operator("SpaceToDepth")
def _space_to_depth(builder: Builder, operation: Operation, x: Value) -> Value:
    block = operation.integer("blocksize", 1)
    batch, channels, height, width = x.shape
    rows, columns = height // block, width // block
    order = (0, 3, 5, 1, 2, 4) if operation.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    split = builder.call(torch.reshape, x, (batch, channels, rows, block, columns, block))
    moved = builder.call(torch.permute, split, order)
    return builder.call(torch.reshape, moved, (batch, channels * block**2, rows, columns))
