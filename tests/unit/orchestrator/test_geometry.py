"""Homographies against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluiceway_orchestrator.convert import regions as convert
from sluiceway_orchestrator.geometry import IDENTITY, Matrix, apply, chain, is_upright

from sluiceway.common.v1 import geometry_pb2
from sluiceway.pipeline.v1 import pipeline_pb2

numbers = st.floats(-100, 100, allow_nan=False, width=32)
matrices = st.tuples(*[numbers] * 9)


@given(outer=matrices, inner=matrices, x=numbers, y=numbers)
def test_chain_and_apply_are_those_of_linear_algebra(outer: Matrix, inner: Matrix, x: float, y: float) -> None:
    expected = np.array(outer).reshape(3, 3) @ np.array(inner).reshape(3, 3)
    assert np.allclose(np.array(chain(outer, inner)).reshape(3, 3), expected)
    u, v, w = np.array(outer).reshape(3, 3) @ (x, y, 1.0)
    if abs(w) > 1e-3:
        assert np.allclose(apply(outer, x, y), (u / w, v / w))
    assert chain(IDENTITY, inner) == inner
    assert chain(outer, IDENTITY) == outer
    assert all(map(math.isfinite, apply(outer, x, y)))


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        (IDENTITY, True),
        ((0.5, 0, 3, 0, 2, -7, 0, 0, 1), True),
        ((0, -1, 0, 1, 0, 0, 0, 0, 1), False),
        ((-1, 0, 9, 0, 1, 0, 0, 0, 1), False),
        ((1, 0, 0, 0, -1, 9, 0, 0, 1), False),
        ((1, 0, 0, 0, 1, 0, 0.001, 0, 1), False),
    ],
)
def test_upright_boxes_stay_upright(matrix: Matrix, *, upright: bool) -> None:
    assert is_upright(matrix) is upright
    box = geometry_pb2.Geometry(box=geometry_pb2.Box(x0=1, y0=2, x1=5, y1=4))
    regions = pipeline_pb2.Regions(regions=[pipeline_pb2.Region(geometry=box, parent_id=7)])
    convert.to_page(regions, {7: matrix})
    shape = regions.regions[0].geometry
    corners = [(1, 2), (5, 2), (5, 4), (1, 4)]
    moved = [apply(matrix, x, y) for x, y in corners]
    if upright:
        assert (shape.box.x0, shape.box.y0, shape.box.x1, shape.box.y1) == pytest.approx((*moved[0], *moved[2]))
    else:
        assert [(point.x, point.y) for point in shape.polygon.points] == [pytest.approx(point) for point in moved]


def test_turned_boxes_and_polygons_are_moved_by_their_corners() -> None:
    turned = geometry_pb2.RotatedBox(center=geometry_pb2.Point(x=10, y=20), width=8, height=4, angle_degrees=30)
    geometry = geometry_pb2.Geometry(rotated_box=turned)
    regions = pipeline_pb2.Regions(regions=[pipeline_pb2.Region(geometry=geometry, parent_id=0)])
    convert.to_page(regions, {0: (2, 0, 5, 0, 2, 6, 0, 0, 1)})
    angle = math.radians(30)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = [turn @ corner * 2 + (25, 46) for corner in [(-4, -2), (4, -2), (4, 2), (-4, 2)]]
    points = [(point.x, point.y) for point in regions.regions[0].geometry.polygon.points]
    assert np.allclose(points, expected, atol=1e-4)
    convert.to_page(regions, {0: (1, 0, -25, 0, 1, -46, 0, 0, 1)})
    points = [(point.x, point.y) for point in regions.regions[0].geometry.polygon.points]
    assert np.allclose(points, [corner - (25, 46) for corner in expected], atol=1e-4)
