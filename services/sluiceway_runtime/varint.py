"""Numbers as protobuf writes them, for messages that are put together without parsing what they carry."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["encode_varint"]


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
