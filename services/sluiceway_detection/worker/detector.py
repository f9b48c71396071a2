"""Detectors: the built-in ones, YOLO and DB, and classes of the user's own, behind one interface."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from sluiceway_runtime.errors import StartupError

from sluiceway_detection.backends import Backend
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.types import Detections, ImageBgr, Region
from sluiceway_detection.worker.looks import looks_of

__all__ = ["Detector", "Engine", "ModelDetector", "UserDetector", "load_detector"]

ENTRY_POINT_GROUP = "sluiceway.detectors"


class Detector(Protocol):
    """What a user's detector looks like. Made without arguments, used by one thread of one worker process."""

    classes: Sequence[str]
    """Names by class id; may be set in `setup`."""

    def setup(self, device: str) -> None:
        """Load the model. `device` is `cpu` or `cuda:N`."""
        ...

    def __call__(self, batch: list[ImageBgr]) -> list[list[Region]]:
        """Find the regions of each image.

        Args:
            batch: uint8 [H, W, 3] BGR, contiguous, each of its own size.

        Returns:
            One list for each image, in any order; the server sorts, clips, and applies the request's thresholds.
        """
        ...


class Engine(Protocol):
    """What the worker calls: a detector together with the options of each request."""

    classes: tuple[str, ...]
    image_sizes: tuple[int, ...]

    def detect(self, images: Sequence[ImageBgr], jobs: Sequence[DetectionJob]) -> list[Detections]:
        """The regions of each image, by falling confidence."""
        ...


class ModelDetector:
    """A YOLO or DB model on a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._look = looks_of(backend.card, backend.inputs)
        self.classes = backend.card.classes
        self.image_sizes = backend.inputs.sizes

    def detect(self, images: Sequence[ImageBgr], jobs: Sequence[DetectionJob]) -> list[Detections]:
        """Look at each, those of one input shape together.

        Args:
            images: uint8 [H, W, 3] BGR, each of its own size.
            jobs: one for each image; `image_size_px` is one of `image_sizes` or None.

        Returns:
            One for each image, in order, in pixels of that image.
        """
        looks = [self._look(image, job) for image, job in zip(images, jobs, strict=True)]
        wanted = {index: next(look) for index, look in enumerate(looks)}
        found: dict[int, Detections] = {}
        while wanted:
            groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for index, inputs in wanted.items():
                groups[inputs[0].shape].append(index)
            shown, wanted = wanted, {}
            for group in groups.values():
                outputs = iter(self._backend.infer([input_bgr for index in group for input_bgr in shown[index]]))
                for index in group:
                    try:
                        wanted[index] = looks[index].send([next(outputs) for _ in shown[index]])
                    except StopIteration as ended:
                        found[index] = ended.value
        return [found[index] for index in range(len(images))]


class UserDetector:
    """A user's class, with the options that every request may carry applied to what it returns."""

    image_sizes: tuple[int, ...] = ()

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        classes: object = detector.classes
        # A single name is a sequence, too: of letters.
        self.classes = tuple(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else ()
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise StartupError(f"detector {type(detector).__name__}: `classes` must be a sequence of names after setup")

    def detect(self, images: Sequence[ImageBgr], jobs: Sequence[DetectionJob]) -> list[Detections]:
        """Call the user's class.

        Raises:
            TypeError: it did not return one list of `Region` for each image.
            Exception: whatever it raises; the pool turns that into MODEL_FAILED of the guilty image.
        """
        answers = self._detector(list(images))
        if len(answers) != len(images):
            raise TypeError(f"the detector returned {len(answers)} results for {len(images)} images")
        return [self._select(*item) for item in zip(images, answers, jobs, strict=True)]

    def _select(self, image: ImageBgr, regions: Sequence[Region], job: DetectionJob) -> Detections:
        wanted = job.selection
        for region in regions:
            if not isinstance(region, Region):
                raise TypeError(f"the detector returned a {type(region).__name__} where a Region is due")
        kept = [
            region
            for region in regions
            if 0 <= region.class_id < len(self.classes)
            and region.confidence > wanted.confidence
            and (wanted.class_ids is None or region.class_id in wanted.class_ids)
        ]
        found = Detections.from_regions(kept, image.shape[0], image.shape[1])
        return found.first(wanted.max_detections)


def load_detector(name: str, device: str) -> UserDetector:
    """Make a user's detector by name and set it up.

    Args:
        name: `module:Class`, or the name of an entry point of group `sluiceway.detectors`.
        device: handed to its `setup`.

    Raises:
        StartupError: it cannot be found, is not a detector, or fails to set up.
    """
    detector = _make(name)
    try:
        detector.setup(device)
    except StartupError:
        raise
    except Exception as error:  # user code may raise anything; the operator has to see what
        raise StartupError(f"detector {name}: setup failed: {type(error).__name__}: {error}") from error
    if not hasattr(detector, "classes"):
        raise StartupError(f"detector {name}: has no `classes`")
    return UserDetector(detector)


def _make(name: str) -> Detector:
    try:
        made = _find(name)()
    except StartupError:
        raise
    except Exception as error:
        raise StartupError(f"detector {name}: cannot be made: {type(error).__name__}: {error}") from error
    if not callable(made) or not callable(getattr(made, "setup", None)):
        raise StartupError(
            f"detector {name}: needs setup(device) and __call__(batch); "
            "see sluiceway_detection.worker.detector.Detector"
        )
    return cast("Detector", made)


def _find(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if colon:
        return getattr(importlib.import_module(module), attribute)
    found = list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name))
    if not found:
        raise StartupError(
            f"detector {name}: no entry point of group {ENTRY_POINT_GROUP} has this name; write module:Class otherwise"
        )
    return found[0].load()
