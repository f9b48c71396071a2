"""What a servicer asks of the call it serves: the time left, its name in the logs."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

import grpc.aio

from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.logs import NO_REQUEST, current_request_id
from sluiceway_runtime.server.security import ANONYMOUS, current_client

__all__ = [
    "REQUEST_ID_KEY",
    "Caller",
    "begin_request",
    "caller_of",
    "current_request_id",
    "deadline_of",
    "own_or_new_id",
    "request_id_of",
]

REQUEST_ID_KEY = "x-request-id"
# A client's own id is taken over when it is short and harmless in a log line.
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Caller(NamedTuple):
    """For whom something is done, and by when, whichever way the call came.

    Attributes:
        client: who shares fairly with whom: the name of a token, or an address.
        deadline: by which it has to be answered.
        request_id: its name in the logs.
    """

    client: str
    deadline: Deadline
    request_id: str


def deadline_of(context: grpc.aio.ServicerContext[Any, Any], config: ServerConfig) -> Deadline:
    """The moment by which this call has to be answered: the client's, within the server's default and maximum."""
    remaining_s = context.time_remaining()
    if remaining_s is None:
        remaining_s = config.default_deadline_s
    return Deadline.after(min(remaining_s, config.max_deadline_s))


def request_id_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The client's `x-request-id`, or a new one; the same in every stage and log line that the request passes."""
    known = current_request_id.get()
    return (_given_id(context) or _new_id()) if known == NO_REQUEST else known


def begin_request(context: grpc.aio.ServicerContext[Any, Any], given: object) -> str:
    """Decide on the id of a call that comes in, for whatever runs in its task, and return it.

    A client that gave none that may be taken over finds it behind the answer.
    """
    if isinstance(given, str) and _SAFE_ID.fullmatch(given):
        request_id = given
    else:
        request_id = _new_id()
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
    current_request_id.set(request_id)
    return request_id


def caller_of(context: grpc.aio.ServicerContext[Any, Any], config: ServerConfig) -> Caller:
    """Who is behind a call of gRPC."""
    name = current_client.get()
    client = context.peer() if name == ANONYMOUS else name
    return Caller(client, deadline_of(context, config), request_id_of(context))


def own_or_new_id(given: object) -> str:
    """The id that a client gave, if it may be taken over, or a new one."""
    return given if isinstance(given, str) and _SAFE_ID.fullmatch(given) else _new_id()


def _given_id(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _SAFE_ID.fullmatch(value):
            return value
    return None


def _new_id() -> str:
    return os.urandom(8).hex()
