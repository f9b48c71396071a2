"""What a graph is made for: arrays of fixed types and sizes, and how several of them lie in one buffer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArraySpec", "Layout", "Shape"]

# What vector loads and the copy engines of GPUs like; also keeps every element type aligned.
ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Element type, as numpy and torch both name it (`uint8`, `int32`, `float16`), and size of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Without padding."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Shape:
    """The inputs of one graph.

    Attributes:
        name: for logs and file names: letters, digits and hyphens, unique within a module ("128x320").
        inputs: the first dimension of the first is the batch.
    """

    name: str
    inputs: tuple[ArraySpec, ...]

    @property
    def batch(self) -> int:
        """Rows of a batch."""
        return self.inputs[0].shape[0]

    @property
    def size_bytes(self) -> int:
        """Of all inputs: the measure by which graphs are compared."""
        return sum(spec.size_bytes for spec in self.inputs)


class Layout:
    """Several arrays in one buffer, so that one copy moves all of them.

    Attributes:
        specs: of the arrays.
        offsets: where each begins.
        size_bytes: of the buffer.
    """

    def __init__(self, specs: Sequence[ArraySpec]) -> None:
        self.specs = tuple(specs)
        offsets, end = [], 0
        for spec in self.specs:
            offsets.append(end)
            end += -(-spec.size_bytes // ALIGNMENT) * ALIGNMENT
        self.offsets = tuple(offsets)
        self.size_bytes = end

    def arrays(self, buffer: NDArray[np.uint8]) -> tuple[NDArray[np.generic], ...]:
        """Views of a buffer of at least `size_bytes`."""
        return tuple(
            buffer[offset : offset + spec.size_bytes].view(spec.dtype).reshape(spec.shape)
            for spec, offset in zip(self.specs, self.offsets, strict=True)
        )
