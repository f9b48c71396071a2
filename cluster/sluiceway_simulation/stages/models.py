"""What simulated models answer: what the pictures say, in the form in which real workers answer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from sluiceway_detection.crops import CropPlan
from sluiceway_detection.job import CropFacts, DetectionAnswer, DetectionJob
from sluiceway_recognition.types import CropTask, TextAnswer
from sluiceway_runtime.errors import InvalidImage, ModelFailed, SluicewayError
from sluiceway_runtime.pool import Payload

from sluiceway_simulation.stages.pictures import LINE_PX, Harm, Mark, Picture, crop_pixels, mark_of

__all__ = ["CLASSES", "DetectionModel", "Model", "RecognitionModel"]

CLASSES = ("textline",)
# Regions that are found inside of a region.
INSIDE = 2
_BOX = struct.Struct("=4f")


class Model(Protocol):
    """A model as a simulated worker knows it."""

    def width_px(self, item: Payload) -> int:
        """By which its time is told."""
        ...

    def harm(self, item: Payload) -> Harm:
        """What the item does to the worker."""
        ...

    def answer(self, item: Payload) -> Payload | SluicewayError:
        """What comes of it."""
        ...


class DetectionModel:
    """Finds the lines that a picture says it has, or two lines in each crop."""

    def __init__(self, version: int) -> None:
        self._version = version

    def width_px(self, item: Payload) -> int:
        """Of a picture."""
        job: DetectionJob = item.meta
        return Picture.decode(item.buffers[0]).size_px[0] if job.raw is None else job.raw.width_px

    def harm(self, item: Payload) -> Harm:
        """As the picture says; a crop does none."""
        return Harm.NONE if item.meta.raw is not None else Picture.decode(item.buffers[0]).harm

    def answer(self, item: Payload) -> Payload | SluicewayError:
        """The regions, and the crops that were asked for."""
        job: DetectionJob = item.meta
        if job.raw is None:
            picture = Picture.decode(item.buffers[0])
            if picture.harm is Harm.REFUSED:
                return InvalidImage("the picture says that it is damaged")

            def mark(row: int) -> Mark:
                return Mark(picture.number, row, picture.region_harm if row == 0 else Harm.NONE, self._version)

            return _answer(job.crops, picture.regions, picture.crop_width_px, picture.size_px, mark)
        outer = mark_of(item.buffers[0])

        def inner(row: int) -> Mark:
            return outer._replace(region=outer.region * 100 + row, version=self._version)

        return _answer(job.crops, INSIDE, job.raw.width_px, (job.raw.width_px, job.raw.height_px), inner)


class RecognitionModel:
    """Reads the number of the picture and of the region, and says which versions took part."""

    def __init__(self, version: int) -> None:
        self._version = version

    def width_px(self, item: Payload) -> int:
        """Of a crop, whose height its task gives."""
        task: CropTask = item.meta
        return len(item.buffers[0]) // (3 * max(1, task.height))

    def harm(self, item: Payload) -> Harm:
        """As the crop says."""
        return mark_of(item.buffers[0]).harm

    def answer(self, item: Payload) -> Payload | SluicewayError:
        """The text `NUMBER:REGION@DETECTOR/READER`."""
        mark = mark_of(item.buffers[0])
        if mark.harm is Harm.REFUSED:
            return ModelFailed("the crop says that it cannot be read")
        return Payload(TextAnswer(f"{mark.number}:{mark.region}@{mark.version}/{self._version}", 0.9))


def _answer(
    plans: tuple[CropPlan, ...], regions: int, width_px: int, size_px: tuple[int, int], mark: Callable[[int], Mark]
) -> Payload:
    """From the bottom up, so that the reading order is not the order of the ids."""
    boxes = [
        (10.0, (regions - 1 - row) * LINE_PX, 10.0 + width_px, (regions - row) * LINE_PX - 4) for row in range(regions)
    ]
    crops: list[CropFacts] = []
    pixels: list[bytes] = []
    for index, plan in enumerate(plans):
        if plan.class_ids is not None and 0 not in plan.class_ids:
            continue
        for row, (x0, y0, *_) in enumerate(boxes):
            height, width = plan.size_px(LINE_PX, width_px)
            to_image = (1.0, 0.0, x0, 0.0, 1.0, y0, 0.0, 0.0, 1.0) if plan.rule == "fit_longest" else None
            crops.append(CropFacts(row, index, height, width, to_image))
            pixels.append(crop_pixels(mark(row), height, width))
    answer = DetectionAnswer(
        width_px=size_px[0],
        height_px=size_px[1],
        boxes_xyxy_px=b"".join(_BOX.pack(*box) for box in boxes),
        class_ids=struct.pack(f"={regions}i", *[0] * regions),
        confidences=struct.pack(f"={regions}f", *[0.9] * regions),
        shapes=(),
        crops=tuple(crops),
        decode_ms=0.0,
    )
    return Payload(answer, tuple(pixels))
