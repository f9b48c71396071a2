"""Reading a request's body into one place, where nothing but its reader holds it, once there is room for it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from sluiceway_runtime.account import Account, Phase, phase_of_request
from sluiceway_runtime.deadline import Deadline
from sluiceway_runtime.errors import DeadlineExceeded, InvalidOption

__all__ = ["BODY_COPIES", "JSON_COPIES", "json_limit_bytes", "length_of", "make_room", "read_body", "take_body"]

# JSON carries images as base64, four bytes for three, and a little beside them.
_JSON_OVERHEAD = 4 / 3
_JSON_EXTRA_BYTES = 64 * 2**10
# Of JSON, while it is taken apart: also its text, and the images that come out of it.
JSON_COPIES = 4

# Of a body while it is read: where it does not say how long it is, what it has grown out of is there for a moment, too.
BODY_COPIES = 2


def json_limit_bytes(max_message_bytes: int) -> int:
    """The longest body: JSON that says what the largest message of gRPC does."""
    return int(max_message_bytes * _JSON_OVERHEAD) + _JSON_EXTRA_BYTES


def length_of(request: web.Request) -> int | None:
    """How long the body is; None where that is not known before it is read, as of one that is packed."""
    return None if "Content-Encoding" in request.headers else request.content_length


async def read_body(request: web.Request, limit_bytes: int) -> bytearray:
    """Read the whole body.

    `request.read()` would keep it in the request, and the connection keeps that until the next one comes: idle
    connections would hold the bytes of images that were answered long ago. It also makes two more copies on the way.

    Raises:
        web.HTTPRequestEntityTooLarge: it is longer than the limit.
        web.RequestPayloadError: it is not encoded as its headers say.
    """
    expected = length_of(request)
    if expected is not None and expected > limit_bytes:
        raise web.HTTPRequestEntityTooLarge(limit_bytes)
    body = bytearray(expected or 0)
    filled = 0
    while chunk := await request.content.readany():
        end = filled + len(chunk)
        if end > limit_bytes:
            raise web.HTTPRequestEntityTooLarge(limit_bytes)
        # Where it was known how long it is, this only overwrites.
        body[filled:end] = chunk
        filled = end
    return body


async def make_room(request: web.Request, account: Account, phase: Phase, limit_bytes: int, *, copies: int) -> None:
    """Wait for room for a body; one that does not say how long it is takes room for the longest."""
    expected = length_of(request)
    size = limit_bytes if expected is None else min(expected, limit_bytes)
    await account.reserve(copies * size, phase)


async def take_body(
    request: web.Request, limit_bytes: int, deadline: Deadline, account: Account, *, copies: int
) -> bytearray:
    """Wait for room, and read the body, in time: a client that stopped sending must not keep its place for ever.

    Raises:
        InvalidOption: it is not encoded as its headers say.
        DeadlineExceeded: it was not here in time.
        web.HTTPRequestEntityTooLarge: it is longer than the limit.
    """
    length = length_of(request)
    phase = Phase.DOOR if length is None else phase_of_request(length)
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            await make_room(request, account, phase, limit_bytes, copies=copies)
            return await read_body(request, limit_bytes)
    except TimeoutError:
        raise DeadlineExceeded("the time ran out before the body was here") from None
    except web.RequestPayloadError:
        raise InvalidOption("body: it is not encoded as its headers say") from None
