"""Reading a request's body into one place, where nothing but its reader holds it."""

from __future__ import annotations

from aiohttp import web

__all__ = ["BODY_COPIES", "length_of", "read_body"]

# Of a body while it is read: where it does not say how long it is, what it has grown out of is there for a moment, too.
BODY_COPIES = 2


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
