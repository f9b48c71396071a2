"""Networks of users in the torch backend: programs of torch.export and ONNX graphs, on the CPU."""

from __future__ import annotations

import json
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_recognition.front.resolve import plan_models
from sluiceway_recognition.types import CropTask, ModelFacts, PixelFormat
from sluiceway_recognition.worker.handler import RecognitionHandler, create, worker_config
from sluiceway_runtime import weights
from sluiceway_runtime.errors import SluicewayError, StartupError
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool import Payload, Placement

pytestmark = pytest.mark.torch


def load(**model: object) -> tuple[RecognitionHandler, ModelFacts]:
    config = RecognitionConfig.model_validate({"models": [{"name": "m", "height": 16, "max_width": 24, **model}]})
    plans = plan_models(config.models, lambda name: weights.resolve(name, kind="recognition"))
    handler = create(worker_config(plans, ImageLimits(10**6, 10**6)))
    return handler, handler.setup(Placement(0, "cpu", None, 1))["models"][0]


def crop(pixels: np.ndarray, top_k: int = 1) -> Payload:
    return Payload(CropTask("m", pixels.shape[0], PixelFormat.BGR, top_k), (pixels.tobytes(),))


def plain(bgr: tuple[int, int, int]) -> np.ndarray:
    return np.full((16, 24, 3), bgr, dtype=np.uint8)


def run(handler: RecognitionHandler, *payloads: Payload) -> list[Any]:
    return [result if isinstance(result, SluicewayError) else result.meta for result in handler.run(payloads)]


def mean_colour(folder: Path, form: str, activation: str = "none", batch: str = "any") -> Path:
    from own_models import MeanColour, export, export_mean_colour

    if form == "pt2":
        path = folder / "model.pt2"
        if batch == "any":
            return export_mean_colour(path, activation)
        return export(path, MeanColour(activation), (int(batch), 3, 16, 24))
    return onnx_mean_colour(folder / "model.onnx", activation, batch)


def onnx_mean_colour(path: Path, activation: str, batch: str) -> Path:
    import onnx
    from onnx import TensorProto, helper

    size = "N" if batch == "any" else int(batch)
    operators = {"softmax": "Softmax", "log": "LogSoftmax", "sigmoid": "Sigmoid"}
    weighted = ("Identity", ["colours"]) if activation == "no weights" else ("Mul", ["colours", "scale"])
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["colours"], axes=[2, 3], keepdims=0),
        helper.make_node(*weighted, ["means"]),
    ]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [3], [1, 1, 1])
    if activation == "leak":
        # Made for a batch of 1, in which the first row is the only one.
        zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
        nodes.append(helper.make_node("Constant", [], ["row"], value=zero))
        nodes.append(helper.make_node("Gather", ["means", "row"], ["first"], axis=0))
        nodes.append(helper.make_node("Add", ["means", "first"], ["classes"]))
    elif activation in operators:
        options = {} if activation == "sigmoid" else {"axis": 1}
        nodes.append(helper.make_node(operators[activation], ["means"], ["classes"], **options))
    else:
        nodes.append(helper.make_node("Identity", ["means"], ["classes"]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [size, 3, 16, 24])
    classes = helper.make_tensor_value_info("classes", TensorProto.FLOAT, [size, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], [classes], [scale]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("form", ["pt2", "onnx"])
@pytest.mark.parametrize("activation", ["none", "softmax", "log", "sigmoid"])
def test_a_classifier_answers_as_it_does_in_openvino(tmp_path: Path, form: str, activation: str) -> None:
    path = mean_colour(tmp_path, form, activation)
    shared = {"kind": "classify", "labels": ["b", "g", "r"], "mean": 0, "std": 51}
    handler, facts = load(weights=str(path), backend="torch", **shared)
    assert (facts.backend, facts.precision, facts.buckets) == ("torch", "f32", (24,))
    payloads = [crop(plain((0, 51, 255)), top_k=3), crop(plain((204, 0, 0)), top_k=2)]
    reference = onnx_mean_colour(tmp_path / "reference.onnx", activation, "1")
    in_openvino, _ = load(weights=str(reference), precision="f32", **shared)
    for answer, other in zip(run(handler, *payloads), run(in_openvino, *payloads), strict=True):
        assert [label[:2] for label in answer.labels] == [label[:2] for label in other.labels]
        assert [label[2] for label in answer.labels] == pytest.approx([label[2] for label in other.labels], abs=1e-5)


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_an_embedding_is_scaled_to_length_one(tmp_path: Path, form: str) -> None:
    handler, facts = load(kind="embed", weights=str(mean_colour(tmp_path, form)), backend="torch", mean=0, std=1)
    assert facts.embedding_size == 3
    (answer,) = run(handler, crop(plain((30, 0, 40))))
    assert np.frombuffer(answer.vector, dtype=np.float32) == pytest.approx([0.6, 0.0, 0.8], abs=1e-6)


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_a_network_for_one_batch_size_takes_any_number_of_crops(tmp_path: Path, form: str) -> None:
    handler, _ = load(kind="embed", weights=str(mean_colour(tmp_path, form, batch="4")), backend="torch", mean=0, std=1)
    answers = run(handler, *(crop(plain((value, 0, 40))) for value in range(6)))
    for value, answer in enumerate(answers):
        expected = np.array([value, 0, 40]) / np.hypot(value, 40)
        assert np.frombuffer(answer.vector, dtype=np.float32) == pytest.approx(expected, abs=1e-6)


def open_embedder(path: Path) -> Any:
    """The backend of a model with graphs for one crop and for four, as a GPU would have them."""
    from sluiceway_recognition.backends.batches import GraphSettings
    from sluiceway_recognition.backends.torch import TorchBackend

    handler, _ = load(kind="embed", weights=str(path), backend="torch", mean=0, std=1)
    backend = TorchBackend(handler._plans[0], "cpu", 1, GraphSettings(batches=(1, 4)))
    backend.warm((24,))
    return backend


@pytest.mark.parametrize("batch", ["1", "4", "any"])
def test_a_file_for_one_batch_size_is_computed_in_batches_where_that_changes_nothing(
    tmp_path: Path, batch: str
) -> None:
    backend = open_embedder(onnx_mean_colour(tmp_path / "model.onnx", "none", batch))
    assert {graph for graph, _ in backend._shapes} == {1, 4}


def test_a_file_whose_rows_mix_in_a_batch_is_computed_crop_by_crop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = open_embedder(onnx_mean_colour(tmp_path / "model.onnx", "leak", "1"))
    colours = [(30, 0, 40), (0, 200, 10), (7, 7, 7)]
    (found,) = backend.launch([plain(colour) for colour in colours], 24)()
    assert found == pytest.approx(2.0 * np.array(colours), abs=1e-3)
    assert "recognition.models.m: a batch of 1 is fixed in model.onnx, and in larger ones its crops would mix" in (
        caplog.text
    )


def test_a_file_without_weights_is_computed_in_several_shapes(tmp_path: Path) -> None:
    backend = open_embedder(onnx_mean_colour(tmp_path / "model.onnx", "no weights", "any"))
    assert {graph for graph, _ in backend._shapes} == {1, 4}


def stripes(folder: Path, sizes: tuple[int, ...] = (2, 3, 16, 64), dynamic: bool = True) -> Path:
    import torch
    from own_models import Stripes, export

    steps = torch.export.Dim("steps", min=1, max=40)
    dims = {0: torch.export.Dim("batch", min=1, max=512), 3: 8 * steps} if dynamic else None
    (folder / "characters.txt").write_text("a\nb")
    return export(folder / "stripes.pt2", Stripes(), sizes, dims)


def columns(chance: random.Random, steps: int) -> tuple[str, np.ndarray]:
    """Stripes of eight columns, each of one class: blank, a, b, space."""
    classes = [chance.randrange(4) for _ in range(steps)]
    text, previous = "", 0
    for index in classes:
        text += ["", "a", "b", " "][index] if index != previous else ""
        previous = index
    row = np.repeat(np.array([0, 85, 170, 255], dtype=np.uint8)[classes], 8)
    return text, np.repeat(np.repeat(row[None, :, None], 16, axis=0), 3, axis=2)


def open_stripes(folder: Path, *batches: int) -> RecognitionHandler:
    """The backend of the handler with graphs of these batches, as a GPU would have them."""
    from sluiceway_recognition.backends.batches import GraphSettings
    from sluiceway_recognition.backends.torch import TorchBackend
    from sluiceway_recognition.worker.recognizer import ModelRecognizer

    model = {"weights": str(stripes(folder)), "max_width": 128, "buckets": [64, 128]}
    handler, facts = load(characters=str(folder / "characters.txt"), **model)
    loaded = handler._models["m"]
    plan = handler._plans[0]
    backend = TorchBackend(plan, "cpu", 1, GraphSettings(batches=batches))
    recognizer = ModelRecognizer(plan, backend, loaded.recognizer._classes.tolist())
    recognizer.warm()
    handler._models["m"] = type(loaded)(recognizer, facts)
    return handler


def test_text_of_a_program_is_read_in_every_bucket(tmp_path: Path) -> None:
    handler = open_stripes(tmp_path, 1, 4)
    chance = random.Random(2)
    cases = [columns(chance, chance.randint(1, 16)) for _ in range(30)]
    answers = run(handler, *(crop(pixels) for _, pixels in cases))
    # What is padded is zero after normalising: between two classes, and read as one of them, so it is cut off here.
    for (text, _), answer in zip(cases, answers, strict=True):
        assert answer.text.startswith(text)


def test_an_answer_never_depends_on_its_batch_mates(tmp_path: Path) -> None:
    handler = open_stripes(tmp_path, 4)
    chance = random.Random(4)
    noise = np.random.default_rng(4)
    crops = [noise.integers(0, 255, (16, noise.integers(1, 129), 3), dtype=np.uint8) for _ in range(24)]
    alone = [run(handler, crop(pixels))[0] for pixels in crops]
    for _ in range(30):
        picked = [chance.randrange(len(crops)) for _ in range(chance.randint(2, 11))]
        # To the last bit, confidences included.
        assert run(handler, *(crop(crops[index]) for index in picked)) == [alone[index] for index in picked]


def test_batches_without_memory_are_made_smaller(tmp_path: Path, monkeypatch, caplog) -> None:
    import torch
    from sluiceway_runtime.gpu.staging import StagingRing

    handler = open_stripes(tmp_path, 1, 2, 8)
    handler._models["m"].recognizer.backend._batches._costs_ms[64] = {1: 1.0, 2: 1.1, 8: 1.2}
    cases = [columns(random.Random(number), 8) for number in range(8)]
    expected = run(handler, *(crop(pixels) for _, pixels in cases))
    launch, tried = StagingRing.launch, []

    def short_of_memory(self: StagingRing, run: Any, graph: Any, staging: Any) -> Any:
        tried.append(graph.inputs.specs[0].shape[0])
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("no memory")
        return launch(self, run, graph, staging)

    monkeypatch.setattr(StagingRing, "launch", short_of_memory)
    assert run(handler, *(crop(pixels) for _, pixels in cases)) == expected
    assert tried == [8, 2, 2, 2, 2]
    assert "no memory for batches of 8 x 64" in caplog.text
    # Later batches do not try again; where there is no way left, the batch fails and the pool splits it.
    run(handler, *(crop(pixels) for _, pixels in cases[:3]))
    assert max(tried[5:]) == 2
    monkeypatch.setattr(StagingRing, "launch", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(torch.OutOfMemoryError):
        handler.run([crop(cases[0][1])])


@pytest.mark.parametrize(
    ("sizes", "dynamic", "model", "message"),
    [
        ((1, 3, 32, 64), False, {"max_width": 64, "buckets": [64]}, "wants crops of height 32"),
        ((1, 3, 16, 64), False, {}, "wants crops of width 64; set `max_width`"),
        ((1, 3, 16, 128), False, {}, "wants crops of width 128; set `max_width` to that, and `buckets` to that alone"),
        ((1, 2, 16, 64), False, {}, "one input of"),
        ((2, 3, 16, 64), True, {"kind": "classify"}, "labels for a model|rank 2|classes"),
        ((2, 3, 16, 64), True, {"output": "logits"}, "one output without a name"),
        ((2, 3, 16, 64), True, {"max_width": 4000, "buckets": [4000]}, "does not take crops of 16 x 4000"),
        ((2, 3, 16, 64), True, {"characters": None}, "no characters in its metadata"),
    ],
)
def test_programs_of_another_kind_are_refused(
    tmp_path: Path, sizes: tuple[int, ...], dynamic: bool, model: dict[str, object], message: str
) -> None:
    path = stripes(tmp_path, sizes, dynamic)
    settings = {"max_width": 128, "buckets": [64, 128], "characters": str(tmp_path / "characters.txt"), **model}
    if model.get("kind") == "classify":
        settings |= {"labels": ["a"], "buckets": None}
    with pytest.raises(StartupError, match=message):
        load(weights=str(path), **settings)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran",)


@pytest.mark.parametrize("trick", ["pickled weight", "pickled inputs", "opaque", "expression", "code", "no program"])
def test_a_program_with_anything_that_runs_is_refused(tmp_path: Path, trick: str, capsys) -> None:
    source, path = mean_colour(tmp_path, "pt2"), tmp_path / "changed.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if trick == "pickled weight" and name.endswith("_weights_config.json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
            if trick == "pickled inputs" and "/sample_inputs/" in name:
                data = pickle.dumps(Bomb())
            if trick == "expression" and name.endswith("models/model.json"):
                tree = json.loads(data)
                tree["graph_module"]["graph"]["nodes"][0]["metadata"] = {"expr_str": "__import__('os').getpid()"}
                data = json.dumps(tree).encode()
            if trick == "no program" and "/models/" in name:
                continue
            new.writestr(name, data)
        root = old.namelist()[0].partition("/")[0]
        if trick == "opaque":
            new.writestr(f"{root}/data/constants/opaque_obj_0", pickle.dumps(Bomb()))
        if trick == "code":
            new.writestr(f"{root}/data/aotinductor/model/lib.so", b"ELF")
    with pytest.raises(StartupError, match="cannot be read as a program"):
        load(kind="embed", weights=str(path))
    assert "this ran" not in capsys.readouterr().out


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"no zip")
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(StartupError, match="cannot be read as a program"):
        load(kind="embed", weights=str(tmp_path / "model.pt2"))
    with pytest.raises(StartupError, match=r"torch reads ONNX, \.pt2"):
        load(kind="embed", weights=str(tmp_path / "model.xml"), backend="torch")


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_fewer_digits_are_held_to_what_f32_gives(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluiceway_recognition.backends.torch import TorchBackend

    model = {"kind": "embed", "weights": str(mean_colour(tmp_path, form)), "backend": "torch", "mean": 0, "std": 51}
    assert load(**model, precision="bf16")[1].precision == "bf16"
    exact = TorchBackend.alone

    def alone(self: TorchBackend, precision: str, crops: list[np.ndarray]) -> object:
        return exact(self, precision, crops if precision == "f32" else [crop & 0x80 for crop in crops])

    monkeypatch.setattr(TorchBackend, "alone", alone)
    with pytest.raises(StartupError, match=r"models\.m\.precision: bf16 does not give this model's answers"):
        load(**model, precision="bf16")
