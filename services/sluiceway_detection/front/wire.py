"""Just enough of the protobuf wire format to find images where they lie in a request.

A parsed message holds a second copy of an image and hands out a third. So the large fields are taken out of a message
as views, and what is left is a message of the same kind, for the generated parser to read and to judge.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple

__all__ = ["Parts", "Unusual", "take_out"]

_VARINT = re.compile(rb"[\x80-\xff]{0,9}[\x00-\x7f]")
# Up to 28 bits: no message is larger.
_LENGTH = re.compile(rb"[\x80-\xff]{0,3}[\x00-\x7f]")
_IS_VARINT, _IS_LENGTH = 0, 2


class Unusual(Exception):
    """Not as serialisers write it, or damaged: the generated parser has to see the whole."""


class Parts(NamedTuple):
    """A message without some of its fields.

    Attributes:
        rest: the message without them.
        taken: them in their order: number of the field, and its content as a view into the message.
    """

    rest: bytes
    taken: list[tuple[int, memoryview]]


def take_out(message: memoryview, numbers: Container[int]) -> Parts:
    """Take fields out of a serialised message.

    Args:
        message: of a kind whose fields have numbers below 16.
        numbers: of the fields, which are bytes or messages.

    Raises:
        Unusual: it holds something else than numbers, bytes and messages, or ends before they do.
    """
    rest: list[memoryview] = []
    taken: list[tuple[int, memoryview]] = []
    at, kept_from, size = 0, 0, len(message)
    while at < size:
        begun, tag = at, message[at]
        number, kind = tag >> 3, tag & 7
        # Of a field with a larger number, its tag goes on.
        match = (_LENGTH if kind == _IS_LENGTH else _VARINT).match(message, at + 1)
        if match is None or tag >= 0x80 or kind not in (_IS_VARINT, _IS_LENGTH):
            raise Unusual
        start = at = match.end()
        if kind == _IS_LENGTH:
            at += sum((byte & 0x7F) << (7 * position) for position, byte in enumerate(match.group()))
            if at > size:
                raise Unusual
            if number in numbers:
                rest.append(message[kept_from:begun])
                taken.append((number, message[start:at]))
                kept_from = at
    rest.append(message[kept_from:])
    return Parts(b"".join(rest), taken)
