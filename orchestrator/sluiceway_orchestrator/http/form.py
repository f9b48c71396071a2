"""Forms: `multipart/form-data`, as `curl -F` and browsers send it, and bodies that do not say what they are."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict
from sluiceway_runtime.errors import InvalidOption

__all__ = ["Form", "Untyped", "form_from_text", "look_at", "read_form"]

_CHUNK_BYTES = 2**18
# Options are short; a URL may be a data: URL, which holds an image.
_MAX_FIELD_BYTES = 8192
_MAX_FIELDS = 64
# Fields that are files although they come without the name of one.
_FILE_FIELDS = frozenset(("file", "image"))
_MAX_FILE_NAME = 200
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_FORM = re.compile(rb"[\w.-]+=[\x21-\x7e]*")
_HEAD_BYTES = 512


@dataclass(slots=True)
class Form:
    """What a form holds.

    Attributes:
        fields: its options.
        files: names, empty where there is none, and contents.
    """

    fields: MultiDict[str] = field(default_factory=MultiDict)
    files: list[tuple[str, bytes | bytearray]] = field(default_factory=list)


class Untyped(Enum):
    """What a body is that comes with no type, or with the one that `curl --data-binary` gives to anything."""

    IMAGE = "image"
    JSON = "json"
    FORM = "form"


def look_at(body: bytes | bytearray) -> Untyped:
    """Tell by its beginning what a body is. What is neither JSON nor a form is for detection to judge."""
    head = bytes(body[:_HEAD_BYTES])
    if head.lstrip().startswith(b"{"):
        return Untyped.JSON
    return Untyped.FORM if _FORM.fullmatch(head.strip()) else Untyped.IMAGE


def form_from_text(body: bytes | bytearray) -> Form:
    """Read `application/x-www-form-urlencoded`. Raises InvalidOption."""
    try:
        pairs = parse_qsl(body.decode("ascii").strip(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise InvalidOption("body: it is no form") from None
    return Form(MultiDict(pairs))


async def read_form(request: web.Request, limit_bytes: int, max_files: int) -> Form:
    """Read `multipart/form-data`.

    Raises:
        InvalidOption: it is none, or has too many parts.
        web.HTTPRequestEntityTooLarge: it is longer than the limit.
        web.RequestPayloadError: it is not encoded as its headers say.
    """
    form = Form()
    left_bytes = limit_bytes
    try:
        async for part in _parts(await request.multipart()):
            name, file_name = part.name or "", part.filename
            is_file = file_name is not None or name in _FILE_FIELDS
            most = left_bytes if is_file or name == "url" else min(left_bytes, _MAX_FIELD_BYTES)
            data = await _read(part, most)
            if data is None:
                if most < left_bytes:
                    raise InvalidOption(f"{name[:64]}: longer than {_MAX_FIELD_BYTES} bytes")
                raise web.HTTPRequestEntityTooLarge(limit_bytes)
            left_bytes -= len(data)
            if is_file:
                form.files.append((_file_name(file_name or ""), data))
            else:
                form.fields.add(name, data.decode())
            if len(form.files) > max_files or len(form.fields) > max_files + _MAX_FIELDS:
                raise InvalidOption("body: the form has too many parts")
    # What the library raises for forms that are cut off or none at all; assertions are among it.
    except (ValueError, AssertionError, HttpProcessingError) as error:
        if isinstance(error, web.RequestPayloadError):
            raise
        raise InvalidOption("body: it is no form (multipart/form-data) as its type says") from None
    return form


async def _parts(reader: MultipartReader) -> AsyncIterator[BodyPartReader]:
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise InvalidOption("body: a form within a form")
        encoding = part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "binary").lower()
        if encoding not in ("binary", "8bit", "7bit") or hdrs.CONTENT_ENCODING in part.headers:
            raise InvalidOption("body: parts of a form are sent as they are")
        yield part


async def _read(part: BodyPartReader, most_bytes: int) -> bytearray | None:
    """The content of a part; None if it is longer."""
    data = bytearray()
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        if len(data) + len(chunk) > most_bytes:
            return None
        data += chunk
    return data


def _file_name(name: str) -> str:
    return _CONTROLS.sub("", name)[-_MAX_FILE_NAME:]
