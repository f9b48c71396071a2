"""A worker of a GPU from file to regions, with torch on the CPU in place of CUDA: who decodes makes no difference."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sluiceway_detection.crops import CropPlan
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.device_handler import DeviceHandler, build
from sluiceway_detection.worker.handler import WorkerSettings
from sluiceway_runtime.errors import InvalidImage
from sluiceway_runtime.pool import Payload, Placement

pytestmark = [pytest.mark.torch, pytest.mark.timeout(280), pytest.mark.filterwarnings("default")]

HERE = Path(__file__).parent
PHOTOGRAPHS = sorted((HERE / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, DeviceHandler]]:
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICEWAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        for decode in ("cpu", "auto"):
            settings = WorkerSettings(
                weights=str(HERE / "models" / "yolo11-pico.onnx"), shapes=((96, 96),), max_batch=4, decode=decode
            )
            made[decode] = build(settings.mapping())
            facts = made[decode].setup(Placement(0, "cpu", None, 4))["detection"]
            expected = {"cpu": ("cpu", "configured"), "auto": ("gpu", "by default, tried with a small picture")}
            assert (facts.decode, facts.decode_reason) == expected[decode]
    yield made
    for handler in made.values():
        handler.close()


def encoded(mode: str = "RGB", orientation: int = 1, kind: str = "jpeg", **options: Any) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Image.open(PHOTOGRAPHS[0]).convert(mode).crop((0, 0, 333, 500)).save(file, kind, exif=exif, **options)
    return file.getvalue()


def test_answers_do_not_depend_on_who_decodes(handlers: dict[str, DeviceHandler]) -> None:
    files = [path.read_bytes() for path in PHOTOGRAPHS]
    files += [encoded(progressive=True), encoded("L"), encoded("CMYK"), encoded(kind="png"), encoded()[:-30]]
    files += [encoded(orientation=orientation) for orientation in range(2, 9)]
    regions = 0
    job = DetectionJob(Selection(0.1), None, (CropPlan("text", 32, 64),))
    for number in range(0, len(files), 4):
        batch = [job.payload(data) for data in files[number : number + 4]]
        here, there = (handlers[decode].run(batch) for decode in ("cpu", "auto"))
        for one, other in zip(here, there, strict=True):
            if isinstance(one, InvalidImage):
                assert str(other) == str(one)
                continue
            assert isinstance(one, Payload)
            assert isinstance(other, Payload)
            assert other.meta.decode_ms > 0
            assert other.meta._replace(decode_ms=0) == one.meta._replace(decode_ms=0)
            assert other.buffers == one.buffers
            regions += len(one.meta.crops)
    assert regions > 20, "the model sees too little for this to say anything"
