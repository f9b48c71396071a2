"""Between the contract's messages and their JSON form: the names of the protos, every field present."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from multidict import MultiDict, MultiMapping
from sluiceway_runtime.errors import InvalidOption

from sluiceway.client.convert import from_response
from sluiceway.client.events import Event
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.watch.v1 import watch_pb2
from sluiceway_orchestrator.convert.events import event_to_proto
from sluiceway_orchestrator.convert.request import Request
from sluiceway_orchestrator.fetch.url_text import is_data_url
from sluiceway_orchestrator.http.form import Form
from sluiceway_orchestrator.outbox import Addressed

__all__ = [
    "DESCRIPTORS",
    "QUERY",
    "client_event",
    "event_to_json",
    "message_to_json",
    "names_of",
    "request_from_form",
    "request_from_image",
    "request_from_json",
    "seconds_of",
]

# What the OpenAPI document describes.
DESCRIPTORS = {
    "request": pipeline_pb2.ProcessRequest.DESCRIPTOR,
    "event": pipeline_pb2.ProcessResponse.DESCRIPTOR,
    "description": pipeline_pb2.DescribeResponse.DESCRIPTOR,
    "figures": watch_pb2.WatchResponse.DESCRIPTOR,
}

_MAX_ECHO = 500
# As long as URLs that are fetched may be.
_MAX_NAME = 8192
# The longest duration that a message of the contract can hold, ten thousand years.
_MAX_SECONDS = 315_576_000_000


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _priority(text: str) -> str:
    return f"PRIORITY_{text.upper()}"


def _text_layer(text: str) -> str:
    return f"TEXT_LAYER_{text.upper()}"


# Query parameters of a request whose body is the image: what each is in the request, and how it is read.
_DETECTION, _RECOGNITION = ("options", "detection"), ("options", "recognition")
QUERY: Mapping[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "job_id": (("job_id",), str),
    "pipeline": (("pipeline",), str),
    "confidence": ((*_DETECTION, "confidence"), float),
    "iou": ((*_DETECTION, "iou"), float),
    "classes": ((*_DETECTION, "classes"), _names),
    "max_detections": ((*_DETECTION, "max_detections"), int),
    "image_size": ((*_DETECTION, "image_size"), int),
    "scale": ((*_DETECTION, "scale"), str),
    "class_agnostic": ((*_DETECTION, "class_agnostic"), _boolean),
    "characters": ((*_RECOGNITION, "characters"), _boolean),
    "words": ((*_RECOGNITION, "words"), _boolean),
    "top_k": ((*_RECOGNITION, "top_k"), int),
    "priority": (("options", "priority"), _priority),
    "detect_only": (("options", "detect_only"), _boolean),
    "text_layer": (("options", "text_layer"), _text_layer),
}


def request_from_json(body: bytes | bytearray) -> Request:
    """Read a job from the JSON form of a `ProcessRequest`.

    Raises:
        InvalidOption: it is none.
    """
    try:
        message = json_format.Parse(body.decode(), pipeline_pb2.ProcessRequest(), max_recursion_depth=16)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        # The error may hold all that was sent.
        raise InvalidOption(f"body: {str(error)[:_MAX_ECHO]}") from None
    return Request(message, {})


def request_from_image(image: bytes | bytearray, query: MultiMapping[str]) -> Request:
    """Make a job of one image and the parameters of its URL.

    Raises:
        InvalidOption: a parameter is unknown, given twice, or not of its type.
    """
    request = _request_with(query)
    request.sources.add(image=b"")
    return Request(request, {0: memoryview(image)})


def request_from_form(form: Form, query: MultiMapping[str]) -> Request:
    """Make a job of the files of a form and the URLs in its fields `url`; other fields are options.

    Files are called by their names, with "_2", "_3", ... behind those that come again.

    Raises:
        InvalidOption: an option is unknown, given twice, or not of its type, or there is neither a file nor a URL.
    """
    options = MultiDict(query)
    options.extend(form.fields)
    urls = options.popall("url", [])
    timeouts = options.popall("timeout_s", [])
    if not form.files and not urls:
        raise InvalidOption("body: the form has neither a file nor a field `url`")
    if len(timeouts) > 1:
        raise InvalidOption("timeout_s: given twice")
    request = _request_with(options)
    if timeouts:
        request.timeout.FromNanoseconds(round(seconds_of(timeouts[0]) * 1e9))
    taken: set[str] = set()
    for name, _ in form.files:
        request.sources.add(source_id=_free_name(name, taken), image=b"")
    for url in urls:
        request.sources.add(url=url)
    return Request(request, {index: memoryview(data) for index, (_, data) in enumerate(form.files)})


def _free_name(name: str, taken: set[str]) -> str:
    """The name of a file, or another like it that no file before has; empty where the position has to do."""
    if not name or name.isdecimal():
        # A number would be taken for the position of another source.
        return ""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def seconds_of(text: str) -> float:
    """Read a time in seconds. Raises InvalidOption."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MAX_SECONDS:
        raise InvalidOption("timeout_s: must be a number of seconds above 0")
    return seconds


def names_of(request: Request) -> dict[str, str]:
    """What each source is called in a result, by its id: its id if it has one, else its URL, or its position.

    A `data:` URL is no name: it is the image.
    """
    names = {}
    for index, source in enumerate(request.message.sources):
        source_id = source.source_id or str(index)
        url = "" if is_data_url(source.url) else source.url[:_MAX_NAME]
        names[source_id] = source.source_id or url or source_id
    return names


def _request_with(query: MultiMapping[str]) -> pipeline_pb2.ProcessRequest:
    plain: dict[str, Any] = {}
    for name in query:
        if name not in QUERY:
            raise InvalidOption(f"{name[:_MAX_ECHO]}: no such parameter", metadata={"parameters": ", ".join(QUERY)})
        if len(query.getall(name)) > 1:
            raise InvalidOption(f"{name}: given twice")
        path, read = QUERY[name]
        inner = plain
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        try:
            inner[path[-1]] = read(query[name])
        except (ValueError, KeyError):
            raise InvalidOption(f"{name}: {query[name][:_MAX_ECHO]!r} is no value of it") from None
    try:
        return json_format.ParseDict(plain, pipeline_pb2.ProcessRequest())
    except json_format.ParseError as error:
        raise InvalidOption(str(error)[:_MAX_ECHO]) from None


def event_to_json(addressed: Addressed) -> tuple[str, str]:
    """Return the kind of an event and the event, as one line."""
    message = event_to_proto(addressed)
    return message.WhichOneof("event") or "", message_to_json(message)


def client_event(addressed: Addressed, positions: Mapping[str, int]) -> tuple[Event | None, int]:
    """An event as the client's library has it, and how large it is, in bytes; None if it has none of that kind."""
    message = event_to_proto(addressed)
    size_bytes = message.ByteSize()
    if message.source_id:
        # That library names sources by their positions.
        message.source_id = str(positions[message.source_id])
    return from_response(message, [""] * len(positions)), size_bytes


def message_to_json(message: Message) -> str:
    """Return a message as one line of JSON."""
    plain = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
