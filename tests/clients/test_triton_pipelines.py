"""Triton's own clients, over gRPC and over HTTP, against the pipelines of a cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sluiceway import Client, Result
from tests.clients.test_triton import PYTHON, same
from tests.e2e.conftest import COMMAND, Starter

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the library says of two images, and what both of Triton's clients do."""
    folder = tmp_path_factory.mktemp("images")
    pull = [*COMMAND, "samples", "pull", "bus.jpg", "page.png", "--to", str(folder)]
    subprocess.run(pull, check=True, capture_output=True)
    images = [folder / "page.png", folder / "bus.jpg"]
    starter = Starter()
    try:
        up = starter(SLUICEWAY_DETECTION__WORKERS="1", SLUICEWAY_RECOGNITION__WORKERS="1")
        with Client(up.address) as client:
            results = [client.process(image) for image in images]
        command = [
            PYTHON,
            Path(__file__).parent / "triton_pipelines.py",
            up.address,
            up.http,
            ",".join(map(str, images)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        yield results, json.loads(done.stdout)
    finally:
        starter.close()


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_one_infer_runs_the_pipeline(asked: tuple[list[Result], dict[str, Any]], way: str) -> None:
    results, told = asked[0], asked[1][way]
    longest = max(len(result.regions) for result in results)
    assert told["counts"] == [[len(result.regions)] for result in results]
    for result, texts, boxes in zip(results, told["texts"], told["boxes"], strict=True):
        spare = longest - len(result.regions)
        assert texts == [region.text or "" for region in result.regions] + [""] * spare
        same(boxes, [list(region.box) for region in result.regions] + [[0.0] * 4] * spare)
    best = sorted(results[0].regions, key=lambda region: -(region.text_confidence or 0))[:2]
    assert [text.split(":", 2)[2] for text in told["best"][0]] == [region.text for region in best]


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_pipelines_are_described_as_models_are(asked: tuple[list[Result], dict[str, Any]], way: str) -> None:
    told = asked[1][way]
    assert told["live"] == [True, True, True]
    assert told["unknown_ready"] is False
    assert (told["server"], told["metadata"], told["max_batch_size"]) == ("sluiceway-orchestrator", "read", 64)
    (stats,) = told["statistics"]["model_stats"]
    assert int(stats["inference_count"]) >= 3
    assert int(stats["inference_stats"]["compute_infer"]["ns"]) > 0


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_what_there_is_not_is_refused_in_words(asked: tuple[list[Result], dict[str, Any]], way: str) -> None:
    told = asked[1][way]
    assert told["errors"]["unknown"].startswith("Request for unknown model")
    assert "neither loaded nor unloaded" in told["errors"]["load"]
    assert "shared memory is not supported" in told["errors"]["memory"]
    assert told["memory_status"] == 0
