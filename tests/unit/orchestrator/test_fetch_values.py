"""What callers and APIs may hand on: values as JSON has them, and options for detection."""

from __future__ import annotations

import math
from collections import UserDict
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from sluiceway_orchestrator.fetch import DetectionChoice, Region
from sluiceway_orchestrator.fetch.values import MAX_DEPTH, MAX_VALUES_BYTES, checked_values

from sluiceway.pipeline.v1 import pipeline_pb2


def test_values_stay_what_they_are() -> None:
    given = {"a": "ä", "n": 1, "f": 0.5, "t": True, "none": None, "l": [1, {"x": []}], "m": {"": {}}}
    checked = checked_values(given)
    assert checked == given
    assert [type(value) for value in checked.values()] == [type(value) for value in given.values()]
    assert checked["l"] is not given["l"], "what the caller changes later changes nothing"
    assert checked_values(UserDict(a=(1, 2))) == {"a": [1, 2]}


def test_half_a_character_is_replaced_everywhere() -> None:
    assert checked_values({"\ud83d": ["a \ud83d\ude00 \ude00"]}) == {"\ufffd": ["a \U0001f600 \ufffd"]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, "NoneType, not a mapping"),
        ([("a", 1)], "list, not a mapping"),
        ({7: "seven"}, "name of a value is of type int"),
        ({"a": {None: 1}}, "name of a value is of type NoneType"),
        ({"a": b"bytes"}, "type bytes"),
        ({"a": {1, 2}}, "type set"),
        ({"a": object()}, "type object"),
        ({"a": math.nan}, "not finite"),
        ({"a": [math.inf]}, "not finite"),
        ({"a": 10**400}, "not finite"),
        ({"a": "x" * MAX_VALUES_BYTES}, "larger than"),
        ({"ä" * (MAX_VALUES_BYTES // 2): 1}, "larger than"),
        ({"a": [0] * (MAX_VALUES_BYTES // 8)}, "larger than"),
    ],
)
def test_what_json_does_not_have(values: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked_values(values)


def test_values_that_hold_themselves_end() -> None:
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    with pytest.raises(ValueError, match="nested"):
        checked_values(circle)


@pytest.mark.parametrize("wrap", [lambda value: {"a": value}, lambda value: [value]], ids=["mappings", "lists"])
def test_the_deepest_values_go_through_a_message_and_back(wrap: Any) -> None:
    value: Any = "deep"
    for _ in range(MAX_DEPTH - 1):
        value = wrap(value)
    struct = Struct()
    struct.update(checked_values({"a": value}))
    event = pipeline_pb2.ProcessResponse()
    event.values.values.add().data.CopyFrom(struct)
    assert pipeline_pb2.ProcessResponse.FromString(event.SerializeToString()) == event
    with pytest.raises(ValueError, match="nested"):
        checked_values({"a": wrap(wrap(value))})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"confidence": 1, "iou": 1e-9},
        {"classes": []},
        {"classes": ["a", "b"], "max_detections": 10_000, "image_size": 640},
        {"scale": "auto"},
        {"scale": 0.5},
    ],
)
def test_choices(fields: dict[str, Any]) -> None:
    choice = DetectionChoice(**fields)
    for name, value in fields.items():
        assert getattr(choice, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("confidence", value) for value in (0, 1.5, -1, True, "0.5", math.nan, [0.5])),
        *(("iou", value) for value in (0, 2, False, math.inf)),
        *(("classes", value) for value in ("car", [1], [""], {"car": 1}, [None], ["a"] * 10_001)),
        *(("max_detections", value) for value in (0, 10_001, True, 3.5, "3")),
        *(("image_size", value) for value in (0, 33, -32, True, 640.0, 2**17)),
        *(("scale", value) for value in ("large", 0, -1, 4.5, True, math.nan, [1])),
    ],
)
def test_choices_that_cannot_be(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        DetectionChoice(**{name: value})


def test_a_choice_travels_as_the_contract_has_it() -> None:
    assert DetectionChoice(scale=0.5, iou=0.5).chosen() == {"scale": "0.5", "iou": 0.5}


def test_a_later_choice_wins_field_by_field() -> None:
    earlier = DetectionChoice(confidence=0.1, classes=["a"], max_detections=5)
    later = DetectionChoice(confidence=0.2, image_size=64)
    assert later.over(earlier) == DetectionChoice(confidence=0.2, classes=("a",), max_detections=5, image_size=64)
    assert later.over(None) is later


def test_what_was_read_in_a_region() -> None:
    def region(**values: Any) -> Region:
        return Region(1, None, "found", 0, "line", 0.5, (0, 0, 1, 1), values)

    labels = [{"class_name": "cat", "confidence": 0.7}, {"class_name": "dog", "confidence": 0.2}]
    read = region(broken={"error": {"reason": "X"}}, kind={"labels": labels}, words={"text": "AB 1", "confidence": 0.9})
    assert (read.text, read.label) == ("AB 1", "cat")
    assert (region().text, region().label) == ("", "")
    assert (region(api={"text": 5}).text, region(kind={"labels": []}).label) == ("", "")
    for labels in ("cat", ["cat"], [{}], {"0": 1}, 5, None):
        assert region(api={"labels": labels}).label == ""
