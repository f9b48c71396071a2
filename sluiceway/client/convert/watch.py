"""Figures of a cluster, as an orchestrator sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from sluiceway.figures import (
    ApiFigures,
    ClusterFigures,
    FrontFigures,
    GpuFigures,
    Limit,
    OrchestratorFigures,
    ReplicaFigures,
    StageFigures,
    WorkerFigures,
)
from sluiceway.watch.v1 import watch_pb2

__all__ = ["from_watch", "to_watch"]

# The fields of a class are those of its message, by name.
_CLASSES: dict[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (
        ApiFigures,
        FrontFigures,
        GpuFigures,
        Limit,
        OrchestratorFigures,
        ReplicaFigures,
        StageFigures,
        WorkerFigures,
    )
} | {"WatchResponse": ClusterFigures}


def to_watch(interval_s: float) -> watch_pb2.WatchRequest:
    """Ask for figures this often."""
    interval = Duration()
    interval.FromNanoseconds(round(interval_s * 1e9))
    return watch_pb2.WatchRequest(interval=interval)


def from_watch(message: watch_pb2.WatchResponse) -> ClusterFigures:
    """Read what an orchestrator says of its cluster."""
    figures: ClusterFigures = _read(message)
    return figures


def _read(message: Any) -> Any:
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            # Not known: as the class has it.
            continue
        value = getattr(message, field.name)
        if field.message_type is None:
            fields[field.name] = value
        elif field.has_presence:
            fields[field.name] = _read(value)
        else:
            fields[field.name] = tuple(_read(item) for item in value)
    return _CLASSES[message.DESCRIPTOR.name](**fields)
