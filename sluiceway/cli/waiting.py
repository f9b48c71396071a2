"""What a run says while nothing comes: why it waits, as soon as that can be known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from sluiceway.client import AsyncClient
from sluiceway.errors import DeadlineExceeded, SluicewayError

__all__ = ["Waiting"]

# People are told within two seconds of typing the command, which takes half a second to begin: after so long without a
# result the server is asked for the reason, and has so long to say it.
SILENCE_S = 0.7
ANSWER_S = 0.7


class Waiting:
    """Watches a run, and says once what it waits for.

    Args:
        client: of the run.
        pipeline: of its jobs.
        say: shows a sentence to people.
    """

    def __init__(self, client: AsyncClient, pipeline: str | None, say: Callable[[str], None]) -> None:
        self._client = client
        self._pipeline = pipeline
        self._say = say
        self._heard = False
        self._told = ""

    def heard(self) -> None:
        """Call for every result."""
        self._heard = True

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch while inside."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self._heard = False
            await asyncio.sleep(SILENCE_S)
            if self._heard:
                self._told = ""
                continue
            why = await self._reason()
            if why and why != self._told:
                self._say(f"{why}; waiting")
            self._told = why or self._told

    async def _reason(self) -> str:
        """What keeps the server from working; empty if nothing does, or another fault is about to be told."""
        try:
            await self._client.check_ready(ANSWER_S, pipeline=self._pipeline)
        except DeadlineExceeded:
            return f"{self._client.address} does not answer"
        except SluicewayError as error:
            return str(error) if error.code == "UNAVAILABLE" else ""
        return ""
