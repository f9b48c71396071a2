"""Reading what a model says of itself."""

import pytest
from sluiceway_detection.model_card import read_card
from sluiceway_runtime.errors import StartupError

ULTRALYTICS = {"task": "detect", "names": "{0: 'cat', 1: 'dog'}", "stride": "32", "imgsz": "[480, 640]"}
DYNAMIC = [None, 3, None, None]


def test_a_dynamic_classic_model() -> None:
    card = read_card(ULTRALYTICS, DYNAMIC, [[None, 6, None]], name="m")
    assert card.classes == ("cat", "dog")
    assert not card.end_to_end
    assert card.native_shape == (480, 640)
    assert not card.fixed_shape
    assert read_card(ULTRALYTICS, DYNAMIC, [[None, None, None]], name="m").classes == ("cat", "dog")


def test_a_fixed_model_goes_by_its_dimensions() -> None:
    card = read_card(ULTRALYTICS, [1, 3, 320, 256], [[1, 6, 1680]], name="m")
    assert (card.native_shape, card.fixed_shape) == ((320, 256), True)


@pytest.mark.parametrize(
    ("metadata", "output"),
    [({"end2end": "True"}, [1, 300, 6]), ({}, [1, 300, 6]), ({"end2end": "True"}, [None, None, None])],
)
def test_nms_free_heads_are_known_by_word_or_shape(metadata: dict[str, str], output: list[int | None]) -> None:
    assert read_card(ULTRALYTICS | metadata, DYNAMIC, [output], name="m").end_to_end


def test_without_names_classes_are_numbered() -> None:
    assert read_card({}, DYNAMIC, [[1, 7, 8400]], name="m").classes == ("class0", "class1", "class2")


def test_names_may_have_gaps_and_any_order() -> None:
    metadata = ULTRALYTICS | {"names": "{2: 'c', 0: 'a'}"}
    assert read_card(metadata, DYNAMIC, [[1, 7, 8400]], name="m").classes == ("a", "class1", "c")


@pytest.mark.parametrize(
    ("metadata", "inputs", "outputs", "message"),
    [
        ({"task": "segment"}, DYNAMIC, [[1, 38, 8400], [1, 32, 160, 160]], "'segment' is not served"),
        ({"task": "pose"}, DYNAMIC, [[1, 56, 8400]], "'pose' is not served"),
        ({"task": "obb"}, DYNAMIC, [[1, 20, 8400]], "'obb' is not served"),
        ({"task": "classify"}, DYNAMIC, [[1, 1000]], "'classify' is not served"),
        ({"task": "detect", "head": "RTDETRDecoder"}, DYNAMIC, [[1, 300, 6]], "RT-DETR"),
        (ULTRALYTICS, DYNAMIC, [[1, 9, 8400]], "2 classes need 6"),
        (ULTRALYTICS, DYNAMIC, [[1, 6, 8400], [1, 32, 160, 160]], "outputs have dimensions"),
        (ULTRALYTICS, [1, 1, 640, 640], [[1, 6, 8400]], "expected batch, 3"),
        (ULTRALYTICS, [1, 3, 640], [[1, 6, 8400]], "expected batch, 3"),
        ({"names": "__import__('os')"}, DYNAMIC, [[1, 6, 8400]], "cannot be read"),
        ({"names": "{'cat': 0, 'dog': 1}"}, DYNAMIC, [[1, 6, 8400]], "each class by its number, not by 'cat'"),
        ({"names": "{0: 'cat', 1000000000: 'dog'}"}, DYNAMIC, [[1, 6, 8400]], "by its number"),
        ({"names": "{-1: 'cat', 0: 'dog'}"}, DYNAMIC, [[1, 6, 8400]], "by its number, not by -1"),
        (ULTRALYTICS | {"imgsz": "['a', 640]"}, DYNAMIC, [[1, 6, 8400]], "'imgsz' must be height and width"),
        (ULTRALYTICS | {"imgsz": "[0, 640]"}, DYNAMIC, [[1, 6, 8400]], "'imgsz' must be height and width"),
        ({"end2end": "True"}, DYNAMIC, [[1, 300, 6]], "names no classes"),
        (ULTRALYTICS | {"end2end": "True"}, DYNAMIC, [[1, 300, 38]], "rows of 6"),
        ({}, DYNAMIC, [[1, 4, 8400]], "0 classes"),
    ],
)
def test_what_is_not_served_is_refused(
    metadata: dict[str, str], inputs: list[int | None], outputs: list[list[int | None]], message: str
) -> None:
    with pytest.raises(StartupError, match=message):
        read_card(metadata, inputs, outputs, name="m")


def test_a_model_may_say_which_thresholds_suit_it() -> None:
    said = read_card(ULTRALYTICS | {"confidence": "0.3", "iou": "0.5"}, DYNAMIC, [[None, 6, None]], name="m")
    assert (said.confidence, said.iou) == (0.3, 0.5)
    silent = read_card(ULTRALYTICS, DYNAMIC, [[None, 6, None]], name="m")
    assert (silent.confidence, silent.iou) == (None, None)


@pytest.mark.parametrize("value", ["0", "1.5", "'high'", "[0.3]", "0.3.1"])
def test_thresholds_that_make_no_sense_are_refused(value: str) -> None:
    with pytest.raises(StartupError, match="confidence"):
        read_card(ULTRALYTICS | {"confidence": value}, DYNAMIC, [[None, 6, None]], name="m")
