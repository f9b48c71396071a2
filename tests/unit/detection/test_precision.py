"""The choice of an arithmetic."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sluiceway_detection.backends import BackendSpec, precision
from sluiceway_detection.backends.agreement import reference_image
from sluiceway_detection.backends.precision import Choice, choose_precision, cpu_has_bf16
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.models.card import ModelCard
from sluiceway_runtime.errors import StartupError

WEIGHTS = Path(__file__).parent / "models" / "yolo11-pico.onnx"
SPEC = BackendSpec(WEIGHTS, "cpu", 1, shapes=((64, 64),))
CARD = ModelCard(("word",), 32, False, (64, 64), False)


def output(boxes: float = 100.0, confidence: float = 0.9) -> np.ndarray:
    places = np.tile(np.array([[boxes], [100.0], [40.0], [20.0], [confidence]]), (1, 8))
    return places.astype(np.float32)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch):
    """Stand in for the two trials: (milliseconds, output) of each arithmetic."""
    answers: dict[str, tuple[float, np.ndarray]] = {}
    monkeypatch.setattr(precision, "_try", lambda spec: precision._Trial(*answers[spec.precision], CARD))
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    return answers


@pytest.mark.parametrize(
    ("bf16", "chosen", "reason"),
    [
        ((50.0, output()), "bf16", "faster"),
        ((50.0, output(boxes=101, confidence=0.88)), "bf16", "faster"),
        ((95.0, output()), "f32", "gains nothing"),
        ((200.0, output()), "f32", "gains nothing"),
        ((50.0, output(boxes=110)), "f32", "only 0% of the boxes"),
        ((50.0, output(confidence=0.7)), "f32", "confidence differs by 0.20"),
        ((50.0, output(boxes=np.nan)), "f32", "not finite"),
    ],
)
def test_bf16_has_to_be_faster_and_right(tried, bf16: tuple[float, np.ndarray], chosen: str, reason: str) -> None:
    tried |= {"f32": (100.0, output()), "bf16": bf16}
    choice = choose_precision(SPEC)
    assert choice.precision == chosen
    assert reason in choice.reason


def test_bf16_that_was_asked_for_only_has_to_be_right(tried) -> None:
    wanted = BackendSpec(WEIGHTS, "cpu", 1, "bf16")
    tried |= {"f32": (100.0, output()), "bf16": (200.0, output())}
    assert choose_precision(wanted).precision == "bf16"
    tried["bf16"] = (50.0, output(boxes=120))
    with pytest.raises(StartupError, match="bf16 does not give this model's answers"):
        choose_precision(wanted)


class NmsFree:
    """A backend whose rows come sorted by confidence, as those of an NMS-free head do."""

    card, inputs = ModelCard(("row",), 32, True, (64, 64), True), Inputs(((64, 64),))

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows[np.argsort(-rows[:, 4], kind="stable")].astype(np.float32)

    def infer(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return [self._rows for _ in images]


def page_of_rows(count: int = 60) -> np.ndarray:
    """Boxes side by side, all about equally sure: which comes first is a matter of rounding."""
    left, top = 40.0 * (np.arange(count) % 10), 40.0 * (np.arange(count) // 10)
    confidences = np.linspace(0.899, 0.9, count)
    return np.stack((left, top, left + 30, top + 20, confidences, np.zeros(count)), axis=1)


def test_rows_of_an_nms_free_model_may_come_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = page_of_rows()
    rounded = exact + np.random.default_rng(0).uniform(-0.002, 0.002, exact.shape) * (0, 0, 0, 0, 1, 0)
    found = {"f32": exact, "bf16": rounded}
    monkeypatch.setattr(precision, "open_backend", lambda name, spec: NmsFree(found[spec.precision]))
    wanted = BackendSpec(WEIGHTS, "cpu", 1, "bf16")
    assert choose_precision(wanted).precision == "bf16"
    for column, shift, fault in ((0, 25, "stay where they are"), (4, -0.3, "confidence differs"), (5, 1, "class")):
        found["bf16"] = exact.copy()
        found["bf16"][:, column] += shift
        with pytest.raises(StartupError, match=fault):
            choose_precision(wanted)


def test_without_the_instructions_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(precision, "_try", lambda spec: pytest.fail("tried"))
    assert choose_precision(SPEC) == Choice("f32", "this CPU has no bf16 arithmetic")


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags : fpu amx_bf16 avx512f", True),
        ("fpu avx512_bf16", True),
        ("fpu avx512f avx512_fp16", False),
        ("", False),
    ],
)
def test_cpu_flags(flags: str, has: bool) -> None:
    assert cpu_has_bf16(flags) is has


def test_the_trial_runs_in_its_own_process() -> None:
    command = precision.command(SPEC, cores=None)
    assert command[0] == sys.executable
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    choice = Choice(**json.loads(done.stdout))
    assert choice.precision in ("f32", "bf16")
    assert choice.reason
    missing = precision.command(BackendSpec(Path("missing.onnx"), "cpu", 1, "bf16"), cores=(0,))
    done = subprocess.run(missing, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "missing.onnx cannot be read" in done.stderr


def test_the_reference_image_shows_something_in_every_shape() -> None:
    for shape in ((640, 640), (480, 640), (32, 32)):
        image = reference_image(shape)
        assert image.shape == (*shape, 3)
        assert image.std() > 10
        assert (image == reference_image(shape)).all()
