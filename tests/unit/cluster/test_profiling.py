"""What a profile says of images that differ, made of stretches of load whose figures are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from sluiceway_cluster.tuning.clients import Sample
from sluiceway_cluster.tuning.profiling import MOST_IMAGES, USUAL_SPREAD, image_efforts

from sluiceway.bench.latency import Latencies


class Known:
    """A cluster in which detection takes as many seconds of the processor as is said for each image."""

    def __init__(self, regions: tuple[int, ...], detection_s: tuple[float, ...], region_s: tuple[float, ...]) -> None:
        self.regions = regions
        self.sources = len(regions)
        self._detection_s = detection_s
        self._region_s = region_s
        self.looked_at: list[int] = []

    async def closed(self, in_flight: int, seconds: float, *, only: int) -> Any:
        assert in_flight == 1
        assert seconds > 0
        self.looked_at.append(only)
        images = 10
        detection_s, region_s = images * self._detection_s[only], images * self.regions[only] * self._region_s[only]
        return SimpleNamespace(
            images=images,
            stages={
                "detection": Sample(0.0, images, images, detection_s, detection_s, ()),
                "recognition": Sample(0.0, images, images, region_s, region_s, ()),
            },
            # 50 and 84 of 100: one standard deviation of the logarithm is 0.2.
            summary=SimpleNamespace(latencies=Latencies([0.1] * 60 + [0.1 * math.exp(0.2)] * 40)),
        )


async def test_images_are_held_against_their_average() -> None:
    cluster = Known((4, 12, 0), (0.05, 0.15, 0.1), (0.002, 0.004, 0.0))
    efforts, spread = await image_efforts(cluster)  # type: ignore[arg-type]
    assert cluster.looked_at == [0, 1, 2]
    assert [image for image, _ in efforts] == pytest.approx([0.5, 1.5, 1.0])
    # A region takes 3.5 ms on average, and one that is not there takes what all do.
    assert [region for _, region in efforts] == pytest.approx([2 / 3.5, 4 / 3.5, 1.0])
    assert spread == pytest.approx(0.2, abs=0.01)


async def test_many_images_are_taken_for_alike() -> None:
    cluster = Known((1,) * (MOST_IMAGES + 1), (), ())
    assert await image_efforts(cluster) == ((), USUAL_SPREAD)  # type: ignore[arg-type]
    assert cluster.looked_at == []
