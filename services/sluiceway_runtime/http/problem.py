"""Failures as HTTP tells them: `application/problem+json` (RFC 9457), with the same reasons as gRPC."""

from __future__ import annotations

import json
import math
from typing import Any

from aiohttp import web

from sluiceway_runtime.errors import SluicewayError

__all__ = ["headers_of", "plain_problem", "problem_body", "problem_response", "status_of"]

# By the name of the gRPC code, as Google's APIs map them.
STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    413: "Content too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    429: "Too many requests",
    499: "Cancelled",
    500: "Internal error",
    503: "Service unavailable",
    504: "Deadline exceeded",
}
CONTENT_TYPE = "application/problem+json"


def status_of(code: str, reason: str) -> int:
    """Return the HTTP status of an error, of the name of its gRPC code and of its reason."""
    return 413 if reason == "IMAGE_TOO_LARGE" else STATUS.get(code, 500)


def problem_body(error: SluicewayError, request_id: str) -> dict[str, Any]:
    """Return an error as a problem: what ErrorInfo and RetryInfo say in gRPC, under the same names."""
    status = status_of(error.code, error.reason)
    body: dict[str, Any] = {
        "type": f"urn:sluiceway:reason:{error.reason}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": error.message,
        "code": error.code,
        "reason": error.reason,
        "metadata": error.metadata,
        "request_id": request_id,
    }
    if error.retry_after_s is not None:
        body["retry_after_ms"] = max(1, round(error.retry_after_s * 1000))
    return body


def headers_of(error: SluicewayError) -> dict[str, str]:
    """Return what headers say of an error: when to come back, and that a token is wanted."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status_of(error.code, error.reason) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def problem_response(error: SluicewayError, request_id: str) -> web.Response:
    """Return the answer to a request that failed as a whole."""
    headers = headers_of(error)
    status = status_of(error.code, error.reason)
    text = json.dumps(problem_body(error, request_id), ensure_ascii=False)
    return web.Response(status=status, text=text, content_type=CONTENT_TYPE, headers=headers)


def plain_problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return a failure that only HTTP knows: no such path, no such method, a name or origin that is not allowed."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    return web.Response(status=status, text=json.dumps(body), content_type=CONTENT_TYPE, headers=headers)
