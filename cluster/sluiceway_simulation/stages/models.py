"""What simulated models answer: what the pictures say, in the form in which real workers answer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

from sluiceway_detection.crops import CropPlan
from sluiceway_detection.job import CropFacts, DetectionAnswer, DetectionJob
from sluiceway_recognition.types import CropTask, TextAnswer
from sluiceway_runtime.errors import InvalidImage, ModelFailed, SluicewayError
from sluiceway_runtime.pool import Payload

from sluiceway_simulation.stages.pictures import CHANNELS, LINE_PX, Harm, Mark, Picture, crop_pixels, mark_of

__all__ = ["CLASSES", "Computed", "DetectionModel", "Model", "RecognitionModel"]

CLASSES = ("textline",)
# Regions that are found inside of a region.
INSIDE = 2
_BOX = struct.Struct("=4f")


class Computed(NamedTuple):
    """What a model makes of an item.

    Attributes:
        width_px: by which its time is told.
        harm: what it does to the worker.
        result: what comes of it.
    """

    width_px: int
    harm: Harm
    result: Payload | SluicewayError


class Model(Protocol):
    """A model as a simulated worker knows it."""

    def compute(self, item: Payload) -> Computed:
        """Compute one item."""
        ...


class DetectionModel:
    """Finds the lines that a picture says it has, or two lines in each crop."""

    def __init__(self, version: int) -> None:
        self._version = version

    def compute(self, item: Payload) -> Computed:
        """The regions, and the crops that were asked for. A picture says itself what harm it does; a crop does none."""
        job: DetectionJob = item.meta
        if job.raw is None:
            picture = Picture.decode(item.buffers[0])
            size_px = picture.size_px
            if picture.harm is Harm.REFUSED:
                return Computed(size_px[0], picture.harm, InvalidImage("the picture says that it is damaged"))

            def mark(row: int) -> Mark:
                return Mark(picture.number, row, picture.region_harm if row == 0 else Harm.NONE, self._version)

            found = _answer(job.crops, picture.regions, picture.crop_width_px, size_px, mark)
            return Computed(size_px[0], picture.harm, found)
        outer = mark_of(item.buffers[0])

        def inner(row: int) -> Mark:
            return outer._replace(region=outer.region * 100 + row, version=self._version)

        size_px = job.raw.width_px, job.raw.height_px
        return Computed(size_px[0], Harm.NONE, _answer(job.crops, INSIDE, size_px[0], size_px, inner))


class RecognitionModel:
    """Reads the number of the picture and of the region, and says which versions took part."""

    def __init__(self, version: int) -> None:
        self._version = version

    def compute(self, item: Payload) -> Computed:
        """The text `NUMBER:REGION@DETECTOR/READER`. Its width is told by the height in its task."""
        pixels, task = item.buffers[0], item.meta
        assert isinstance(task, CropTask)
        number, region, harm, version = mark_of(pixels)
        width_px = len(pixels) // (CHANNELS * max(1, task.height))
        if harm is Harm.REFUSED:
            return Computed(width_px, harm, ModelFailed("the crop says that it cannot be read"))
        text = f"{number}:{region}@{version}/{self._version}"
        return Computed(width_px, harm, Payload(TextAnswer(text, 0.9)))


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
        height, width = plan.size_px(LINE_PX, width_px)
        for row, (x0, y0, *_) in enumerate(boxes):
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
