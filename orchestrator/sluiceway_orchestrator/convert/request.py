"""A request as it came, read without a second copy of its images: they stay where they lie in its bytes."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError
from sluiceway_runtime.errors import InvalidOption
from sluiceway_runtime.varint import encode_varint, read_varint, skip_field

from sluiceway.pipeline.v1 import pipeline_pb2

__all__ = ["Action", "Request", "read_action", "read_request"]

_LENGTH = 2
_SOURCES_TAG = 2 << 3 | _LENGTH
_IMAGE_TAG = 2 << 3 | _LENGTH
_JOB_TAG = 1 << 3 | _LENGTH
# Below this an image is copied faster than it is cut out.
_SMALL_BYTES = 16 * 2**10


class Request(NamedTuple):
    """One job.

    Attributes:
        message: everything but the images; a source that has one has an empty field in its place.
        images: by position of the source.
    """

    message: pipeline_pb2.ProcessRequest
    images: dict[int, memoryview]

    @property
    def size_bytes(self) -> int:
        """What it holds."""
        return self.message.ByteSize() + sum(map(len, self.images.values()))


class Action(NamedTuple):
    """What a client says on a stream: one of the two is set."""

    job: Request | None
    cancel: str | None


def read_request(data: bytes | memoryview) -> Request:
    """Read a serialised `ProcessRequest`.

    Raises:
        InvalidOption: it is none.
    """
    try:
        if len(data) < _SMALL_BYTES:
            return Request(pipeline_pb2.ProcessRequest.FromString(bytes(data)), {})
        return _taken_apart(memoryview(data))
    except (DecodeError, IndexError) as error:
        raise InvalidOption("the request is no message of the contract") from error


def read_action(data: bytes) -> Action:
    """Read a serialised `ProcessStreamRequest`.

    Raises:
        InvalidOption: it is none, or nothing is in it.
    """
    view = memoryview(data)
    if len(data) >= _SMALL_BYTES and view[0] == _JOB_TAG:
        try:
            length, start = read_varint(view, 1)
        except IndexError:
            raise InvalidOption("the request is no message of the contract") from None
        if start + length == len(view):
            return Action(read_request(view[start:]), None)
    try:
        message = pipeline_pb2.ProcessStreamRequest.FromString(data)
    except DecodeError as error:
        raise InvalidOption("the request is no message of the contract") from error
    match message.WhichOneof("action"):
        case "job":
            return Action(Request(message.job, {}), None)
        case "cancel":
            return Action(None, message.cancel.job_id)
    raise InvalidOption("neither a job nor a job to cancel")


def _taken_apart(view: memoryview) -> Request:
    images: dict[int, memoryview] = {}
    rest: list[bytes | memoryview] = []
    number = position = 0
    while position < len(view):
        end = skip_field(view, position)
        tag, start = read_varint(view, position)
        if tag == _SOURCES_TAG:
            length, start = read_varint(view, start)
            source, image = _without_image(view[start : start + length])
            if image is not None:
                images[number] = image
            rest += (bytes((_SOURCES_TAG,)), encode_varint(len(source)), source)
            number += 1
        else:
            rest.append(view[position:end])
        position = end
    return Request(pipeline_pb2.ProcessRequest.FromString(b"".join(rest)), images)


def _without_image(source: memoryview) -> tuple[bytes, memoryview | None]:
    """A `Source` with an empty image in place of its own, and that image; of several the last counts, as always."""
    image: memoryview | None = None
    rest: list[bytes | memoryview] = []
    position = 0
    while position < len(source):
        end = skip_field(source, position)
        tag, start = read_varint(source, position)
        if tag == _IMAGE_TAG:
            _, start = read_varint(source, start)
            image = source[start:end]
            rest.append(bytes((_IMAGE_TAG, 0)))
        else:
            rest.append(source[position:end])
        position = end
    return b"".join(rest), image
