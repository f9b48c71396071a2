"""What somebody who watches is told, again and again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from sluiceway_runtime.errors import InvalidOption, Unavailable

from sluiceway.figures import ClusterFigures
from sluiceway_orchestrator.watch.clients import ClusterSampler
from sluiceway_orchestrator.watch.figures import figures_of
from sluiceway_orchestrator.watch.samples import ClusterSample

__all__ = ["Watching", "interval_s_of"]

# Between two messages.
DEFAULT_S, SHORTEST_S, LONGEST_S = 1.0, 0.2, 60.0
# Rates and shares are over so much time, if there is that much: less, and they say more of chance than of the cluster.
WINDOW_S = 5.0
# Of the interval, how old a sample may be that was taken for another who watches.
SHARED = 0.5


def interval_s_of(asked_s: float | None) -> float:
    """Seconds between two messages, as asked for.

    Raises:
        InvalidOption: they are not within what there is.
    """
    seconds = DEFAULT_S if asked_s is None else asked_s
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise InvalidOption(f"interval: {seconds:g} s, and it is {SHORTEST_S:g} to {LONGEST_S:g} s")
    return seconds


class Watching:
    """Everybody who watches. Nothing runs while nobody does."""

    def __init__(self, sampler: ClusterSampler) -> None:
        self._sampler = sampler
        self._ending = asyncio.Event()

    async def figures(self, interval_s: float) -> AsyncGenerator[ClusterFigures]:
        """Figures every `interval_s`, the first after one interval, for as long as somebody asks for the next.

        Raises:
            Unavailable: the server drains.
        """
        loop = asyncio.get_running_loop()
        samples: deque[ClusterSample] = deque((await self._sampler.sample(SHARED * interval_s),))
        next_s = loop.time()
        while True:
            next_s = max(next_s + interval_s, loop.time())
            await self._wait(next_s - loop.time())
            sample = await self._sampler.sample(SHARED * interval_s)
            if sample.at_s <= samples[-1].at_s:
                continue
            samples.append(sample)
            while len(samples) > 2 and sample.at_s - samples[1].at_s >= WINDOW_S:
                samples.popleft()
            yield figures_of(samples[0], sample)

    def refuse(self) -> None:
        """The server drains: whoever watches is told to ask another one."""
        self._ending.set()

    async def close(self) -> None:
        """End what is under way."""
        self.refuse()
        await self._sampler.close()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return
        raise Unavailable("the server is draining", retry_after_s=1.0)
