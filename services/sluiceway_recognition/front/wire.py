"""Just enough of the protobuf wire format to read pixels where they lie and to write texts without building messages.

A parsed protobuf message holds a second copy of the pixels and hands out a third, which for a request of 64 crops is
much of what a front does. So what a serialiser normally writes (fields in ascending order, a crop's pixels or file
last) is read here; of anything else this module says so, and the caller has it parsed. And a message for each text,
besides its own time, has the library return all free memory to the system after so many of them, which then has to be
had anew.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from sluiceway_runtime.pool import Buffer
from sluiceway_runtime.varint import encode_varint

__all__ = ["EncodedCrop", "RawCrop", "WireRequest", "read", "recognition", "text", "text_alone"]

# Wire types and numbers of the fields, as in recognition.proto and crop.proto.
OPTIONS, PRIORITY, CROPS = 0x0A, 0x10, 0x7A
SPEC = b"\x12"
ROTATION = b"\x30"
# Up to 28 bits: larger ones are left to the parser, and with them negative ones and what is no int32.
_VARINT = re.compile(rb"[\x80-\xff]{0,3}[\x00-\x7f]")
# The length of a crop, and its id.
_CROP = re.compile(rb"\x7a(V)((?:\x08V)?)".replace(b"V", _VARINT.pattern))
# What stands before its pixels.
_RAW = re.compile(rb"\x1a(V)(\x08(V)\x10(V)(?:\x18(V))?\x22(V))".replace(b"V", _VARINT.pattern))
# The same without looking inside, and what stands before a file.
_PIXELS = rb"(\x1aV\x08V\x10V(?:\x18V)?\x22V)".replace(b"V", _VARINT.pattern)
_CONTENT = re.compile(_PIXELS + rb"|\x22(V)".replace(b"V", _VARINT.pattern))

# Numbers below this take one byte.
ONE_BYTE = 0x80
_FLOAT = struct.Struct("<f")
_PARTS = struct.Struct("<4f")


class RawCrop(NamedTuple):
    """A crop of raw pixels as it came, unchecked.

    Attributes:
        id: of the request.
        height: pixels.
        width: pixels.
        format: number of the enumeration.
        data: the pixels, here a view into the request.
        rotation_degrees: how far they were turned when they were cut.
    """

    id: int
    height: int
    width: int
    format: int
    data: Buffer
    rotation_degrees: int = 0


class EncodedCrop(NamedTuple):
    """A crop that is an image file, unchecked; None if the crop had no content at all."""

    id: int
    data: bytes | memoryview | None


class WireRequest(NamedTuple):
    """A request. `head` is what stands before the crops, itself a message of the same kind."""

    head: bytes
    crops: list[RawCrop | EncodedCrop]


class _Raw(NamedTuple):
    """What stands before pixels."""

    height: int
    width: int
    format: int
    data_bytes: int
    consistent: bool


def read(data: bytes) -> WireRequest | None:
    """Read a serialised RecognizeRequest.

    Returns:
        None if it is not as it normally is, which includes everything malformed.
    """
    at = _head(data)
    if at is None:
        return None
    head, view, size = data[:at], memoryview(data), len(data)
    # Crops of one request mostly have one label.
    pattern = _crop(_first_label(data, at))
    crops: list[RawCrop | EncodedCrop] = []
    while at < size:
        match = pattern.match(data, at)
        if match is None:
            other = _other(data, at)
            if other is None:
                return None
            at = other.end
            crops.append(other.crop)
            continue
        length, identity, before = match.groups()
        height, width, pixel_format, data_bytes, consistent = _raw(before)
        start, at = match.end(), match.end(1) + _number(length)
        until = start + data_bytes
        rotation = 0 if until == at else _rotation(data, until, at)
        if not consistent or rotation is None or at > size:
            return None
        crops.append(RawCrop(_number(identity[1:] or b"\0"), height, width, pixel_format, view[start:until], rotation))
    return WireRequest(head, crops)


def _head(data: bytes) -> int | None:
    """Where the crops begin."""
    at, size = 0, len(data)
    while at < size and data[at] != CROPS:
        kind = data[at]
        match = _VARINT.match(data, at + 1)
        if match is None or kind not in (OPTIONS, PRIORITY):
            return None
        at = match.end() + (_number(match.group()) if kind == OPTIONS else 0)
    return at if at <= size else None


class _Other(NamedTuple):
    """A crop, and where the next one begins."""

    crop: RawCrop | EncodedCrop
    end: int


def _other(data: bytes, at: int) -> _Other | None:
    """The crop that begins here, whatever its label and its content."""
    match = _CROP.match(data, at)
    label = None if match is None else _label(data, match.end())
    if match is None or label is None:
        return None
    content = _CONTENT.match(data, match.end() + len(label))
    if content is None:
        return None
    length, identity = match.groups()
    before, file_bytes = content.groups()
    number, start, end = _number(identity[1:] or b"\0"), content.end(), match.end(1) + _number(length)
    raw = None if before is None else _raw(before)
    until = start + (_number(file_bytes) if raw is None else raw.data_bytes)
    rotation = 0 if until == end else _rotation(data, until, end)
    if rotation is None or end > len(data):
        return None
    inside = memoryview(data)[start:until]
    if raw is None:
        return None if rotation else _Other(EncodedCrop(number, inside), end)
    crop = RawCrop(number, raw.height, raw.width, raw.format, inside, rotation)
    return _Other(crop, end) if raw.consistent else None


def _rotation(data: bytes, at: int, end: int) -> int | None:
    """The `rotation_degrees` that stands behind the pixels, and nothing else; None where it is otherwise."""
    match = _VARINT.match(data, at + 1) if data[at : at + 1] == ROTATION else None
    return _number(match.group()) if match is not None and match.end() == end else None


def _label(data: bytes, at: int) -> bytes | None:
    """The field of the label that begins here, empty if none does; None if it is no text."""
    if data[at : at + 1] != SPEC:
        return b""
    match = _VARINT.match(data, at + 1)
    if match is None:
        return None
    start = match.end()
    text = data[start : start + _number(match.group())]
    try:
        text.decode()
    except UnicodeDecodeError:
        return None
    return data[at:start] + text


def _first_label(data: bytes, at: int) -> bytes:
    """The label of the crop that begins here, to be looked for in all; empty for one too long to make a pattern of."""
    match = _CROP.match(data, at)
    label = None if match is None else _label(data, match.end())
    return label if label is not None and len(label) <= ONE_BYTE else b""


@lru_cache(maxsize=64)
def _crop(label: bytes) -> re.Pattern[bytes]:
    """All of a crop before its pixels, its label being this field."""
    return re.compile(_CROP.pattern + re.escape(label) + _PIXELS)


# Numbers and sizes repeat from request to request.
@lru_cache(maxsize=4096)
def _number(varint: bytes) -> int:
    return sum((byte & 0x7F) << (7 * position) for position, byte in enumerate(varint))


@lru_cache(maxsize=4096)
def _raw(before: bytes) -> _Raw:
    parts = _RAW.fullmatch(before)
    assert parts is not None, "it was matched before"
    length, fields, height, width, pixel_format, size = parts.groups()
    data_bytes = _number(size)
    consistent = _number(length) == len(fields) + data_bytes
    return _Raw(_number(height), _number(width), _number(pixel_format or b"\0"), data_bytes, consistent)


def recognition(crop_id: int, result: bytes) -> bytes:
    """A `Recognition` as a field of the response: its `crop_id`, and the field of its `result` as it is."""
    identity = b"\x08" + encode_varint(crop_id) if crop_id else b""
    return b"\x0a" + encode_varint(len(identity) + len(result)) + identity + result


def text_alone(crop_id: int, value: str, confidence: float) -> bytes:
    """`recognition` of a `text` without its characters, which is what nearly every crop is answered with."""
    encoded = value.encode()
    size = len(encoded)
    if confidence and 0 < crop_id < ONE_BYTE and 0 < size < ONE_BYTE - 11:
        return b"\x0a%c\x08%c\x12%c\x0a%c%b\x15%b" % (
            *(size + 11, crop_id, size + 7, size),
            encoded,
            _FLOAT.pack(confidence),
        )
    return recognition(crop_id, text(value, confidence))


def text(
    value: str,
    confidence: float,
    characters: Iterable[tuple[str, float]] = (),
    rotation_degrees: int = 0,
    words: Iterable[tuple[str, float, tuple[float, float, float, float]]] = (),
) -> bytes:
    """A `Text` as the `result` of a recognition."""
    body = _text(value, confidence)
    for character in characters:
        inner = _text(*character)
        body += b"\x1a" + encode_varint(len(inner)) + inner
    if rotation_degrees:
        body += b"\x20" + encode_varint(rotation_degrees)
    for word, certainty, parts in words:
        inner = _text(word, certainty) + b"\x1a\x10" + _PARTS.pack(*parts)
        body += b"\x2a" + encode_varint(len(inner)) + inner
    return b"\x12" + encode_varint(len(body)) + body


def _text(value: str, confidence: float) -> bytes:
    """What `Text` and `Character` have in common; fields at their default are left out."""
    encoded = value.encode()
    body = b"\x0a" + encode_varint(len(encoded)) + encoded if encoded else b""
    return body + b"\x15" + _FLOAT.pack(confidence) if confidence else body
