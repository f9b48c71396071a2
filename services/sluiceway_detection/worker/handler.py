"""What runs in a worker: decode, detect, cut."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sluiceway_runtime import cores
from sluiceway_runtime.cores.placement import Placement
from sluiceway_runtime.documents.limits import DocumentLimits
from sluiceway_runtime.documents.pages import DocumentPage
from sluiceway_runtime.errors import SluicewayError, StartupError
from sluiceway_runtime.images.limits import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS, ImageLimits
from sluiceway_runtime.images.scale import Scale
from sluiceway_runtime.pool.payload import Payload

from sluiceway_detection.backends import Backend, BackendSpec, open_backend
from sluiceway_detection.backends.agreement import reference_image
from sluiceway_detection.backends.base import Precision, resolve_backend
from sluiceway_detection.backends.precision import choose_precision
from sluiceway_detection.crops import cut_crops
from sluiceway_detection.inputs.shapes import Inputs, InputShape
from sluiceway_detection.job import DetectionAnswer, DetectionJob
from sluiceway_detection.models.thresholds import NONE_KNOWN, Thresholds
from sluiceway_detection.selection import DEFAULT_CONFIDENCE, DEFAULT_IOU, Selection
from sluiceway_detection.worker.detector import Engine, ModelDetector, load_detector
from sluiceway_detection.worker.heap import settle_heap
from sluiceway_detection.worker.looks import knows_scales, usual_scale
from sluiceway_detection.worker.pixels import image_of

__all__ = ["FACTORY", "DetectionFacts", "DetectionHandler", "WorkerSettings", "build", "silence_opencv"]

logger = logging.getLogger(__name__)

FACTORY = "sluiceway_detection.worker.handler:build"
# What a user's detector is tried with: a drawn page of ordinary size.
TRIAL_SHAPE = (480, 640)
# What it is given of a region: it does not say in which size it looks, and most models take no more.
USER_CROP_PX = 1280


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is told; plain values, so that they travel.

    Attributes:
        weights: path of the model file; None with a detector of the user's own.
        detector: `module:Class` or entry point of that; None for the built-in ones.
        backend: `auto`, `openvino`, `onnx` or `torch`.
        precision: None: see `choose_precision`.
        image_size_px: longer side of the default input shapes; None takes the model's.
        shapes: inputs instead of the default ones.
        allow_checkpoint: whether the operator allows this checkpoint by name.
        known: what is known of the model's thresholds beside its file.
        max_image_bytes: largest file.
        max_image_pixels: largest width x height.
        max_crop_bytes: most crop pixels in one answer.
        max_batch: most images that a GPU computes at once.
        overlap: batches on their way at once, on a GPU.
        workers_on_device: that share a GPU's memory.
        documents: limits of files that have pages.
        decode: `auto`, `cpu` or `gpu`; where files are decoded for a GPU.
    """

    weights: str | None = None
    detector: str | None = None
    backend: str = "auto"
    precision: Precision | None = None
    image_size_px: int | None = None
    shapes: tuple[InputShape, ...] = ()
    allow_checkpoint: bool = False
    known: Thresholds = NONE_KNOWN
    max_image_bytes: int = DEFAULT_MAX_BYTES
    max_image_pixels: int = DEFAULT_MAX_PIXELS
    max_crop_bytes: int = 48 * 2**20
    max_batch: int = 1
    overlap: int = 1
    workers_on_device: int = 1
    documents: DocumentLimits = field(default_factory=DocumentLimits)
    decode: str = "auto"

    def mapping(self) -> dict[str, Any]:
        """For `WorkerSpec.config`."""
        return asdict(self)

    def backend_spec(self, device: str, threads: int) -> BackendSpec:
        """What to open on a device."""
        assert self.weights is not None
        return BackendSpec(
            weights=Path(self.weights),
            device=device,
            threads=threads,
            precision=self.precision,
            image_size_px=self.image_size_px,
            shapes=self.shapes,
            allow_checkpoint=self.allow_checkpoint,
            known=self.known,
        )


@dataclass(frozen=True, slots=True)
class DetectionFacts:
    """What a worker loaded, and the thresholds that suit it.

    `image_sizes` is empty where a detector of the user's own decides by itself; `precision_reason` where the precision
    was decided before the workers started.
    """

    backend: str
    precision: str
    device: str
    classes: tuple[str, ...]
    image_sizes: tuple[int, ...]
    shapes: tuple[InputShape, ...]
    confidence: float = DEFAULT_CONFIDENCE
    iou: float = DEFAULT_IOU
    precision_reason: str = ""
    enlarges: bool = True
    any_shape: bool = False
    scales: bool = False
    """Whether the model knows another scale than `fast`."""
    scale: Scale = "fast"
    """Of requests that name none, where the configuration does not either."""
    decode: str = "cpu"
    """Where files are decoded; on a `gpu` those that it can read."""
    decode_reason: str = ""
    """Why there; empty where there is no choice."""

    @property
    def inputs(self) -> Inputs | None:
        """How images are shown to the model; None for a detector of the user's own."""
        return Inputs(self.shapes, self.enlarges, self.any_shape) if self.shapes else None

    @property
    def crop_longest_px(self) -> int:
        """Longer side of the crops that the detector wants to look at: more would be shrunk anyway."""
        return self.image_sizes[0] if self.image_sizes else USER_CROP_PX


class DetectionHandler:
    """Implements `sluiceway_runtime.pool.handler.Handler`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self._engine: Engine | None = None

    def setup(self, placement: Placement) -> Mapping[str, Any]:
        """Load the detector, warm it, and hold it to its cap of threads.

        Raises:
            StartupError: see `open_backend`, `load_detector` and `cores.verify_threads`.
        """
        cv2.setNumThreads(placement.threads)
        # What is wrong with an image goes to whoever sent it; the log neither needs nor may have it.
        silence_opencv()
        if self._settings.detector is not None:
            self._engine = load_detector(self._settings.detector, placement.device)
            facts = DetectionFacts("user", "user", placement.device, self._engine.classes, (), ())
            use = self._try_detector(placement) if placement.device == "cpu" else None
        else:
            facts, backend = self._load_model(placement)
            # The model alone: what comes before and after it is one thread of ours. On a GPU the host only waits.
            work = partial(backend.infer, [np.zeros((*backend.inputs.shapes[0], 3), np.uint8)])
            cpu = placement.device == "cpu"
            use = cores.verify_threads(work, placement.threads, worker=placement.index) if cpu else None
        settle_heap()
        return {"detection": facts, "thread_use": use}

    def _try_detector(self, placement: Placement) -> cores.ThreadUse | None:
        """Show a user's detector a drawn page, a few times: it is warm then, and its threads were seen."""
        assert self._engine is not None
        engine, job, page = self._engine, DetectionJob(Selection(DEFAULT_CONFIDENCE)), reference_image(TRIAL_SHAPE)
        try:
            return cores.verify_threads(lambda: engine.detect([page], [job]), placement.threads, worker=placement.index)
        except StartupError:
            raise
        except Exception as error:  # it may take only pictures of some kind; those that come will show
            logger.warning(
                "the detector does not take the drawn page that it was tried with (%s: %s), so the threads that it "
                "runs are not known",
                type(error).__name__,
                error,
            )
            return None

    def _load_model(self, placement: Placement) -> tuple[DetectionFacts, Backend]:
        spec = self._settings.backend_spec(placement.device, placement.threads)
        name = resolve_backend(self._settings.backend, spec.weights, placement.device)
        if name == "openvino" and spec.precision is None:
            # Normally decided once for all workers before they start; this is for whoever runs a handler alone.
            spec = replace(spec, precision=choose_precision(spec).precision)
        backend = open_backend(name, spec)
        self._engine = ModelDetector(backend)
        facts = DetectionFacts(
            backend.name,
            backend.precision,
            placement.device,
            self._engine.classes,
            self._engine.image_sizes,
            backend.inputs.shapes,
            backend.card.confidence or DEFAULT_CONFIDENCE,
            backend.card.iou or DEFAULT_IOU,
            enlarges=backend.inputs.enlarges,
            any_shape=backend.inputs.any_shape,
            scales=knows_scales(backend.card),
            scale=usual_scale(backend.card),
        )
        return facts, backend

    def run(self, batch: Sequence[Payload]) -> Sequence[Payload | SluicewayError]:
        """Compute one batch.

        Args:
            batch: each with a `DetectionJob` and one buffer, the image file or its pixels.

        Returns:
            For each a `DetectionAnswer` with crops as buffers, or what is wrong with that item.
        """
        assert self._engine is not None, "setup comes first"
        results: list[Payload | SluicewayError | None] = [None] * len(batch)
        decoded: list[tuple[int, DetectionJob, DocumentPage, float]] = []
        for index, item in enumerate(batch):
            begun_s = time.perf_counter()
            try:
                page = image_of(item, self._limits, self._settings.documents)
            except SluicewayError as error:
                results[index] = error
                continue
            if page.lines:
                results[index] = DetectionAnswer.of_text(page, (time.perf_counter() - begun_s) * 1000)
                continue
            decoded.append((index, item.meta, page, (time.perf_counter() - begun_s) * 1000))
        if decoded:
            found = self._engine.detect(
                [page.image.pixels for _, _, page, _ in decoded], [job for _, job, _, _ in decoded]
            )
            for (index, job, page, decode_ms), detections in zip(decoded, found, strict=True):
                try:
                    crops = cut_crops(page.image.pixels, detections, job.crops, self._settings.max_crop_bytes)
                except SluicewayError as error:
                    results[index] = error
                    continue
                results[index] = DetectionAnswer.payload(page, detections, crops, decode_ms)
        return [result for result in results if result is not None]


def silence_opencv() -> None:
    """Have OpenCV write nothing of the images that it reads. Releases 4 and 5 have the switch in different places."""
    (cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)


def build(config: Mapping[str, Any]) -> DetectionHandler:
    """Make a handler from `WorkerSettings.mapping()`."""
    return DetectionHandler(WorkerSettings(**config))
