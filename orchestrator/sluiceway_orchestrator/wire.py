"""Just enough of the protobuf wire format to move images, crops and results from one message into another unparsed.

`DetectResponse.crops`, `RecognizeRequest.crops` and `DetectRequest.crops` are field 15 of the same type, so the bytes
of the one, tag and length included, are valid as the other. `Detection` is the beginning of `Region`, and `Recognition`
that of `Value`, so what stages answer is read once, as what clients get.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sluiceway_runtime.errors import Internal
from sluiceway_runtime.varint import encode_varint, read_varint, skip_field

__all__ = ["Buffers", "CropSpan", "bytes_field", "span_buffers", "split_crops", "split_field"]

_VARINT, _LENGTH = 0, 2
# Field 15, length-delimited: the crops of all these messages.
_CROPS_TAG = 15 << 3 | _LENGTH
_CROP_ID_TAG = 1 << 3 | _VARINT
_CROP_SPEC_TAG = 2 << 3 | _LENGTH
_CROP_RAW_TAG = 3 << 3 | _LENGTH
_CROP_TRANSFORM_TAG = 5 << 3 | _LENGTH
# A `Transform` with its nine numbers, packed as every serialiser writes them.
_TRANSFORM = struct.Struct("<BB9f")
_MATRIX_TAG = 1 << 3 | _LENGTH

Matrix = tuple[float, ...]
"""Nine numbers, row by row."""


class CropSpan(NamedTuple):
    """Where one crop lies in a serialised message, tag and length included.

    Attributes:
        spec: what it was cut to.
        to_image: from its pixels to those of the image that it was cut from, where the message says so.
    """

    crop_id: int
    spec: str
    start: int
    end: int
    to_image: Matrix | None = None


class Buffers(NamedTuple):
    """A request in pieces, which are joined only when it is sent."""

    parts: Sequence[bytes | memoryview]

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return sum(map(len, self.parts))

    def join(self) -> bytes:
        """The request."""
        return b"".join(self.parts)


def bytes_field(number: int, size: int) -> bytes:
    """Tag and length of a `bytes`, `string` or message field; its content has to follow."""
    return encode_varint(number << 3 | _LENGTH) + encode_varint(size)


def split_field(message: bytes, number: int) -> tuple[bytes, bytes]:
    """Take one field, length-delimited and of a number below 16, out of a serialised message.

    Returns:
        The bytes of the field, tags and lengths included, and those of the rest.

    Raises:
        Internal: the bytes are no protobuf message.
    """
    tag = number << 3 | _LENGTH
    taken: list[bytes] = []
    rest: list[bytes] = []
    size, position = len(message), 0
    start, inside = 0, False
    try:
        while position < size:
            is_field = message[position] == tag
            if is_field is not inside:
                (taken if inside else rest).append(message[start:position])
                start, inside = position, is_field
            if is_field and message[position + 1] < 0x80:
                # As nearly all of them are: short, so that the length is a byte.
                position += message[position + 1] + 2
            else:
                position = skip_field(message, position)
    except IndexError as error:
        raise Internal("a stage sent a damaged message") from error
    if position != size:
        raise Internal("a stage sent a damaged message")
    (taken if inside else rest).append(message[start:])
    return b"".join(taken), b"".join(rest)


def split_crops(message: bytes) -> tuple[bytes, list[CropSpan]]:
    """Take the crops out of a serialised `DetectResponse`.

    Args:
        message: what the stage sent.

    Returns:
        The message without its crops, and where each crop lies in the whole message.

    Raises:
        Internal: the bytes are no protobuf message.
    """
    spans: list[CropSpan] = []
    rest: list[bytes] = []
    size = len(message)
    position = kept_from = 0
    try:
        while position < size:
            start = position
            tag = message[position]
            position += 1
            if tag != _CROPS_TAG:
                if tag & 7 == _LENGTH and tag < 0x80 and message[position] < 0x80:
                    # As nearly all of them are.
                    position += message[position] + 1
                else:
                    position = skip_field(message, start)
                continue
            length = message[position]
            position += 1
            if length & 0x80:
                length, position = read_varint(message, position - 1)
            end = position + length
            if end > size:
                raise Internal("a stage sent a damaged message")
            if kept_from < start:
                rest.append(message[kept_from:start])
            crop_id, spec, to_image = _crop_facts(message, position, end)
            spans.append(CropSpan(crop_id, spec, start, end, to_image))
            position = kept_from = end
    except (IndexError, UnicodeDecodeError) as error:
        raise Internal("a stage sent a damaged message") from error
    if position > size:
        raise Internal("a stage sent a damaged message")
    rest.append(message[kept_from:])
    return b"".join(rest), spans


def span_buffers(message: bytes, spans: Iterable[CropSpan]) -> list[memoryview]:
    """The fields `crops` of the given spans; neighbours are one piece."""
    view = memoryview(message)
    parts: list[memoryview] = []
    start = end = 0
    for span in spans:
        if span.start != end:
            if end:
                parts.append(view[start:end])
            start = span.start
        end = span.end
    parts.append(view[start:end])
    return parts


def _crop_facts(message: bytes, position: int, end: int) -> tuple[int, str, Matrix | None]:
    """What stands around the pixels of a crop; the pixels are passed over."""
    crop_id, spec, to_image = 0, "", None
    while position < end:
        tag, start = message[position], position
        # An id, or a length: nearly always one byte, and there are several in each crop.
        value = message[position + 1]
        position += 2
        if value > 0x7F:
            value, position = read_varint(message, position - 1)
        if tag == _CROP_ID_TAG:
            crop_id = value
            continue
        if tag == _CROP_SPEC_TAG:
            spec = message[position : position + value].decode()
        elif tag == _CROP_TRANSFORM_TAG:
            to_image = _matrix(message[position : position + value])
        elif tag != _CROP_RAW_TAG:
            position = skip_field(message, start)
            continue
        position += value
    if position != end:
        raise IndexError
    return crop_id, spec, to_image


def _matrix(message: bytes) -> Matrix:
    if len(message) != _TRANSFORM.size:
        raise IndexError
    tag, size, *matrix = _TRANSFORM.unpack(message)
    if tag != _MATRIX_TAG or size != _TRANSFORM.size - 2:
        raise IndexError
    return tuple(matrix)
