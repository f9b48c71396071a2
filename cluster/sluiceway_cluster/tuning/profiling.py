"""Profiling the stages of this machine: one worker each, with every number of threads, under a few loads."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from sluiceway_simulation.profiles.model import Workers
from sluiceway_simulation.profiles.profile import PipelineProfile, StageProfile

from sluiceway_cluster.tuning.measuring import KINDS, MeasuredCluster, Stretch, machine_cores

__all__ = ["Start", "image_efforts", "measure_profile", "thread_counts"]

# Images on their way at a time: alone, so that batches are those of one image, and several, so that they are larger.
IN_FLIGHT = (1, 2, 4)
STRETCH_S = 2.5
MOST_THREADS = 8
# Each image is looked at by itself for so long, where there are no more than these.
EFFORT_S = 1.5
MOST_IMAGES = 8
# Standard deviation of the logarithm of a batch's time, where images were not looked at.
USUAL_SPREAD = 0.1

_Efforts = tuple[tuple[float, float], ...]
# Starts the cluster of a setting.
Start = Callable[[Mapping[str, Workers]], AbstractAsyncContextManager[MeasuredCluster]]


def thread_counts(cores: int) -> tuple[int, ...]:
    """Threads of a worker that are tried: 1, 2, 4 and 8 as far as there are cores for two such workers, and 2."""
    counts = [1]
    while (following := counts[-1] * 2) <= min(cores, MOST_THREADS):
        counts.append(following)
    return tuple(counts)


async def measure_profile(start: Start, pipeline: str, tell: Callable[[str], None]) -> PipelineProfile:
    """Measure every stage.

    A stage is measured with the others running, as what it takes depends on what they send it. What it waits for a core
    meanwhile is no part of its time, as the model has cores of its own: of a worker with one thread the CPU time
    counts. With more threads, the part of the time for which those with one waited is taken off.

    Args:
        start: the cluster of a setting.
        pipeline: its name, for the profile.
        tell: what is done, in words.
    """
    own, _ = machine_cores()
    points: dict[str, dict[int, list[tuple[float, float]]]] = {kind: {} for kind in KINDS}
    stretches: list[Stretch] = []
    # Of a stretch, the part of their time in which workers had a core.
    computed: dict[tuple[str, int], float] = {}
    memory_mb: dict[str, float] = {}
    regions: tuple[int, ...] = ()
    efforts: _Efforts = ()
    spread = 0.0
    start_s = 0.0
    for threads in thread_counts(len(own)):
        tell(f"profiling one worker of each stage with {threads} thread{'s' if threads > 1 else ''}")
        begun_s = time.monotonic()
        async with start(dict.fromkeys(KINDS, Workers(1, threads))) as cluster:
            start_s = start_s or time.monotonic() - begun_s
            regions = cluster.regions
            if threads == 1:
                tell("looking at each image by itself")
                efforts, spread = await image_efforts(cluster)
            for in_flight in IN_FLIGHT:
                stretch = await cluster.closed(in_flight, STRETCH_S)
                stretches.append(stretch)
                for kind, work in stretch.stages.items():
                    if work.batches and work.busy_s:
                        if threads == 1:
                            computed[kind, in_flight] = min(1.0, work.cpu_s / work.busy_s)
                        took_s = max(work.busy_s * computed.get((kind, in_flight), 1.0), work.cpu_s / threads)
                        point = (work.items / work.batches, took_s * 1000 / work.batches)
                        points[kind].setdefault(threads, []).append(point)
            memory_mb = memory_mb or await cluster.worker_memory_mb()
    # With one thread each: with more, workers and fronts are in each other's way on a small machine.
    counted = stretches[: len(IN_FLIGHT)]
    images = sum(stretch.images for stretch in counted)
    return PipelineProfile(
        machine=f"{platform.machine()}, {len(own)} cores",
        cores=len(own),
        pipeline=pipeline,
        stages={
            kind: StageProfile(
                kind,
                {threads: _merged(found) for threads, found in points[kind].items()},
                front_ms=sum(stretch.stages[kind].front_s for stretch in counted) * 1000 / images,
                memory_mb=memory_mb.get(kind, 0.0),
                start_s=round(start_s, 1),
                max_batch=1 if kind == "detection" else 32,
            )
            for kind in KINDS
        },
        orchestrator_ms=sum(stretch.orchestrator_s for stretch in counted) * 1000 / images,
        client_ms=sum(stretch.client_s for stretch in counted) * 1000 / images,
        regions=regions,
        efforts=efforts,
        spread=spread,
    )


async def image_efforts(cluster: MeasuredCluster) -> tuple[_Efforts, float]:
    """What each image takes beside the average, and by how much the time of one image varies; see `PipelineProfile`."""
    if cluster.sources > MOST_IMAGES:
        return (), USUAL_SPREAD
    images, regions, spreads = [], [], []
    for index, count in enumerate(cluster.regions):
        stretch = await cluster.closed(1, EFFORT_S, only=index)
        detection, recognition = (stretch.stages[kind].cpu_s / stretch.images for kind in KINDS)
        images.append(detection)
        regions.append(recognition / count if count else 0.0)
        quantiles = [stretch.summary.latencies.percentile_s(percent) for percent in (50, 84)]
        # Of a normal distribution that is one standard deviation.
        spreads.append(math.log(quantiles[1] / quantiles[0]) if quantiles[0] and quantiles[1] else 0.0)
    image_s = sum(images) / len(images)
    region_s = sum(each * count for each, count in zip(regions, cluster.regions, strict=True)) / max(
        1, sum(cluster.regions)
    )
    efforts = tuple(
        (image / image_s if image_s else 1.0, region / region_s if region_s and count else 1.0)
        for image, region, count in zip(images, regions, cluster.regions, strict=True)
    )
    return efforts, round(sorted(spreads)[len(spreads) // 2], 3)


def _merged(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Batches of nearly one size are one point, with the median of their times: each load meets some noise."""
    groups: list[list[tuple[float, float]]] = []
    for point in sorted(points):
        if groups and point[0] < groups[-1][0][0] * 1.15:
            groups[-1].append(point)
        else:
            groups.append([point])
    merged = []
    for group in groups:
        size = sum(x for x, _ in group) / len(group)
        each_ms = sorted(y / x for x, y in group)[len(group) // 2]
        merged.append((round(size, 3), round(size * each_ms, 3)))
    return tuple(merged)
