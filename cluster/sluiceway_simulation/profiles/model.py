"""The simulated cluster that a profile and a setting describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sluiceway_runtime.pool import PoolLimits, queue_items_for

from sluiceway_simulation.cluster import ClusterPlan
from sluiceway_simulation.load import Kind, Load
from sluiceway_simulation.profiles.profile import PipelineProfile, StageProfile
from sluiceway_simulation.stages.pictures import LINE_PX
from sluiceway_simulation.stages.profile import Curve, Profile
from sluiceway_simulation.stages.service import CROP_HEIGHT_PX, StagePlan

__all__ = ["Workers", "cluster_of", "load_of"]

# Widths of an image and of a region that take as long as the average.
IMAGE_PX, REGION_PX = 1000, 400
# Of a stage on a GPU, as its server has them.
GPU_CREDITS = 3


@dataclass(frozen=True, slots=True, order=True)
class Workers:
    """Of one server of a stage.

    Attributes:
        workers: processes.
        threads: of each.
    """

    workers: int = 1
    threads: int = 1


def load_of(profile: PipelineProfile, rate_per_s: float = 1.0) -> Load:
    """Images like those of the profile, whose efforts are told by widths."""
    efforts = profile.efforts or ((1.0, 1.0),) * len(profile.regions)
    kinds = tuple(
        Kind(regions, max(1, round(image * IMAGE_PX)), max(1, round(region * REGION_PX)))
        for regions, (image, region) in zip(profile.regions, efforts, strict=True)
    )
    return Load(rate_per_s, kinds=kinds)


def cluster_of(
    profile: PipelineProfile,
    workers: Mapping[str, Workers],
    *,
    cores: int | None,
    replicas: Mapping[str, int] | None = None,
    orchestrators: int = 1,
) -> ClusterPlan:
    """A cluster of these workers.

    Args:
        profile: how long they take.
        workers: of each server, by kind of stage.
        cores: of the one machine that all share; None where each server has its own.
        replicas: servers of each stage; one by default.
        orchestrators: how many.
    """
    return ClusterPlan(
        stages={kind: (kind, _stage(stage, workers[kind], profile.spread)) for kind, stage in profile.stages.items()},
        replicas=replicas or dict.fromkeys(profile.stages, 1),
        orchestrators=orchestrators,
        cores=cores,
    )


def _stage(stage: StageProfile, its: Workers, spread: float) -> StagePlan:
    on_gpu = stage.device != "cpu"
    credits_each = GPU_CREDITS if on_gpu else 1
    known = min(stage.batch_ms, key=lambda threads: (abs(threads - its.threads), threads))
    return StagePlan(
        profile=Profile(
            Curve(_from_one(stage.batch_ms[known])),
            Curve(((0.0, 0.0), (_width_px(stage.kind), 1.0))),
            spread=spread,
            start_s=1.0,
            memory_bytes=int(stage.memory_mb * 2**20),
        ),
        workers=its.workers,
        threads=its.threads,
        credits=credits_each,
        overlap=credits_each,
        limits=PoolLimits(
            max_batch=stage.max_batch,
            # On a CPU crops are computed one after the other, so batches shrink with what is left.
            side_by_side=None if on_gpu or stage.kind == "detection" else its.threads,
            mixes=on_gpu and stage.kind == "recognition",
            queue_items=queue_items_for("auto", its.workers * credits_each * stage.max_batch),
        ),
        backend="torch" if on_gpu else "openvino",
        front_ms=stage.front_ms,
        on_device=on_gpu,
    )


def _width_px(kind: str) -> float:
    """Of an average item as a worker of the stage sees it: crops are scaled to the height of the reader."""
    return IMAGE_PX if kind == "detection" else REGION_PX * CROP_HEIGHT_PX / LINE_PX


def _from_one(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Ascending, and from one item on: what was never computed alone costs its share of the smallest batch."""
    ascending = sorted(dict(points).items())
    first_x, first_y = ascending[0]
    if first_x > 1:
        ascending.insert(0, (1.0, first_y / first_x))
    return tuple(ascending)
