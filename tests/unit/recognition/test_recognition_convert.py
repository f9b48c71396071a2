"""What is checked of a request, and what a server says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sluiceway_recognition.front.convert import (
    RawCrop,
    check_crops,
    model_description,
    pixel_format_of,
    priority_of,
    request_of,
    top_k_of,
)
from sluiceway_recognition.front.group import group_of
from sluiceway_recognition.types import CropSpec, Head, ModelFacts, PixelFormat, ResizeRule
from sluiceway_runtime.errors import InvalidImage, InvalidOption, UnknownModel

from sluiceway.common.v1 import crop_pb2
from sluiceway.recognition.v1 import recognition_pb2 as pb


def checked(model: str = "", *specs: str, ids: range | list[int] = range(99)) -> str:
    crops = [crop_pb2.Crop(id=number, spec=spec) for number, spec in zip(ids, specs, strict=False)]
    request = pb.RecognizeRequest(options=pb.RecognizeOptions(model=model), crops=crops)
    return check_crops(request_of(request), ["a", "b"], 16)


def test_the_options_alone_choose_the_model() -> None:
    assert [checked(), checked("b"), checked("", "b", "c"), checked("b", "a", "", "a")] == ["a", "b", "a", "b"]


def test_crops_have_distinct_ids_from_0_and_are_not_too_many() -> None:
    assert checked("", *[""] * 3, ids=[0, 2**31 - 1, 5]) == "a"
    for ids in ([1, 2, 1], [0, 1, -1], [-(2**31), 0, 1]):
        with pytest.raises(InvalidOption, match="distinct ids of 0 or greater"):
            checked("", *[""] * 3, ids=ids)
    with pytest.raises(InvalidOption, match="17 crops"):
        checked("", *[""] * 17)


@pytest.mark.parametrize("number", [-1, -(2**31)])
def test_negative_numbers_are_refused(number: int) -> None:
    good = {"height": 1, "width": 1, "format": crop_pb2.PIXEL_FORMAT_GRAY, "data": b"x"}
    for key in ("height", "width", "format"):
        message = crop_pb2.Crop(raw=crop_pb2.RawImage(**{**good, key: number}))
        (crop,) = request_of(pb.RecognizeRequest(crops=[message])).crops
        assert isinstance(crop, RawCrop)
        with pytest.raises(InvalidImage):
            pixel_format_of(crop, max_px=100)
    with pytest.raises(InvalidOption, match="top_k"):
        top_k_of(pb.RecognizeOptions(top_k=number))
    with pytest.raises(InvalidOption, match="priority"):
        priority_of(number)


def facts(**changes: object) -> ModelFacts:
    sound = ModelFacts("m", "1", "f" * 64, Head.TEXT, CropSpec(48, 320), (64, 320), (), 0, "openvino", "f32", "cpu")
    return replace(sound, **changes)


def test_a_crop_spec_is_named_after_its_model() -> None:
    spec = model_description(facts()).crop_spec
    assert (spec.name, spec.height, spec.max_width) == ("m", 48, 320)


def test_replicas_that_answer_alike_are_of_one_group_and_others_are_not() -> None:
    group = group_of([facts()])
    # The same in every process and release: a group goes over the wire.
    assert group == "e5e79d0624588586"
    # Another device rounds differently and answers the same.
    assert group_of([facts(backend="torch", precision="f16", device="cuda:0", buckets=(), version="2")]) == group
    own = facts(weights_sha256="", backend="user")
    others = [
        [],
        [facts(name="n")],
        [facts(weights_sha256="e" * 64)],
        [facts(head=Head.CLASSIFY)],
        [facts(labels=("a", "b"))],
        [facts(labels=("a,b",))],
        [facts(crop_spec=CropSpec(32, 320))],
        [facts(crop_spec=CropSpec(48, 321))],
        [facts(crop_spec=CropSpec(48, 320, turn_ratio=1.5))],
        [facts(crop_spec=CropSpec(48, 320, PixelFormat.RGB))],
        [facts(crop_spec=CropSpec(48, 320, resize_rule=ResizeRule.STRETCH))],
        [facts(crop_spec=CropSpec(48, 320, classes=("car",)))],
        [facts(upright="ppocr-cls")],
        [facts(reading="abc//")],
        [facts(), facts(name="n")],
        [facts(name="n"), facts()],  # another default
        [own],
        [replace(own, version="2")],
    ]
    assert len({group, *map(group_of, others)}) == len(others) + 1


def test_an_unknown_model_is_named_but_not_at_any_length() -> None:
    with pytest.raises(UnknownModel, match="no model c is served") as caught:
        checked("c")
    assert caught.value.metadata == {"model": "c", "models": "a, b"}
    # It travels in the trailers of the call, of which gRPC takes some kilobytes.
    with pytest.raises(UnknownModel, match="no model ccc") as caught:
        checked("c" * 2**20)
    assert len(str(caught.value)) + len(str(caught.value.metadata)) < 500
