"""What is to be computed for one image, and what becomes of it; whoever computes it is somebody else.

A look is a generator: it yields inputs of the model, is sent the network's output for each of them, and returns the
regions. Most images take one input. So the workers of CPUs and of GPUs differ only in when they compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

from sluiceway_runtime.images.scale import Scale

from sluiceway_detection.db import Map, MapReading, Probe, divide_long_lines, joined_map, select_map
from sluiceway_detection.inputs.closer import Closer, closer_look
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.parts import Parts, content_at
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.card import ModelCard
from sluiceway_detection.selection import Output, Selection
from sluiceway_detection.types import Detections, ImageBgr
from sluiceway_detection.yolo.heads import PLAIN
from sluiceway_detection.yolo.joined_regions import joined_regions
from sluiceway_detection.yolo.postprocess import select_classic, select_end_to_end, select_places, select_queries

__all__ = ["Look", "knows_scales", "looks_of", "usual_scale"]

Read = Callable[[Output, Letterbox, Selection], Detections]
Select = Callable[..., Detections]

Look = Generator[list[ImageBgr], Sequence[Output], Detections]
"""Yields images uint8 [h, w, 3], each of one of the model's input shapes, and returns what was found, in pixels of the
image, by falling confidence. Outputs are read before it yields again."""

# Of all that one image is shown in, in squares of the image size: the longest look takes ten times as long as a first
# one that fills such a square.
MOST_SQUARES = 10
# Of the scale that was wanted: what is said to be given up is more than the rounding of sizes.
_NEARLY = 0.9


def knows_scales(card: ModelCard) -> bool:
    """Whether a model can be shown parts of an image: DB models, and those whose regions are upright boxes."""
    return card.map_reading is not None or (card.head == PLAIN and not card.stretches)


def usual_scale(card: ModelCard) -> Scale:
    """Of whoever asks for none. A closer look takes several times as long; print that is too small is worth it."""
    return "fast" if card.map_reading is None else "auto"


def looks_of(card: ModelCard, inputs: Inputs, *, places: bool = False) -> Callable[[ImageBgr, DetectionJob], Look]:
    """How a model looks at images.

    Args:
        card: of the model.
        inputs: of the model.
        places: the classes of a classic head are reduced already, see `select_places`.
    """
    if card.map_reading is not None:
        return partial(_look_at_text, inputs, card.map_reading)
    select: Select
    if card.head.transformer is not None:
        select = select_queries
    else:
        select = select_end_to_end if card.end_to_end else (select_places if places else select_classic)
    return partial(_look_at_things if knows_scales(card) else _look_once, inputs, partial(select, head=card.head))


def _look_once(inputs: Inputs, read: Read, image: ImageBgr, job: DetectionJob) -> Look:
    """With a YOLO or DETR model: at the image as one input."""
    letterbox = Letterbox.place((image.shape[0], image.shape[1]), inputs, job.image_size_px)
    (output,) = yield [letterbox.draw(image)]
    return replace(read(output, letterbox, job.selection), scale=letterbox.scale)


def _look_at_things(inputs: Inputs, read: Read, image: ImageBgr, job: DetectionJob) -> Look:
    """With a model of upright boxes: at the image as one input and, if that is wanted and of use, at parts of it."""
    shape, size, scale = (image.shape[0], image.shape[1]), job.image_size_px, job.scale
    if scale == "fast":
        return (yield from _look_once(inputs, read, image, job))
    most_px = MOST_SQUARES * (size or inputs.sizes[0]) ** 2
    if isinstance(scale, str):
        base = yield from _look_once(inputs, read, image, job)
        closer = closer_look(Letterbox.place(shape, inputs, size), base, None)
        if closer is None:
            return base
    else:
        base, closer = None, Closer(scale, (0, 0, shape[1], shape[0]))
    parts = _parts_at(closer, image, inputs, size, most_px)
    if base is None and len(parts) > 1:
        # What is larger than a part is seen by a look at the whole alone.
        base = yield from _look_once(inputs, read, image, job)
    outputs = yield parts.draw()
    alone = [Letterbox(part.input_shape, part.input_shape, part.input_shape, 0, 0) for part in parts]
    found = [read(output, letterbox, job.selection) for output, letterbox in zip(outputs, alone, strict=True)]
    joined = joined_regions(parts, found, base, job.selection)
    whole = base is None or closer.covers(shape)
    return replace(
        joined,
        scale=parts.letterbox.scale if whole or base is None else base.scale,
        too_small=parts.letterbox.scale < closer.scale * _NEARLY,
    )


def _look_at_text(inputs: Inputs, reading: MapReading, image: ImageBgr, job: DetectionJob) -> Look:
    """With a DB model: at the image as one input and, if that is wanted and of use, at parts of it larger."""
    shape, size = (image.shape[0], image.shape[1]), job.image_size_px
    most_px = MOST_SQUARES * (size or inputs.sizes[0]) ** 2
    base = None
    if isinstance(job.scale, str):
        letterbox = Letterbox.place(shape, inputs, size)
        input_bgr = letterbox.draw(image)
        (output,) = _maps((yield [input_bgr]))
        found = _lines(image, output, letterbox, job.selection, reading)
        if letterbox.scale >= 1:
            return found
        if job.scale == "fast":
            return replace(found, too_small=closer_look(letterbox, found, None) is not None)
        # An output is there until something else is computed.
        base = letterbox.inside(output[0]).copy()
        probed = None
        probe = Probe.of(image, input_bgr, letterbox, found, None if inputs.any_shape else inputs.largest(size))
        if probe is not None:
            (output,) = _maps((yield [probe.draw()]))
            probed = probe.judge(select_map(output, probe.letterbox, job.selection, reading))
        closer = closer_look(letterbox, found, probed)
        if closer is None:
            return found
    else:
        closer = Closer(job.scale, (0, 0, shape[1], shape[0]))
    parts = _parts_at(closer, image, inputs, size, most_px)
    outputs = yield parts.draw()
    map_ = joined_map(parts, _maps(outputs), base)
    joined = _lines(image, map_, parts.letterbox, job.selection, reading)
    shown = parts.letterbox.scale
    # What is outside of the area was shown no larger than before.
    return replace(
        joined,
        scale=shown if base is None or closer.covers(shape) else found.scale,
        too_small=shown < closer.scale * _NEARLY,
    )


def _parts_at(closer: Closer, image: ImageBgr, inputs: Inputs, size: int | None, most_px: int) -> Parts:
    """The inputs of a closer look, at its scale or as near to it as so many pixels allow."""
    height, width = image.shape[:2]
    left, top, right, bottom = closer.area_px
    possible = min(closer.scale, math.sqrt(most_px / ((right - left) * (bottom - top))))
    content = content_at((height, width), possible, 2 * most_px)
    x, y = content[1] / width, content[0] / height
    end = (min(math.ceil(right * x), content[1]), min(math.ceil(bottom * y), content[0]))
    area = (math.floor(left * x), math.floor(top * y), *end)
    return Parts(image, content, inputs, size, area=area)


def _maps(outputs: Sequence[Output]) -> list[Map]:
    """Those of a DB model, which has one output alone."""
    return [output for output in outputs if not isinstance(output, tuple)]


def _lines(
    image: ImageBgr,
    output: Map,
    letterbox: Letterbox,
    selection: Selection,
    reading: MapReading,
) -> Detections:
    found = divide_long_lines(image, select_map(output, letterbox, selection, reading))
    return replace(found.first(selection.max_detections), scale=letterbox.scale)
