"""Between the contract's messages and the stage's own values; beside the servicer, all that knows them."""

from sluiceway_detection.front.convert.answers import add_answer, add_failure, crop_spec_message, model_message
from sluiceway_detection.front.convert.images import (
    EncodedCrop,
    RawCrop,
    Request,
    check_crops,
    file_of,
    pixels_of,
    read_request,
    request_of,
)
from sluiceway_detection.front.convert.options import Defaults, job_of, priority_of
from sluiceway_detection.front.convert.pages import (
    PagesRequest,
    add_texts,
    page_range_of,
    pages_request_of,
    prefers_text,
    read_pages_request,
)

__all__ = [
    "Defaults",
    "EncodedCrop",
    "PagesRequest",
    "RawCrop",
    "Request",
    "add_answer",
    "add_failure",
    "add_texts",
    "check_crops",
    "crop_spec_message",
    "file_of",
    "job_of",
    "model_message",
    "page_range_of",
    "pages_request_of",
    "pixels_of",
    "prefers_text",
    "priority_of",
    "read_pages_request",
    "read_request",
    "request_of",
]
