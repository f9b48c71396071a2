"""The handler with models made here: classifiers and embeddings in OpenVINO's own format, and user code."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from openvino.opset16 import identity
from sluiceway_recognition.backends import Backend
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import (
    ClassAnswer,
    CropSpec,
    CropTask,
    EmbeddingAnswer,
    ModelFacts,
    PixelFormat,
    TextReading,
)
from sluiceway_recognition.worker import recognizer as recognizer_module
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_runtime import weights
from sluiceway_runtime.errors import InvalidImage, ModelFailed, SluicewayError, StartupError
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool import Payload, Placement
from thread_models import compute

EXAMPLE = Path(__file__).parents[3] / "examples" / "recognizer.py"


def save_mean_colour(folder: Path, *, activation: str = "none", name: str = "model", shape: object = None) -> Path:
    """A network that gives the mean of each channel, [N, 3]; with `activation` on top."""
    pixels = ops.parameter(ov.PartialShape(shape or [-1, 3, 16, 24]), np.float32, name="images")
    axes = ops.constant(np.array([2, 3], dtype=np.int64))
    value = ops.reduce_mean(pixels, axes, keep_dims=False)
    if activation.startswith("softmax"):
        value = ops.softmax(value, axis=1)
    if activation.endswith("identity"):  # as some exporters end a network
        value = identity(value)
    if activation == "log":
        value = ops.log(value)
    path = folder / f"{name}.xml"
    ov.save_model(ov.Model([value], [pixels], name), path)
    return path


def load(**model: object) -> tuple[RecognitionHandler, ModelFacts]:
    config = RecognitionConfig.model_validate({"models": [{"name": "m", "height": 16, "max_width": 24, **model}]})
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    handler = create(worker_config(plans, ImageLimits(10**6, 10**6)))
    return handler, handler.setup(Placement(0, "cpu", None, 1))["models"][0]


def crop(bgr: tuple[int, int, int], size: tuple[int, int] = (16, 24), top_k: int = 1) -> Payload:
    pixels = np.full((*size, 3), bgr, dtype=np.uint8)
    return Payload(CropTask("m", size[0], PixelFormat.BGR, top_k), (pixels.tobytes(),))


def run(handler: RecognitionHandler, *payloads: Payload) -> list[object]:
    return [result if isinstance(result, SluicewayError) else result.meta for result in handler.run(payloads)]


FREED_IN_ORDER = """
import gc, os, signal, sys
from pathlib import Path
from sluiceway_recognition.backends.openvino import OpenVinoBackend
from sluiceway_recognition.plan import Normalisation
from sluiceway_recognition.types import Head
plain = Normalisation((0, 0, 0), (1, 1, 1))
models = [OpenVinoBackend(Path(sys.argv[1]), head=Head.EMBED, height=16, normalisation=plain) for _ in range(2)]
for model in models:
    model.warm((24,))
del model
while models:
    del models[0]
    gc.collect()
signal.signal(signal.SIGINT, signal.default_int_handler)
os.kill(os.getpid(), signal.SIGINT)
"""


def test_an_interrupt_after_models_were_freed_is_an_interrupt(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FREED_IN_ORDER, str(save_mean_colour(tmp_path))]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert b"KeyboardInterrupt" in ended.stderr
    assert ended.returncode == -signal.SIGINT


@pytest.mark.parametrize("activation", ["none", "softmax", "softmax and identity"])
def test_a_classifier_answers_probabilities_whether_or_not_it_ends_in_them(tmp_path: Path, activation: str) -> None:
    path = save_mean_colour(tmp_path, activation=activation)
    handler, facts = load(kind="classify", weights=str(path), labels=["b", "g", "r"], mean=0, std=51)
    # Means of 0, 1 and 5 after dividing by 51.
    answers = run(handler, crop((0, 51, 255), top_k=3), crop((255, 0, 0), size=(40, 7)))
    expected = np.exp([0, 1, 5]) / np.exp([0, 1, 5]).sum()
    assert isinstance(answers[0], ClassAnswer)
    assert [name for _, name, _ in answers[0].labels] == ["r", "g", "b"]
    assert [p for _, _, p in answers[0].labels] == pytest.approx(expected[::-1], abs=1e-5)
    assert answers[1].labels[0][1] == "b"
    assert (facts.backend, facts.labels, facts.embedding_size) == ("openvino", ("b", "g", "r"), 0)
    assert facts.buckets == (24,)


def test_a_model_that_wants_rgb_gets_rgb_with_its_own_mean_and_deviation(tmp_path: Path) -> None:
    path = save_mean_colour(tmp_path)
    handler, facts = load(kind="embed", weights=str(path), format="rgb", mean=[10, 20, 30], std=[1, 2, 4])
    (answer,) = run(handler, crop((110, 60, 40)))
    # Blue-green-red 110, 60, 40 is red-green-blue 40, 60, 110.
    expected = np.array([40 - 10, (60 - 20) / 2, (110 - 30) / 4])
    assert isinstance(answer, EmbeddingAnswer)
    assert np.frombuffer(answer.vector, dtype=np.float32) == pytest.approx(
        expected / np.linalg.norm(expected), abs=1e-3
    )
    assert facts.embedding_size == 3


def test_what_is_not_a_number_fails_its_own_crop_only(tmp_path: Path) -> None:
    # The logarithm of the mean: black has none.
    path = save_mean_colour(tmp_path, activation="log")
    handler, _ = load(kind="embed", weights=str(path), mean=0, std=1)
    good, bad, also_good = run(handler, crop((9, 9, 9)), crop((0, 9, 9)), crop((7, 9, 9)))
    assert isinstance(bad, ModelFailed)
    assert isinstance(good, EmbeddingAnswer)
    assert isinstance(also_good, EmbeddingAnswer)


def test_a_text_model_with_no_number_in_it_fails_the_crop(tmp_path: Path) -> None:
    pixels = ops.parameter(ov.PartialShape([1, 3, 16, -1]), np.float32, name="images")
    # A step for each column: classes blank, "a", space, of which "a" has the logarithm of the blue above it.
    column = ops.reduce_mean(pixels, ops.constant(np.array([2], dtype=np.int64)), keep_dims=False)
    steps = ops.transpose(ops.sqrt(column), ops.constant(np.array([0, 2, 1], dtype=np.int64)))
    ov.save_model(ov.Model([ops.softmax(steps, axis=2)], [pixels], "text"), tmp_path / "text.xml")
    (tmp_path / "keys.txt").write_text("a\n", encoding="utf-8")
    handler, _ = load(
        kind="text",
        weights=str(tmp_path / "text.xml"),
        characters=str(tmp_path / "keys.txt"),
        buckets=[24],
        mean=100,
        std=1,
    )
    # Roots of 0, 155 and 0 read "a"; below the mean there is no root.
    good, bad = run(handler, crop((100, 255, 100)), crop((100, 255, 90)))
    assert good.text == "a"
    assert isinstance(bad, ModelFailed)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"shape": [-1, 2, 16, 24]}, "one input of"),
        ({"shape": [-1, 3, 32, 24]}, "wants crops of height 32, not 16"),
    ],
)
def test_networks_of_another_kind_are_refused(tmp_path: Path, model: dict[str, object], message: str) -> None:
    path = save_mean_colour(tmp_path, **model)
    with pytest.raises(StartupError, match=message):
        load(kind="embed", weights=str(path))


def test_a_network_of_one_width_says_so(tmp_path: Path) -> None:
    pixels = ops.parameter(ov.PartialShape([1, 3, 16, 24]), np.float32, name="images")
    # Its number of steps is a constant.
    steps = ops.reshape(pixels, ops.constant(np.array([1, 24, 48], dtype=np.int64)), special_zero=False)
    ov.save_model(ov.Model([steps], [pixels], "steps"), tmp_path / "steps.xml")
    (tmp_path / "characters.txt").write_text("\n".join(map(str, range(46))))
    model = {"weights": str(tmp_path / "steps.xml"), "characters": str(tmp_path / "characters.txt")}
    assert load(**model, buckets=[24])[1].buckets == (24,)
    with pytest.raises(
        StartupError, match="crops of 16 x 8 pixels; it wants the width 24: set `max_width` and `buckets`"
    ):
        load(**model, buckets=[8, 24])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(StartupError, match="cannot be read as a model"):
        load(kind="embed", weights=str(tmp_path / "model.onnx"))


def test_labels_must_be_as_many_as_classes(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="2 labels for a model of 3 classes"):
        load(kind="classify", weights=str(save_mean_colour(tmp_path)), labels=["a", "b"])


def test_a_classifier_is_no_text_model(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="output of rank 3"):
        load(kind="text", weights=str(save_mean_colour(tmp_path)), buckets=[24])


def test_torch_without_torch_says_which_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sluiceway_recognition.backends.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(StartupError, match=r"torch, which is not installed: .*pip install .*\[gpu\]'$"):
        load(kind="embed", weights=str(save_mean_colour(tmp_path)), backend="torch")


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example and this file, importable by name as a user's module would be."""
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    sys.modules["user_recognizers"] = sys.modules[__name__]
    yield
    del sys.modules["user_recognizers"]
    sys.modules.pop("recognizer", None)


@pytest.mark.usefixtures("user_module")
def test_the_example_tells_colours() -> None:
    handler, facts = load(kind="classify", recognizer="recognizer:DominantColour", options={"sharpness": 20.0})
    answers = run(handler, crop((0, 0, 255)), crop((0, 150, 0), size=(5, 90)), crop((250, 250, 250)))
    assert [answer.labels[0][1] for answer in answers] == ["red", "green", "white"]
    assert (facts.backend, facts.weights_sha256, facts.buckets) == ("user", "", ())
    assert (facts.crop_spec.height, facts.crop_spec.max_width) == (32, 32)


class Reader:
    """Says how wide a crop is; what it does wrong is chosen by `fault`."""

    crop_spec = CropSpec(16, 100)

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def setup(self, device: str) -> None:
        if self.fault == "setup":
            raise RuntimeError("no weights here")
        if self.fault == "labels":
            self.labels = (1, 2)

    def __call__(self, batch: list[np.ndarray]) -> list[object]:
        readings: list[object] = [TextReading("w" * pixels.shape[1], (1.0,) * pixels.shape[1]) for pixels in batch]
        if self.fault == "count":
            readings.pop()
        if self.fault == "kind":
            readings[0] = "just a string"
        if self.fault == "surrogate":
            readings[0] = TextReading("a\udc80", (1.0, 1.0))
        if self.fault == "one":
            readings[0] = ModelFailed("not this one")
        return readings


class Unfinished:
    def setup(self, device: str) -> None: ...


@pytest.mark.usefixtures("user_module")
def test_user_code_gets_crops_at_their_exact_width() -> None:
    handler, _ = load(recognizer="user_recognizers:Reader", classes=["word"])
    assert [answer.text for answer in run(handler, crop((0, 0, 0), (16, 3)), crop((0, 0, 0), (32, 14)))] == [
        "www",
        "wwwwwww",
    ]


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize("fault", ["kind", "surrogate", "one"])
def test_user_code_that_fails_one_crop_fails_that_one(fault: str) -> None:
    handler, _ = load(recognizer="user_recognizers:Reader", options={"fault": fault})
    bad, good = run(handler, crop((0, 0, 0)), crop((0, 0, 0), (16, 2)))
    assert isinstance(bad, ModelFailed)
    assert good.text == "ww"


@pytest.mark.usefixtures("user_module")
def test_user_code_that_loses_a_crop_fails_the_batch() -> None:
    handler, _ = load(recognizer="user_recognizers:Reader", options={"fault": "count"})
    with pytest.raises(ModelFailed, match="1 readings for 2 crops"):
        handler.run([crop((0, 0, 0)), crop((0, 0, 0))])


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("recognizer", "options", "message"),
    [
        ("user_recognizers:Reader", {"fault": "setup"}, "no weights here"),
        ("user_recognizers:Reader", {"fault": "labels"}, "labels of .* must be a sequence of names"),
        ("user_recognizers:Reader", {"colour": 1}, "could not be set up"),
        ("user_recognizers:Absent", {}, "cannot be loaded"),
        ("no_such_module:Reader", {}, "cannot be loaded"),
        ("not-an-entry-point", {}, "no entry point not-an-entry-point"),
        ("user_recognizers:Unfinished", {}, "has no __call__"),
    ],
)
def test_user_code_that_cannot_start_is_named(recognizer: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(StartupError, match=f"recognition.models.m: .*{message}"):
        load(recognizer=recognizer, options=options)


def test_a_crop_that_is_no_image_fails_alone(tmp_path: Path) -> None:
    handler, _ = load(kind="embed", weights=str(save_mean_colour(tmp_path)))
    bad, good = run(handler, Payload(CropTask("m"), (b"no image",)), crop((1, 2, 3)))
    assert isinstance(bad, InvalidImage)
    assert isinstance(good, EmbeddingAnswer)


def test_a_model_whose_cap_of_threads_does_not_hold_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO, and in each batch what a library does that ignores its cap."""
    opened = recognizer_module.load_backend
    at_once = threading.Barrier(4)

    def member() -> None:
        # However busy the machine is, they want to compute at the same time.
        at_once.wait()
        for _ in range(3):
            compute()

    with ThreadPoolExecutor(at_once.parties, thread_name_prefix="team") as team:

        def open_uncapped(*arguments: object) -> Backend:
            backend = opened(*arguments)
            launch = backend.launch

            def launch_with_a_team(crops: object, width: int) -> object:
                wait([team.submit(member) for _ in range(at_once.parties)])
                return launch(crops, width)

            monkeypatch.setattr(backend, "launch", launch_with_a_team)
            return backend

        monkeypatch.setattr(recognizer_module, "load_backend", open_uncapped)
        with pytest.raises(StartupError, match=r"worker 0 keeps [2-4] threads busy at once where 1 may.*team"):
            load(kind="classify", weights=str(save_mean_colour(tmp_path)), labels=["b", "g", "r"])
