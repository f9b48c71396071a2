"""Reading what a model says of itself."""

import pytest
from sluiceway_detection.models.card import ModelCard, read_card
from sluiceway_detection.models.thresholds import Thresholds
from sluiceway_detection.yolo.heads import Head
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
        ({"task": "semantic"}, DYNAMIC, [[1, 19, 160, 160]], "'semantic' is not served"),
        ({"task": "classify"}, DYNAMIC, [[1, 1000]], "a recognition stage serves it"),
        ({"task": "obb"}, DYNAMIC, [[1, 20, 8400]], "names no classes"),
        (ULTRALYTICS | {"task": "obb"}, DYNAMIC, [[1, 6, 8400]], "'obb' with 2 classes has 7"),
        (ULTRALYTICS | {"task": "segment"}, DYNAMIC, [[1, 38, 8400]], "a second output of masks"),
        (ULTRALYTICS | {"task": "segment"}, DYNAMIC, [[1, 37, 8400], [1, 32, 160, 160]], "with 2 classes has 38"),
        (ULTRALYTICS | {"task": "pose"}, DYNAMIC, [[1, 57, 8400]], "'kpt_shape' must be"),
        (ULTRALYTICS | {"task": "pose", "kpt_shape": "[17, 4]"}, DYNAMIC, [[1, 57, 8400]], "'kpt_shape' must be"),
        (ULTRALYTICS | {"task": "pose", "kpt_shape": "[5, 3]"}, DYNAMIC, [[1, 20, 8400]], "with 2 classes has 21"),
        ({"head": "RTDETRDecoder"}, DYNAMIC, [[1, 300, 6]], "not the outputs of an RT-DETR"),
        (ULTRALYTICS | {"head": "RTDETRDecoder"}, DYNAMIC, [[1, 300, 9]], "not those of 2 classes"),
        (ULTRALYTICS, DYNAMIC, [[1, 300, 4], [1, 300, 91]], "2 names for a model that tells 91 classes apart"),
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


def test_the_task_says_what_is_beside_boxes_and_classes() -> None:
    def head(task: str, *outputs: list[int | None], **metadata: str) -> Head:
        return read_card(ULTRALYTICS | {"task": task} | metadata, DYNAMIC, list(outputs), name="m").head

    assert head("obb", [1, 7, 8400]) == Head("obb", 1)
    assert head("obb", [1, 300, 7], end2end="True") == Head("obb", 1)
    assert head("segment", [1, 38, 8400], [1, 32, 160, 160]) == Head("segment", 32)
    assert head("pose", [1, 21, 8400], kpt_shape="[5, 3]") == Head("pose", 15, (5, 3))
    assert head("pose", [1, 300, 14], kpt_shape="(4, 2)", end2end="True") == Head("pose", 8, (4, 2))
    # What is open in the file is not held against it.
    assert head("pose", [None, None, None], kpt_shape="[5, 3]") == Head("pose", 15, (5, 3))


def test_detr_models_are_known_by_name_or_by_their_two_outputs() -> None:
    def card(metadata: dict[str, str], *outputs: list[int | None], names: list[str] | None = None) -> ModelCard:
        return read_card(metadata, [1, 3, 640, 640], list(outputs), name="m", output_names=names or [])

    ours = ULTRALYTICS | {"head": "RTDETRDecoder"}
    assert card(ours, [1, 300, 6]).head == Head(transformer="rows")
    three = ours | {"names": "{0: 'a', 1: 'b', 2: 'c'}"}
    assert card(three, [1, 300, 7]).head == Head(transformer="scores")
    # As transformers exports them: no names of classes in the file.
    exported = card({}, [1, 300, 80], [1, 300, 4], names=["logits", "pred_boxes"])
    assert exported.head == Head(transformer="logits", boxes_output=1)
    assert (len(exported.classes), exported.stretches, exported.end_to_end) == (80, True, False)
    # By name, where numbers leave it open; one class more than there are names is none.
    four = {"names": "{0: 'a', 1: 'b', 2: 'c'}"}
    assert card(four, [1, 9, 4], [1, 9, 4], names=["boxes", "scores"]).head == Head(transformer="softmax")
    assert card({}, [1, 9, 4], [1, 9, 7]).head == Head(transformer="logits")
    known = Thresholds(classes=("x", "y"))
    told = read_card({}, DYNAMIC, [[1, 9, 2], [1, 9, 4]], name="m", known=known)
    assert (told.classes, told.head.transformer) == (("x", "y"), "logits")
