"""The very engines of Sluiceway's workers, called directly: given to every tuned peer, so that frameworks are compared.

Nothing of Sluiceway's servers, queues or processes is in it. A server that computes both steps in one process makes an
`Engine`; one that has a process for each step makes a `Detector` and a `Reader`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

# A peer's environment has the libraries, and this checkout the engines.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "services"))

from sluiceway_detection.backends.precision import cpu_has_bf16
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.crops import CropPlan
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.thresholds import thresholds_of
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.handler import DetectionHandler, WorkerSettings
from sluiceway_recognition.backends.batches import GraphSettings
from sluiceway_recognition.backends.precision import choose, undecided
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.plan import ModelPlan
from sluiceway_recognition.types import CropTask, PixelFormat
from sluiceway_recognition.worker.handler import RecognitionHandler, worker_config
from sluiceway_runtime import weights
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.pool.payload import Payload

__all__ = ["Crop", "Detector", "Engine", "Models", "Reader"]

# Crops of a batch on a GPU: of a process that reads one image at a time, and of one that reads several together.
ONE_IMAGE, MANY_IMAGES = 32, 128


class Crop(NamedTuple):
    """One region as it is to be read: uint8 [height, width, 3] as bytes, and whether it was turned by 90 degrees."""

    pixels: bytes
    height_px: int
    turned: bool


@dataclass(frozen=True)
class Models:
    """What is served, by name in the registry.

    Attributes:
        detector: always computed on the CPU, with one thread.
        recogniser: likewise, or on `device`.
        device: `cpu` or `cuda:0`.
        sharers: processes that share that device.
    """

    detector: str
    recogniser: str
    device: str = "cpu"
    sharers: int = 1

    @property
    def plan(self) -> ModelPlan:
        """What our server would tell its workers of the recogniser."""
        config = RecognitionConfig.model_validate({"models": [{"name": self.recogniser}]})
        (plan,) = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
        return plan


class Detector:
    """Decodes a file, finds regions, and cuts them as the recogniser wants them."""

    def __init__(self, models: Models) -> None:
        config = DetectionConfig()
        found = weights.resolve(models.detector, kind="detection")
        settings = WorkerSettings(
            weights=str(found.path),
            known=thresholds_of(found.path, found.metadata),
            # Our server tries both before it starts its workers, and takes this one wherever the CPU has it.
            precision="bf16" if cpu_has_bf16() else "f32",
        )
        self._handler = DetectionHandler(settings)
        facts = self._handler.setup(Placement(0, "cpu", None, 1))["detection"]
        spec = models.plan.crop_spec
        crops = CropPlan(
            name="words",
            height_px=spec.height,
            max_width_px=spec.max_width,
            class_ids=frozenset(facts.classes.index(name) for name in spec.classes if name in facts.classes)
            if spec.classes
            else None,
            turn_ratio=spec.turn_ratio,
        )
        selection = Selection(facts.confidence, facts.iou, config.max_detections)
        self._job = DetectionJob(selection, crops=(crops,), scale=facts.scale)

    def __call__(self, file: bytes) -> list[Crop]:
        """The regions of an image file, by falling confidence.

        Raises:
            SluicewayError: it is no image.
        """
        (found,) = self._handler.run([self._job.payload(file)])
        if isinstance(found, Exception):
            raise found
        return [
            Crop(bytes(buffer), facts.height_px, facts.turned)
            for facts, buffer in zip(found.meta.crops, found.buffers, strict=True)
        ]


class Reader:
    """Reads crops."""

    def __init__(self, models: Models) -> None:
        plan = models.plan
        if undecided([plan], models.device):
            plan = replace(plan, precision=choose(plan).precision)
        self._name = plan.name
        config = RecognitionConfig()
        most = MANY_IMAGES if models.sharers == 1 else ONE_IMAGE
        batches = (*sorted({batch for batch in config.graph_batches if batch < most}), most)
        graphs = GraphSettings(
            batches, config.max_batch_px, config.compiled_graphs, depth=2, workers_on_device=models.sharers
        )
        settings = worker_config([plan], config.file_limits, graphs)
        self._handler = RecognitionHandler(settings["models"], settings["limits"], settings["graphs"])
        self._handler.setup(Placement(0, models.device, None, 1))

    def __call__(self, images: Sequence[Sequence[Crop]]) -> list[list[str]]:
        """What stands in the crops of some images, without those in which nothing stands; all in one batch."""
        crops = [crop for image in images for crop in image]
        if not crops:
            return [[] for _ in images]
        answers = iter(self._handler.run([self._payload(crop) for crop in crops]))
        return [[text for _ in image if (text := _text(next(answers)))] for image in images]

    def _payload(self, crop: Crop) -> Payload:
        rotation_degrees = 90 if crop.turned else 0
        task = CropTask(
            self._name, crop.height_px, PixelFormat.BGR, characters=False, rotation_degrees=rotation_degrees
        )
        return Payload(task, (memoryview(crop.pixels),))


class Engine:
    """Both, one after the other, in one process."""

    def __init__(self, models: Models) -> None:
        self.detect = Detector(models)
        self.read = Reader(models)

    def __call__(self, file: bytes) -> list[str]:
        """What stands in an image file, region by region."""
        return self.read([self.detect(file)])[0]


def _text(answer: Any) -> str:
    if isinstance(answer, Exception):
        raise answer
    return str(answer.meta.text)
