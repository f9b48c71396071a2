"""The files of the page, served as they are: nothing is built, and nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from aiohttp import web

__all__ = ["page_routes"]

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The page needs nothing but its own files and this port. `blob:` is for images that a person chose.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A browser asks each time whether its copy is current, so that a new release is seen at once.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[web.RouteDef]:
    """Return `GET /` and one route for each further file of the page, `/page/NAME`.

    The files are read here, once. They are the same for every server of a release and hold nothing of its
    configuration, so they are open to all: what needs a token is what the page then asks for.
    """
    routes = []
    for file in files(__package__).joinpath("static").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        routes.append(web.get(path, _File(file.read_bytes(), _TYPES[suffix]).answer))
    return routes


class _File:
    """Answers with one file, or says that the copy of the browser is current."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self._body = body
        self._type = content_type
        self._tag = hashlib.sha256(body).hexdigest()[:32]

    async def answer(self, request: web.Request) -> web.Response:
        known = any(tag.value in (self._tag, "*") for tag in request.if_none_match or ())
        response = (
            web.Response(status=304, headers=_HEADERS)
            if known
            else web.Response(body=self._body, content_type=self._type, charset="utf-8", headers=_HEADERS)
        )
        response.etag = self._tag
        return response
