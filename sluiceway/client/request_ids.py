"""Ids of requests, by which logs, errors and stories know them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sluiceway.errors import InvalidOption, SluicewayError

__all__ = ["named", "request_id_of"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id_of(given: str | None) -> str:
    """Return the id that was given, or a new one. Raises InvalidOption for one that is none."""
    if given is None:
        return uuid.uuid4().hex[:16]
    if not _REQUEST_ID.fullmatch(given):
        raise InvalidOption("a request id is letters, digits and ._:-, at most 128 of them")
    return given


@contextmanager
def named(request_id: str) -> Iterator[None]:
    """Let errors carry the id of their request."""
    try:
        yield
    except SluicewayError as error:
        error.request_id = error.request_id or request_id
        raise
