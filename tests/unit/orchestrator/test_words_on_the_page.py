"""Words lie on the page where their region lies, however it and its text are turned."""

from __future__ import annotations

import math

import pytest
from sluiceway_orchestrator.convert import regions as convert
from sluiceway_orchestrator.convert.words import place_words
from sluiceway_orchestrator.geometry import TurnedBox
from sluiceway_orchestrator.pipelines.tree import RegionTree
from sluiceway_orchestrator.plan import Step, StepKind

from sluiceway.common.v1 import geometry_pb2, value_pb2
from sluiceway.pipeline.v1 import pipeline_pb2

# In the second quarter of the text, in the upper half of its line.
PARTS = (0.25, 0.0, 0.5, 0.5)


def text(rotation: int, *parts: float) -> value_pb2.Text:
    return value_pb2.Text(
        text="a word", rotation_degrees=rotation, words=[value_pb2.Word(text="word", confidence=0.5, parts=parts)]
    )


def box_of(word: value_pb2.Word) -> tuple[float, float, float, float]:
    box = word.geometry.box
    return box.x0, box.y0, box.x1, box.y1


@pytest.mark.parametrize(
    ("rotation", "region", "expected"),
    [
        (0, TurnedBox(200, 100, 200, 40, 0), (150, 80, 200, 100)),
        (180, TurnedBox(200, 100, 200, 40, 0), (200, 100, 250, 120)),
        (90, TurnedBox(100, 200, 40, 200, 0), (100, 150, 120, 200)),  # runs down: the top of letters is at the right
        (270, TurnedBox(100, 200, 40, 200, 0), (80, 200, 100, 250)),
    ],
)
def test_words_of_upright_regions(rotation: int, region: TurnedBox, expected: tuple[float, ...]) -> None:
    message = text(rotation, *PARTS)
    place_words(message, region)
    (word,) = message.words
    assert box_of(word) == pytest.approx(expected)
    assert not word.parts


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_words_of_turned_regions_are_turned_with_them(rotation: int) -> None:
    sides = (40, 200) if rotation % 180 else (200, 40)
    plain, turned = text(rotation, *PARTS), text(rotation, *PARTS)
    place_words(plain, TurnedBox(0, 0, *sides, 0))
    place_words(turned, TurnedBox(500, 300, *sides, 30))
    x0, y0, x1, y1 = box_of(plain.words[0])
    box = turned.words[0].geometry.rotated_box
    angle = math.radians(30)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    assert box.center.x == pytest.approx(500 + x * math.cos(angle) - y * math.sin(angle), abs=1e-3)
    assert box.center.y == pytest.approx(300 + x * math.sin(angle) + y * math.cos(angle), abs=1e-3)
    assert (box.width, box.height, box.angle_degrees) == pytest.approx((x1 - x0, y1 - y0, 30), abs=1e-3)


def test_a_word_that_says_nothing_lies_nowhere() -> None:
    message = text(0)
    place_words(message, TurnedBox(0, 0, 10, 10, 0))
    assert not message.words[0].HasField("geometry")


def test_values_bring_their_words_to_the_page() -> None:
    tree = RegionTree()
    step = Step(0, "text", StepKind.DETECT, stage="d")
    regions = pipeline_pb2.Regions()
    box = regions.regions.add().geometry.box
    box.x0, box.y0, box.x1, box.y1 = 10.5, 20.5, 109.5, 59.5
    turned = geometry_pb2.RotatedBox(center=geometry_pb2.Point(x=300, y=50), width=100, height=20, angle_degrees=10)
    regions.regions.add().geometry.rotated_box.CopyFrom(turned)
    boxes, shapes = convert.boxes_of(regions)
    tree.place(step, boxes, None, shapes)
    values = pipeline_pb2.Values()
    for region_id in (0, 1):
        values.values.add(region_id=region_id).text.CopyFrom(text(0, 0.0, 0.0, 1.0, 1.0))
    values.values.add(region_id=2).text.text = "no words"
    assert len(convert.texts_of(values, tree.region)) == 3
    words = [value.text.words for value in values.values]
    # Cut out in whole pixels.
    assert box_of(words[0][0]) == (10, 20, 110, 60)
    assert words[1][0].geometry.rotated_box == turned
    assert not words[2]
