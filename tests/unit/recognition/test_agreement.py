"""Networks of users in fewer digits: held to what they give in f32 before they serve."""

from __future__ import annotations

import logging
import string
from pathlib import Path

import numpy as np
import pytest
from foreign_readers import ForeignReader
from sluiceway_recognition.backends import openvino as openvino_backend
from sluiceway_recognition.backends.agreement import outputs_differ, trial_crops
from sluiceway_recognition.backends.openvino import OpenVinoBackend
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import Head
from sluiceway_recognition.worker import recognizer as recognizer_module
from sluiceway_recognition.worker.recognizer import ModelRecognizer, load_model
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError

# Levels of brightness so close that a few digits less take one for the other.
CLOSE = ForeignReader(("", *string.digits, *string.ascii_letters), (16, 160))
FAR = ForeignReader(("", "a", "b"), (16, 160))


def load(reader: ForeignReader, folder: Path, **model: object) -> ModelRecognizer:
    values = {
        "name": "m",
        "weights": str(reader.save(folder / "m.onnx")),
        "height": 16,
        "max_width": 160,
        "buckets": [160],
        "alphabet": "".join(reader.classes),
        "upright": "none",
        **model,
    }
    config = RecognitionConfig.model_validate({"models": [values]})
    (plan,) = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    return load_model(plan, "cpu", 1)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer digits lose something on every machine: some compute a network as small as these in f32 all the same."""
    exact = OpenVinoBackend.alone

    def alone(self: OpenVinoBackend, precision: str, crops: list[np.ndarray]) -> object:
        return exact(self, precision, crops if precision == "f32" else [crop & 0xFC for crop in crops])

    monkeypatch.setattr(OpenVinoBackend, "alone", alone)


def test_a_precision_that_is_asked_for_has_to_give_the_answers(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"models\.m\.precision: bf16 does not give this model's"):
        load(CLOSE, tmp_path, precision="bf16")
    assert load(FAR, tmp_path, precision="bf16").backend.precision == "bf16"


def test_without_one_it_is_f32_where_fewer_digits_do_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino_backend, "isa", lambda: frozenset({"amx_bf16"}))
    with caplog.at_level(logging.WARNING):
        recognizer = load(CLOSE, tmp_path)
    assert recognizer.backend.precision == "f32"
    assert "recognition.models.m computes in f32: bf16 does not give this model's answers" in caplog.text
    caplog.clear()
    assert load(FAR, tmp_path).backend.precision == "bf16"
    assert not caplog.text


def test_f32_and_models_of_the_registry_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(*_: object) -> None:
        raise AssertionError("it was tried")

    monkeypatch.setattr(OpenVinoBackend, "alone", tried)
    assert load(CLOSE, tmp_path, precision="f32").backend.precision == "f32"
    monkeypatch.setattr(recognizer_module, "agreeing_backend", tried)
    config = RecognitionConfig.model_validate({"models": [{"name": "ppocrv6-tiny", "precision": "bf16"}]})
    (plan,) = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    assert load_model(plan, "cpu", 1).backend.precision == "bf16"


def test_what_counts_as_a_difference() -> None:
    steps, sure = np.array([[0, 1, 2, 3] * 25]), np.full((1, 100), 0.9, np.float32)
    other = steps.copy()
    other[0, :6] += 1
    assert "94% of the steps" in str(outputs_differ(Head.TEXT, (steps, sure), (other, sure)))
    # Of what was not sure nobody knows better.
    assert outputs_differ(Head.TEXT, (steps, sure / 2), (other, sure)) is None
    assert "differs by 0.20" in str(outputs_differ(Head.TEXT, (steps, sure), (steps, sure - 0.2)))
    assert "not finite" in str(outputs_differ(Head.TEXT, (steps, sure), (steps, sure * np.nan)))
    likely = np.array([[0.7, 0.3]], np.float32)
    assert outputs_differ(Head.CLASSIFY, (likely,), (likely + 0.05,)) is None
    assert "differs by 0.15" in str(outputs_differ(Head.CLASSIFY, (likely,), (likely - 0.15,)))
    vector = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)
    assert outputs_differ(Head.EMBED, (vector,), (vector * 1.5,)) is None
    turned = np.array([[3.0, 4.0], [0.6, 0.8]], np.float32)
    assert "0.600 of its direction" in str(outputs_differ(Head.EMBED, (vector,), (turned,)))


@pytest.mark.parametrize("size", [(1, 1), (16, 24), (48, 320), (112, 112)])
def test_what_is_tried_fits_any_size(size: tuple[int, int]) -> None:
    crops = trial_crops(*size)
    assert {crop.shape for crop in crops} == {(*size, 3)}
    assert all(crop.dtype == np.uint8 for crop in crops)
