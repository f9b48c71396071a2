"""Just enough of the protobuf wire format to move images and crops from one message into another without parsing them.

`DetectResponse.crops` and `RecognizeRequest.crops` are field 15 of the same type, so the bytes of the one, tag and
length included, are valid as the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sluiceway_runtime.errors import Internal
from sluiceway_runtime.varint import encode_varint

__all__ = ["CropSpan", "bytes_field", "join_spans", "split_crops"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# Field 15, length-delimited: the crops of both messages.
_CROPS_TAG = 15 << 3 | _LENGTH
_CROP_ID_TAG = 1 << 3 | _VARINT
_CROP_MODEL_TAG = 2 << 3 | _LENGTH


@dataclass(frozen=True, slots=True)
class CropSpan:
    """Where one crop lies in a serialised message, tag and length included."""

    crop_id: int
    model: str
    start: int
    end: int


def bytes_field(number: int, size: int) -> bytes:
    """Tag and length of a `bytes`, `string` or message field; its content has to follow."""
    return encode_varint(number << 3 | _LENGTH) + encode_varint(size)


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
                position = _skip(message, start)
                continue
            length = message[position]
            position += 1
            if length & 0x80:
                length, position = _varint(message, position - 1)
            end = position + length
            if end > size:
                raise Internal("a stage sent a damaged message")
            if kept_from < start:
                rest.append(message[kept_from:start])
            crop_id, model = _crop_name(message, position, end)
            spans.append(CropSpan(crop_id, model, start, end))
            position = kept_from = end
    except (IndexError, UnicodeDecodeError) as error:
        raise Internal("a stage sent a damaged message") from error
    if position > size:
        raise Internal("a stage sent a damaged message")
    rest.append(message[kept_from:])
    return b"".join(rest), spans


def join_spans(message: bytes, spans: Iterable[CropSpan], *, prefix: bytes = b"") -> bytes:
    """Serialised fields `crops` of the given spans after `prefix`; neighbours are copied in one piece."""
    view = memoryview(message)
    parts: list[bytes | memoryview] = [prefix]
    start = end = 0
    for span in spans:
        if span.start != end:
            if end:
                parts.append(view[start:end])
            start = span.start
        end = span.end
    parts.append(view[start:end])
    return b"".join(parts)


def _crop_name(message: bytes, position: int, end: int) -> tuple[int, str]:
    """Id and model of a crop; the pixels are passed over."""
    crop_id, model = 0, ""
    while position < end:
        tag = message[position]
        if tag == _CROP_ID_TAG:
            crop_id, position = _varint(message, position + 1)
        elif tag == _CROP_MODEL_TAG:
            length, position = _varint(message, position + 1)
            model = message[position : position + length].decode()
            position += length
        else:
            position = _skip(message, position)
    if position != end:
        raise IndexError
    return crop_id, model


def _skip(message: bytes, position: int) -> int:
    """The position after the field that starts here."""
    tag, position = _varint(message, position)
    kind = tag & 7
    if kind == _LENGTH:
        length, position = _varint(message, position)
        return position + length
    if kind == _VARINT:
        return _varint(message, position)[1]
    if kind == _FIXED32:
        return position + 4
    if kind == _FIXED64:
        return position + 8
    # Groups are gone from proto3.
    raise IndexError


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = message[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    shift = 7
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError
