"""What comes from the cluster, however often the connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from sluiceway.errors import SluicewayError
from sluiceway.figures import ClusterFigures

__all__ = ["Lost", "Watched", "feed"]

# Between two attempts to reach a cluster that does not answer.
AGAIN_S = 1.0
# Nothing for so many intervals, and it is told.
SILENT_INTERVALS = 4.0
# What waiting does not change: a wrong address, token or release.
FINAL = frozenset({"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "FAILED_PRECONDITION", "UNIMPLEMENTED"})


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing comes, and why."""

    why: str


class Watched(Protocol):
    """What is used of `AsyncClient`."""

    address: str

    def watch(self, interval_s: float = 1.0) -> AsyncGenerator[ClusterFigures]:
        """See `AsyncClient.watch`."""
        ...


async def feed(client: Watched, interval_s: float) -> AsyncGenerator[ClusterFigures | Lost]:
    """Watch for ever.

    Args:
        client: of the cluster.
        interval_s: between two looks.

    Yields:
        Figures, or why there are none; then it is tried again.

    Raises:
        SluicewayError: what trying again does not change.
    """
    while True:
        try:
            async with aclosing(client.watch(interval_s)) as all_figures:
                while True:
                    try:
                        async with asyncio.timeout(SILENT_INTERVALS * max(interval_s, 1.0)):
                            figures = await anext(all_figures)
                    except StopAsyncIteration:
                        yield Lost("the server has ended it")
                        break
                    except TimeoutError:
                        yield Lost(f"{client.address} does not answer")
                        break
                    yield figures
        except SluicewayError as error:
            if error.code in FINAL:
                raise
            yield Lost(str(error))
        await asyncio.sleep(AGAIN_S)
