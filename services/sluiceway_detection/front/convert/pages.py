"""Requests for pages of documents, and answers for them."""

from __future__ import annotations

from typing import NamedTuple

from sluiceway_runtime.errors import InvalidImage, InvalidOption
from sluiceway_runtime.pool import Outcome

from sluiceway.common.v1 import model_pb2, value_pb2
from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway_detection.front import wire
from sluiceway_detection.front.paging import PageRange
from sluiceway_detection.job import DetectionAnswer

__all__ = ["PagesRequest", "add_texts", "page_range_of", "pages_request_of", "prefers_text", "read_pages_request"]

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


def prefers_text(message: pb.DetectPagesRequest) -> bool:
    """Whether text that pages hold is wanted in place of what would be found.

    Raises:
        InvalidOption: a value that this release does not know.
    """
    if message.text_layer not in model_pb2.TextLayer.values():
        raise InvalidOption(f"text_layer: {message.text_layer} is unknown", metadata={"option": "text_layer"})
    return message.text_layer == model_pb2.TEXT_LAYER_PREFER


def add_texts(response: pb.DetectPagesResponse, outcome: Outcome) -> None:
    """Add what a page said itself."""
    answer = outcome.payload.meta
    assert isinstance(answer, DetectionAnswer)
    response.texts.extend(value_pb2.Text(text=text, confidence=1) for text in answer.texts)


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
