"""The least of protobuf's wire format, for messages that are put together or taken apart without being parsed."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["encode_varint", "read_varint", "skip_field"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@lru_cache(maxsize=4096)
def encode_varint(number: int) -> bytes:
    """Base 128, the lowest seven bits first, the highest bit of a byte telling that more follow.

    Args:
        number: at least 0.
    """
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number that is written here, and the position after it. Raises IndexError where it is none."""
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    shift = 7
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError


def skip_field(data: bytes | memoryview, position: int) -> int:
    """The position after the field that starts here. Raises IndexError where it is none, or reaches past the end."""
    tag, position = read_varint(data, position)
    kind = tag & 7
    if kind == _LENGTH:
        length, position = read_varint(data, position)
        position += length
    elif kind == _VARINT:
        position = read_varint(data, position)[1]
    elif kind == _FIXED32:
        position += 4
    elif kind == _FIXED64:
        position += 8
    else:
        # Groups are gone from proto3.
        raise IndexError
    if position > len(data):
        raise IndexError
    return position
