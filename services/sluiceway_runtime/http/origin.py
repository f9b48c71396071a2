"""Which names and which web pages may be used to reach this port.

A browser on a machine that can reach the port is the way in that a firewall does not see: a page may point a name of
its own at this address (so names are checked), or send requests across origins (so origins are).
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from yarl import URL

__all__ = ["NO_URL", "OriginGuard"]

# What the parser raises for text that is no URL; the second for a user name in brackets with no host behind it.
NO_URL = (ValueError, IndexError)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on


class OriginGuard:
    """Decides by the `Host` and `Origin` headers.

    Args:
        host: what the port listens on.
        allow_hosts: further names; `*` is any.
        allow_origins: origins of pages that may call; `*` is any. A page served from the same origin always may.
    """

    def __init__(self, host: str, allow_hosts: Iterable[str], allow_origins: Iterable[str]) -> None:
        self._hosts = _LOOPBACK | {name.lower() for name in allow_hosts}
        if host not in _WILDCARDS:
            self._hosts |= {host.lower()}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allow_origins)

    def knows_host(self, request: web.Request) -> bool:
        """Whether the request names this server by a name that it has."""
        if "*" in self._hosts:
            return True
        try:
            name = URL(f"http://{request.headers.get('Host', '')}").host
        except NO_URL:
            return False
        return name is not None and name.lower() in self._hosts

    def allowed_origin(self, request: web.Request) -> str | None:
        """Return the origin to allow; None if the request comes from no page.

        Raises:
            PermissionError: it comes from a page that may not call.
        """
        origin = request.headers.get("Origin")
        if origin is None:
            return None
        same = f"{request.scheme}://{request.headers.get('Host', '')}".lower()
        if origin.lower() == same or "*" in self._origins or origin.lower() in self._origins:
            return origin
        raise PermissionError(origin)
