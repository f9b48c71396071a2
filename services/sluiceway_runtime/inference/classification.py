"""The classification extension: the best elements of an output, as texts `value:index:label`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod

from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.inference.tensors import ELEMENT_BYTES, LETTERS, Tensor

__all__ = ["classified"]


def classified(tensor: Tensor, count: int) -> Tensor:
    """Rank the elements of each entry of the first dimension.

    Args:
        tensor: numbers, or texts with scores.
        count: how many to give for each entry; fewer where there are fewer.

    Returns:
        BYTES [n, count] of `value:index:label`, the greatest value first; the label is left out where there is none.

    Raises:
        InvalidOption: there is nothing to rank by.
    """
    values = _values(tensor)
    entries = tensor.shape[0] if tensor.shape else 1
    width = prod(tensor.shape[1:])
    kept = min(count, width)
    ranked: list[bytes] = []
    for entry in range(entries):
        own = values[entry * width : (entry + 1) * width]
        best = sorted(range(width), key=lambda index: -own[index])[:kept]
        for index in best:
            label = _label(tensor, entry * width + index)
            ranked.append(f"{own[index]:f}:{index}".encode() + (b":" + label if label is not None else b""))
    return Tensor(tensor.name, "BYTES", (entries, kept), tuple(ranked))


def _values(tensor: Tensor) -> Sequence[float]:
    if isinstance(tensor.data, tuple):
        if len(tensor.scores) != len(tensor.data):
            raise InvalidOption(f"classification: the elements of {tensor.name} have no order")
        return tensor.scores
    letter = LETTERS.get(tensor.datatype)
    if letter is None:
        raise InvalidOption(f"classification: the elements of {tensor.name} have no order")
    count = len(tensor.data) // ELEMENT_BYTES[tensor.datatype]
    return struct.unpack(f"<{count}{letter}", tensor.data)


def _label(tensor: Tensor, element: int) -> bytes | None:
    if not tensor.labels:
        return None
    return tensor.labels[element * len(tensor.labels) // prod(tensor.shape)]
