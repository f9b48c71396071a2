"""Figures to messages."""

from __future__ import annotations

from typing import Any

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

__all__ = ["figures_to_proto", "interval_s_asked"]

# The fields of a message are those of the class, by name.
_MESSAGES: dict[type, Any] = {
    ClusterFigures: watch_pb2.WatchResponse,
    OrchestratorFigures: watch_pb2.OrchestratorFigures,
    StageFigures: watch_pb2.StageFigures,
    ReplicaFigures: watch_pb2.ReplicaFigures,
    FrontFigures: watch_pb2.FrontFigures,
    WorkerFigures: watch_pb2.WorkerFigures,
    GpuFigures: watch_pb2.GpuFigures,
    ApiFigures: watch_pb2.ApiFigures,
    Limit: watch_pb2.Limit,
}


def figures_to_proto(figures: ClusterFigures) -> watch_pb2.WatchResponse:
    """The message for what was found out."""
    message: watch_pb2.WatchResponse = _message(figures)
    return message


def interval_s_asked(request: watch_pb2.WatchRequest) -> float | None:
    """Seconds between two messages that a client asks for; None for the default."""
    return request.interval.ToNanoseconds() / 1e9 if request.HasField("interval") else None


def _message(figures: Any) -> Any:
    kind = type(figures)
    fields = {name: _value(getattr(figures, name)) for name in kind.__dataclass_fields__}
    return _MESSAGES[kind](**{name: value for name, value in fields.items() if value is not None})


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_message(item) for item in value]
    return _message(value) if type(value) in _MESSAGES else value
