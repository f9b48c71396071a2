"""What the answers of every stage have in common: errors of a part of one, and how busy the replica is."""

from __future__ import annotations

import grpc

from sluiceway.common.v1 import error_pb2, model_pb2
from sluiceway_runtime.errors import Internal, SluicewayError
from sluiceway_runtime.pool import PoolLoad
from sluiceway_runtime.priority import Priority
from sluiceway_runtime.server.status import code_of, error_of_reason

__all__ = ["error_from_proto", "error_to_proto", "priority_to_proto", "set_load"]

_PRIORITIES = {
    Priority.INTERACTIVE: model_pb2.PRIORITY_INTERACTIVE,
    Priority.NORMAL: model_pb2.PRIORITY_NORMAL,
    Priority.BULK: model_pb2.PRIORITY_BULK,
}
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def error_to_proto(error: BaseException) -> error_pb2.Error:
    """The message for an error; anything but a `SluicewayError` shows a fixed text and nothing of itself."""
    if not isinstance(error, SluicewayError):
        error = Internal("internal error")
    return error_pb2.Error(
        code=code_of(error).value[0],
        reason=error.reason,
        message=error.message,
        metadata=error.metadata,
        retry_after_ms=0 if error.retry_after_s is None else max(1, round(error.retry_after_s * 1000)),
    )


def error_from_proto(message: error_pb2.Error) -> SluicewayError:
    """The error that a message describes."""
    retry_after_s = message.retry_after_ms / 1000 if message.retry_after_ms else None
    error = error_of_reason(message.reason, message.message, dict(message.metadata), retry_after_s)
    if error.reason != message.reason:
        # A newer peer's reason: keep what it said, as far as this release can.
        error.metadata = {**error.metadata, "reason": message.reason, "code": _NAMES.get(message.code, "UNKNOWN")}
    return error


def set_load(message: model_pb2.Load, load: PoolLoad) -> None:
    """Say how busy this replica is."""
    message.queued, message.running, message.capacity, message.queue_ms = load


def priority_to_proto(priority: Priority) -> model_pb2.Priority.ValueType:
    """The message's value for a class."""
    return _PRIORITIES[priority]
