"""Tensors and models as stages see them here: free of gRPC and of any array library."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from sluiceway_runtime.errors import InvalidOption

__all__ = ["ELEMENT_BYTES", "LETTERS", "ModelCard", "Tensor", "TensorSpec", "pack_bytes", "unpack_bytes"]

# Size of an element by datatype; BYTES has none.
ELEMENT_BYTES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
# struct's letters for those that have one and are numbers.
LETTERS = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model. -1 in the shape stands for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor may have this shape: [-1, 1] may be given as [n] as well as as [n, 1]."""
        wanted = self.shape[: len(shape)] if set(self.shape[len(shape) :]) == {1} and len(shape) > 0 else self.shape
        return len(shape) == len(wanted) and all(
            expected in (-1, length) for expected, length in zip(wanted, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model as `ModelMetadata` tells it.

    Attributes:
        version: a whole number. The protocol has any text, but clients of Triton count: perf_analyzer looks for
            statistics under the number that it reads there, and ends where it reads none.
        own_version: what the weights call themselves; a request may name that, too.
        max_elements: most elements of an input; a request with more is refused before they are read.
        max_batch: most entries of the first dimension, which all tensors have in common then; 0 if they have not.
        parameters: those that a request may set.
    """

    name: str
    version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_elements: int
    max_batch: int = 0
    parameters: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    own_version: str = ""

    def __post_init__(self) -> None:
        if not self.version.isdecimal():
            raise ValueError(f"{self.name}: {self.version!r} is no whole number")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    Attributes:
        data: for BYTES the elements; for every other datatype all elements together, little-endian.
        labels: what elements are called, where they are to be ranked: one for each, or for each group of equal size.
        scores: what BYTES elements are ranked by, one for each.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | tuple[bytes, ...]
    labels: Sequence[bytes] = field(default=(), compare=False)
    scores: Sequence[float] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        count = prod(self.shape)
        if isinstance(self.data, tuple):
            has = len(self.data)
        else:
            has, rest = divmod(len(self.data), ELEMENT_BYTES[self.datatype])
            has = -1 if rest else has
        if has != count:
            raise InvalidOption(f"{self.name}: the contents are not the {count} elements of its shape")

    @property
    def elements(self) -> tuple[bytes, ...]:
        """The elements of a BYTES tensor."""
        assert isinstance(self.data, tuple)
        return self.data

    @property
    def raw(self) -> bytes:
        """The tensor as raw contents."""
        return pack_bytes(self.data) if isinstance(self.data, tuple) else self.data

    @classmethod
    def floats(cls, name: str, shape: tuple[int, ...], values: Sequence[float], labels: Sequence[bytes] = ()) -> Tensor:
        """Make an FP32 tensor."""
        return cls(name, "FP32", shape, struct.pack(f"<{len(values)}f", *values), labels)

    @classmethod
    def integers(cls, name: str, shape: tuple[int, ...], values: Sequence[int], labels: Sequence[bytes] = ()) -> Tensor:
        """Make an INT32 tensor."""
        return cls(name, "INT32", shape, struct.pack(f"<{len(values)}i", *values), labels)

    @classmethod
    def texts(cls, name: str, shape: tuple[int, ...], values: Sequence[str], scores: Sequence[float] = ()) -> Tensor:
        """Make a BYTES tensor of UTF-8, whose elements are their own labels."""
        elements = tuple(value.encode() for value in values)
        return cls(name, "BYTES", shape, elements, elements, scores)


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """Write the elements of a BYTES tensor as raw contents."""
    return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))


def unpack_bytes(raw: bytes, count: int) -> tuple[bytes, ...]:
    """Read the elements of a BYTES tensor from raw contents.

    Raises:
        InvalidOption: they end early, or are more than `count`.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        # Empty ones take four bytes each: a message has room for millions.
        if len(elements) == count:
            raise InvalidOption(f"raw_input_contents: more than the {count} elements of its shape")
        start = position + 4
        position = start + int.from_bytes(raw[position:start], "little")
        if start > len(raw) or position > len(raw):
            raise InvalidOption("raw_input_contents: an element ends beyond the contents")
        elements.append(raw[start:position])
    return tuple(elements)
