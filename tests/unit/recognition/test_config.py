"""The section of the configuration, and looking up what it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import Head, PixelFormat, ResizeRule
from sluiceway_runtime.config import load_section
from sluiceway_runtime.errors import ConfigurationError, StartupError
from sluiceway_runtime.weights import Weights


def load(**values: object) -> RecognitionConfig:
    return load_section(RecognitionConfig, "recognition", tables={"recognition": values}, environment={})


def find(name: str) -> Weights:
    if name == "absent":
        raise StartupError("no weights named absent")
    return Weights(name, "1.0", "ab" * 32, Path(f"/{name}.onnx"), {"model": Path(f"/{name}.onnx")})


def test_by_default_one_model_reads_text() -> None:
    (plan,) = plan_models(load().models, find)
    assert (plan.name, plan.head, plan.version) == ("ppocrv6-tiny", Head.TEXT, "1.0")
    # Long lines come as they are, and are read in pieces.
    assert (plan.crop_spec.height, plan.crop_spec.max_width, plan.crop_spec.format) == (48, 4 * 1920, PixelFormat.BGR)
    assert plan.buckets[-1] == 1920
    assert plan.crop_spec.turn_ratio == 1.5


@pytest.mark.parametrize(
    ("model", "brings", "expected"),
    [
        ({"name": "a"}, True, "a"),
        ({"name": "a"}, False, None),  # weights of the user's own
        ({"name": "a", "upright": "none"}, True, None),
        ({"name": "a", "upright": "ppocr-cls"}, False, "ppocrv6-tiny"),  # borrowed
        ({"name": "a", "kind": "classify"}, True, None),
    ],
)
def test_what_finds_text_on_its_head(model: dict[str, object], brings: bool, expected: str | None) -> None:
    def found(name: str) -> Weights:
        weights = find(name)
        files = {**weights.files, "upright": Path(f"/{name}-cls.onnx")} if brings or name != "a" else weights.files
        return replace(weights, files=files)

    (plan,) = plan_models(load(models=[model]).models, found)
    assert plan.upright == (Path(f"/{expected}-cls.onnx") if expected else None)


def test_models_by_name_from_the_environment() -> None:
    environment = {"SLUICEWAY_RECOGNITION__MODELS": '["ppocrv6-small", {"name": "x", "weights": "ppocrv5-mobile"}]'}
    config = load_section(RecognitionConfig, "recognition", tables={}, environment=environment)
    assert [plan.weights for plan in plan_models(config.models, find)] == [
        Path("/ppocrv6-small.onnx"),
        Path("/ppocrv5-mobile.onnx"),
    ]


def test_classifiers_stretch_into_one_bucket() -> None:
    model = {"name": "c", "kind": "classify", "weights": "x", "height": 32, "max_width": 64, "format": "rgb"}
    (plan,) = plan_models(load(models=[model]).models, find)
    assert plan.crop_spec.resize_rule is ResizeRule.STRETCH
    assert plan.buckets == (64,)
    assert plan.crop_spec.max_width == 64
    # What a picture shows is told as it stands.
    assert plan.crop_spec.turn_ratio == 0


def test_a_narrower_model_needs_no_wide_buckets() -> None:
    (plan,) = plan_models(load(models=[{"name": "ppocrv6-tiny", "max_width": 300}]).models, find)
    assert plan.buckets == (64, 96, 128, 160, 192, 256, 300)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": []}, "recognition.models"),
        ({"models": ["a", "a"]}, "distinct names; several are called a"),
        ({"models": [{"name": "a", "kind": "speech"}]}, "recognition.models.0.kind"),
        (
            {"models": [{"name": "a", "kind": "embed", "upright": "ppocr-cls"}]},
            "upright is for networks that read text",
        ),
        ({"models": [{"name": "a", "turn_ratio": 0.5}]}, "turn_ratio must be 0 or at least 1"),
        ({"models": [{"name": "a", "weigths": "b"}]}, "recognition.models.0.weigths: unknown key"),
        ({"models": [{"name": "a", "weights": "b", "recognizer": "c:D"}]}, "either weights or recognizer"),
        ({"models": [{"name": "a", "options": {"b": 1}}]}, "options are for a recognizer"),
        ({"models": [{"name": "a", "buckets": [96, 64, 1920]}]}, "buckets must ascend"),
        ({"models": [{"name": "a", "buckets": [64]}]}, "must hold max_width"),
        ({"models": [{"name": "a", "std": 0}]}, "std must be greater than 0"),
        ({"models": [{"name": "a", "format": "gray"}]}, "recognition.models.0.format"),
        ({"max_crops": 0, "max_batch": -1}, "recognition.max_crops"),
    ],
)
def test_faults_name_their_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace(".", r"\.")):
        load(**values)


def test_all_models_that_cannot_be_served_are_told_at_once(tmp_path: Path) -> None:
    config = load(models=["absent", {"name": "b", "weights": "x", "characters": str(tmp_path / "keys.txt")}, "fine"])
    with pytest.raises(StartupError) as caught:
        plan_models(config.models, find)
    first, second = str(caught.value).splitlines()
    assert first == "recognition.models.absent: no weights named absent"
    assert second.startswith("recognition.models.b: the character list")


@pytest.mark.parametrize(
    ("languages", "model"),
    [(["english"], "ppocrv6-tiny"), (["Latin"], "ppocrv6-small"), (["chinese", "latin"], "ppocrv6-small")],
)
def test_languages_choose_the_cheapest_model_that_reads_them(languages: list[str], model: str) -> None:
    config = RecognitionConfig.model_validate({"languages": languages})
    assert [each.name for each in config.models] == [model]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"languages": ["cyrillic", "latin", "thai"]}, "no model that is there by name reads cyrillic, thai"),
        ({"languages": ["latin"], "models": ["ppocrv6-tiny"]}, "either languages or models"),
        ({"languages": "latin"}, "languages"),
    ],
)
def test_languages_that_nothing_reads_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RecognitionConfig.model_validate(values)
