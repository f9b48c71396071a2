"""Figures on a page: the lines beside them are read as they would be without."""

from __future__ import annotations

import random
from collections.abc import Sequence
from time import process_time

import pytest
from sluiceway_orchestrator.pipelines.reading_order import Box, reading_order

RAGGED_PX = (290, 120, 260, 60, 280, 200, 90, 270, 150, 40)


def lines_px(left: float, *, height: float = 20, pitch: float = 50, count: int = 10) -> list[Box]:
    return [(left, i * pitch, left + RAGGED_PX[i % 10], i * pitch + height) for i in range(count)]


def read(boxes: Sequence[Box], seed: int) -> list[int]:
    """Indices in reading order, whatever order the boxes come in."""
    shuffled = list(range(len(boxes)))
    random.Random(seed).shuffle(shuffled)
    return [shuffled[index] for index in reading_order([boxes[index] for index in shuffled])]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("height_px", [30, 45, 55, 60, 61, 90, 250, 500])
def test_a_figure_of_any_height_beside_ragged_lines_moves_none_of_them(height_px: float, seed: int) -> None:
    boxes = [(0, 0, 100, height_px), *lines_px(110)]
    assert read(boxes, seed) == list(range(11))


def test_a_figure_right_of_lines_comes_behind_those_beside_it() -> None:
    beside, below = lines_px(10), lines_px(10, count=12)[10:]
    boxes = [*beside, (420, 0, 500, 490), *below]
    assert read(boxes, 1) == list(range(13))


def test_a_figure_between_lines_stays_between_them() -> None:
    boxes = [*lines_px(0, count=3), (0, 150, 300, 400), *[(0, 410 + i * 50, 250, 430 + i * 50) for i in range(4)]]
    assert read(boxes, 2) == list(range(8))


def test_a_tall_word_of_a_single_line_is_read_within_it() -> None:
    price = [(0, 40, 30, 52), (35, 0, 90, 60), (95, 40, 120, 52)]
    assert read([*price, *[(0, 80 + i * 20, 100, 92 + i * 20) for i in range(5)]], 3) == list(range(8))


def test_words_of_a_headline_are_read_from_left_to_right() -> None:
    words = [(0, 0, 100, 80), (110, 0, 200, 80), (210, 0, 300, 80)]
    assert read([*words, *[(0, 100 + i * 25, 300, 118 + i * 25) for i in range(8)]], 4) == list(range(11))


def test_lines_of_words_beside_figures_keep_the_order_that_they_have_alone() -> None:
    source = random.Random(5)
    for _ in range(30):
        words: list[Box] = []
        for line in range(source.randrange(4, 20)):
            x = 200.0
            for _ in range(source.randrange(1, 8)):
                width = source.uniform(20, 90)
                words.append((x, line * 30, x + width, line * 30 + source.uniform(14, 20)))
                x += width + 8
        figures: list[Box] = []
        for _ in range(source.randrange(1, 4)):
            # Each reaches over two lines at least, so that it is a word of none.
            top = source.uniform(0, 200)
            figures.append((0, top, 150, top + source.uniform(95, 400)))
        order = reading_order([*figures, *words])
        assert sorted(order) == list(range(len(figures) + len(words)))
        alone = [index + len(figures) for index in reading_order(words)]
        assert [index for index in order if index >= len(figures)] == alone


@pytest.mark.parametrize("tall", [0, 50, 499])
def test_a_thousand_boxes_of_any_heights_take_milliseconds(tall: int) -> None:
    """5 ms on an idle core; what is tested is that heights do not multiply it, which once made it seconds."""
    words: list[Box] = [
        (60.0 * (i % 10), 12.0 * (i // 10), 60.0 * (i % 10) + 50, 12.0 * (i // 10) + 10) for i in range(1000)
    ]
    words[:tall] = [(float(i), 0.0, i + 5.0, 10_000.0) for i in range(tall)]
    random.Random(6).shuffle(words)
    took = []
    for _ in range(5):
        started = process_time()
        reading_order(words)
        took.append(process_time() - started)
    assert min(took) < 0.05
