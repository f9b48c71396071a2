"""The stages as services of the runtime: their own servicers and flows over pools of simulated workers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.identity import Identity
from sluiceway_detection.front.identity import group_of as detection_group
from sluiceway_detection.front.servicer import DetectionServicer
from sluiceway_detection.front.servicer import add_to_server as add_detection
from sluiceway_detection.worker.handler import DetectionFacts
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.group import group_of as recognition_group
from sluiceway_recognition.front.servicer import RecognitionServicer
from sluiceway_recognition.front.servicer import add_to_server as add_recognition
from sluiceway_recognition.types import CropSpec, Head, ModelFacts
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.pool import PoolLimits, Timing, WorkerSpec

from sluiceway_simulation.stages.models import CLASSES, DetectionModel, RecognitionModel
from sluiceway_simulation.stages.profile import Profile
from sluiceway_simulation.stages.worker import SimulatedPool, WatchedPool, Workbench

__all__ = ["DetectionService", "RecognitionService", "StagePlan", "StageService"]

CROP_HEIGHT_PX = 4
BUCKETS = (64, 96, 128, 160, 192, 256, 320, 400, 512, 640, 800, 1024, 1280, 1600, 1920)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What one replica of a stage is made of.

    Attributes:
        profile: of each worker.
        workers: how many.
        threads: of each, where they share the cores of a machine.
        credits, overlap, limits, timing: of the pool.
        backend: of a reader; crops of "torch" share a batch only with those of their bucket.
        crop_height_px: of the reader's crops. Less than the real 48 makes bytes cheaper to simulate, and changes
            nothing else.
        options: further keys of the stage's configuration.
        front_ms: what its front computes for a call, for one call after the other, as it is one thread. With 0 it is
            left out.
        on_device: whether workers compute on a device of their own, and take nothing from the cores of a machine.
    """

    profile: Profile
    workers: int = 1
    credits: int = 1
    overlap: int = 1
    limits: PoolLimits = field(default_factory=PoolLimits)
    timing: Timing | None = None
    backend: str = "openvino"
    crop_height_px: int = CROP_HEIGHT_PX
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    front_ms: float = 0.0
    on_device: bool = False


class StageService:
    """Implements `sluiceway_runtime.server.app.Service`."""

    names: tuple[str, ...] = ()

    def __init__(
        self, plan: StagePlan, model: Any, name: str, chance: random.Random, watched: Callable[[str], None] | None
    ) -> None:
        self.plan = plan
        self.is_watched = watched is not None
        self.bench = Workbench(model, plan.profile, chance, watched or _nobody_watches, on_device=plan.on_device)
        placements = tuple(Placement(index, "cpu", None, plan.threads) for index in range(plan.workers))
        self._pool = (WatchedPool if self.is_watched else SimulatedPool)(
            WorkerSpec("simulated", {}, placements, credits=plan.credits, overlap=plan.overlap),
            plan.limits,
            name=name,
            bench=self.bench,
            timing=plan.timing,
        )
        self.pool: SimulatedPool | None = None

    def collectors(self, registry: Any) -> None:
        """None."""

    async def start(self) -> None:
        """Start the workers. Raises StartupError."""
        self.pool = self._pool
        await self._pool.start()

    def ready(self) -> bool:
        """Whether a worker can take work."""
        return self.pool is not None and self.pool.is_ready

    def status(self) -> Mapping[str, Any]:
        """Nobody asks."""
        return {}

    def refuse(self) -> None:
        """Everything comes by gRPC."""

    async def drain(self, grace_s: float) -> bool:
        """Finish what was accepted."""
        return await self._pool.drain(grace_s)

    async def close(self) -> None:
        """Stop the workers."""
        await self._pool.close()

    @property
    def leftovers(self) -> str:
        """What its pool still owes; empty if nothing."""
        return self._pool.leftovers

    def vanish(self) -> None:
        """The process is gone, and its workers end with it."""
        for worker in list(self.bench.workers):
            worker.die("the front is gone")


class DetectionService(StageService):
    """A detector of one version."""

    names = ("sluiceway.detection.v1.DetectionService",)

    def __init__(
        self,
        plan: StagePlan,
        config: DetectionConfig,
        *,
        name: str,
        version: int,
        chance: random.Random,
        watched: Callable[[str], None] | None,
    ) -> None:
        super().__init__(plan, DetectionModel(version), name, chance, watched)
        self._config = config
        self.facts = DetectionFacts("openvino", "f32", "cpu", CLASSES, (), ())
        self.identity = Identity("simulated", str(version), _weights(name, version))
        self.group = detection_group(self.identity, CLASSES, self.facts.crop_longest_px)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the stage's own servicer."""
        add_detection(DetectionServicer(self, self._config), server)


class RecognitionService(StageService):
    """A reader of one version."""

    names = ("sluiceway.recognition.v1.RecognitionService",)

    def __init__(
        self,
        plan: StagePlan,
        config: RecognitionConfig,
        *,
        name: str,
        version: int,
        chance: random.Random,
        watched: Callable[[str], None] | None,
    ) -> None:
        super().__init__(plan, RecognitionModel(version), name, chance, watched)
        self._config = config
        facts = ModelFacts(
            name="simulated",
            version=str(version),
            weights_sha256=_weights(name, version),
            head=Head.TEXT,
            crop_spec=CropSpec(plan.crop_height_px, BUCKETS[-1]),
            buckets=BUCKETS,
            labels=(),
            embedding_size=0,
            backend="torch" if plan.backend == "torch" else "openvino",
            precision="f32",
            device="cpu",
        )
        self.models = {facts.name: facts}
        self.group = recognition_group(self.models.values())

    def register(self, server: grpc.aio.Server) -> None:
        """Add the stage's own servicer."""
        add_recognition(RecognitionServicer(self, self._config), server)


def _nobody_watches(fault: str) -> None:
    """What is not watched has no faults."""


def _weights(name: str, version: int) -> str:
    return hashlib.sha256(f"{name} {version}".encode()).hexdigest()
