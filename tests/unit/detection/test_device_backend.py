"""The backend of GPUs, here on the CPU: nothing is captured then, all else is the same code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_answers import detections_of
from sluiceway_detection.backends import BackendSpec, open_backend
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.models.thresholds import PixelScale, Thresholds
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_detection.worker.device_handler import DeviceHandler
from sluiceway_detection.worker.handler import WorkerSettings
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.pool import Payload, Placement

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]  # torch warns by itself

HERE = Path(__file__).parent
MODELS = HERE / "models"
IMAGES = sorted((HERE / "images").glob("*.jpg"))
PLACEMENT = Placement(0, "cpu", None, 2)
SHAPES = ((96, 96), (64, 96), (96, 64))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICEWAY_CACHE", str(tmp_path))


def backend(path: Path, *, max_batch: int = 4, shapes: Any = SHAPES, **options: Any) -> Any:
    from sluiceway_detection.backends.cuda import CudaBackend

    return CudaBackend(BackendSpec(path, "cpu", 1, shapes=shapes, **options), max_batch=max_batch, depth=2)


def blank(count: int) -> list[np.ndarray]:
    return [np.full((*SHAPES[0], 3), 10 * index, np.uint8) for index in range(1, count + 1)]


def test_batch_sizes_grow_fourfold_up_to_the_largest() -> None:
    from sluiceway_detection.backends.cuda import batch_sizes

    assert [batch_sizes(most) for most in (1, 2, 6, 16)] == [(1,), (1, 2), (1, 4, 6), (1, 4, 16)]


@pytest.mark.parametrize("name", ["yolo11-pico", "yolo26-pico", "yolo26-pico-nms-free"])
def test_regions_equal_those_of_onnx_runtime(name: str) -> None:
    shapes = () if "free" in name else SHAPES
    settings = WorkerSettings(weights=str(MODELS / f"{name}.onnx"), shapes=shapes, max_batch=4, overlap=2)
    handler = DeviceHandler(settings)
    facts = handler.setup(PLACEMENT)["detection"]
    reference = ModelDetector(
        open_backend("onnx", BackendSpec(MODELS / f"{name}.onnx", "cpu", 1, precision="f32", shapes=shapes))
    )
    assert (facts.backend, facts.precision, facts.classes) == ("torch", "f32", reference.classes)
    assert facts.image_sizes == reference.image_sizes
    job = DetectionJob(Selection(0.3, 0.6))
    files = [path.read_bytes() for path in IMAGES]
    results = handler.run([job.payload(data) for data in files])
    images = [decode_image(data, ImageLimits()) for data in files]
    for result, expected in zip(results, reference.detect(images, [job] * len(images)), strict=True):
        assert isinstance(result, Payload)
        found = detections_of(result.meta)
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found.confidences, expected.confidences, atol=1e-4)
        # Of equal confidences either may come first.
        distances = np.abs(found.boxes_xyxy_px[:, None] - expected.boxes_xyxy_px[None]).max(axis=2)
        distances[found.class_ids[:, None] != expected.class_ids[None]] = np.inf
        assert distances.min(axis=0).max() < 0.05
        assert distances.min(axis=1).max() < 0.05


@pytest.mark.parametrize("pixels", [None, PixelScale((10, 20, 30), (100, 110, 120), rgb=True)])
def test_a_map_equals_that_of_onnx_runtime(tmp_path: Path, pixels: PixelScale | None) -> None:
    from db_graphs import dark_is_text

    known, model = Thresholds(0.4, None, 0.2, 1.4, pixels), dark_is_text(tmp_path / "dark.onnx")
    settings = WorkerSettings(weights=str(model), shapes=SHAPES, max_batch=4, overlap=2, known=known)
    handler = DeviceHandler(settings)
    facts = handler.setup(PLACEMENT)["detection"]
    assert (facts.enlarges, facts.any_shape, facts.confidence, facts.classes) == (False, False, 0.4, ("text",))
    spec = BackendSpec(model, "cpu", 1, precision="f32", shapes=SHAPES, known=known)
    reference = ModelDetector(open_backend("onnx", spec))
    job = DetectionJob(Selection(0.4))
    files = [path.read_bytes() for path in IMAGES]
    images = [decode_image(data, ImageLimits()) for data in files]
    results = handler.run([job.payload(data) for data in files])
    for result, expected in zip(results, reference.detect(images, [job] * len(images)), strict=True):
        assert isinstance(result, Payload)
        found = detections_of(result.meta)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, atol=0.5)
        # Maps come back in bytes: half of one, where a region is so small that roundings do not even out.
        np.testing.assert_allclose(found.confidences, expected.confidences, atol=2e-3)


def test_a_map_comes_back_in_bytes_and_what_is_no_number_as_no_text(tmp_path: Path) -> None:
    import torch
    from db_graphs import dark_is_text
    from sluiceway_detection.backends.places import PlacesNet

    card = backend(dark_is_text(tmp_path / "dark.onnx"), shapes=((96, 96),)).card
    values = torch.tensor([0.0, 0.3, 0.5, 1.0, float("nan"), float("inf"), -1.0, 2.0])
    net = PlacesNet(lambda _: values[None, None, None], card=card, dtype=torch.float32)
    (map_,) = net(torch.zeros(1, 1, 8, 3, dtype=torch.uint8))
    assert (map_.dtype, map_.flatten().tolist()) == (torch.uint8, [0, 76, 128, 255, 0, 255, 0, 255])


def test_images_go_into_the_cheapest_graph_that_has_room(tmp_path: Path) -> None:
    from yolo_graphs import bright_blocks

    made = backend(bright_blocks(tmp_path / "blocks.onnx"), max_batch=4)
    begun: list[int] = []
    begin = made._module.begin
    made._module.begin = lambda graph: begun.append(graph.batch) or begin(graph)
    costs = {1: 1.0, 2: 4.0, 4: 3.0}
    made._module.cost_ms = lambda graph: costs[graph.batch]
    expected = {count: made.start(blank(count)[-1:])()[0] for count in range(1, 8)}
    for count, graphs in ((1, [1]), (2, [4]), (3, [4]), (4, [4]), (7, [4, 4])):
        begun.clear()
        places = made.start(blank(count))()
        assert begun == graphs
        assert len(places) == count
        for index, found in enumerate(places, start=1):
            np.testing.assert_array_equal(found, expected[index])
    assert len({float(places[4].mean()) for places in expected.values()}) == len(expected)


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    import torch
    from yolo_graphs import bright_blocks

    made = backend(bright_blocks(tmp_path / "blocks.onnx"), max_batch=4)
    expected = made.start(blank(4))()
    begin = made._module.begin

    def full(graph: Any) -> Any:
        if graph.batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return begin(graph)

    made._module.begin = full
    np.testing.assert_array_equal(made.start(blank(4))(), expected)

    def empty(_graph: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    made._module.begin = empty
    with pytest.raises(torch.OutOfMemoryError):
        made.start(blank(4))


def test_a_device_that_is_lost_ends_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluiceway_runtime.gpu.device import CpuDevice
    from sluiceway_runtime.pool.handler import WorkerBroken
    from yolo_graphs import bright_blocks

    made = backend(bright_blocks(tmp_path / "blocks.onnx"), max_batch=1)

    def transfer(*_steps: Any) -> Any:
        def wait() -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        return wait

    monkeypatch.setattr(made._module._device, "transfer", transfer)
    monkeypatch.setattr(CpuDevice, "is_lost", lambda self: True, raising=False)
    # No `Exception`: nothing between here and the loop of the worker may take it for the fault of a batch.
    with pytest.raises(WorkerBroken, match="illegal memory access"):
        made.start(blank(1))()


def test_batches_are_smaller_where_their_buffers_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch
    from sluiceway_runtime.gpu import CompiledModule
    from yolo_graphs import bright_blocks

    path, prepare, least = bright_blocks(tmp_path / "blocks.onnx"), CompiledModule.prepare, [4]

    def bounded(self: Any, shapes: Any, compiled: Any = None) -> Any:
        if max(shape.batch for shape in shapes) >= least[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prepare(self, shapes, compiled)

    monkeypatch.setattr(CompiledModule, "prepare", bounded)
    made = backend(path, max_batch=8)
    assert {name.partition("x")[0] for name in made.costs_ms} == {"1", "2"}
    assert "batches have 2 images" in caplog.text
    assert len(made.start(blank(5))()) == 5
    least[0] = 1
    with pytest.raises(StartupError, match="cpu has too little free memory"):
        backend(path, max_batch=8)


def test_a_precision_that_the_model_does_not_bear_is_refused() -> None:
    path = MODELS / "yolo11-pico.onnx"  # random weights: three digits are too few for them
    with pytest.raises(StartupError, match=r"bf16 does not give this model's answers: .*; use f32"):
        backend(path, precision="bf16")


@pytest.mark.parametrize("name", ["cuda", "torch"])
def test_sixteen_bits_are_refused_for_a_checkpoint(tmp_path: Path, name: str) -> None:
    """Its own module decodes boxes in the arithmetic of all the rest: in bf16 they lie on a grid of 2 to 4 pixels."""
    spec = BackendSpec(tmp_path / "model.pt", "cpu", 1, precision="bf16", allow_checkpoint=True)
    opened = open_backend if name == "torch" else lambda _name, spec: backend(spec.weights, precision=spec.precision)
    with pytest.raises(StartupError, match=r"in bf16; use f32, .* sluiceway_detection.export model.pt model.onnx"):
        opened("torch", spec)


def test_a_checkpoint_on_a_gpu_computes_in_f32_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    import torch
    from sluiceway_detection.backends.cuda import CudaBackend

    made = object.__new__(CudaBackend)
    made._spec, made._device = BackendSpec(Path("model.pt"), "cuda:0", 1), torch.device("cuda:0")
    precision, reason = made._choose({}, {})
    assert precision == "f32"
    assert "sluiceway_detection.export model.pt model.onnx" in reason
    assert reason in caplog.text


@pytest.mark.parametrize("precision", ["f16", "int8"])
def test_precisions_that_a_cpu_has_not_are_refused(precision: str) -> None:
    with pytest.raises(StartupError, match=f"backend torch has no {precision} on cpu"):
        backend(MODELS / "yolo11-pico.onnx", precision=precision)


def test_without_cuda_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from sluiceway_detection.backends.cuda import CudaBackend

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StartupError, match="finds no CUDA device for cuda:0"):
        CudaBackend(BackendSpec(MODELS / "yolo11-pico.onnx", "cuda:0", 1), max_batch=1, depth=1)


def test_a_graph_that_computes_something_else_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluiceway_runtime.gpu import CompiledModule
    from yolo_graphs import bright_blocks

    compute = CompiledModule.__call__

    def mixed_up(self: Any, shape: Any, *arrays: np.ndarray) -> Any:
        (places,) = compute(self, shape, *arrays)
        return (np.roll(places, 1, axis=0),)

    monkeypatch.setattr(CompiledModule, "__call__", mixed_up)
    with pytest.raises(StartupError, match=r"blocks.onnx: 2x96x96 in f32: a confidence differs"):
        backend(bright_blocks(tmp_path / "blocks.onnx"), max_batch=2)


@pytest.mark.parametrize("end_to_end", [False, True])
def test_what_counts_as_a_difference(end_to_end: bool) -> None:
    from sluiceway_detection.backends.agreement import places_differ

    def shown(places: np.ndarray) -> np.ndarray:
        if not end_to_end:
            return places
        middle, half = places[:2], places[2:4] / 2
        return np.concatenate((middle - half, middle + half, places[4:])).T

    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(50, 650, 60), np.arange(50, 410, 60))).reshape(2, -1)
    places = np.concatenate(
        (grid, random.uniform(28, 32, (2, 60)), random.uniform(0.3, 0.9, (1, 60)), random.integers(0, 3, (1, 60)))
    )

    def verdict(change: Any) -> str:
        other = places.copy()
        change(other)
        return places_differ(shown(places), shown(other), end_to_end=end_to_end) or ""

    assert verdict(lambda other: None) == ""
    assert verdict(lambda other: other.__setitem__(slice(0, 4), other[:4] + 0.5)) == ""
    assert "stay where they are" in verdict(lambda other: other.__setitem__(0, other[0] + 15))
    assert "a confidence differs" in verdict(lambda other: other.__setitem__(4, other[4] * 0.5))
    assert "keep their class" in verdict(lambda other: other.__setitem__(5, other[5] + 1))
    assert "not finite" in verdict(lambda other: other.__setitem__((4, 0), np.inf))
    assert "instead of" in str(places_differ(shown(places), shown(places[:, 1:]), end_to_end=end_to_end))
