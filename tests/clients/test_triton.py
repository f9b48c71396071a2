"""Triton's own client against both stages, through the Open Inference Protocol."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image
from ports import free_ports

from sluiceway.client.convert.response import _outline
from sluiceway.common.v1 import crop_pb2, geometry_pb2
from sluiceway.detection.v1 import detection_pb2, detection_pb2_grpc
from sluiceway.recognition.v1 import recognition_pb2, recognition_pb2_grpc
from tests.e2e.conftest import COMMAND, Starter

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
# tritonclient wants protobuf below 7 and brings an `inference` package of its own: `make test-clients` makes this.
PYTHON = ROOT / ".venv-triton" / "bin" / "python"
READERS = ("ppocrv6-tiny", "ppocrv5-mobile")


# Tensors hold floats of 32 bits.
FLOAT = 1e-6


def upright(geometry: geometry_pb2.Geometry) -> list[float]:
    """The upright box around a region, which may be turned."""
    xs, ys = zip(*_outline(geometry), strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def same(boxes: list[list[float]], expected: list[list[float]]) -> None:
    assert len(boxes) == len(expected)
    for box, other in zip(boxes, expected, strict=True):
        assert box == pytest.approx(other, rel=FLOAT)


@dataclass(frozen=True)
class Stages:
    detection: str
    recognition: str


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    """A cluster with two recognition models, and the addresses of its stages."""
    starter = Starter()
    ports = free_ports(2)
    starter(
        SLUICEWAY_DETECTION__PORT=str(ports[0]),
        SLUICEWAY_RECOGNITION__PORT=str(ports[1]),
        SLUICEWAY_DETECTION__WORKERS="1",
        SLUICEWAY_RECOGNITION__WORKERS="1",
        SLUICEWAY_RECOGNITION__MODELS=json.dumps([{"name": name} for name in READERS]),
    )
    yield Stages(*(f"127.0.0.1:{port}" for port in ports))
    starter.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    command = [*COMMAND, "samples", "pull", "bus.jpg", "page.png", "--to", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    Image.new("RGB", (320, 240), "gray").save(folder / "blank.png")
    return [folder / "page.png", folder / "blank.png", folder / "bus.jpg"]


@pytest.fixture(scope="module")
def native(stages: Stages, images: list[Path]) -> list[detection_pb2.DetectResponse]:
    """The same images through the stage's own service."""
    with grpc.insecure_channel(stages.detection) as channel:
        stub = detection_pb2_grpc.DetectionServiceStub(channel)
        return [stub.Detect(detection_pb2.DetectRequest(image=image.read_bytes())) for image in images]


@pytest.fixture(scope="module")
def crops(
    images: list[Path], native: list[detection_pb2.DetectResponse], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """A few regions of the page as files."""
    folder = tmp_path_factory.mktemp("crops")
    paths = []
    with Image.open(images[0]) as page:
        for found in native[0].detections[:5]:
            paths.append(folder / f"{found.id}.png")
            page.crop(tuple(map(round, upright(found.geometry)))).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def described(stages: Stages) -> tuple[detection_pb2.DescribeResponse, recognition_pb2.DescribeResponse]:
    with grpc.insecure_channel(stages.detection) as first, grpc.insecure_channel(stages.recognition) as second:
        detection = detection_pb2_grpc.DetectionServiceStub(first).Describe(detection_pb2.DescribeRequest())
        recognition = recognition_pb2_grpc.RecognitionServiceStub(second).Describe(recognition_pb2.DescribeRequest())
    return detection, recognition


@pytest.fixture(scope="module")
def probe(stages: Stages, images: list[Path], crops: list[Path], described: Any) -> dict[str, Any]:
    """Everything that tritonclient got."""
    models = [described[0].model.name, *(entry.model.name for entry in described[1].models)]
    lists = [",".join(map(str, paths)) for paths in (crops, images)]
    command = [PYTHON, Path(__file__).parent / "triton_probe.py", stages.detection, stages.recognition, *lists]
    done = subprocess.run([*command, ",".join(models)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_says_that_it_lives_and_is_ready(probe: dict[str, Any]) -> None:
    assert probe["live"] == [True, True]
    assert probe["ready"] == [True, True]
    assert probe["servers"] == ["sluiceway-detection", "sluiceway-recognition"]
    assert probe["model_ready"] == [True, True, True]
    assert probe["unknown_ready"] is False


def test_metadata_is_right_for_every_model(probe: dict[str, Any], described: Any) -> None:
    detection, recognition = described
    assert [entry.model.name for entry in recognition.models] == list(READERS)
    models = [detection.model, *(entry.model for entry in recognition.models)]
    assert set(probe["metadata"]) == {model.name for model in models}
    for model in models:
        told = probe["metadata"][model.name]
        assert told["name"] == model.name
        # What its weights are called is no number, and clients of Triton want one.
        assert told["versions"] == ["1"]
        assert told["platform"].startswith("sluiceway_")
    told = probe["metadata"][detection.model.name]
    assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1", "1"]}]
    shapes = {output["name"]: (output["datatype"], output["shape"]) for output in told["outputs"]}
    assert shapes == {
        "num_detections": ("INT32", ["-1", "1"]),
        "image_sizes": ("INT32", ["-1", "2"]),
        "boxes": ("FP32", ["-1", "-1", "4"]),
        "confidences": ("FP32", ["-1", "-1"]),
        "class_ids": ("INT32", ["-1", "-1"]),
        "class_names": ("BYTES", ["-1", "-1"]),
    }
    for name in READERS:
        told = probe["metadata"][name]
        assert told["inputs"] == [{"name": "crop", "datatype": "BYTES", "shape": ["-1", "1"]}]
        assert [(output["name"], output["datatype"]) for output in told["outputs"]] == [
            ("text", "BYTES"),
            ("confidence", "FP32"),
        ]


def test_detects_what_the_stage_detects(probe: dict[str, Any], native: list[detection_pb2.DetectResponse]) -> None:
    told = probe["detections"]
    found = [detection for answer in native for detection in answer.detections]
    assert told["num_detections"] == [len(answer.detections) for answer in native]
    assert told["num_detections"][1] == 0
    assert told["image_sizes"] == [[answer.width, answer.height] for answer in native]
    same(told["boxes"], [upright(item.geometry) for item in found])
    assert told["confidences"] == [item.confidence for item in found]
    assert told["class_ids"] == [item.class_id for item in found]
    assert told["class_names"] == [item.class_name for item in found]


def test_images_of_a_batch_have_an_entry_each(
    probe: dict[str, Any], native: list[detection_pb2.DetectResponse]
) -> None:
    told, counts = probe["batch"], [len(answer.detections) for answer in native]
    assert told["num_detections"] == [[count] for count in counts]
    for answer, boxes, names in zip(native, told["boxes"], told["class_names"], strict=True):
        assert len(boxes) == max(counts)
        found = [upright(item.geometry) for item in answer.detections]
        same(boxes[: len(found)], found)
        assert boxes[len(found) :] == [[0.0] * 4] * (max(counts) - len(found))
        assert names == [item.class_name for item in answer.detections] + [""] * (max(counts) - len(found))
    best = max((item for item in native[0].detections), key=lambda item: item.confidence)
    value, index, name = probe["ranked"][0][0].split(":")
    assert (float(value), name) == (pytest.approx(best.confidence, abs=1e-6), best.class_name)
    assert int(index) < counts[0]


def test_says_how_it_is_configured_and_what_became_of_requests(probe: dict[str, Any], described: Any) -> None:
    name = described[0].model.name
    config = probe["config"]["config"]
    assert (config["name"], config["max_batch_size"], config["backend"]) == (name, 64, "sluiceway")
    assert config["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": ["1"]}]
    assert probe["index"] == {"models": [{"name": name, "version": "1", "state": "READY"}]}
    (stats,) = probe["statistics"]["model_stats"]
    told = stats["inference_stats"]
    assert int(told["success"]["count"]) >= 4
    assert int(told["compute_infer"]["ns"]) > 0
    assert int(told["success"]["ns"]) > int(told["compute_infer"]["ns"])


def test_parameters_are_the_options_of_the_stage(probe: dict[str, Any]) -> None:
    assert max(probe["few"]["num_detections"]) == 3
    assert min(probe["few"]["confidences"]) >= 0.3
    assert probe["few"]["boxes"][:3] == probe["detections"]["boxes"][:3]


@pytest.mark.parametrize("reader", READERS)
def test_reads_what_the_stage_reads(probe: dict[str, Any], stages: Stages, crops: list[Path], reader: str) -> None:
    request = recognition_pb2.RecognizeRequest(
        options=recognition_pb2.RecognizeOptions(model=reader),
        crops=[crop_pb2.Crop(id=index, encoded=path.read_bytes()) for index, path in enumerate(crops)],
    )
    with grpc.insecure_channel(stages.recognition) as channel:
        stub = recognition_pb2_grpc.RecognitionServiceStub(channel)
        readings = {item.crop_id: item.text for answer in stub.Recognize(request) for item in answer.recognitions}
    told = probe["texts"][reader]
    assert told["text"] == [readings[index].text for index in range(len(crops))]
    assert all(told["text"])
    assert told["confidence"] == [readings[index].confidence for index in range(len(crops))]


def test_gives_only_the_outputs_that_are_asked_for(probe: dict[str, Any]) -> None:
    assert probe["one_output"]["text"] == probe["texts"][READERS[0]]["text"]


def test_calls_at_a_time(probe: dict[str, Any]) -> None:
    assert probe["asynchronous"] == [probe["texts"][READERS[0]]["text"][0]] * 4


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no image", "not a JPEG"),
        ("no model", "Request for unknown model: 'no-such-model' is not served"),
        ("no input", "wants image"),
        ("datatype", "is BYTES, not FP32"),
        ("shape", "the shape must be [-1, 1]"),
    ],
)
def test_errors_are_invalid_arguments(probe: dict[str, Any], what: str, message: str) -> None:
    assert probe["errors"][what].startswith("StatusCode.INVALID_ARGUMENT"), probe["errors"][what]
    assert message in probe["errors"][what]
