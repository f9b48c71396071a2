"""The one table between Sluiceway's errors and gRPC statuses, both ways."""

from __future__ import annotations

from typing import Final

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from sluiceway_runtime import errors
from sluiceway_runtime.errors import SluicewayError

__all__ = [
    "DETAILS_KEY",
    "DOMAIN",
    "REASONS",
    "brief",
    "code_of",
    "forget_frames",
    "code_of_reason",
    "error_of_reason",
    "from_rpc_error",
    "names_itself",
    "trailers",
]

DOMAIN: Final = "sluiceway"
# Where gRPC carries the serialised google.rpc.Status beside the plain code and message.
DETAILS_KEY: Final = "grpc-status-details-bin"

_BY_REASON: Final[dict[str, type[SluicewayError]]] = {
    kind.reason: kind
    for kind in (
        errors.InvalidOption,
        errors.InvalidImage,
        errors.ImageTooLarge,
        errors.UnknownApi,
        errors.UnknownModel,
        errors.UnknownPipeline,
        errors.WrongGroup,
        errors.QueueFull,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Cancelled,
        errors.UpstreamFailed,
        errors.UpstreamRefused,
        errors.UrlNotAllowed,
        errors.Unauthenticated,
        errors.ModelFailed,
        errors.Quarantined,
        errors.Internal,
    )
}
# By these what failed is counted.
REASONS: Final = tuple(_BY_REASON)
# For peers that send no ErrorInfo: gRPC itself (no connection, deadline), proxies, other servers.
_BY_CODE: Final[dict[grpc.StatusCode, type[SluicewayError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidOption,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.QueueFull,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
}


# Of each text of an error, which may repeat what a client sent. Of trailers above 8 KiB gRPC's clients make an error of
# their own; a text is in them twice, once with three characters for a byte and once with four for three bytes.
TEXT_MAX_BYTES = 1000


def brief(text: str) -> str:
    """A text as errors tell it: cut, if it is too long for them."""
    encoded = text.encode()
    return text if len(encoded) <= TEXT_MAX_BYTES else encoded[:TEXT_MAX_BYTES].decode(errors="ignore") + "…"


def code_of(error: SluicewayError) -> grpc.StatusCode:
    """The status code of an error."""
    return grpc.StatusCode[error.code]


def code_of_reason(reason: str) -> grpc.StatusCode:
    """The status code of the errors that have a reason; INTERNAL for one that is not known here."""
    return code_of(error_of_reason(reason, ""))


def trailers(error: SluicewayError) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata that carries `ErrorInfo` and, where retrying makes sense, `RetryInfo`."""
    details: list[any_pb2.Any] = [any_pb2.Any(), *([any_pb2.Any()] if error.retry_after_s is not None else [])]
    metadata = {key: brief(value) for key, value in error.metadata.items()}
    details[0].Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(1, round(error.retry_after_s * 1000)))
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_of(error).value[0], message=brief(error.message), details=details)
    return ((DETAILS_KEY, status.SerializeToString()),)


def error_of_reason(
    reason: str, message: str, metadata: dict[str, str] | None = None, retry_after_s: float | None = None
) -> SluicewayError:
    """The error that a peer named by its reason; an unknown reason is `Internal`."""
    return _BY_REASON.get(reason, errors.Internal)(message, metadata=metadata, retry_after_s=retry_after_s)


def from_rpc_error(error: grpc.aio.AioRpcError) -> SluicewayError:
    """The error behind a failed call to another Sluiceway server.

    Only what the peer itself named becomes that error. A code without `ErrorInfo` is mapped by the code, and a code
    that no Sluiceway server sends becomes `Internal` with a fixed text. Details that cannot be read are a reply that
    was broken on its way: `Unavailable`.
    """
    try:
        named = _named(error)
    except DecodeError:
        return errors.Unavailable("the reply was broken on its way")
    if named is not None:
        return named
    kind = _BY_CODE.get(error.code())
    if kind is None:
        return errors.Internal("a stage failed", metadata={"code": error.code().name})
    return kind(error.details() or kind.reason)


def names_itself(error: grpc.aio.AioRpcError) -> bool:
    """Whether a Sluiceway server said this, and not gRPC or whatever stands between, of a call that broke."""
    try:
        return _named(error) is not None
    except DecodeError:
        return False


def _named(error: grpc.aio.AioRpcError) -> SluicewayError | None:
    """What the peer itself named.

    Raises:
        DecodeError: it said something that cannot be read.
    """
    for key, value in error.trailing_metadata() or ():
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        status = status_pb2.Status.FromString(value)
        info, retry_after_s = None, None
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        if info is not None and info.domain == DOMAIN:
            return error_of_reason(info.reason, status.message, dict(info.metadata), retry_after_s)
    return None


def forget_frames(error: BaseException | None) -> None:
    """Let go of the frames that an error passed, and of the requests in them.

    They are part of a circle with gRPC's own error, so they would stay until the next search for garbage.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
