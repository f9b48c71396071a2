"""Requests for pages of documents, and answers for them."""

from __future__ import annotations

from typing import NamedTuple

from sluiceway_runtime.errors import InvalidImage, InvalidOption

from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection import wire
from sluiceway_detection.paging import PageRange

__all__ = ["PagesRequest", "page_range_of", "pages_request_of", "read_pages_request"]

_DOCUMENT = pb.DetectPagesRequest.DOCUMENT_FIELD_NUMBER


class PagesRequest(NamedTuple):
    """A request as it came.

    Attributes:
        message: all of it but `document`.
        document: the file.
    """

    message: pb.DetectPagesRequest
    document: bytes | memoryview


def read_pages_request(data: bytes) -> PagesRequest:
    """Read a serialised `DetectPagesRequest`; the document becomes a view into it where that is possible.

    Raises:
        DecodeError: it is none.
    """
    try:
        rest, taken = wire.take_out(memoryview(data), (_DOCUMENT,))
    except wire.Unusual:
        return pages_request_of(pb.DetectPagesRequest.FromString(data))
    # Of a field that is there several times, the last one counts.
    return PagesRequest(pb.DetectPagesRequest.FromString(rest), taken[-1][1] if taken else b"")


def pages_request_of(message: pb.DetectPagesRequest) -> PagesRequest:
    """The request that a message holds; what is large is taken out of the message."""
    request = PagesRequest(message, message.document)
    message.ClearField("document")
    return request


def page_range_of(request: PagesRequest) -> PageRange:
    """Which pages are asked for.

    Raises:
        InvalidImage: there is no document.
        InvalidOption: numbers that are negative.
    """
    message = request.message
    if not request.document:
        raise InvalidImage("the request has no document, or it is empty")
    for name, value in (("first_page", message.first_page), ("max_pages", message.max_pages)):
        if value < 0:
            raise InvalidOption(f"{name}: {value} is negative", metadata={"option": name})
    return PageRange(message.first_page, message.max_pages or None, frozenset(message.except_pages))
