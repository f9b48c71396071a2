"""What a user's own API caller looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

__all__ = ["Caller", "FetchedImage"]


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """What an API call brought.

    Attributes:
        image: a JPEG, PNG, WebP, BMP or TIFF file; empty when the call was for metadata alone.
        metadata: texts by name; goes to the client as `API.FIELD`.
    """

    image: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)


class Caller(Protocol):
    """A user's class, named in the configuration as `caller = "module:Class"`; made once, without arguments.

    Calls run concurrently in one event loop: they must not block. A call is cancelled when the client leaves or its
    time is up. An exception, or an answer that is not as `FetchedImage` says, fails the source as UPSTREAM_FAILED, and
    why goes to the log alone; raise `sluiceway_runtime.errors.UpstreamRefused` or `UpstreamFailed` to tell the client
    something.

    Attributes:
        params: names of the parameters that a source has to give.
    """

    params: Sequence[str]

    async def setup(self, session: aiohttp.ClientSession) -> None:
        """Called once before the first call, with a pooled session that is the caller's until the server stops."""
        ...

    async def __call__(self, params: Mapping[str, str]) -> FetchedImage:
        """Make one call."""
        ...
