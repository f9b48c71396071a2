"""Lines, paragraphs and columns of drawn pages, given in an order that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import pytest
from drawn_layout import HEIGHT, PITCH, DrawnPage, neighbours_kept
from sluiceway_orchestrator.geometry import TurnedBox
from sluiceway_orchestrator.pipelines.layout.frame import Direction, boxes_in, direction_of
from sluiceway_orchestrator.pipelines.layout.page import Layout, lay_out

Box = tuple[float, float, float, float]


def one_column() -> DrawnPage:
    page = DrawnPage()
    page.text(200, 200, 2000, 40, paragraphs=6)
    return page


def two_columns() -> DrawnPage:
    page = DrawnPage()
    page.text(200, 200, 950, 40, paragraphs=5)
    page.text(1280, 200, 950, 36, paragraphs=4)
    return page


def two_columns_whose_lines_are_not_level() -> DrawnPage:
    page = DrawnPage()
    page.text(200, 200, 950, 40, paragraphs=5)
    page.text(1250, 223, 950, 41, paragraphs=3)
    return page


def three_columns() -> DrawnPage:
    page = DrawnPage()
    for at in range(3):
        page.text(200 + 720 * at, 300, 640, 30 - 3 * at, paragraphs=3, seed=at)
    return page


def title_above_and_note_below_two_columns() -> DrawnPage:
    page = DrawnPage()
    page.line(700, 80, 1100, (0, 0, 0))
    page.column = 1
    page.text(200, 200, 950, 20, paragraphs=2)
    page.text(1280, 200, 950, 20, paragraphs=3)
    page.text(200, 1600, 2030, 4)
    return page


def columns_between_full_lines() -> DrawnPage:
    page = DrawnPage()
    end = page.text(200, 200, 2030, 8, paragraphs=2)
    page.text(200, end + 90, 950, 12)
    page.text(1280, end + 90, 950, 12)
    page.text(200, end + 90 + 13 * PITCH, 2030, 8, paragraphs=2)
    return page


def narrow_beside_wide_column() -> DrawnPage:
    page = DrawnPage()
    page.text(200, 200, 560, 30, paragraphs=3)
    page.text(900, 200, 1330, 40, paragraphs=4)
    return page


PAGES = [
    one_column,
    two_columns,
    two_columns_whose_lines_are_not_level,
    three_columns,
    title_above_and_note_below_two_columns,
    columns_between_full_lines,
    narrow_beside_wide_column,
]


def check(page: DrawnPage, layout: Layout, given: list[int], least: float = 0.98) -> None:
    order = [given[at] for at in layout.order]
    assert sorted(order) == list(range(len(page.words)))
    assert neighbours_kept(order, range(len(page.words))) >= least
    lines = [[given[at] for at in line] for line in layout.lines]
    assert [index for line in lines for index in line] == order
    right = sum(len({page.places[index] for index in line}) == 1 for line in lines)
    assert right >= least * len(lines)
    assert [at for block in layout.blocks for at in block] == list(range(len(lines)))


@pytest.mark.parametrize("words", [True, False], ids=["words", "lines"])
@pytest.mark.parametrize("make", PAGES, ids=[make.__name__ for make in PAGES])
def test_columns_are_read_one_after_the_other(make: Callable[[], DrawnPage], words: bool) -> None:
    page = make() if words else make().lines()
    for seed in range(3):
        given = page.shuffled(seed)
        layout = lay_out([page.words[index] for index in given])
        check(page, layout, given)
        # Paragraphs are blocks.
        assert len(layout.blocks) == len({place[:2] for place in page.places})


@pytest.mark.parametrize("degrees", [-20, -5, 2, 10, 20, 88, 90, 93, 180, 270])
@pytest.mark.parametrize("make", PAGES, ids=[make.__name__ for make in PAGES])
def test_pages_that_lie_askew_or_are_turned_are_read_as_the_text_runs(
    make: Callable[[], DrawnPage], degrees: int
) -> None:
    """As detection finds them: turned boxes whose long side lies more across than down, or runs down."""
    page = make().lines()
    given = page.shuffled()
    quarter = round(degrees / 90) * 90
    turned = {}
    for at, index in enumerate(given):
        x, y, width, height, angle = page.turned(degrees)[index]
        sides = (height, width) if quarter % 180 else (width, height)
        turned[at] = TurnedBox(x, y, *sides, angle - quarter)
    boxes = boxes_in(Direction(), [(0.0, 0.0, 0.0, 0.0)] * len(given), turned)
    direction = direction_of(boxes, turned, dict.fromkeys(turned, quarter % 360))
    assert direction.quarter == quarter % 360
    assert direction.angle == pytest.approx(degrees - quarter, abs=0.3)
    check(page, lay_out(boxes_in(direction, boxes, turned)), given)


def test_upright_boxes_of_a_turned_page_are_read_as_the_text_runs() -> None:
    page = two_columns().lines()
    # By a quarter clockwise: what was at the left is at the top.
    boxes = [(3000 - y1, x0, 3000 - y0, x1) for x0, y0, x1, y1 in page.words]
    direction = direction_of(boxes, {}, dict.fromkeys(range(len(boxes)), 90))
    assert direction == Direction(90)
    check(page, lay_out(boxes_in(direction, boxes, {})), list(range(len(boxes))))


def test_a_few_turned_words_turn_no_page() -> None:
    page = two_columns().lines()
    boxes = page.words
    rotations = dict.fromkeys(range(len(boxes)), 0) | dict.fromkeys(range(10), 90)
    assert direction_of(boxes, {}, rotations) == Direction()
    assert direction_of(boxes[:2], {}, {0: 90, 1: 90}) == Direction()  # a sign is no page


def table(rows: int) -> tuple[list[Box], int]:
    """Items, counts and prices; the words of each row."""
    page = DrawnPage()
    for row in range(rows):
        top = 200 + 1.6 * PITCH * row
        page.line(200, top, 300 + 97 * (row * 7 % 6), (0, row, 0), seed=row)
        page.line(1500, top, 60, (0, row, 0), seed=row)
        page.line(1900, top, 160, (0, row, 0), seed=row)
    return page.words, rows


def test_a_table_is_read_by_rows() -> None:
    words, rows = table(12)
    layout = lay_out(words)
    assert layout.order == list(range(len(words)))
    assert len(layout.lines) == rows


def test_a_form_of_labels_and_values_is_read_by_rows() -> None:
    words: list[Box] = []
    for row in range(8):
        top = 100 + 90.0 * row
        words += [(100, top, 220 + 20 * (row % 3), top + HEIGHT), (500, top, 560 + 70 * (row % 4), top + HEIGHT)]
    assert lay_out(words).order == list(range(16))


def test_a_figure_between_columns_tilts_nothing() -> None:
    page = two_columns()
    words = page.words
    figure = (1280.0, 200 + 37 * PITCH + 120, 2200.0, 200 + 37 * PITCH + 800)
    given = [*words, figure]
    layout = lay_out(given)
    order = [index for index in layout.order if index < len(words)]
    assert neighbours_kept(order, range(len(words))) >= 0.98
    # Below the right column, so that it is read last.
    assert layout.order[-1] == len(words)
    assert layout.lines[-1] == [len(words)]


def test_a_headline_is_a_line_and_a_block_of_its_own() -> None:
    page = DrawnPage()
    page.text(200, 500, 2000, 20)
    headline = [(200.0, 100.0, 700.0, 280.0), (760.0, 110.0, 1300.0, 270.0)]
    words = [*headline, *page.words]
    layout = lay_out(words)
    assert layout.order == list(range(len(words)))
    assert layout.lines[0] == [0, 1]
    assert layout.blocks[0] == [0]


def test_an_indented_line_begins_a_paragraph() -> None:
    lines = [(200.0, 100 + PITCH * at, 2000.0, 100 + PITCH * at + HEIGHT) for at in range(9)]
    for at in (3, 6):
        lines[at] = (280.0, *lines[at][1:])
    assert lay_out(lines).blocks == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_lines_that_run_from_right_to_left_are_in_logical_order() -> None:
    # A number between words: it stands in its place, and its two parts run from left to right.
    line = [(500.0, 0.0, 600.0, 40.0), (380.0, 0.0, 480.0, 40.0), (300.0, 0.0, 360.0, 40.0), (220.0, 0.0, 290.0, 40.0)]
    line.append((100.0, 0.0, 200.0, 40.0))
    right_to_left = {0, 1, 4}
    assert lay_out(line, right_to_left).lines == [[0, 1, 3, 2, 4]]
    # And columns begin at the right.
    page = two_columns().lines()
    columns = [place[0] for place in page.places]
    layout = lay_out(page.words, set(range(len(page.words))))
    assert [columns[index] for index in layout.order] == sorted(columns, reverse=True)


def test_nothing_is_nothing() -> None:
    assert lay_out([]) == Layout([], [], [])


def test_a_thousand_words_in_columns_take_milliseconds() -> None:
    """3 ms on an idle core; what is tested is that nothing multiplies it."""
    page = DrawnPage()
    for at in range(3):
        page.text(200 + 720 * at, 300, 640, 56, paragraphs=9, seed=at)
    words = (page.words * 2)[:1000]
    scattered: list[Box] = [
        (97.0 * (i * 37 % 101), 61.0 * (i * 53 % 103), 97.0 * (i * 37 % 101) + 30, 61.0 * (i * 53 % 103) + 20)
        for i in range(1000)
    ]
    for boxes in (words, scattered):
        took = []
        for _ in range(5):
            started = process_time()
            lay_out(boxes)
            took.append(process_time() - started)
        assert min(took) < 0.05
