"""Detect, then read, classify and embed: three servers, three kinds of model, and who gets which class by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import save_classifier, save_embedder
from sign_page import Sign, draw

from sluiceway import Client, Options
from sluiceway.client import Region

SUPPORT = Path(__file__).parents[1] / "support"
LABELS = ("red", "green", "blue", "dark")
# Of normalised red, green and blue: each label but the last likes one of them.
COLOURS = np.array([[4, -2, -2, -3], [-2, 4, -2, -3], [-2, -2, 4, -3]], np.float32)
BIAS = np.array([0, 0, 0, 0.5], np.float32)
SIZE, CELLS = (32, 32), 2
PROJECTION = np.random.default_rng(3).normal(size=(3 * CELLS * CELLS, 16)).astype(np.float32)

RED, GREEN, BLUE, WINE, SKY = (230, 20, 30), (10, 200, 40), (20, 30, 220), (120, 10, 60), (90, 160, 240)
SIGNS = [
    Sign("word", "gate"),
    Sign("banner", left_rgb=RED, right_rgb=RED),
    Sign("stamp", left_rgb=RED, right_rgb=BLUE),
    Sign("stamp", left_rgb=SKY, right_rgb=GREEN),
    Sign("word", "sluice"),
    Sign("banner", left_rgb=WINE, right_rgb=WINE),
    Sign("banner", left_rgb=BLUE, right_rgb=BLUE),
    Sign("stamp", left_rgb=GREEN, right_rgb=SKY),
    Sign("word", "42"),
]
READ = {"stage": "recognition", "of": "signs"}
STEPS = [
    {"name": "signs", "stage": "detection"},
    {"name": "words", **READ, "classes": ["word"]},
    {"name": "shades", **READ, "classes": ["banner", "stamp"], "model": "shade"},
    {"name": "looks", **READ, "classes": ["stamp"], "model": "look"},
]


def probabilities(rgb: tuple[int, int, int]) -> np.ndarray:
    """What the classifier makes of a colour, reckoned here."""
    logits = (np.array(rgb, np.float32) / 127.5 - 1) @ COLOURS + BIAS
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def direction(sign: Sign) -> np.ndarray:
    """What the embedder makes of a stamp, reckoned here: halves, each two cells high."""
    halves = np.array([sign.left_rgb, sign.right_rgb], np.float32) / 127.5 - 1
    squares = np.repeat(halves.T[:, None, :], CELLS, axis=1)  # channel, row, column
    vector = squares.reshape(-1) @ PROJECTION
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    paths = {"shade": folder / "shade.onnx", "look": folder / "look.onnx"}
    save_classifier(paths["shade"], COLOURS, BIAS, SIZE)
    save_embedder(paths["look"], PROJECTION, SIZE, CELLS)
    return paths


@pytest.fixture(scope="module", params=["openvino", pytest.param("torch", marks=pytest.mark.torch)])
def cluster(request: pytest.FixtureRequest, files: dict[str, Path], start_up_once: Any) -> Any:
    common = {
        "height": SIZE[0], "max_width": SIZE[1], "format": "rgb", "precision": "f32", "backend": request.param
    }  # fmt: skip
    models = [
        {"name": "ppocrv6-tiny", "precision": "f32"},
        {"name": "shade", "kind": "classify", "weights": str(files["shade"]), "labels": LABELS, **common},
        {"name": "look", "kind": "embed", "weights": str(files["look"]), "version": "3", **common},
    ]
    return start_up_once(
        PYTHONPATH=os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])),
        SLUICEWAY_DETECTION__DETECTOR="sign_page:SignDetector",
        SLUICEWAY_DETECTION__WORKERS="1",
        SLUICEWAY_RECOGNITION__WORKERS="1",
        SLUICEWAY_RECOGNITION__MODELS=json.dumps(models),
        SLUICEWAY_PIPELINES__READ=json.dumps({"steps": STEPS}),
    )


def of_kind(regions: Sequence[Region], kind: str) -> list[Region]:
    return [region for region in regions if region.class_name == kind]


def signs(kind: str) -> list[Sign]:
    return [sign for sign in SIGNS if sign.kind == kind]


def test_each_class_goes_to_its_models(cluster: Any, files: dict[str, Path]) -> None:
    with Client(cluster.address) as client:
        result = client.process(draw(SIGNS), Options(top_k=3)).raise_for_error()
    assert [region.class_name for region in result.regions] == [sign.kind for sign in SIGNS]

    for sign, region in zip(signs("word"), of_kind(result.regions, "word"), strict=True):
        (reading,) = region.readings
        assert (reading.model, reading.text, reading.labels, reading.embedding) == ("ppocrv6-tiny", sign.text, (), ())

    for sign, region in zip(signs("banner"), of_kind(result.regions, "banner"), strict=True):
        (reading,) = region.readings
        assert (reading.model, reading.text, reading.embedding) == ("shade", None, ())
        expected = probabilities(sign.left_rgb)
        order = np.argsort(-expected)[:3].tolist()
        assert [(label.class_id, label.class_name) for label in reading.labels] == [(i, LABELS[i]) for i in order]
        assert [label.confidence for label in reading.labels] == pytest.approx(expected[order], abs=1e-4)
        assert reading.confidence == reading.labels[0].confidence

    for sign, region in zip(signs("stamp"), of_kind(result.regions, "stamp"), strict=True):
        readings = {reading.model: reading for reading in region.readings}
        assert sorted(readings) == ["look", "shade"]
        vector = np.array(readings["look"].embedding)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert vector == pytest.approx(direction(sign), abs=1e-4)
        assert len(readings["shade"].labels) == 3
        assert not readings["look"].labels
        # Of the most alike stamps the same colours changed sides: an embedding sees what a mean colour does not.
        assert region.text is None

    hashes = {model.name: model.weights_sha256 for model in result.models}
    for name, path in files.items():
        assert hashes[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {model.name: model.version for model in result.models}["look"] == "3"


def test_the_best_class_alone_unless_more_are_asked_for(cluster: Any) -> None:
    with Client(cluster.address) as client:
        (region,) = client.process(draw(signs("banner")[:1])).regions
        assert [label.class_name for label in region.readings[0].labels] == ["red"]
        # More than there are classes: all of them.
        (region,) = client.process(draw(signs("banner")[:1]), Options(top_k=1000)).regions
    assert len(region.readings[0].labels) == len(LABELS)
    assert sum(label.confidence for label in region.readings[0].labels) == pytest.approx(1, abs=1e-3)


def test_crops_of_one_model_share_batches(cluster: Any) -> None:
    """One worker serves all models; its batches hold crops of one model, from whichever request."""

    def counted() -> tuple[float, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{cluster.operations['recognition']}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = [
            sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"sluiceway_worker_{name}_total{{"))
            for name in ("items", "batches")
        ]
        return found[0], found[1]

    page = draw(SIGNS * 8)
    before = counted()
    with Client(cluster.address) as client:
        results = list(client.process_many([page] * 4, Options(top_k=2)))
    after = counted()
    crops = 8 * 4 * (len(SIGNS) + len(signs("stamp")))  # stamps go to two models
    assert after[0] - before[0] == crops
    assert after[1] - before[1] < crops / 3
    # And what is in a batch changes nothing: every copy of a sign got the same answer, to the last bit.
    for result in results:
        for index, region in enumerate(result.raise_for_error().regions):
            first = results[0].regions[index % len(SIGNS)]
            assert {reading.model: reading for reading in region.readings} == {
                reading.model: reading for reading in first.readings
            }


def test_over_http_and_on_the_command_line(cluster: Any, tmp_path: Path) -> None:
    page = draw([SIGNS[0], SIGNS[1], SIGNS[2]])
    request = urllib.request.Request(
        f"http://{cluster.http}/v1/process?top_k=2", data=page, headers={"Content-Type": "image/png"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        events = [json.loads(line) for line in answer]
    found = [item for event in events for item in event.get("values", {}).get("values", [])]
    kinds = sorted(kind for item in found for kind in ("text", "classification", "embedding") if kind in item)
    assert kinds == ["classification", "classification", "embedding", "text"]
    assert sorted(len(item["classification"]["labels"]) for item in found if "classification" in item) == [2, 2]
    (vector,) = (item["embedding"]["values"] for item in found if "embedding" in item)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector == pytest.approx(direction(SIGNS[2]), abs=1e-4)

    (tmp_path / "page.png").write_bytes(page)
    command = [sys.executable, "-m", "sluiceway.cli", "run", str(tmp_path / "page.png"), "--address", cluster.address]
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    word, banner, stamp = json.loads(done.stdout)["regions"]
    assert word["text"] == "gate"
    assert banner["labels"][0]["class"] == "red"
    assert stamp["embedding"] == pytest.approx(vector, abs=1e-6)


def test_each_head_is_described(cluster: Any) -> None:
    with urllib.request.urlopen(f"http://{cluster.http}/v1/describe", timeout=10) as answer:
        described = json.load(answer)
    (read,) = described["pipelines"]
    assert {step["name"]: step["classes"] for step in read["steps"] if step["of"]} == {
        "words": ["word"], "shades": ["banner", "stamp"], "looks": ["stamp"],
    }  # fmt: skip
    (recognition,) = (stage for stage in described["stages"] if stage["kind"] == "recognition")
    assert [model["head"] for model in recognition["groups"][0]["models"]] == ["text", "classes", "embedding"]
    assert described["problems"] == []
    status = cluster.status("recognition")
    assert {model["name"]: model["kind"] for model in status["models"]} == {
        "ppocrv6-tiny": "text", "shade": "classify", "look": "embed",
    }  # fmt: skip
