"""Detection on a real GPU: the same boxes as in f32 on the CPU, through a server, and what goes wrong on a device."""

import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from PIL import Image
from sluiceway_detection.backends import BackendSpec
from sluiceway_detection.backends.agreement import reference_image
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front.service import DetectionService
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.detector import ModelDetector
from sluiceway_runtime import weights
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.images.decode import decode_image
from sluiceway_runtime.images.limits import ImageLimits
from sluiceway_runtime.images.plain_jpeg import plain_jpeg
from sluiceway_runtime.server.app import Server
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security

from sluiceway.detection.v1 import detection_pb2 as pb
from sluiceway.detection.v1 import detection_pb2_grpc

# Compiling takes most of the time; torch warns by itself.
pytestmark = [pytest.mark.cuda, pytest.mark.timeout(400), pytest.mark.filterwarnings("default")]

UNIT = Path(__file__).parents[1] / "unit" / "detection"
PICO = UNIT / "models" / "yolo11-pico.onnx"
SHAPE = (480, 640)
# Drawn, with a hundred words each, of several sizes.
PAGES = ((480, 640), (600, 800), (720, 960), (800, 600))
PHOTOGRAPHS = sorted((UNIT / "images").glob("*.jpg"))
DEVICE = "cuda:0"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all tests here, so that each graph is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICEWAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def backend(path: Path, *, max_batch: int = 2, **options: Any) -> Any:
    from sluiceway_detection.backends.cuda import CudaBackend

    options = {"shapes": (SHAPE,)} | options
    return CudaBackend(BackendSpec(path, DEVICE, 1, **options), max_batch=max_batch, depth=3)


def reference(path: Path) -> ModelDetector:
    """In f32 on the CPU, by torch: a GPU machine may have nothing else."""
    from sluiceway_detection.backends.torch import TorchBackend

    return ModelDetector(TorchBackend(BackendSpec(path, "cpu", 4, precision="f32", shapes=(SHAPE,))))


def overlap(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    low, high = np.maximum(left[:, None, :2], right[None, :, :2]), np.minimum(left[:, None, 2:], right[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (left, right)]
    return common / (areas[0][:, None] + areas[1][None] - common)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[DetectionService, detection_pb2_grpc.DetectionServiceStub]]:
    model = weights.resolve("text-nano", kind="detection").path  # it ships with the package
    config = DetectionConfig.model_validate(
        {"port": 0, "operations_port": 0, "drain_notice_s": 0, "model": str(model), "device": DEVICE}
        | {"shapes": [f"{SHAPE[0]}x{SHAPE[1]}"], "max_batch": 4}
        | options
    )
    service = DetectionService(config, Installation({}, Security(), {}))
    server = Server(service, config)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield service, detection_pb2_grpc.DetectionServiceStub(channel)
    finally:
        await server.stop()


def alike(due: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Which of the due boxes and classes were found."""
    return ((overlap(due[0], found[0]) > 0.9) & (due[1][:, None] == found[1][None])).any(axis=1)


def boxes_of(answer: pb.DetectResponse) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.array([[g.x0, g.y0, g.x1, g.y1] for d in answer.detections if (g := d.geometry.box)])
    return boxes.reshape(-1, 4), np.array([d.class_id for d in answer.detections])


async def test_a_server_on_cuda_gives_the_boxes_of_f32() -> None:
    files = [cv2.imencode(".png", reference_image(size))[1].tobytes() for size in PAGES]
    async with serving() as (service, stub):
        facts = service.facts
        assert facts is not None
        assert (facts.backend, facts.precision, facts.device, facts.decode) == ("torch", "f16", DEVICE, "gpu")
        confidence, iou = facts.confidence, facts.iou
        detector, wanted = reference(weights.resolve("text-nano", kind="detection").path), 0
        # All at once, so that they share batches.
        calls = [stub.Detect(pb.DetectRequest(image=data)) for data in files for _ in range(5)]
        answers = [await call for call in calls]
        for number, data in enumerate(files):
            (due,) = detector.detect([decode_image(data, ImageLimits())], [DetectionJob(Selection(confidence, iou))])
            sure = due.confidences > confidence + 0.05
            for answer in answers[5 * number : 5 * number + 5]:
                assert alike((due.boxes_xyxy_px, due.class_ids), boxes_of(answer))[sure].mean() >= 0.99
                wanted += int(sure.sum())
        assert wanted > 1000, "the pictures show too little for this to say anything"


def jpeg(picture: np.ndarray | Image.Image, **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture[:, :, ::-1])
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90, **options)
    return file.getvalue()


def sample_files() -> dict[str, bytes]:
    files = {path.stem: path.read_bytes() for path in PHOTOGRAPHS}
    picture = Image.open(PHOTOGRAPHS[0]).convert("RGB").crop((0, 0, 500, 333))
    files |= {f"sampled {number}": jpeg(picture, subsampling=number) for number in (0, 1, 2)}
    files |= {"grey": jpeg(picture.convert("L"))}
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[274] = orientation
        files[f"turned {orientation}"] = jpeg(picture, exif=exif)
    return files | {f"page {size}": jpeg(reference_image(size)) for size in PAGES}


def test_the_devices_pixels_are_nearly_the_cpus() -> None:
    from sluiceway_runtime.gpu.jpeg import JpegDecoder

    files = sample_files()
    plain = [made for data in files.values() if (made := plain_jpeg(data, ImageLimits())) is not None]
    assert len(plain) == len(files)
    decoder = JpegDecoder(DEVICE, threads=2)
    for name, data, found in zip(files, files.values(), decoder.decode(plain), strict=True):
        assert found is not None, f"{name} was left to the CPU"
        expected = decode_image(data, ImageLimits())
        assert found.shape == expected.shape, name
        difference = np.abs(found.astype(np.int16) - expected)
        # Colours are enlarged in another way; 810 x 1080 of a photograph gave 0.45 and 5.
        assert (difference.mean() < 1, np.percentile(difference, 99) <= 8) == (True, True), name


async def test_regions_are_those_of_files_that_the_cpu_decodes() -> None:
    files = {name: data for name, data in sample_files().items() if name.startswith("page")}
    turned = Image.Exif()
    turned[274] = 6
    page = Image.fromarray(reference_image(PAGES[1])[:, :, ::-1])
    files |= {"progressive": jpeg(page, progressive=True), "grey": jpeg(page.convert("L"))}
    # Stored on its side, so that it is upright once it is turned.
    files["turned"] = jpeg(page.transpose(Image.Transpose.ROTATE_90), exif=turned)
    found: dict[str, list[pb.DetectResponse]] = {}
    for decode in ("cpu", "gpu"):
        async with serving(decode=decode) as (service, stub):
            assert service.facts is not None
            assert (service.facts.decode, service.facts.decode_reason) == (decode, "configured")
            calls = [stub.Detect(pb.DetectRequest(image=data)) for data in files.values()]
            found[decode] = [await call for call in calls]
    wanted = 0
    for name, here, there in zip(files, found["cpu"], found["gpu"], strict=True):
        assert (here.width, here.height) == (there.width, there.height), name
        assert there.timings.decode_ms > 0
        for one, other in ((here, there), (there, here)):
            boxes, classes = boxes_of(one)
            sure = np.array([d.confidence for d in one.detections]) > service.facts.confidence + 0.05
            assert alike((boxes, classes), boxes_of(other))[sure].mean() >= 0.99, name
            wanted += int(sure.sum())
    assert wanted > 1000, "the pictures show too little for this to say anything"


async def test_a_file_that_no_decoder_reads_fails_alone() -> None:
    page = jpeg(reference_image(PAGES[0]))
    table = page.index(b"\xff\xdb")
    # Without its quantisation tables: its header is as it should be.
    broken = page[:table] + page[page.index(b"\xff\xc0") :]
    assert plain_jpeg(broken, ImageLimits()) is not None
    async with serving(decode="gpu") as (_, stub):
        calls = [stub.Detect(pb.DetectRequest(image=data)) for data in (page, broken, page)]
        first, last = await calls[0], await calls[2]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls[1]
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(first.detections) == len(last.detections) > 10


@pytest.mark.parametrize("precision", [None, "f16"])
def test_f16_is_refused_where_it_does_not_give_the_models_answers(tmp_path: Path, precision: Any) -> None:
    from yolo_graphs import bright_blocks

    # Sums beyond 65504 are infinite in f16 and nothing special in f32.
    path = bright_blocks(tmp_path / "blocks.onnx", scale=1e7)
    if precision is not None:
        with pytest.raises(StartupError, match=r"f16 does not give this model's answers: .*; use f32"):
            backend(path, precision=precision)
        return
    made = backend(path)
    assert made.precision == "f32"
    assert "f16 does not give" in made.precision_reason


def test_batches_on_their_way_do_not_touch_each_other(tmp_path: Path) -> None:
    from yolo_graphs import bright_blocks

    made = backend(bright_blocks(tmp_path / "blocks.onnx"), max_batch=4)
    assert made.precision == "f16"
    greys = [[10, 20, 30, 40], [50, 60], [70], [80, 90, 100, 110, 120, 130], [140, 150, 160]]
    waiting = [made.start(flat(batch)) for batch in greys]
    for batch, finish in zip(greys, waiting, strict=True):
        found = [float(places[4].mean()) for places in finish()]
        assert found == pytest.approx([grey / 255 for grey in batch], abs=1e-3)


def test_a_batch_that_does_not_fit_into_the_memory_is_halved(tmp_path: Path) -> None:
    import torch
    from yolo_graphs import bright_blocks

    made = backend(bright_blocks(tmp_path / "blocks.onnx"), max_batch=4)
    begin = made._module.begin

    def full(graph: Any) -> Any:
        if graph.batch > 1:
            # A real one: more than any device has.
            torch.empty(2**46, dtype=torch.uint8, device=DEVICE)
        return begin(graph)

    made._module.begin = full
    found = [float(places[4].mean()) for places in made.start(flat([10, 20, 30]))()]
    assert found == pytest.approx([10 / 255, 20 / 255, 30 / 255], abs=1e-3)


@contextmanager
def taken(all_but_bytes: int) -> Iterator[None]:
    """Let another process take the device's memory: what this one holds itself counts as its own to use."""
    code = f"""
import sys, torch
ballast = torch.empty(torch.cuda.mem_get_info()[0] - {all_but_bytes}, dtype=torch.uint8, device={DEVICE!r})
print(flush=True)
sys.stdin.read()
"""
    # Leaving closes its input, which ends it.
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline(), "the other process could not take the memory"
        yield


def test_shapes_that_do_not_fit_into_the_memory_are_left_out(tmp_path: Path) -> None:
    import torch
    from yolo_graphs import bright_blocks

    path = bright_blocks(tmp_path / "blocks.onnx")
    torch.cuda.set_per_process_memory_fraction(1.0)  # other tests may have bounded what this process takes
    torch.zeros(1, device=DEVICE)
    torch.cuda.empty_cache()
    try:
        # A batch of 64 images of 2048 x 2048 wants 3 GB in f16.
        with taken(all_but_bytes=1500 * 2**20):
            made = backend(path, max_batch=64, shapes=((2048, 2048),))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert made.inputs.shapes == ((2048, 2048),)
    assert max(int(name.partition("x")[0]) for name in made.costs_ms) < 64
    found = [float(places[4].mean()) for places in made.start(flat([10, 20, 30], (2048, 2048)))()]
    assert found == pytest.approx([10 / 255, 20 / 255, 30 / 255], abs=1e-3)


def test_the_second_start_finds_the_graphs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    options: dict[str, Any] = {"shapes": ((96, 96),), "precision": "f32"}
    first = backend(PICO, **options)
    assert "compiling 2 graphs" in caplog.text
    caplog.clear()
    second = backend(PICO, **options)
    assert "compiling" not in caplog.text
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    np.testing.assert_array_equal(first.start([image])(), second.start([image])())


def flat(greys: Sequence[int], shape: tuple[int, int] = SHAPE) -> list[np.ndarray]:
    return [np.full((*shape, 3), grey, np.uint8) for grey in greys]
