"""An API caller of your own: a plain class, named in the configuration.

    [api.archive]
    caller = "caller:ArchiveCaller"      # module:Class; the module has to be importable by the orchestrator
    timeout_s = 10

    [api.archive.config]                 # handed to `setup` as it is
    url = "http://127.0.0.1:8000"

Sources can then be `api:archive?item=42` on the command line, or an `api_call` of a client; a step of a pipeline can
call it as well. This one asks an imaginary archive for a record, follows the record to its scan, and hands the record's
title back: two requests that belong together are what the templates of `[api.NAME]` cannot express. Records of maps are
detected with a larger input: an answer may choose options for the detection of its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from sluiceway_orchestrator.fetch import Answer, Call, DetectionChoice
from sluiceway_runtime.errors import UpstreamRefused

MAP = DetectionChoice(image_size=1280)


class ArchiveCaller:
    """Fetches the scan of an item of the archive."""

    params = ("item",)

    async def setup(self, session: aiohttp.ClientSession, config: Mapping[str, Any]) -> None:
        """Called once. The session pools connections and is closed by the server."""
        self._session = session
        self._base = config["url"]

    async def __call__(self, call: Call) -> Answer:
        """Called for each source, many at a time: await, never block."""
        item = call.params["item"]
        if not item.isdecimal():
            # Errors of this family reach the client as they are; any other is UPSTREAM_FAILED and goes to the log.
            raise UpstreamRefused("an item is a number")
        async with self._session.get(f"{self._base}/records/{item}") as response:
            response.raise_for_status()
            record = await response.json()
        # Values are what JSON can say; the client gets them under the name of the call.
        values = {"title": record["title"]}
        detection = MAP if record.get("kind") == "map" else None
        if not call.want_image:
            return Answer(values=values, detection=detection)
        async with self._session.get(f"{self._base}/scans/{record['scan']}") as response:
            response.raise_for_status()
            return Answer(await response.read(), values, detection)

    async def close(self) -> None:
        """Called once when the server stops; may be left out. There is nothing here that needs it."""
