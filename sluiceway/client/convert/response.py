"""Events of a server, as this library tells them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from sluiceway.client import events
from sluiceway.client.convert.failure import from_error
from sluiceway.client.regions import Box, Character, Keypoint, Label, Reading, Region, Word
from sluiceway.client.results import Block, Line, Model, Notice, Page, StageTimings, StepReport, Timings
from sluiceway.common.v1 import geometry_pb2, model_pb2, value_pb2
from sluiceway.errors import ServerFault
from sluiceway.pipeline.v1 import pipeline_pb2

__all__ = ["from_model", "from_response"]

_SUBJECTS = {
    pipeline_pb2.SUBJECT_UNSPECIFIED: events.Subject.REGION,
    pipeline_pb2.SUBJECT_REGION: events.Subject.REGION,
    pipeline_pb2.SUBJECT_PAGE: events.Subject.PAGE,
    pipeline_pb2.SUBJECT_SOURCE: events.Subject.SOURCE,
}
# Beyond, a float cannot tell whole numbers apart.
MAX_WHOLE = 2**53
Outline = tuple[tuple[float, float], ...]


def from_response(message: pipeline_pb2.ProcessResponse, names: Sequence[str]) -> events.Event | None:
    """Read one event.

    Args:
        message: from the server.
        names: of the sources, by position.

    Returns:
        The event; None for a kind that this client does not know, which the contract says to pass over.

    Raises:
        ServerFault: it is about a source that was not sent.
    """
    kind = message.WhichOneof("event")
    match kind:
        case "job_done":
            return events.JobDone(message.job_done.succeeded, message.job_done.failed)
        case "job_refused":
            return events.JobDone(0, 0, from_error(message.job_refused.error))
    source = _source_name(message.source_id, names)
    match kind:
        case "source_ready":
            return _source_ready(source, message.source_ready)
        case "regions":
            return _regions(source, message.regions)
        case "values":
            return _values(source, message.values)
        case "done":
            return _source_done(source, message.done)
        case "failed":
            return events.SourceFailed(source, from_error(message.failed.error))
    return None


def _source_name(source_id: str, names: Sequence[str]) -> str:
    if not source_id:
        return ""
    # Ids are positions; anything else is not what `to_request` sent.
    if source_id.isascii() and source_id.isdecimal() and len(source_id) < 10 and int(source_id) < len(names):
        return names[int(source_id)]
    raise ServerFault("the server answered about a source that was not sent")


def _source_ready(source: str, message: pipeline_pb2.SourceReady) -> events.SourceReady:
    return events.SourceReady(
        source,
        message.size_bytes,
        message.fetch_ms,
        {name: _plain(message.values[name]) for name in sorted(message.values)},
        {name: from_error(message.call_errors[name]) for name in sorted(message.call_errors)},
        message.image or None,
    )


def _regions(source: str, message: pipeline_pb2.Regions) -> events.Regions:
    found = message.page
    page = Page(found.width, found.height, found.index, found.rotation_degrees)
    # A shape that this client does not know has no outline: the contract says to skip it.
    regions = tuple(
        _region(item, outline, message.step, page.index)
        for item in message.regions
        if (outline := _outline(item.geometry))
    )
    return events.Regions(source, message.step, page, regions, tuple(message.recognizing))


def _region(message: pipeline_pb2.Region, outline: Outline, step: str, page: int) -> Region:
    xs, ys = [x for x, _ in outline], [y for _, y in outline]
    return Region(
        id=message.id,
        box=Box(min(xs), min(ys), max(xs), max(ys)),
        class_name=message.class_name,
        class_id=message.class_id,
        confidence=message.confidence,
        outline=outline,
        step=step,
        parent_id=message.parent_id if message.HasField("parent_id") else None,
        page=page,
        keypoints=tuple(Keypoint(point.x, point.y, point.confidence) for point in message.keypoints),
    )


def _word(message: value_pb2.Word) -> Word | None:
    """A word, if it says where it lies."""
    outline = _outline(message.geometry)
    if not outline:
        return None
    xs, ys = zip(*outline, strict=True)
    return Word(message.text, message.confidence, Box(min(xs), min(ys), max(xs), max(ys)), outline)


def _outline(geometry: geometry_pb2.Geometry) -> Outline:
    match geometry.WhichOneof("shape"):
        case "box":
            box = geometry.box
            return ((box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1))
        case "rotated_box":
            return _turned(geometry.rotated_box)
        case "polygon":
            return tuple((point.x, point.y) for point in geometry.polygon.points)
    return ()


def _turned(box: geometry_pb2.RotatedBox) -> Outline:
    """Corners of a turned box, clockwise from the one that is top left at angle 0 (y grows downwards)."""
    angle = math.radians(box.angle_degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    halves = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    offsets = ((sx * box.width / 2, sy * box.height / 2) for sx, sy in halves)
    return tuple((box.center.x + dx * cos - dy * sin, box.center.y + dx * sin + dy * cos) for dx, dy in offsets)


def _values(source: str, message: pipeline_pb2.Values) -> events.Values | None:
    subject = _SUBJECTS.get(message.subject)
    if subject is None:
        # About something that is newer than this client.
        return None
    step, model = message.step, message.model
    if subject is events.Subject.REGION:
        readings = {item.region_id: _reading(item, step, model) for item in message.values}
        return events.Values(source, step, readings, page=message.page)
    if not message.values:
        return None
    return events.Values(source, step, {}, _reading(message.values[0], step, model), subject, message.page)


def _reading(message: pipeline_pb2.Value, step: str, model: str) -> Reading:
    match message.WhichOneof("result"):
        case "text":
            characters = tuple(Character(item.text, item.confidence) for item in message.text.characters)
            text = message.text
            words = tuple(word for item in text.words if (word := _word(item)) is not None)
            turned = text.rotation_degrees
            return Reading(model, text.text, text.confidence, characters, step=step, rotation=turned, words=words)
        case "classification":
            labels = tuple(
                Label(item.class_id, item.class_name, item.confidence) for item in message.classification.labels
            )
            return Reading(model, confidence=labels[0].confidence if labels else 0.0, labels=labels, step=step)
        case "embedding":
            return Reading(model, embedding=tuple(message.embedding.values), step=step)
        case "error":
            return Reading(model, error=from_error(message.error), step=step)
        case "data":
            return Reading(model, data=_plain(message.data), step=step)
        case _:
            # A kind of result newer than this client: the region stands, without a reading of a known kind.
            return Reading(model, step=step)


def _plain(message: Struct) -> dict[str, Any]:
    # Maps of messages have no order of their own; equal answers should look equal.
    return {name: _plain_value(message.fields[name]) for name in sorted(message.fields)}


def _plain_value(message: Value) -> Any:
    match message.WhichOneof("kind"):
        case "struct_value":
            return _plain(message.struct_value)
        case "list_value":
            return _plain_list(message.list_value)
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "number_value":
            return _plain_number(message.number_value)
    return None


def _plain_list(message: ListValue) -> list[Any]:
    return [_plain_value(value) for value in message.values]


def _plain_number(number: float) -> float | int | None:
    """Numbers of a Struct are all floats: whole ones become int again, and what JSON does not have becomes None."""
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE else number


def _source_done(source: str, message: pipeline_pb2.SourceDone) -> events.SourceDone:
    steps = tuple(
        StepReport(
            item.step, _stage_timings(item.timings), tuple(from_model(model) for model in item.models), item.failed
        )
        for item in message.steps
    )
    return events.SourceDone(
        source,
        tuple(message.reading_order),
        Timings(message.fetch_ms, {report.step: report.timings for report in steps}, message.total_ms),
        steps,
        tuple(Line(tuple(item.region_ids), item.page) for item in message.lines),
        tuple(Block(tuple(item.lines), item.page) for item in message.blocks),
        tuple(Notice(item.reason, item.message, dict(item.metadata), item.page) for item in message.notices),
    )


def _stage_timings(message: model_pb2.StageTimings) -> StageTimings:
    return StageTimings(message.queue_ms, message.compute_ms, message.total_ms, message.decode_ms)


def from_model(message: model_pb2.Model) -> Model:
    """Read the identity of a model."""
    return Model(message.name, message.version, message.weights_sha256)
