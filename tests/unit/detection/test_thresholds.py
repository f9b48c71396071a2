"""What is known of a model beside its file."""

import json
from pathlib import Path

import pytest
from sluiceway_detection.models.card import read_card
from sluiceway_detection.models.thresholds import NONE_KNOWN, PP_OCR_PIXELS, PixelScale, Thresholds, thresholds_of
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.weights import load_registry

INFERENCE_YML = """
PostProcess: {name: DBPostProcess, thresh: 0.2, box_thresh: 0.4, unclip_ratio: 1.4, max_candidates: 3000}
PreProcess:
  transform_ops:
  - DecodeImage: {channel_first: false, img_mode: BGR}
  - DetResizeForTest: null
  - NormalizeImage: {mean: [0.485, 0.456, 0.406], order: hwc, scale: 1./255., std: [0.229, 0.224, 0.225]}
"""
MAP = ([None, 3, None, None], [[None, 1, None, None]])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "det.onnx"
    path.touch()
    return path


def test_an_inference_yml_beside_the_model_is_read(model: Path) -> None:
    assert thresholds_of(model, {}) == NONE_KNOWN
    (model.parent / "inference.yml").write_text(INFERENCE_YML)
    known = thresholds_of(model, {"licence": "Apache-2.0"})
    assert known[:4] == (0.4, None, 0.2, 1.4)
    assert known.pixels is not None
    assert known.pixels.mean == pytest.approx(PP_OCR_PIXELS.mean)
    assert known.pixels.std == pytest.approx(PP_OCR_PIXELS.std)
    assert not known.pixels.rgb
    assert thresholds_of(model.with_suffix(".pt"), {}) == NONE_KNOWN


def test_the_registry_wins(model: Path) -> None:
    (model.parent / "inference.yml").write_text(INFERENCE_YML)
    assert thresholds_of(model, {"thresholds": {"confidence": 0.3, "iou": 0.5}}) == Thresholds(0.3, 0.5)


def test_that_of_another_kind_of_model_says_nothing(model: Path) -> None:
    (model.parent / "inference.yml").write_text("PostProcess: {name: CTCLabelDecode, character_dict: [a]}")
    assert thresholds_of(model, {}) == NONE_KNOWN


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "- 1",
        "PostProcess: {}",
        INFERENCE_YML.replace("box_thresh: 0.4, ", ""),
        INFERENCE_YML.replace("0.4", "high"),
        INFERENCE_YML.replace("1.4", "-1"),
        INFERENCE_YML.replace("0.2,", ".nan,"),
    ],
)
def test_one_that_cannot_be_read_is_named(model: Path, text: str) -> None:
    (model.parent / "inference.yml").write_text(text)
    with pytest.raises(StartupError, match=r"inference\.yml of PP-OCR"):
        thresholds_of(model, {})


def test_they_travel_as_json() -> None:
    for known in (NONE_KNOWN, Thresholds(0.4, None, 0.2, 1.4, PixelScale((1, 2, 3), (4, 5, 6), rgb=True))):
        assert Thresholds.from_plain(json.loads(json.dumps(known))) == known


def test_every_table_of_the_registry_has_known_names() -> None:
    for entry in load_registry().models.values():
        thresholds_of(Path("model.onnx"), entry.metadata)


def test_a_map_is_a_db_model() -> None:
    card = read_card({}, *MAP, name="det", known=Thresholds(0.4, None, 0.2, 1.4))
    assert (card.classes, card.confidence, card.fixed_shape) == (("text",), 0.4, False)
    assert card.map_reading == (0.2, 1.4)
    assert card.pixels == PP_OCR_PIXELS
    fixed = read_card({}, [1, 3, 640, 480], [[1, 1, 640, 480]], name="det")
    assert (fixed.native_shape, fixed.fixed_shape, fixed.confidence) == ((640, 480), True, 0.6)
    assert fixed.map_reading == (0.3, 1.5)


def test_what_is_known_wins_over_what_a_yolo_file_says() -> None:
    metadata = {"names": "{0: 'cat'}", "confidence": "0.3", "iou": "0.5"}
    card = read_card(metadata, [None, 3, None, None], [[None, 5, None]], name="m", known=Thresholds(iou=0.6))
    assert (card.confidence, card.iou, card.map_reading) == (0.3, 0.6, None)
