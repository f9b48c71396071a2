"""What the detection server asks of its pool on a GPU, and which images may share a batch."""

from pathlib import Path
from typing import Any

import pytest
from sluiceway_detection.config import DetectionConfig
from sluiceway_detection.front import service
from sluiceway_detection.front.service import DetectionService
from sluiceway_detection.front.servicer import _batch_group, _upright
from sluiceway_detection.inputs.shapes import Inputs
from sluiceway_detection.worker import device_handler, handler
from sluiceway_runtime.cores import planner
from sluiceway_runtime.cores.facts import CpuFacts, LogicalCpu
from sluiceway_runtime.errors import StartupError
from sluiceway_runtime.images.header import ImageHeader
from sluiceway_runtime.server.main import Installation
from sluiceway_runtime.server.security import Security

MODEL = str(Path(__file__).parent / "models" / "yolo11-pico.onnx")
SHAPES = ((640, 640), (480, 640), (640, 480), (320, 320))


class Stopped(Exception):
    """As far as it is to go."""


async def asked_of_the_pool(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Any]:
    seen: list[Any] = []

    def pool(spec: Any, limits: Any, **_: Any) -> Any:
        seen.extend((spec, limits))
        raise Stopped

    monkeypatch.setattr(service, "Pool", pool)
    monkeypatch.setattr(service.devices, "resolve", lambda device, **_: ("cpu",) if device == "cpu" else ("cuda:0",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    config = DetectionConfig.model_validate({"model": MODEL, "precision": "f32"} | options)
    with pytest.raises(Stopped):
        await DetectionService(config, Installation({}, Security(), {})).start()
    return seen[0], seen[1]


async def test_on_a_gpu_batches_are_large_and_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, limits = await asked_of_the_pool(monkeypatch, device="cuda", workers_per_device=2)
    assert (spec.factory, spec.credits, spec.overlap) == (device_handler.FACTORY, 3, 3)
    assert (limits.max_batch, limits.start_timeout_s) == (16, 900)
    assert {name: spec.config[name] for name in ("max_batch", "overlap", "workers_on_device")} == {
        "max_batch": 16,
        "overlap": 3,
        "workers_on_device": 2,
    }


@pytest.mark.parametrize(
    ("max_image_pixels", "in_a_batch"),
    [(200_000_000, 200_000_000), (100_000_000, 100_000_000), (2_000_000, 100_000_000)],
)
async def test_a_batch_decodes_to_no_more_than_one_image_may(
    monkeypatch: pytest.MonkeyPatch, max_image_pixels: int, in_a_batch: int
) -> None:
    # Sixteen of the largest images would be 5 GB, three times over. Where only small ones are let in, batches are full.
    _, limits = await asked_of_the_pool(monkeypatch, device="cuda", max_image_pixels=max_image_pixels)
    assert limits.max_batch_cost == in_a_batch


@pytest.mark.parametrize(
    ("cpus", "options", "workers", "threads"),
    [
        (16, {}, 2, 8),
        (4, {}, 1, 4),
        (16, {"workers_per_device": 1}, 1, 12),
        (16, {"detector": "examples.detector:BlobDetector"}, 1, 12),
    ],
)
async def test_two_processes_decode_for_a_gpu_where_there_are_cores_for_both(
    monkeypatch: pytest.MonkeyPatch, cpus: int, options: dict[str, Any], workers: int, threads: int
) -> None:
    allowed, cores = tuple(range(cpus)), tuple(LogicalCpu(cpu, 0, cpu, 0) for cpu in range(cpus))
    facts = CpuFacts(allowed, allowed, quota_cpus=None, exclusive=False, topology=cores)
    monkeypatch.setattr(planner, "read_cpu_facts", lambda: facts)
    spec, _ = await asked_of_the_pool(monkeypatch, device="cuda", **options)
    assert [(placement.device, placement.threads) for placement in spec.placements] == [("cuda:0", threads)] * workers


async def test_what_is_configured_counts_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, limits = await asked_of_the_pool(monkeypatch, device="cuda", max_batch=4, start_timeout_s=30)
    assert (limits.max_batch, limits.start_timeout_s) == (4, 30)


async def test_a_cpu_computes_one_image_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, limits = await asked_of_the_pool(monkeypatch)
    assert (spec.factory, spec.credits, spec.overlap, limits.max_batch) == (handler.FACTORY, 1, 1, 1)
    assert limits.start_timeout_s == 120


@pytest.mark.parametrize("options", [{"backend": "onnx"}, {"detector": "examples.detector:BlobDetector"}])
async def test_other_backends_and_own_detectors_have_the_ordinary_handler(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    spec, _ = await asked_of_the_pool(monkeypatch, device="cuda", **options)
    assert (spec.factory, spec.credits, spec.overlap) == (handler.FACTORY, 3, 1)


@pytest.mark.parametrize("decode", ["auto", "cpu", "gpu"])
async def test_where_files_are_decoded_is_told_to_the_workers(monkeypatch: pytest.MonkeyPatch, decode: str) -> None:
    spec, _ = await asked_of_the_pool(monkeypatch, device="cuda", decode=decode)
    assert spec.config["decode"] == decode


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "cpu"),
        ({"device": "cuda", "backend": "onnx"}, "cuda:0"),
        ({"device": "cuda", "detector": "examples.detector:BlobDetector"}, "cuda:0"),
    ],
)
async def test_a_gpu_decodes_only_where_torch_detects_on_it(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], where: str
) -> None:
    with pytest.raises(StartupError, match=rf"^detection\.decode: gpu is for .* on {where} .*; use auto or cpu$"):
        await asked_of_the_pool(monkeypatch, decode="gpu", **options)


async def test_a_gpu_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.devices, "resolve", lambda device, **_: ("cuda:0",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = DetectionConfig.model_validate({"model": MODEL, "device": "cuda"})
    with pytest.raises(StartupError, match=r"torch needs torch: .*pip install .*\[gpu\]'$"):
        await DetectionService(config, Installation({}, Security(), {})).start()


@pytest.mark.parametrize(
    ("header", "image_size", "group"),
    [
        (ImageHeader("jpeg", 810, 1080), None, (640, 480)),
        (ImageHeader("jpeg", 810, 1080, orientation=6), None, (480, 640)),
        (ImageHeader("png", 100, 100), None, (640, 640)),
        (ImageHeader("png", 810, 1080), 320, (320, 320)),
    ],
)
def test_images_of_one_input_shape_may_share_a_batch(header: ImageHeader, image_size: int | None, group: Any) -> None:
    assert _batch_group(_upright(header), image_size, Inputs(SHAPES)) == group


def test_a_detector_without_shapes_takes_all_images_together() -> None:
    assert _batch_group((2, 1), None, None) == _batch_group((1, 2), None, None)
