"""Regions and values of stages as those of a source: their ids, their parents, and pixels of the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import atan2, cos, degrees, hypot, radians, sin
from typing import Any

from google.protobuf import json_format

from sluiceway.common.v1 import geometry_pb2, notice_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway_orchestrator import geometry as geo
from sluiceway_orchestrator.convert.words import place_words
from sluiceway_orchestrator.events import PLAIN_RUN, TextRun
from sluiceway_orchestrator.geometry import Box, Matrix, TurnedBox

__all__ = [
    "boxes_of",
    "data_value",
    "keep",
    "number_values",
    "page_turned",
    "text_values",
    "place",
    "plain_value",
    "texts_of",
    "to_page",
]

_CORNERS_OF_A_QUAD = range(4)
# Hebrew, Arabic, Syriac, Thaana, N'Ko and what belongs to them: letters that run from right to left.
_LEFTWARDS = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
# What may run down a page without being turned: Chinese characters and kana.
_IDEOGRAPHS = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def boxes_of(regions: pipeline_pb2.Regions) -> tuple[list[Box], dict[int, TurnedBox]]:
    """Upright boxes around the regions, and by position those that are not upright themselves."""
    turned: dict[int, TurnedBox] = {}
    return [_upright(region.geometry, at, turned) for at, region in enumerate(regions.regions)], turned


def texts_of(values: pipeline_pb2.Values, region: Callable[[int], TurnedBox]) -> dict[int, TextRun]:
    """By region in which text was read, how it runs. Words that lie in their crop lie on the page from now on.

    Args:
        values: of one answer, with the ids of the source.
        region: that has an id.
    """
    found: dict[int, TextRun] = {}
    for value in values.values:
        # An empty message, which costs less than to ask whether there is one.
        message = value.text
        text = message.text
        if text:
            if message.words:
                place_words(message, region(value.region_id))
            rotation = message.rotation_degrees
            if rotation or not text.isascii():
                leftwards = 2 * len(_LEFTWARDS.findall(text)) > len(text)
                runs_down = bool(rotation) and 2 * len(_IDEOGRAPHS.findall(text)) > len(text)
                run = TextRun(rotation, leftwards, runs_down)
                found[value.region_id] = run if run != PLAIN_RUN else PLAIN_RUN
            else:
                found[value.region_id] = PLAIN_RUN
    return found


def page_turned(quarter: int, page: int = 0) -> notice_pb2.Notice:
    """Says that the text of a page runs otherwise than from left to right."""
    return notice_pb2.Notice(
        reason="PAGE_TURNED",
        message=f"the page is turned by {quarter} degrees clockwise, and was read so",
        metadata={"degrees": str(quarter)},
        page=page,
    )


def place(regions: pipeline_pb2.Regions, ids: Sequence[int], parents: Mapping[int, int] | None) -> None:
    """Give regions the ids of the source in place of the stage's own.

    Args:
        regions: of one answer.
        ids: in its order.
        parents: id of a crop to that of the region that it shows; None for regions of the page.
    """
    if parents is None and ids == range(len(ids)):
        # As the stage numbers them.
        return
    for region, region_id in zip(regions.regions, ids, strict=True):
        region.id = region_id
        if parents is not None:
            region.parent_id = parents[region.parent_id]


def to_page(regions: pipeline_pb2.Regions, matrices: Mapping[int, Matrix]) -> None:
    """Take regions from the pixels of their crops to those of the page.

    Args:
        regions: of one answer, with the ids of the stage.
        matrices: id of a crop to its homography.
    """
    for region in regions.regions:
        matrix = matrices[region.parent_id]
        _move(region.geometry, matrix)
        for point in region.keypoints:
            point.x, point.y = geo.apply(matrix, point.x, point.y)


def keep(regions: pipeline_pb2.Regions, wanted: Sequence[bool]) -> pipeline_pb2.Regions:
    """Those that are wanted alone."""
    kept = [region for region, yes in zip(regions.regions, wanted, strict=True) if yes]
    return pipeline_pb2.Regions(regions=kept)


def number_values(values: pipeline_pb2.Values, ids: Sequence[int]) -> None:
    """Give values the ids of the source: position in `ids` is the id of the crop."""
    for value in values.values:
        value.region_id = ids[value.region_id]


def plain_value(value: Any) -> Any:
    """A value as plain data, for callers of APIs."""
    match value.WhichOneof("result"):
        case "text":
            return {"text": value.text.text, "confidence": value.text.confidence}
        case "classification":
            labels = value.classification.labels
            return {"labels": [{"class_name": item.class_name, "confidence": item.confidence} for item in labels]}
        case "embedding":
            return {"embedding": list(value.embedding.values)}
        case "data":
            return json_format.MessageToDict(value.data)
        case "error":
            return {"error": {"reason": value.error.reason, "message": value.error.message}}
    return {}


def data_value(region_id: int, data: Mapping[str, Any]) -> pipeline_pb2.Values:
    """What an API said, of a region or of the source."""
    values = pipeline_pb2.Values()
    value = values.values.add(region_id=region_id)
    value.data.update(data)
    return values


def text_values(texts: Mapping[int, Any]) -> pipeline_pb2.Values:
    """`Text` messages by region, as values."""
    return pipeline_pb2.Values(values=[pipeline_pb2.Value(region_id=key, text=text) for key, text in texts.items()])


def _upright(geometry: geometry_pb2.Geometry, at: int, turned: dict[int, TurnedBox]) -> Box:
    """The upright box around a shape; an empty one for a kind that this release does not know.

    A shape that is turned is added to `turned`.
    """
    kind = geometry.WhichOneof("shape")
    if kind == "box":
        box = geometry.box
        return box.x0, box.y0, box.x1, box.y1
    if kind == "polygon" and geometry.polygon.points:
        xs = [point.x for point in geometry.polygon.points]
        ys = [point.y for point in geometry.polygon.points]
        if len(xs) == len(_CORNERS_OF_A_QUAD):
            turned[at] = _quad(xs, ys)
        return min(xs), min(ys), max(xs), max(ys)
    if kind == "rotated_box":
        box_turned = geometry.rotated_box
        angle = radians(box_turned.angle_degrees)
        across, down = abs(cos(angle)), abs(sin(angle))
        half_width = (box_turned.width * across + box_turned.height * down) / 2
        half_height = (box_turned.width * down + box_turned.height * across) / 2
        x, y = box_turned.center.x, box_turned.center.y
        turned[at] = TurnedBox(x, y, box_turned.width, box_turned.height, box_turned.angle_degrees)
        return x - half_width, y - half_height, x + half_width, y + half_height
    return 0.0, 0.0, 0.0, 0.0


def _quad(xs: Sequence[float], ys: Sequence[float]) -> TurnedBox:
    """The turned box that four corners are, more or less: the first two are the ends of its upper edge."""
    width = max(hypot(xs[1] - xs[0], ys[1] - ys[0]), hypot(xs[2] - xs[3], ys[2] - ys[3]))
    height = max(hypot(xs[3] - xs[0], ys[3] - ys[0]), hypot(xs[2] - xs[1], ys[2] - ys[1]))
    angle = atan2(ys[1] - ys[0] + ys[2] - ys[3], xs[1] - xs[0] + xs[2] - xs[3])
    return TurnedBox(sum(xs) / 4, sum(ys) / 4, width, height, degrees(angle))


def _move(geometry: geometry_pb2.Geometry, matrix: Matrix) -> None:
    """Move a shape; where an upright box would not stay one it becomes a polygon of its corners."""
    kind = geometry.WhichOneof("shape")
    if kind == "box" and geo.is_upright(matrix):
        box = geometry.box
        box.x0, box.y0 = geo.apply(matrix, box.x0, box.y0)
        box.x1, box.y1 = geo.apply(matrix, box.x1, box.y1)
    elif kind is not None:
        points = [geo.apply(matrix, x, y) for x, y in _CORNERS[kind](geometry)]
        geometry.polygon.points.clear()
        for x, y in points:
            geometry.polygon.points.add(x=x, y=y)


def _box_corners(geometry: geometry_pb2.Geometry) -> list[tuple[float, float]]:
    box = geometry.box
    return [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]


def _turned_corners(geometry: geometry_pb2.Geometry) -> list[tuple[float, float]]:
    turned = geometry.rotated_box
    angle = radians(turned.angle_degrees)
    along = (cos(angle) * turned.width / 2, sin(angle) * turned.width / 2)
    down = (-sin(angle) * turned.height / 2, cos(angle) * turned.height / 2)
    x, y = turned.center.x, turned.center.y
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [(x + a * along[0] + d * down[0], y + a * along[1] + d * down[1]) for a, d in signs]


def _polygon_corners(geometry: geometry_pb2.Geometry) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in geometry.polygon.points]


_CORNERS: Mapping[str, Callable[[geometry_pb2.Geometry], list[tuple[float, float]]]] = {
    "box": _box_corners,
    "rotated_box": _turned_corners,
    "polygon": _polygon_corners,
}
