"""The failures that Sluiceway knows, raised where the fault is found and mapped to a gRPC status in one place.

This module knows nothing of gRPC: `code` is the *name* of a status code. `server/status.py` does the mapping.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "Cancelled",
    "ConfigurationError",
    "DeadlineExceeded",
    "ImageTooLarge",
    "Internal",
    "InvalidImage",
    "InvalidInput",
    "InvalidOption",
    "ModelFailed",
    "Quarantined",
    "QueueFull",
    "SluicewayError",
    "StartupError",
    "Unauthenticated",
    "Unavailable",
    "UnknownApi",
    "UnknownModel",
    "UnknownPipeline",
    "UpstreamFailed",
    "UpstreamRefused",
    "UrlNotAllowed",
    "WrongGroup",
    "describe",
]


class SluicewayError(Exception):
    """A failure that a client may see.

    Attributes:
        code: name of the gRPC status code.
        reason: stable, machine-readable; the table in `protos/sluiceway/common/v1/error.proto`.
        message: for people; holds no secret, no path and no image content.
        metadata: details by name.
        retry_after_s: when trying again makes sense, or None.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self, message: str, *, metadata: dict[str, str] | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata or {}
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from workers to the front; the default would lose the keyword arguments.
        return _rebuild, (type(self), self.message, self.metadata, self.retry_after_s)


def _rebuild(
    kind: type[SluicewayError], message: str, metadata: dict[str, str], retry_after_s: float | None
) -> SluicewayError:
    return kind(message, metadata=metadata, retry_after_s=retry_after_s)


class InvalidInput(SluicewayError):
    """The request cannot be served as it is; repeating it is pointless."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_OPTION"


class InvalidImage(InvalidInput):
    """Not an image, damaged, or of a format that is not read."""

    reason = "INVALID_IMAGE"


class ImageTooLarge(InvalidInput):
    """More bytes or pixels than the limits allow; found from the header, before decoding."""

    reason = "IMAGE_TOO_LARGE"


class InvalidOption(InvalidInput):
    """An option is unknown or out of range."""


class UnknownApi(InvalidInput):
    """No API of this name is configured."""

    reason = "UNKNOWN_API"


class UnknownModel(InvalidInput):
    """No model of this name is served."""

    reason = "UNKNOWN_MODEL"


class UnknownPipeline(InvalidInput):
    """No pipeline of this name is configured."""

    reason = "UNKNOWN_PIPELINE"


class WrongGroup(SluicewayError):
    """A call asked for another version than this replica serves; one of that version may take it."""

    code = "FAILED_PRECONDITION"
    reason = "WRONG_GROUP"


class QueueFull(SluicewayError):
    """The queue is full, or the wait in it would outlast the deadline."""

    code = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"


class Unavailable(SluicewayError):
    """Starting, draining, or no replica can be reached."""

    code = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class DeadlineExceeded(SluicewayError):
    """The time ran out, possibly while the item was still queued."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Cancelled(SluicewayError):
    """The caller gave up."""

    code = "CANCELLED"
    reason = "CANCELLED"


class UpstreamFailed(SluicewayError):
    """An external API or URL did not answer properly."""

    code = "UNAVAILABLE"
    reason = "UPSTREAM_FAILED"


class UpstreamRefused(SluicewayError):
    """An external API or URL said no (4xx)."""

    code = "FAILED_PRECONDITION"
    reason = "UPSTREAM_REFUSED"


class UrlNotAllowed(SluicewayError):
    """The operator does not allow requests to this URL or address."""

    code = "PERMISSION_DENIED"
    reason = "URL_NOT_ALLOWED"


class Unauthenticated(SluicewayError):
    """No valid token came with the call."""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class ModelFailed(SluicewayError):
    """The model raised on this item; the worker lives on."""

    reason = "MODEL_FAILED"


class Quarantined(SluicewayError):
    """This item ended a worker while it was alone with it, and is not tried again."""

    reason = "QUARANTINED"


class Internal(SluicewayError):
    """A fault of the server. The message is fixed; the log has the rest."""


class StartupError(Exception):
    """The server cannot start; the message tells the operator what to change."""


class ConfigurationError(StartupError):
    """The configuration is wrong. The message lists every fault by key, one a line."""


def describe(error: BaseException) -> str:
    """One line about an exception."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
