"""An API caller of your own: a plain class, named in the configuration.

    [api.archive]
    caller = "caller:ArchiveCaller"      # module:Class; the module has to be importable by the orchestrator
    timeout_s = 10

Sources can then be `api:archive?item=42` on the command line, or an `api_call` of a client. This one asks an imaginary
archive for a record, follows the record to its scan, and hands the record's title back as metadata: two requests that
belong together are what the templates of `[api.NAME]` cannot express.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import aiohttp
from sluiceway_orchestrator.fetch import FetchedImage
from sluiceway_runtime.errors import UpstreamRefused


class ArchiveCaller:
    """Fetches the scan of an item of the archive."""

    params = ("item",)

    async def setup(self, session: aiohttp.ClientSession) -> None:
        """Called once. The session pools connections and is closed by the server."""
        self._session = session
        self._base = os.environ.get("ARCHIVE_URL", "http://127.0.0.1:8000")

    async def __call__(self, params: Mapping[str, str]) -> FetchedImage:
        """Called for each source, many at a time: await, never block."""
        item = params["item"]
        if not item.isdecimal():
            # Errors of this family reach the client as they are; any other is UPSTREAM_FAILED and goes to the log.
            raise UpstreamRefused("an item is a number")
        async with self._session.get(f"{self._base}/records/{item}") as response:
            response.raise_for_status()
            record = await response.json()
        async with self._session.get(f"{self._base}/scans/{record['scan']}") as response:
            response.raise_for_status()
            image = await response.read()
        title = record["title"]
        # Values are texts: where a record has none, the field is left out.
        return FetchedImage(image, {} if title is None else {"title": title})
