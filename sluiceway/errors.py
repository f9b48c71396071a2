"""What can go wrong, as a client sees it.

Every error carries what the server said: `code` (name of the gRPC status), `reason` (stable, for programs), `message`
(for people), `metadata`, `request_id`, and `retry_after_s` where trying again makes sense. `SluicewayError` is the base
of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "ImageTooLarge",
    "InvalidImage",
    "InvalidInput",
    "InvalidOption",
    "QueueFull",
    "ServerFault",
    "SluicewayError",
    "Unauthenticated",
    "Unavailable",
    "UnknownApi",
    "UnknownModel",
    "UnknownPipeline",
    "UpstreamFailed",
    "UpstreamRefused",
    "UrlNotAllowed",
    "make_error",
]


class SluicewayError(Exception):
    """Any failure of a request.

    Attributes:
        code: name of the gRPC status code, such as "INVALID_ARGUMENT".
        reason: stable and machine-readable, such as "IMAGE_TOO_LARGE".
        message: for people; may change between releases.
        metadata: details by name, for example the limit that was exceeded.
        retry_after_s: when the server thinks that trying again makes sense, or None.
        request_id: by which the logs of the servers know the call or the job; empty where there was none.
    """

    default_code: ClassVar[str] = "UNKNOWN"
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.request_id = ""


class InvalidInput(SluicewayError):
    """The request cannot be served as it is; repeating it is pointless."""

    default_code = "INVALID_ARGUMENT"
    default_reason = "INVALID_OPTION"


class InvalidImage(InvalidInput):
    """Not an image, damaged, or of a format that is not read."""

    default_reason = "INVALID_IMAGE"


class ImageTooLarge(InvalidInput):
    """More bytes or pixels than the server allows."""

    default_reason = "IMAGE_TOO_LARGE"


class InvalidOption(InvalidInput):
    """An option is unknown or out of range."""


class UnknownApi(InvalidInput):
    """The server has no API of this name."""

    default_reason = "UNKNOWN_API"


class UnknownModel(InvalidInput):
    """The server has no model of this name."""

    default_reason = "UNKNOWN_MODEL"


class UnknownPipeline(InvalidInput):
    """The server has no pipeline of this name."""

    default_reason = "UNKNOWN_PIPELINE"


class QueueFull(SluicewayError):
    """The server has more work than it can finish in time; `retry_after_s` says when to come back."""

    default_code = "RESOURCE_EXHAUSTED"
    default_reason = "QUEUE_FULL"


class Unavailable(SluicewayError):
    """The server cannot be reached, is starting, or is shutting down."""

    default_code = "UNAVAILABLE"
    default_reason = "UNAVAILABLE"


class UpstreamFailed(SluicewayError):
    """A URL or an API did not answer properly."""

    default_code = "UNAVAILABLE"
    default_reason = "UPSTREAM_FAILED"


class UpstreamRefused(SluicewayError):
    """A URL or an API said no."""

    default_code = "FAILED_PRECONDITION"
    default_reason = "UPSTREAM_REFUSED"


class UrlNotAllowed(SluicewayError):
    """The operator does not allow this URL."""

    default_code = "PERMISSION_DENIED"
    default_reason = "URL_NOT_ALLOWED"


class DeadlineExceeded(SluicewayError):
    """The time ran out."""

    default_code = "DEADLINE_EXCEEDED"
    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(SluicewayError):
    """The call was cancelled."""

    default_code = "CANCELLED"
    default_reason = "CANCELLED"


class Unauthenticated(SluicewayError):
    """The token is missing or not valid."""

    default_code = "UNAUTHENTICATED"
    default_reason = "UNAUTHENTICATED"


class ServerFault(SluicewayError):
    """The model or the server failed on this item; `reason` is MODEL_FAILED, QUARANTINED or INTERNAL."""

    default_code = "INTERNAL"
    default_reason = "INTERNAL"


_KINDS = (
    InvalidImage,
    ImageTooLarge,
    InvalidOption,
    UnknownApi,
    UnknownModel,
    UnknownPipeline,
    QueueFull,
    Unavailable,
    UpstreamFailed,
    UpstreamRefused,
    UrlNotAllowed,
    DeadlineExceeded,
    Cancelled,
    Unauthenticated,
    ServerFault,
)
_BY_REASON: dict[str, type[SluicewayError]] = {kind.default_reason: kind for kind in _KINDS}
_BY_REASON |= {"MODEL_FAILED": ServerFault, "QUARANTINED": ServerFault}
# For answers without a reason: proxies, gRPC itself, servers newer than this client.
_BY_CODE: dict[str, type[SluicewayError]] = {
    "INVALID_ARGUMENT": InvalidInput,
    "RESOURCE_EXHAUSTED": QueueFull,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "UNAUTHENTICATED": Unauthenticated,
    "INTERNAL": ServerFault,
}


def make_error(
    code: str,
    reason: str,
    message: str,
    *,
    metadata: Mapping[str, str] | None = None,
    retry_after_s: float | None = None,
) -> SluicewayError:
    """Build the error that belongs to what a server said.

    Args:
        code: name of the gRPC status code.
        reason: from ErrorInfo; empty where there was none.
        message: for people.
        metadata: from ErrorInfo.
        retry_after_s: from RetryInfo.

    Returns:
        The class for the reason, else for the code, else `SluicewayError`; it keeps code and reason as given.
    """
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, SluicewayError)
    return kind(message, code=code, reason=reason or None, metadata=metadata, retry_after_s=retry_after_s)
