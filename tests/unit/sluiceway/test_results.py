"""Results as plain data, and pictures of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from sluiceway import errors
from sluiceway.client import (
    ApiCall,
    Block,
    Box,
    JobDone,
    Label,
    Line,
    Model,
    Notice,
    Page,
    Reading,
    Region,
    Regions,
    Result,
    SourceDone,
    StageTimings,
    StepReport,
    Timings,
    Values,
    draw,
)
from sluiceway.client.assembly import Assembly
from sluiceway.client.convert import from_response
from sluiceway.client.sources import load_source
from sluiceway.common.v1 import geometry_pb2, value_pb2
from sluiceway.pipeline.v1 import pipeline_pb2


def region(number: int, box: tuple[float, float, float, float], *readings: Reading, **place: Any) -> Region:
    return Region(number, Box(*box), "textline", 0, 0.87654321, Box(*box).corners, readings, **{"step": "text"} | place)


def result_of(width: int, height: int, *regions: Region) -> Result:
    return Result("a", (Page(width, height),), regions)


def test_json_is_the_documented_object() -> None:
    timings = Timings(1.0, {"text": StageTimings(total_ms=20.123456), "words": StageTimings(total_ms=5)}, 30)
    regions = (
        region(1, (1, 2, 30.123, 14), Reading("tiny", "Köln 北京", 0.98765)),
        region(0, (5, 20, 30, 40)),
    )
    result = Result(
        "a.jpg", (Page(100, 50),), regions, timings, (StepReport("words", models=(Model("tiny", "1", "ab"),)),)
    )
    line = result.to_json()
    assert "\n" not in line
    assert "Köln 北京" in line
    assert json.loads(line) == {
        "source": "a.jpg",
        "status": "ok",
        "width": 100,
        "height": 50,
        "regions": [
            {
                "id": 1,
                "parent": None,
                "step": "text",
                "box": [1, 2, 30.12, 14],
                "class": "textline",
                "confidence": 0.8765,
                "text": "Köln 北京",
                "text_confidence": 0.9877,
            },
            {
                "id": 0,
                "parent": None,
                "step": "text",
                "box": [5, 20, 30, 40],
                "class": "textline",
                "confidence": 0.8765,
                "text": None,
                "text_confidence": None,
            },
        ],
        "models": [{"name": "tiny", "version": "1", "weights_sha256": "ab"}],
        "timings_ms": {
            "fetch": 1.0,
            "text_queue": 0,
            "text_compute": 0,
            "text": 20.123,
            "words_queue": 0,
            "words_compute": 0,
            "words": 5,
            "total": 30,
        },
    }


def test_json_of_a_tree() -> None:
    """What is special has keys of its own, and only where it is."""
    pages = (Page(100, 50), Page(10, 5, 1, 90))
    turned = ((1, 0), (2, 1), (1, 2), (0, 1))
    failed = Reading("", error=errors.UpstreamFailed("gone"), step="owner")
    regions = (
        region(4, (0, 0, 50, 50), step="vehicles"),
        Region(2, Box(0, 0, 2, 2), "plate", 0, 0.5, turned, (Reading("", step="owner", data={"id": 7}),), "plates", 4),
        region(9, (0, 0, 5, 5), failed, page=1),
    )
    result = Result(
        "a.pdf", pages, regions, values={"book": {"id": 1}}, value_errors={"mail": errors.UpstreamFailed("gone")},
        lines=(Line((4, 9), 1),), blocks=(Block((0,), 1),), notices=(Notice("IMAGE_SCALED", "scaled", {"by": "2"}, 1),),
    )  # fmt: skip
    plain = json.loads(result.to_json())
    assert [(item["id"], item["parent"], item["step"], item["page"]) for item in plain["regions"]] == [
        (4, None, "vehicles", 0),
        (2, 4, "plates", 0),
        (9, None, "text", 1),
    ]
    assert [item.get("outline") for item in plain["regions"]] == [None, [[1, 0], [2, 1], [1, 2], [0, 1]], None]
    assert [item.get("values") for item in plain["regions"]] == [None, {"owner": {"id": 7}}, None]
    assert plain["regions"][2]["error"]["reason"] == "UPSTREAM_FAILED"
    assert (plain["values"], plain["value_errors"]["mail"]["message"]) == ({"book": {"id": 1}}, "gone")
    assert plain["pages"][1] == {"index": 1, "width": 10, "height": 5, "rotation": 90}
    assert (plain["lines"], plain["blocks"]) == (
        [{"regions": [4, 9], "text": "", "page": 1}],
        [{"lines": [0], "page": 1}],
    )
    assert plain["notices"] == [{"reason": "IMAGE_SCALED", "message": "scaled", "metadata": {"by": "2"}, "page": 1}]


def test_text_has_lines_and_paragraphs() -> None:
    words = ("Of", "lines", "and", "paragraphs", "", "Next")
    regions = [region(at, (at, 0, at + 1, 1), Reading("tiny", word)) for at, word in enumerate(words)]
    result = Result(
        "a", (Page(10, 10),), tuple(regions), lines=(Line((0, 1)), Line((2, 3, 4)), Line((5, 99))),
        blocks=(Block((0, 1)), Block((2,))),
    )  # fmt: skip
    assert result.line_texts == ["Of lines", "and paragraphs", "Next"]
    assert result.text == "Of lines\nand paragraphs\n\nNext"
    assert [line["text"] for line in result.to_dict()["lines"]] == result.line_texts
    # A server that knows no lines, or nothing that was read.
    assert result_of(10, 10, *regions).text == "Of\nlines\nand\nparagraphs\nNext"


def test_words_lie_on_the_page() -> None:
    turned = geometry_pb2.RotatedBox(center=geometry_pb2.Point(x=50, y=20), width=40, height=10, angle_degrees=90)
    text = value_pb2.Text(text="two words unplaced", confidence=0.9, rotation_degrees=180)
    text.words.add(text="two", confidence=0.5).geometry.box.x1 = 30
    text.words.add(text="words", confidence=0.75).geometry.rotated_box.CopyFrom(turned)
    text.words.add(text="unplaced", confidence=0.75)
    values = pipeline_pb2.Values(step="words", values=[pipeline_pb2.Value(region_id=0, text=text)])
    event = from_response(pipeline_pb2.ProcessResponse(source_id="0", values=values), ["a"])
    assert isinstance(event, Values)
    read = region(0, (0, 0, 90, 40), event.readings[0])
    assert [(word.text, word.confidence) for word in read.words] == [("two", 0.5), ("words", 0.75)]
    assert read.words[0].box == (0, 0, 30, 0)
    assert read.words[1].box == pytest.approx((45, 0, 55, 40))
    assert read.words[1].outline[0] == pytest.approx((55, 0))
    assert read.readings[0].rotation == 180
    assert read.to_dict()["words"][0] == {"text": "two", "confidence": 0.5, "box": [0, 0, 30, 0]}


def test_json_says_how_text_is_turned() -> None:
    turned = region(0, (0, 0, 10, 90), Reading("tiny", "up", rotation=270))
    assert turned.to_dict()["text_rotation"] == 270
    assert "text_rotation" not in region(0, (0, 0, 90, 10), Reading("tiny", "plain")).to_dict()


def test_json_of_a_failure() -> None:
    result = Result("a.jpg", error=errors.ImageTooLarge("too many pixels"))
    assert json.loads(result.to_json()) == {
        "source": "a.jpg",
        "status": "failed",
        "error": {"code": "INVALID_ARGUMENT", "reason": "IMAGE_TOO_LARGE", "message": "too many pixels"},
    }


def test_other_heads_show_only_where_they_answered() -> None:
    classified = region(0, (0, 0, 1, 1), Reading("breeds", labels=(Label(3, "poodle", 0.5),)))
    failed = region(0, (0, 0, 1, 1), Reading("tiny", error=errors.ServerFault("boom", reason="MODEL_FAILED")))
    assert classified.to_dict()["labels"] == [{"class": "poodle", "confidence": 0.5}]
    assert failed.to_dict()["error"]["reason"] == "MODEL_FAILED"
    assert (classified.text, failed.text) == (None, None)


def test_regions_missing_from_the_order_still_come() -> None:
    assembly = Assembly("a")
    assembly.add(Regions("a", "text", Page(9, 9), (region(0, (0, 0, 1, 1)), region(1, (2, 2, 3, 3))), ()))
    assembly.add(SourceDone("a", (1,), Timings()))
    assert [item.id for item in assembly.result().regions] == [1, 0]


def test_a_job_that_ends_without_its_source_is_a_fault() -> None:
    assembly = Assembly("a")
    assembly.add(JobDone(0, 0))
    with pytest.raises(errors.ServerFault):
        assembly.result().raise_for_error()


def test_arrays_are_bgr_unless_said_otherwise() -> None:
    array = np.zeros((2, 3, 3), np.uint8)
    array[..., 0] = 255
    for channels, expected in (("bgr", (0, 0, 255)), ("rgb", (255, 0, 0))):
        loaded = load_source(array, channels=channels)  # type: ignore[arg-type]
        assert loaded.image is not None
        assert Image.open(io.BytesIO(loaded.image)).getpixel((0, 0)) == expected
        assert loaded.name == "array 2x3x3"


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8)])
def test_arrays_that_are_no_pictures(array: np.ndarray) -> None:
    with pytest.raises(errors.InvalidImage, match="an array must be uint8"):
        load_source(array)


def test_gray_arrays_survive() -> None:
    loaded = load_source(np.full((2, 2), 77, np.uint8))
    assert loaded.image is not None
    assert Image.open(io.BytesIO(loaded.image)).getpixel((1, 1)) == 77


def test_pillow_orientation_is_applied() -> None:
    picture = Image.new("RGB", (4, 2))
    picture.getexif()[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=picture.getexif())
    loaded = load_source(Image.open(buffer))
    assert loaded.image is not None
    assert Image.open(io.BytesIO(loaded.image)).size == (2, 4)


@pytest.mark.parametrize("text", ["api:", "api:?a=b"])
def test_api_calls_need_a_name(text: str) -> None:
    with pytest.raises(errors.InvalidInput, match="api:NAME"):
        load_source(text)


def test_api_calls_print_as_they_are_typed() -> None:
    assert str(ApiCall.parse("api:shop?id=7&size=l")) == "api:shop?id=7&size=l"


def test_something_else_is_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="cannot process a int"):
        load_source(7)  # type: ignore[arg-type]


def test_overlay_draws_boxes_and_labels_and_leaves_the_original(tmp_path: Path) -> None:
    original = Image.new("RGB", (1600, 900), (200, 200, 200))
    result = result_of(1600, 900, region(0, (400, 300, 700, 360), Reading("tiny", "Hello", 0.9)))
    drawn = draw(original, result)
    assert drawn.size == (1600, 900)
    assert drawn.getpixel((400, 330)) != (200, 200, 200)
    assert drawn.getpixel((405, 290)) != (200, 200, 200), "the label stands above the box"
    assert drawn.getpixel((100, 100)) == (200, 200, 200)
    assert original.getpixel((400, 330)) == (200, 200, 200)


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    drawn = draw(Image.new("RGB", (384, 191)), result_of(384, 191, region(0, (10, 20, 30, 40))))
    assert drawn.size == (384 * 4, 191 * 4)


def test_dense_pages_get_their_text_beside_them() -> None:
    regions = tuple(
        region(index, (10, 20 * index, 200, 20 * index + 15), Reading("tiny", f"line {index}", 0.9))
        for index in range(30)
    )
    drawn = draw(Image.new("RGB", (1400, 700), "white"), result_of(1400, 700, *regions))
    assert drawn.width > 2 * 1400
    assert drawn.height == 700


def test_a_label_at_the_edge_stays_inside() -> None:
    result = result_of(1500, 100, region(0, (1490, 0, 1500, 8), Reading("tiny", "a long label", 0.9)))
    drawn = draw(Image.new("RGB", (1500, 100)), result)
    assert drawn.getpixel((1400, 12)) != (0, 0, 0)


def outline_colour(result: Result, item: Region, page: int = 0) -> object:
    drawn = draw(Image.new("RGB", (1600, 900), "white"), result, page=page)
    return drawn.getpixel((int(item.box.x0), int(item.box.y1) - 20))


def test_steps_have_colours_of_their_own_where_there_are_several() -> None:
    car, plate = region(0, (400, 300, 900, 700), step="vehicles"), region(1, (500, 400, 600, 500), parent_id=0)
    nested = result_of(1600, 900, car, plate)
    assert outline_colour(nested, car) != outline_colour(nested, plate)
    alone = result_of(1600, 900, car)
    assert outline_colour(alone, car) == outline_colour(nested, car)


def test_only_the_regions_of_one_page_are_drawn() -> None:
    here, there = region(0, (400, 300, 900, 700)), region(1, (1000, 300, 1200, 700), page=1)
    result = Result("a", (Page(1600, 900), Page(1600, 900, 1)), (here, there))
    white = (255, 255, 255)
    assert (outline_colour(result, here) == white, outline_colour(result, there) == white) == (False, True)
    assert (outline_colour(result, here, 1) == white, outline_colour(result, there, 1) == white) == (True, False)


class CountedOrder(tuple[int, ...]):
    """Counts how often it is gone through."""

    __slots__ = ()
    passes: ClassVar[int] = 0

    def __iter__(self) -> Iterator[int]:
        CountedOrder.passes += 1
        return super().__iter__()


def test_the_order_is_gone_through_as_often_for_many_regions_as_for_few() -> None:
    assembly = Assembly("a")
    regions = tuple(region(number, (0, 0, 1, 1)) for number in range(100))
    assembly.add(Regions("a", "text", Page(9, 9), regions, ()))
    assembly.add(SourceDone("a", CountedOrder(range(100)), Timings()))
    assert len(assembly.result().regions) == 100
    assert CountedOrder.passes < 5


# The default of `max_image_bytes`: what a server takes unless told otherwise.
DEFAULT_MAX_IMAGE_BYTES = 32 * 2**20


@pytest.mark.parametrize("in_memory", [np.asarray, Image.fromarray])
def test_a_photograph_of_twelve_megapixels_fits_and_loses_nothing(in_memory: Callable[[np.ndarray], Any]) -> None:
    across, down = np.meshgrid(np.arange(4000), np.arange(3000))
    photograph = np.stack([across // 16, down // 12, (across + down) // 28], axis=-1).astype(np.uint8)
    loaded = load_source(in_memory(photograph), channels="rgb")
    assert loaded.image is not None
    assert len(loaded.image) < DEFAULT_MAX_IMAGE_BYTES
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(loaded.image))), photograph)


def test_ordinary_pictures_travel_as_bmp() -> None:
    loaded = load_source(np.zeros((2000, 3000, 3), np.uint8))
    assert loaded.image is not None
    assert loaded.image.startswith(b"BM")


def test_sixteen_bits_a_pixel_stay_sixteen() -> None:
    """As a scanner writes them; cut to eight, everything above 255 would be white."""
    values = np.linspace(0, 65535, 12, dtype=np.uint16).reshape(3, 4)
    loaded = load_source(Image.fromarray(values))
    assert loaded.image is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(loaded.image))), values)


@pytest.mark.parametrize("mode", ["I", "F", "I;16B"])
def test_pictures_whose_range_is_not_known(mode: str) -> None:
    with pytest.raises(errors.InvalidImage, match="scale it to 255"):
        load_source(Image.new(mode, (4, 4)))


def test_pictures_that_have_no_pixels() -> None:
    closed = Image.new("RGB", (4, 4))
    closed.close()
    for picture in (closed, Image.new("RGB", (0, 4))):
        with pytest.raises(errors.InvalidImage, match="cannot read the picture"):
            load_source(picture)
