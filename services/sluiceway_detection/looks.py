"""What is to be computed for one image, and what becomes of it; whoever computes it is somebody else.

A look is a generator: it yields inputs of the model, is sent the network's output for each of them, and returns the
regions. Most images take one input. So the workers of CPUs and of GPUs differ only in when they compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from sluiceway_detection.db import MapReading, Probe, Sheet, closer_look, content_at, divide_long_lines, select_map
from sluiceway_detection.heads import Head
from sluiceway_detection.input_shapes import Inputs
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.letterbox import Letterbox
from sluiceway_detection.model_card import ModelCard
from sluiceway_detection.postprocess import (
    Output,
    Selection,
    select_classic,
    select_end_to_end,
    select_places,
    select_queries,
)
from sluiceway_detection.types import Detections, ImageBgr

__all__ = ["Look", "looks_of"]

Look = Generator[list[ImageBgr], Sequence[Output], Detections]
"""Yields images uint8 [h, w, 3], each of one of the model's input shapes, and returns what was found, in pixels of the
image, by falling confidence. Outputs are read before it yields again."""

# Of all that one image is shown in, in squares of the image size: beside its first look, of which it is a fifth at
# least, the longest look takes six times as long.
MOST_SQUARES = 6
# Of the scale that was wanted: what is said to be given up is more than the rounding of sizes.
_NEARLY = 0.9


def looks_of(card: ModelCard, inputs: Inputs, *, places: bool = False) -> Callable[[ImageBgr, DetectionJob], Look]:
    """How a model looks at images.

    Args:
        card: of the model.
        inputs: of the model.
        places: the classes of a classic head are reduced already, see `select_places`.
    """
    reading = card.map_reading
    if reading is None:
        select: Callable[[Output, Letterbox, Selection, Head], Detections]
        if card.head.transformer is not None:
            select = select_queries
        else:
            select = select_end_to_end if card.end_to_end else (select_places if places else select_classic)

        def look(image: ImageBgr, job: DetectionJob) -> Look:
            letterbox = Letterbox.place((image.shape[0], image.shape[1]), inputs, job.image_size_px)
            (output,) = yield [letterbox.draw(image)]
            return replace(select(output, letterbox, job.selection, card.head), scale=letterbox.scale)

        return look
    return partial(_look_at_text, inputs, reading)


def _look_at_text(inputs: Inputs, reading: MapReading, image: ImageBgr, job: DetectionJob) -> Look:
    """With a DB model: at the image as one input, and then, if that is wanted and of use, at parts of it larger."""
    shape, size = (image.shape[0], image.shape[1]), job.image_size_px
    most_px = MOST_SQUARES * (size or inputs.sizes[0]) ** 2
    if not isinstance(job.scale, str):
        sheet = Sheet(image, content_at(shape, job.scale, most_px), inputs, size)
        outputs = yield sheet.draw()
        found = _lines(image, sheet.join(_maps(outputs)), sheet.letterbox, job.selection, reading)
        return replace(found, too_small=sheet.letterbox.scale < job.scale * _NEARLY)
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
    left, top, right, bottom = closer.area_px
    possible = min(closer.scale, math.sqrt(most_px / ((right - left) * (bottom - top))))
    content = content_at(shape, possible, 2 * most_px)
    y, x = content[0] / shape[0], content[1] / shape[1]
    area = (math.floor(left * x), math.floor(top * y), math.ceil(right * x), math.ceil(bottom * y))
    sheet = Sheet(image, content, inputs, size, area=area, base=base)
    outputs = yield sheet.draw()
    found = _lines(image, sheet.join(_maps(outputs)), sheet.letterbox, job.selection, reading)
    # What is outside of the area was shown no larger than before.
    whole = area == (0, 0, content[1], content[0])
    return replace(
        found,
        scale=sheet.letterbox.scale if whole else letterbox.scale,
        too_small=sheet.letterbox.scale < closer.scale * _NEARLY,
    )


def _maps(outputs: Sequence[Output]) -> list[npt.NDArray[np.floating]]:
    """Those of a DB model, which has one output alone."""
    return [output for output in outputs if not isinstance(output, tuple)]


def _lines(
    image: ImageBgr,
    output: npt.NDArray[np.floating] | npt.NDArray[np.uint8],
    letterbox: Letterbox,
    selection: Selection,
    reading: MapReading,
) -> Detections:
    found = divide_long_lines(image, select_map(output, letterbox, selection, reading))
    return replace(found.first(selection.max_detections), scale=letterbox.scale)
