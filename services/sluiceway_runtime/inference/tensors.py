"""Tensors and models as stages see them here: free of gRPC and of any array library."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from sluiceway_runtime.errors import InvalidOption

__all__ = ["ELEMENT_BYTES", "ModelCard", "Tensor", "TensorSpec", "pack_bytes", "unpack_bytes"]

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


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model. -1 in the shape stands for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor may have this shape."""
        return len(shape) == len(self.shape) and all(
            wanted in (-1, length) for wanted, length in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model as `ModelMetadata` tells it.

    Attributes:
        max_elements: most elements of an input; a request with more is refused before they are read.
        parameters: those that a request may set.
    """

    name: str
    version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_elements: int
    parameters: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    Attributes:
        data: for BYTES the elements; for every other datatype all elements together, little-endian.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | tuple[bytes, ...]

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
    def floats(cls, name: str, shape: tuple[int, ...], values: Sequence[float]) -> Tensor:
        """Make an FP32 tensor."""
        return cls(name, "FP32", shape, struct.pack(f"<{len(values)}f", *values))

    @classmethod
    def integers(cls, name: str, shape: tuple[int, ...], values: Sequence[int]) -> Tensor:
        """Make an INT32 tensor."""
        return cls(name, "INT32", shape, struct.pack(f"<{len(values)}i", *values))

    @classmethod
    def texts(cls, name: str, shape: tuple[int, ...], values: Sequence[str]) -> Tensor:
        """Make a BYTES tensor of UTF-8."""
        return cls(name, "BYTES", shape, tuple(value.encode() for value in values))


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
