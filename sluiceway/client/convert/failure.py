"""Failures: of a whole call, and of one part of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

from sluiceway.common.v1 import error_pb2
from sluiceway.errors import ImageTooLarge, SluicewayError, make_error

__all__ = ["error_from_rpc", "from_error", "is_named"]

DETAILS_KEY = "grpc-status-details-bin"
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# What gRPC itself says where a stream ends while a message is being written: the server's own word is lost by then.
_WRITE_FAILED = "Internal error from Core"
# Of a stream that was under way when its connection went away; under one code or another.
_REMOVED, _RESET = "Stream removed", "Received RST_STREAM"
# What gRPC says of a server that answers in HTTP/1. A 5xx is a proxy's word for a server that is not there.
_HTTP = re.compile(r"http1\.x server(?! \(HTTP status 5)")
_ADVICE = "The address of the orchestrator is wanted, port 50051 unless configured."
# What gRPC says of messages above its limit, on either side; a busy server's refusals carry details of their own.
_TOO_LARGE = "message larger than max"


def from_error(message: error_pb2.Error) -> SluicewayError:
    """Read why one source or one region failed."""
    retry_after_s = message.retry_after_ms / 1000 if message.retry_after_ms > 0 else None
    code = _CODE_NAMES.get(message.code, "UNKNOWN")
    return make_error(
        code, message.reason, message.message, metadata=dict(message.metadata), retry_after_s=retry_after_s
    )


def error_from_rpc(error: grpc.aio.AioRpcError, address: str, *, closed: bool = False) -> SluicewayError:
    """Read why a call ended, from `google.rpc.Status` in its trailers.

    Args:
        error: what the call raised.
        address: named where the server could not be reached at all.
        closed: whether this side has closed the connection.
    """
    code, text = error.code().name, error.details() or ""
    details = next((value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY), None)
    if not isinstance(details, bytes):
        if code == "CANCELLED" and not closed:
            # Nobody here cancelled it: gRPC says so of calls that reach a server in the moment in which it stops.
            code, text = "UNAVAILABLE", "it stopped"
        elif code == "INTERNAL" and text == _WRITE_FAILED:
            code, text = "UNAVAILABLE", "it ended the stream"
        elif text == _REMOVED or text.startswith(_RESET):
            code, text = "UNAVAILABLE", "the connection broke"
        elif code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in text.lower():
            return ImageTooLarge(text)
        if code == "UNIMPLEMENTED":
            text = f"{address} is no orchestrator ({text}): is it the address of a stage? {_ADVICE}"
        elif code == "UNAVAILABLE" and _HTTP.search(text):
            code = "FAILED_PRECONDITION"
            text = f"{address} speaks HTTP and no gRPC: is it the port for HTTP, or for operations? {_ADVICE}"
        elif code == "UNAVAILABLE":
            text = f"cannot reach {address}: {text}"
        return make_error(code, "", text or code)
    reason, metadata, retry_after_s = _details(details)
    return make_error(code, reason, text, metadata=metadata, retry_after_s=retry_after_s)


def is_named(error: grpc.aio.AioRpcError) -> bool:
    """Whether a Sluiceway server said this, and not gRPC of a server that it does not reach."""
    return any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())


def _details(data: bytes) -> tuple[str, Mapping[str, str], float | None]:
    reason, metadata, retry_after_s = "", {}, None
    for detail in status_pb2.Status.FromString(data).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, metadata, retry_after_s
