"""Ids of regions, their order, and what becomes of them when a source is detected anew."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.convert import regions as convert
from sluiceway_orchestrator.events import PLAIN_RUN, TextRun
from sluiceway_orchestrator.geometry import Box, TurnedBox
from sluiceway_orchestrator.pipelines import tree as tree_module
from sluiceway_orchestrator.pipelines.tree import WHOLE, RegionTree
from sluiceway_orchestrator.plan import Step, StepKind

from sluiceway.common.v1 import geometry_pb2, value_pb2
from sluiceway.pipeline.v1 import pipeline_pb2

TEXT = Step(0, "text", StepKind.DETECT, stage="d")
PLATES = Step(1, "plates", StepKind.DETECT, stage="p", of=0)
WORDS = Step(2, "words", StepKind.RECOGNIZE, stage="r", of=0)


def row(index: float, left: float = 0) -> Box:
    return left, index * 20, left + 100, index * 20 + 16


def told(
    tree: RegionTree, step: Step, boxes: list[Box], parents: list[int] | None = None
) -> tuple[list[int], list[bool] | None]:
    """Place regions, and tell the client of those that it does not know."""
    placed = tree.place(step, boxes, parents)
    ids = list(placed.ids)
    tree.told(step, ids)
    return ids, None if placed.fresh is None else list(placed.fresh)


def test_ids_follow_each_other_over_all_steps() -> None:
    tree = RegionTree()
    assert told(tree, TEXT, [row(0), row(1)]) == ([0, 1], None)
    assert told(tree, PLATES, [row(1, 10)], [1]) == ([2], None)
    assert told(tree, TEXT, []) == ([], None)
    assert told(tree, PLATES, [row(0, 10), row(0, 20)], [0, 0]) == ([3, 4], None)
    assert len(tree) == 5


def test_children_are_read_right_behind_their_region() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(5), row(1), row(3)])
    told(tree, PLATES, [row(5, 50), row(5, 10), row(1, 10)], [0, 0, 1])
    told(tree, PLATES, [(52, 102, 60, 110)], [3])
    assert tree.order() == [1, 5, 2, 0, 4, 3, 6]


def test_deep_trees_are_no_matter_of_the_stack() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(0)])
    for depth in range(3000):
        told(tree, PLATES, [row(0)], [depth])
    assert tree.order() == list(range(3001))


def test_regions_that_are_found_again_keep_their_ids_and_others_are_new() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(0), row(1), row(2)])
    tree.begin_again()
    ids, fresh = told(tree, TEXT, [row(2.1), row(7), row(0.1), row(0.1)])
    # Moved by a little, new, moved by a little, and a second one there, which is new.
    assert ids == [2, 3, 0, 4]
    assert fresh == [False, True, False, True]


def test_a_region_is_not_taken_for_that_of_another_step() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(0)])
    told(tree, PLATES, [row(0)], [0])
    tree.begin_again()
    assert told(tree, PLATES, [row(0)], [0]) == ([1], [False])
    assert told(tree, TEXT, [row(0)]) == ([0], [False])


@pytest.mark.parametrize("found_again", [True, False])
def test_a_region_that_the_client_never_heard_of_is_new_to_it_or_nothing(found_again: bool) -> None:
    """The attempt before ended between finding it and telling of it."""
    tree = RegionTree()
    told(tree, TEXT, [row(0)])
    tree.place(PLATES, [row(0, 10)], [0])
    tree.begin_again()
    assert told(tree, TEXT, [row(0)]) == ([0], [False])
    if found_again:
        assert told(tree, PLATES, [row(0, 10)], [0]) == ([1], [True])
        assert tree.order() == [0, 1]
    else:
        assert tree.order() == [0]


def test_a_region_that_the_client_never_heard_of_is_told_with_its_present_parent() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(0), row(5)])
    tree.place(PLATES, [row(0, 10)], [0])
    tree.begin_again()
    # What holds it now is another region than before.
    assert told(tree, TEXT, [row(5), (0, 0, 400, 16)]) == ([1, 3], [False, True])
    assert told(tree, PLATES, [row(0, 10)], [3]) == ([2], [True])
    order = tree.order()
    assert order.index(2) == order.index(3) + 1


def test_what_was_said_stands_and_what_was_promised_and_not_said_is_known() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(0), row(1), row(2)])
    tree.promise(WORDS, [0, 1, 2])
    tree.answered(WORDS, [1])
    # Nothing counts before the source was begun again: the way without faults pays for none of it.
    assert not tree.is_answered(WORDS, 1)
    assert tree.broken_promises() == {}
    tree.begin_again()
    assert tree.is_answered(WORDS, 1)
    assert not tree.is_answered(WORDS, 0)
    told(tree, TEXT, [row(0)])
    tree.promise(WORDS, [0])
    tree.answered(WORDS, [0])
    assert tree.broken_promises() == {WORDS.index: [2]}


def test_what_was_said_of_the_whole_is_not_mixed_up_with_regions() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(0)])
    tree.answered(WORDS, [WHOLE])
    tree.begin_again()
    assert tree.is_answered(WORDS, WHOLE)
    assert not tree.is_answered(WORDS, 0)


@given(
    st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 30)] * 2), min_size=1, max_size=25),
    st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 30)] * 2), max_size=25),
)
def test_a_region_is_found_again_as_if_all_were_compared(
    before: list[tuple[int, int, int, int]], after: list[tuple[int, int, int, int]]
) -> None:
    boxes = {index: (x, y, x + w, y + h) for index, (x, y, w, h) in enumerate(before)}
    missing = tree_module._Missing(boxes)
    left = dict(boxes)
    for x, y, w, h in after:
        box = (x, y, x + w, y + h)
        overlaps = {index: tree_module._iou(other, box) for index, other in left.items()}
        best = max(overlaps.values(), default=0.0)
        found = missing.take(box)
        if best >= 0.5:
            assert found is not None
            assert overlaps[found] == best
            del left[found]
        else:
            assert found is None


def test_ten_thousand_regions_are_found_again_without_comparing_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    plain = tree_module._iou

    def counted(first: Any, second: Any) -> float:
        nonlocal compared
        compared += 1
        return plain(first, second)

    monkeypatch.setattr(tree_module, "_iou", counted)
    boxes = [(x * 40.0, y * 20.0, x * 40.0 + 30, y * 20.0 + 15) for y in range(100) for x in range(100)]
    missing = tree_module._Missing(dict(enumerate(boxes)))
    assert [missing.take(box) for box in boxes] == list(range(10_000))
    assert compared < 10_000 * 101


def plain(*region_ids: int, rotation: int = 0) -> dict[int, TextRun]:
    return dict.fromkeys(region_ids, TextRun(rotation) if rotation else PLAIN_RUN)


def test_lines_and_blocks_have_those_in_which_text_was_read() -> None:
    tree = RegionTree()
    figure = (300.0, 0.0, 400.0, 16.0)
    told(tree, TEXT, [row(0), (110, 0, 200, 16), row(1), figure, row(4), row(5)])
    tree.read(plain(0, 1, 2, 4, 5))
    layout = tree.layout()
    assert layout.order == [0, 1, 3, 2, 4, 5]
    assert layout.lines == [[0, 1], [2], [4], [5]]
    assert layout.blocks == [[0, 1], [2, 3]]
    assert layout.quarters == {}
    # Detected, and nothing read.
    unread = RegionTree()
    told(unread, TEXT, [row(0)])
    assert (unread.layout().order, unread.layout().lines, unread.layout().blocks) == ([0], [], [])


def test_lines_inside_regions_come_in_the_order_of_the_regions() -> None:
    tree = RegionTree()
    told(tree, TEXT, [row(10), row(0)])
    told(tree, PLATES, [(10, 204, 40, 210), (10, 212, 40, 218)], [0, 0])
    told(tree, PLATES, [(10, 4, 40, 10)], [1])
    tree.read(plain(2, 3, 4))
    layout = tree.layout()
    assert layout.order == [1, 4, 0, 2, 3]
    assert layout.lines == [[4], [2], [3]]
    assert layout.blocks == [[0], [1, 2]]


@pytest.mark.parametrize("turned", [False, True], ids=["upright-boxes", "turned-boxes"])
@pytest.mark.parametrize("quarter", [0, 90, 180, 270])
def test_a_page_that_is_turned_is_read_as_its_text_runs(quarter: int, turned: bool) -> None:
    lines = [row(at) for at in range(6)]
    sides = {0: lines, 90: [(-y1, x0, -y0, x1) for x0, y0, x1, y1 in lines]}
    sides[180] = [(-x1, -y1, -x0, -y0) for x0, y0, x1, y1 in lines]
    sides[270] = [(y0, -x1, y1, -x0) for x0, y0, x1, y1 in lines]
    boxes = sides[quarter]
    found = {
        at: TurnedBox((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.0) for at, (x0, y0, x1, y1) in enumerate(boxes)
    }
    tree = RegionTree()
    placed = tree.place(TEXT, boxes, None, found if turned else {})
    tree.told(TEXT, placed.ids)
    tree.read(plain(*range(6), rotation=quarter))
    layout = tree.layout()
    assert layout.order == list(range(6))
    assert layout.lines == [[at] for at in range(6)]
    assert layout.quarters == ({0: quarter} if quarter else {})


def test_columns_of_ideographs_are_read_from_right_to_left_and_turn_no_page() -> None:
    tree = RegionTree()
    told(tree, TEXT, [(30.0 * at, 0.0, 30.0 * at + 20, 400.0) for at in range(5)])
    tree.read(dict.fromkeys(range(5), TextRun(90, leftwards=False, may_run_down=True)))
    layout = tree.layout()
    assert layout.order == [4, 3, 2, 1, 0]
    assert layout.quarters == {}


def test_what_is_known_of_text_comes_from_the_values() -> None:
    def value(region_id: int, text: str, rotation: int = 0) -> pipeline_pb2.Value:
        return pipeline_pb2.Value(region_id=region_id, text=value_pb2.Text(text=text, rotation_degrees=rotation))

    values = pipeline_pb2.Values(
        values=[
            value(3, "plain", 270),
            value(4, ""),
            value(5, "שלום 12"),
            value(6, "naïve"),
            value(7, "縦書きの文", 90),
            value(8, "横書きの文"),
            pipeline_pb2.Value(region_id=9),
        ]
    )
    found = convert.texts_of(values, RegionTree().region)
    assert found == {
        3: TextRun(270, leftwards=False, may_run_down=False),
        5: TextRun(0, leftwards=True, may_run_down=False),
        6: PLAIN_RUN,
        7: TextRun(90, leftwards=False, may_run_down=True),
        8: PLAIN_RUN,
    }
    assert found[6] is found[8] is PLAIN_RUN


def test_shapes_that_are_turned_are_known_as_such() -> None:
    def region(**shape: Any) -> pipeline_pb2.Region:
        return pipeline_pb2.Region(geometry=geometry_pb2.Geometry(**shape))

    def point(x: float, y: float) -> geometry_pb2.Point:
        return geometry_pb2.Point(x=x, y=y)

    corners = [point(50, 10), point(50, 90), point(30, 90), point(30, 10)]  # its upper edge runs down
    regions = pipeline_pb2.Regions(
        regions=[
            region(box=geometry_pb2.Box(x0=1, y0=2, x1=30, y1=40)),
            region(rotated_box=geometry_pb2.RotatedBox(center=point(50, 50), width=80, height=20, angle_degrees=90)),
            region(polygon=geometry_pb2.Polygon(points=corners)),
            region(polygon=geometry_pb2.Polygon(points=corners[:3])),
        ]
    )
    boxes, turned = convert.boxes_of(regions)
    assert boxes[0] == (1, 2, 30, 40)
    assert boxes[1] == pytest.approx((40, 10, 60, 90))
    assert boxes[2] == (30, 10, 50, 90)
    assert turned == {1: TurnedBox(50, 50, 80, 20, 90), 2: pytest.approx(TurnedBox(40, 50, 80, 20, 90))}


def test_a_page_that_is_turned_is_a_notice() -> None:
    notice = convert.page_turned(90)
    assert (notice.reason, dict(notice.metadata)) == ("PAGE_TURNED", {"degrees": "90"})
