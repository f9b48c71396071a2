"""The [detection] section."""

import pytest
from sluiceway_detection.config import DetectionConfig
from sluiceway_runtime.config import load_section
from sluiceway_runtime.errors import ConfigurationError


def load(environment: dict[str, str] | None = None, **table: object) -> DetectionConfig:
    return load_section(
        DetectionConfig, "detection", tables={"detection": table}, environment=environment or {}, overrides=None
    )


def test_defaults() -> None:
    config = load()
    assert (config.port, config.operations_port, config.device) == (50052, 9052, "cpu")
    assert (config.confidence, config.iou, config.max_detections) == (
        None,
        None,
        1000,
    )  # the model decides the first two
    assert config.max_crop_bytes < config.max_message_bytes
    assert config.max_crops == 64


def test_shapes_are_written_as_text() -> None:
    assert load(shapes=["640x480", "480X640"]).shapes == ((640, 480), (480, 640))
    assert load({"SLUICEWAY_DETECTION__SHAPES": '["320x320"]'}).shapes == ((320, 320),)


def test_a_scale_is_a_word_or_a_number() -> None:
    assert [load(scale=scale).scale for scale in ("auto", "fast", 1, 0.5)] == ["auto", "fast", 1.0, 0.5]
    assert load({"SLUICEWAY_DETECTION__SCALE": "0.25"}).scale == 0.25
    assert load().scale is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"shapes": ["640"]}, "must look like 480x640"),
        ({"shapes": ["640xabc"]}, "must look like 480x640"),
        ({"shapes": ["641x640"]}, "multiples of 32"),
        ({"shapes": ["0x640"]}, "multiples of 32"),
        ({"image_size": 650}, "detection.image_size"),
        ({"scale": "slow"}, "detection.scale"),
        ({"scale": 0}, "detection.scale"),
        ({"scale": 5}, "detection.scale"),
        ({"image_size": 1280, "shapes": ["640x640"]}, "either image_size or shapes"),
        ({"confidence": 0}, "detection.confidence"),
        ({"iou": 1.5}, "detection.iou"),
        ({"max_detections": 10_001}, "detection.max_detections"),
        ({"max_crops": 0}, "detection.max_crops"),
        ({"backend": "tensorrt"}, "detection.backend"),
        ({"precision": "fp8"}, "detection.precision"),
        ({"max_image_bytes": 2**30}, "must fit into max_message_bytes"),
        ({"weights": "x"}, "detection.weights: unknown key"),
    ],
)
def test_faults_name_their_key(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(**table)
