"""Which parts of an image are to be shown larger."""

from __future__ import annotations

import numpy as np
import pytest
from sluiceway_detection.db import Probe
from sluiceway_detection.inputs.closer import Closer, closer_look
from sluiceway_detection.inputs.letterbox import Letterbox
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.types import Detections, ImageBgr

INPUTS = Inputs(((1280, 1280),), enlarges=False, any_shape=True)
SHAPE = (2560, 5120)  # is shown at a quarter
LETTERBOX = Letterbox.place(SHAPE, INPUTS)


def lines(*boxes: tuple[float, float, float, float]) -> Detections:
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(found, np.zeros(len(found), np.int32), np.ones(len(found), np.float32))


def low(count: int, *, height: float = 28.0) -> list[tuple[float, float, float, float]]:
    return [(1000.0, 500 + 40.0 * row, 1400.0, 500 + 40.0 * row + height) for row in range(count)]


def high(count: int) -> list[tuple[float, float, float, float]]:
    return [(3000.0, 500 + 80.0 * row, 4000.0, 560 + 80.0 * row) for row in range(count)]


def test_lines_that_are_low_are_looked_at_and_nothing_else() -> None:
    assert closer_look(LETTERBOX, lines(*high(20)), None) is None
    closer = closer_look(LETTERBOX, lines(*low(5), *high(20)), None)
    assert closer is not None
    # 28 pixels were shown as 7, and are to be shown as 14.
    assert closer.scale == pytest.approx(0.5)
    assert closer.area_px == (1000 - 128, 500 - 128, 1400 + 128, 500 + 4 * 40 + 28 + 128)


def test_a_few_low_things_are_commas() -> None:
    assert closer_look(LETTERBOX, lines(*low(2), *high(20)), None) is None


def test_nothing_is_shown_larger_than_it_is() -> None:
    closer = closer_look(LETTERBOX, lines(*low(5, height=8)), None)
    assert closer is not None
    assert closer.scale == 1
    nearly = Letterbox.place((1280, 1400), INPUTS)
    assert closer_look(nearly, lines((10, 10, 100, 15)), None) is None


def test_what_reaches_into_the_part_belongs_to_it() -> None:
    closer = closer_look(LETTERBOX, lines((900, 0, 2000, 100), *high(3)), Closer(1.0, (800.0, -50.0, 1000.0, 200.0)))
    assert closer is not None
    assert closer.area_px == (800, 0, 2000, 200)


def sheet(*, small_print: bool, rules: bool = False) -> ImageBgr:
    """Paper with stripes of letters that are shown 3 pixels high, or of rules."""
    image = np.full((*SHAPE, 3), 250, np.uint8)
    if small_print:
        letters = np.random.default_rng(1).integers(0, 2, (100, 400), np.uint8)
        image[1000:1400, 2000:3600] = (letters.repeat(4, axis=0).repeat(4, axis=1) * 200 + 20)[..., None]
    if rules:
        image[500:2000:40, :, :] = 20
    return image


def probe_of(image: ImageBgr, found: Detections) -> Probe | None:
    return Probe.of(image, LETTERBOX.draw(image), LETTERBOX, found)


def test_a_probe_shows_what_has_the_texture_of_print() -> None:
    assert probe_of(sheet(small_print=False), lines()) is None
    assert probe_of(sheet(small_print=False, rules=True), lines()) is None
    probe = probe_of(sheet(small_print=True), lines())
    assert probe is not None
    shown = probe.draw()
    assert shown.shape == (480, 640, 3)
    # Its places hold the print, and around it the paper that it stands on.
    assert (shown < 60).mean() > 0.1
    assert len(np.unique(np.argwhere((shown < 60).any(axis=2)) // 160, axis=0)) == 12


def test_what_was_found_is_not_probed_unless_it_is_a_whole_paragraph() -> None:
    print_ = sheet(small_print=True)
    found = [(1990.0, 990 + 60.0 * row, 3610.0, 1050 + 60.0 * row) for row in range(7)]
    assert probe_of(print_, lines(*found)) is None
    assert probe_of(print_, lines((1990, 990, 3610, 1410))) is not None


def test_what_a_probe_finds_decides() -> None:
    probe = probe_of(sheet(small_print=True), lines())
    assert probe is not None
    assert probe.judge(lines()) is None
    assert probe.judge(lines((10, 10, 18, 18))) is None
    # In the first of its places and in the last: the places lie row by row, so all of the print is between them.
    closer = probe.judge(lines((10, 10, 100, 20), (490, 330, 600, 340)))
    assert closer is not None
    assert closer.scale == pytest.approx(14 / 10)
    left, top, right, bottom = closer.area_px
    assert left < 2000
    assert top < 1000
    assert right > 3600
    assert bottom > 1400


def test_an_image_that_is_shown_nearly_as_it_is_is_not_probed() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), np.uint8)
    letterbox = Letterbox.place(image.shape[:2], INPUTS)
    assert Probe.of(image, letterbox.draw(image), letterbox, lines()) is None


def test_an_input_that_has_no_room_for_a_place_is_no_probe() -> None:
    image = sheet(small_print=True)
    assert Probe.of(image, LETTERBOX.draw(image), LETTERBOX, lines(), (96, 96)) is None
    probe = Probe.of(image, LETTERBOX.draw(image), LETTERBOX, lines(), (320, 320))
    assert probe is not None
    assert probe.draw().shape == (320, 320, 3)
