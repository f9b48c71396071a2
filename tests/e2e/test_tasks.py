"""YOLO's tasks and a DETR model in one cluster: what a client gets of each, and crops that are cut to be read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from foreign_readers import ForeignReader
from onnx_files import save_classifier
from PIL import Image
from ports import free_ports
from task_graphs import classic, save_detector

from sluiceway import Client, draw

SIDE = 192
READER = ForeignReader(("", "x", "y", "z", " "), (32, 96))
TURNED, PLATE = "xyz x", "zzy"
DEGREES = 25.0
CORNERS = np.array([[20, 120], [110, 132], [104, 168], [26, 150]], np.float32)
DISC_PX = 24.0

CONFIG = """\
[orchestrator]
default_pipeline = "tasks"

[detection]
model = "turned.onnx"
workers = 1

[recognition]
workers = 1

[[recognition.models]]
name = "reader"
weights = "reader.onnx"
height = 32
max_width = 96
buckets = [96]
alphabet = "xyz"
precision = "f32"
upright = "none"
turn_ratio = 0

[[recognition.models]]
name = "plates"
weights = "reader.onnx"
height = 32
max_width = 96
resize_rule = "stretch"
alphabet = "xyz"
precision = "f32"
upright = "none"
turn_ratio = 0
align = "keypoints"
align_points = [[0, 0], [1, 0], [1, 1], [0, 1]]

[[recognition.models]]
name = "kind"
kind = "classify"
weights = "kind.onnx"
height = 16
max_width = 16
format = "rgb"
resize_rule = "cover"
labels = ["dark", "bright"]
precision = "f32"

[pipelines.tasks]
steps = [
  { name = "turned", stage = "detection" },
  { name = "parts", stage = "parts" },
  { name = "corners", stage = "corners" },
  { name = "things", stage = "things" },
  { name = "text", stage = "recognition", of = "turned", model = "reader" },
  { name = "number", stage = "recognition", of = "corners", model = "plates" },
  { name = "kind", stage = "recognition", model = "kind" },
]
"""
STAGE = """
[stages.{name}]
kind = "detection"
model = "{name}.onnx"
workers = 1
port = {port}
operations_port = {operations_port}
"""


def page() -> bytes:
    image = np.full((SIDE, SIDE, 3), 230, np.uint8)
    for text, corners in ((TURNED, turned_corners()), (PLATE, CORNERS)):
        line = READER.draw(text)
        height, width = line.shape[:2]
        # Outer corners, while OpenCV counts from the centres of pixels.
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(source, corners - 0.5)
        cv2.warpPerspective(line, matrix, (SIDE, SIDE), dst=image, borderMode=cv2.BORDER_TRANSPARENT)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def turned_corners() -> np.ndarray:
    return cv2.boxPoints(((90, 60), (96, 32), DEGREES))[[1, 2, 3, 0]].astype(np.float32)


def save_models(folder: Path) -> None:
    facts = {"names": "{0: 'a', 1: 'b'}", "stride": 32}
    READER.save(folder / "reader.onnx")
    bright = np.array([[-6, 6], [-6, 6], [-6, 6]], np.float32)
    save_classifier(folder / "kind.onnx", bright, np.zeros(2, np.float32), (16, 16))
    box = (90, 60, 96, 32, 0.9, 0, np.radians(DEGREES))
    again = (91, 60, 96, 32, 0.8, 0, np.radians(DEGREES))
    save_detector(folder / "turned.onnx", {"output0": classic([box, again], 2)}, facts | {"task": "obb"}, side=SIDE)
    y, x = np.mgrid[: SIDE // 4, : SIDE // 4] + 0.5
    disc = (DISC_PX / 4 - np.hypot(x - 36, y - 36))[None]
    save_detector(
        folder / "parts.onnx",
        {"output0": classic([(144, 144, 60, 60, 0.8, 1, 1.0)], 2), "output1": disc},
        facts | {"task": "segment"},
        side=SIDE,
    )
    points = [value for point in CORNERS.tolist() for value in (*point, 0.75)]
    save_detector(
        folder / "corners.onnx",
        {"output0": classic([(65, 144, 90, 48, 0.7, 1, *points)], 2)},
        facts | {"task": "pose", "kpt_shape": [4, 3]},
        side=SIDE,
    )
    save_detector(
        folder / "things.onnx",
        {
            "logits": np.array([[2.0, -5.0], [-5.0, -5.0]]),
            "pred_boxes": np.array([[0.5, 0.5, 0.5, 0.25], [0.1] * 4]),
        },
        facts,
        side=SIDE,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    save_models(made)
    ports = free_ports(6)
    stages = (
        STAGE.format(name=name, port=ports[2 * at], operations_port=ports[2 * at + 1])
        for at, name in enumerate(("parts", "corners", "things"))
    )
    config = CONFIG + "".join(stages)
    for name in ("turned", "parts", "corners", "things", "reader", "kind"):
        config = config.replace(f'"{name}.onnx"', json.dumps(str(made / f"{name}.onnx")))
    (made / "sluiceway.toml").write_text(config)
    (made / "page.png").write_bytes(page())
    return made


@pytest.fixture(scope="module")
def cluster(start_up_once: Any, folder: Path) -> Any:
    return start_up_once(folder / "sluiceway.toml")


def test_each_task_is_told_in_its_own_geometry(cluster: Any, folder: Path) -> None:
    with Client(cluster.address) as client:
        result = client.process(folder / "page.png").raise_for_error()
    regions = {region.step: region for region in result.regions}
    assert len(regions) == len(result.regions) == 4

    turned = regions["turned"]
    assert np.abs(np.array(turned.outline) - turned_corners()).max() < 0.05
    # Cut out of the picture upright, and read.
    assert turned.text == TURNED

    outline = np.array(regions["parts"].outline, np.float32)
    assert cv2.contourArea(outline) == pytest.approx(np.pi * DISC_PX**2, rel=0.02)
    assert regions["parts"].class_name == "b"

    corners = regions["corners"]
    assert np.array(corners.keypoints) == pytest.approx(np.c_[CORNERS, np.full(4, 0.75)], abs=0.01)
    # Its box alone would show the plate askew.
    assert corners.text == PLATE

    thing = regions["things"]
    assert tuple(thing.box) == pytest.approx((48, 72, 144, 120), abs=0.01)
    assert thing.confidence == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-3)
    picture = draw(folder / "page.png", result)
    assert picture.size[0] >= SIDE


def test_a_page_has_a_class_and_the_command_line_tells_keypoints(cluster: Any, folder: Path) -> None:
    command = [sys.executable, "-m", "sluiceway.cli", "run", str(folder / "page.png"), "--address", cluster.address]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    told = json.loads(done.stdout)
    by_step = {region["step"]: region for region in told["regions"]}
    assert by_step["corners"]["keypoints"][1] == [110.0, 132.0, 0.75]
    assert len(by_step["parts"]["outline"]) > 8
    assert len(by_step["turned"]["outline"]) == 4
    with Client(cluster.address) as client:
        result = client.process(folder / "page.png").raise_for_error()
    assert [label.class_name for label in result.page_values[0]["kind"].labels] == ["bright"]
    assert told["page_values"]
