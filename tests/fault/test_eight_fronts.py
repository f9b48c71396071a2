"""A machine with eight GPUs has a front for each: they share the crops evenly, and one may be lost.

The devices are simulated: each front reads one crop at a time, as a GPU does, and takes as long for it as the others.
"""

from __future__ import annotations

import asyncio

from sluiceway_orchestrator.testing import Cluster, FakeDetection, FakeRecognition, picture
from waiting import until

from sluiceway.pipeline.v1 import pipeline_pb2

Source = pipeline_pb2.Source
FRONTS, SOURCES, AT_ONCE = 8, 480, 64
# Of the crops that a front reads, over the mean of all, less one.
LARGEST_IMBALANCE = 0.08


class Device:
    """Computes for one at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __call__(self, _number: int, _region: int) -> None:
        async with self._lock:
            await asyncio.sleep(0.002)


async def read(cluster: Cluster, numbers: range) -> None:
    """Read pictures, so many at once; of each every text comes once, whatever happens meanwhile."""
    left = iter(numbers)

    async def client() -> None:
        for number in left:
            (source,) = (await cluster.process(Source(image=picture(number, regions=8)))).values()
            assert source.done is not None
            assert source.texts == {f"{number}:{region}": 1 for region in range(8)}

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


async def test_eight_fronts_share_the_crops_and_one_may_be_lost() -> None:
    fronts = [FakeRecognition(before=Device()) for _ in range(FRONTS)]
    async with Cluster([FakeDetection()], fronts) as cluster:
        await read(cluster, range(SOURCES))
        shares = [front.seen.total() for front in fronts]
        assert sum(shares) == 8 * SOURCES
        assert max(shares) / (sum(shares) / FRONTS) - 1 <= LARGEST_IMBALANCE, shares

        for front in fronts:
            front.seen.clear()
        reading = asyncio.create_task(read(cluster, range(SOURCES, 2 * SOURCES)))
        await until(lambda: fronts[0].seen.total() >= SOURCES // FRONTS, every_s=0.005)
        await cluster.recognition[0].stop()
        await reading
        shares = [front.seen.total() for front in fronts[1:]]
        assert max(shares) / (sum(shares) / len(shares)) - 1 <= LARGEST_IMBALANCE, shares
