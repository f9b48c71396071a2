"""int8 with real weights: made by the command, as the boxes say, and served."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detection_answers import detections_of
from sluiceway_detection.job import DetectionJob
from sluiceway_detection.selection import Selection
from sluiceway_detection.worker.handler import DetectionHandler, WorkerSettings
from sluiceway_runtime import weights
from sluiceway_runtime.pool import Payload, Placement

IMAGES = Path(__file__).parents[1] / "unit" / "detection" / "images"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    for path in (*weights.pull_samples(["bus.jpg", "zidane.jpg"]).values(), *IMAGES.glob("*.jpg")):
        shutil.copy(path, made)
    return made


def calibrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from sluiceway.cli import main; main()", "models", "calibrate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_the_command_makes_int8_weights_that_find_the_same(folder: Path, tmp_path: Path) -> None:
    weights.pull(["coco-v8n"])
    target = tmp_path / "coco-int8.onnx"
    done = calibrate("coco-v8n", "--images", str(folder), "--to", str(target))
    assert done.returncode == 0, done.stderr
    assert "boxes overlap their partner in f32" in done.stdout
    found = {}
    for precision, path in (("f32", weights.resolve("coco-v8n", kind="detection").path), (None, target)):
        handler = DetectionHandler(WorkerSettings(weights=str(path), precision=precision))
        facts = handler.setup(Placement(0, "cpu", None, 1))["detection"]
        assert facts.precision == (precision or "int8")
        (answer,) = handler.run([DetectionJob(Selection(0.4)).payload((folder / "bus.jpg").read_bytes())])
        assert isinstance(answer, Payload)
        found[precision] = detections_of(answer.meta)
    assert len(found["f32"]) >= 4
    assert sorted(found["f32"].class_ids) == sorted(found[None].class_ids)
    order = [np.lexsort(each.boxes_xyxy_px.round(-1).T) for each in found.values()]
    moved = np.abs(found["f32"].boxes_xyxy_px[order[0]] - found[None].boxes_xyxy_px[order[1]])
    assert moved.max() < 25, "pixels of 1080"


def test_the_command_says_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, said in (
        (("coco-v8n", "--images", str(empty), "--to", str(target)), "holds no image"),
        (("ppocrv6-tiny", "--images", str(folder), "--to", str(target)), "for recognition, not for detection"),
        (("coco-v8n", "--images", str(folder), "--to", str(tmp_path / "no" / "x.onnx")), "does not exist"),
    ):
        done = calibrate(*arguments)
        assert done.returncode in (1, 2)
        assert said in done.stderr
    assert not target.exists()
