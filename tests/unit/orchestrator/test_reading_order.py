"""Reading order: a table of pages, each given in an order that is wrong."""

from __future__ import annotations

import math
import random
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.pipelines import reading_order as order_module
from sluiceway_orchestrator.pipelines.reading_order import reading_order, rows_of

Box = tuple[float, float, float, float]

# Name to words in the order in which they are read; boxes are x0, y0, x1, y1.
PAGES: dict[str, list[Box]] = {
    "nothing": [],
    "one": [(5, 5, 20, 15)],
    "one line": [(0, 0, 10, 10), (12, 1, 30, 11), (33, 0, 40, 10)],
    "two lines": [(0, 0, 10, 10), (12, 0, 30, 10), (0, 14, 10, 24), (12, 14, 30, 24)],
    "lines that touch": [(0, 0, 10, 10), (12, 0, 30, 10), (0, 9, 10, 19), (12, 9, 30, 19), (0, 18, 10, 28)],
    "two heights on one line": [(0, 10, 40, 50), (45, 30, 80, 50), (85, 12, 120, 50), (0, 60, 40, 100)],
    "small word first, high up": [(0, 10, 20, 22), (25, 5, 90, 45), (0, 60, 20, 72)],
    "comma and dash": [(0, 0, 30, 20), (32, 16, 36, 24), (40, 0, 70, 20), (72, 8, 80, 11), (0, 30, 30, 50)],
    "second line begins further left": [(50, 0, 90, 10), (0, 14, 40, 24), (45, 14, 90, 24)],
    "second line begins further right": [(0, 0, 40, 10), (45, 0, 90, 10), (30, 14, 90, 24)],
    "tall initial beside three lines": [
        (0, 0, 30, 64), (35, 0, 90, 18), (35, 22, 90, 40), (35, 44, 90, 62),
    ],
    "sign above and below": [(20, 0, 80, 30), (0, 40, 50, 50), (60, 40, 90, 50), (10, 60, 90, 90)],
    "overlapping boxes": [(0, 0, 20, 10), (18, 0, 40, 10), (0, 8, 20, 18), (18, 8, 40, 18)],
    "without height": [(0, 5, 10, 5), (20, 5, 30, 5), (0, 15, 10, 15)],
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_read_in_order_whatever_order_they_come_in(name: str) -> None:
    words = PAGES[name]
    for seed in range(20):
        shuffled = list(range(len(words)))
        random.Random(seed).shuffle(shuffled)
        order = reading_order([words[index] for index in shuffled])
        assert [shuffled[index] for index in order] == list(range(len(words)))


@pytest.mark.parametrize("degrees", [-4, -2, -1, 0, 1, 2, 4])
def test_a_page_that_lies_slightly_askew(degrees: float) -> None:
    """Six words of 60 x 16 px in each of ten lines, 24 px apart, turned about the corner; lines begin unevenly."""
    turn = math.radians(degrees)
    words: list[Box] = []
    for line in range(10):
        for word in range(6):
            x, y = 70 * (word + line % 3), 24 * line
            middle_x, middle_y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
            words.append((middle_x - 30, middle_y - 8, middle_x + 30, middle_y + 8))
    shuffled = list(range(len(words)))
    random.Random(1).shuffle(shuffled)
    order = reading_order([words[index] for index in shuffled])
    assert [shuffled[index] for index in order] == list(range(len(words)))


def test_every_box_comes_exactly_once() -> None:
    source = random.Random(3)
    for _ in range(50):
        boxes = []
        for _ in range(source.randrange(60)):
            x, y = source.uniform(0, 500), source.uniform(0, 500)
            boxes.append((x, y, x + source.uniform(0, 90), y + source.uniform(0, 90)))
        assert sorted(reading_order(boxes)) == list(range(len(boxes)))


def test_a_dense_page_does_not_hold_up_the_event_loop() -> None:
    words = [(60.0 * x, 12.0 * y, 60.0 * x + 50, 12.0 * y + 10) for y in range(100) for x in range(10)]
    random.Random(2).shuffle(words)
    took = []
    for _ in range(3):
        started = perf_counter()
        reading_order(words)
        took.append(perf_counter() - started)
    assert min(took) < 0.05


coordinates = st.floats(0, 200, allow_nan=False)


@given(st.lists(st.tuples(coordinates, coordinates, st.floats(0, 40), st.floats(0, 40)), min_size=1, max_size=12))
def test_lines_that_lie_below_each_other_are_what_comparing_all_of_them_finds(
    found: list[tuple[float, float, float, float]],
) -> None:
    boxes = [(x, y, x + width, y + height) for x, y, width, height in found]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "_below_each_other", lambda *_: None)
        expected = rows_of(boxes)
    assert rows_of(boxes) == expected


def test_lines_whose_letters_touch_still_lie_below_each_other() -> None:
    boxes = [(0.0, 20.0 * at, 100.0, 20.0 * at + 28) for at in reversed(range(6))]
    found = order_module._below_each_other(boxes, range(6))
    assert found is not None
    assert [line for _, line in found] == [[5], [4], [3], [2], [1], [0]]
    beside = [*boxes, (120.0, 0.0, 140.0, 20.0)]
    assert order_module._below_each_other(beside, range(7)) is None
