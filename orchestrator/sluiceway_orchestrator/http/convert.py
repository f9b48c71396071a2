"""Between the contract's messages and their JSON form: the names of the protos, every field present."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from multidict import MultiMapping
from sluiceway_runtime.errors import InvalidOption

from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway_orchestrator.convert.events import event_to_proto
from sluiceway_orchestrator.convert.request import Request
from sluiceway_orchestrator.outbox import Addressed

__all__ = ["DESCRIPTORS", "QUERY", "event_to_json", "message_to_json", "request_from_image", "request_from_json"]

# What the OpenAPI document describes.
DESCRIPTORS = {
    "request": pipeline_pb2.ProcessRequest.DESCRIPTOR,
    "event": pipeline_pb2.ProcessResponse.DESCRIPTOR,
    "description": pipeline_pb2.DescribeResponse.DESCRIPTOR,
}

_MAX_ECHO = 500


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _priority(text: str) -> str:
    return f"PRIORITY_{text.upper()}"


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
    "characters": ((*_RECOGNITION, "characters"), _boolean),
    "words": ((*_RECOGNITION, "words"), _boolean),
    "top_k": ((*_RECOGNITION, "top_k"), int),
    "priority": (("options", "priority"), _priority),
    "detect_only": (("options", "detect_only"), _boolean),
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
    plain: dict[str, Any] = {}
    for name in query:
        if name not in QUERY:
            raise InvalidOption(f"{name}: no such parameter", metadata={"parameters": ", ".join(QUERY)})
        if len(query.getall(name)) > 1:
            raise InvalidOption(f"{name}: given twice")
        path, read = QUERY[name]
        inner = plain
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        try:
            inner[path[-1]] = read(query[name])
        except (ValueError, KeyError):
            raise InvalidOption(f"{name}: {query[name]!r} is no value of it") from None
    try:
        request = json_format.ParseDict(plain, pipeline_pb2.ProcessRequest())
    except json_format.ParseError as error:
        raise InvalidOption(str(error)) from None
    request.sources.add(image=b"")
    return Request(request, {0: memoryview(image)})


def event_to_json(addressed: Addressed) -> tuple[str, str]:
    """Return the kind of an event and the event, as one line."""
    message = event_to_proto(addressed)
    return message.WhichOneof("event") or "", message_to_json(message)


def message_to_json(message: Message) -> str:
    """Return a message as one line of JSON."""
    plain = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
